"""Bodies that a destination would not take, with its words, for an operator to look at.

    <spool>/<destination>/quarantine/ID   what is kept: a ring, the oldest make room
    <spool>/<destination>/replay/ID       what an operator wants to be sent once more

A file is one line of JSON, which says when, why, and how many points, and the body behind it. The
line has a CRC over itself and the body. The daemon and the command line may work here at the same
time: every change is one rename or unlink.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from telemetryd.delivery import spool_files
from telemetryd.delivery.queue import Body

FOLDER = "quarantine"
REPLAY = "replay"
DAMAGED = "damaged"
_FORMAT = 1
# Characters of an answer that are kept: more than any server says about one request.
_LONGEST_ANSWER = 4096
_ID = re.compile(r"\d{8}T\d{6}\.\d{9}Z\Z")
# Two changes of a folder may carry the same time: the kernel takes that of its last tick, 10 ms at
# most. A listing that was made right behind a change is not trusted for long.
_TICK_NS = 50_000_000


@dataclass(frozen=True)
class Quarantined:
    """One body that was refused. `id` names it; `when_ns` is when that was, `newest_ns` when the
    newest of its points was read, both in nanoseconds since 1970; `status` is the HTTP status of
    the `answer`, 0 without any; `size` is that of the body in bytes. The `reason` of a file that
    cannot be read any more is DAMAGED, and its `answer` says what is wrong with it."""

    id: str
    when_ns: int
    kind: str
    reason: str
    status: int
    answer: str
    points: int
    newest_ns: int
    size: int


class Quarantine:
    """The quarantine in `directory`, the folder of one destination. At most `limit` bytes are kept
    there, none with 0. No folder is made before there is something to keep."""

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._folder = os.path.join(directory, FOLDER)
        self._replay = os.path.join(directory, REPLAY)
        self._limit = limit
        self._lock = threading.Lock()
        self._seen_ns: int | None = None
        self._sum = 0, 0

    @property
    def records(self) -> int:
        """How many bodies are kept."""
        return self._totals()[0]

    @property
    def size(self) -> int:
        """Bytes of their files."""
        return self._totals()[1]

    def add(
        self, body: Body, kind: str, reason: str, status: int, answer: str, wall_ns: int
    ) -> None:
        """Keep `body`, which the destination answered with `status` and `answer` at `wall_ns`; the
        oldest make room for it. It is on the disk when this returns. Raises OSError: the disk is
        full, or the body alone is larger than the limit."""
        if not self._limit:
            return
        fields = {
            "format": _FORMAT,
            "when_ns": wall_ns,
            "kind": kind,
            "reason": reason,
            "status": status,
            "answer": answer[:_LONGEST_ANSWER],
            "points": body.points,
            "newest_ns": body.newest_ns,
            "size": len(body.data),
        }
        data = _line({**fields, "crc": _crc(fields, body.data)}) + body.data
        if len(data) > self._limit:
            raise OSError(errno.EFBIG, f"larger than the quarantine's {self._limit} bytes")
        with self._lock:
            spool_files.make_folders(self._folder)
            self._remove_unfinished()
            self._make_room(len(data))
            spool_files.replace(os.path.join(self._folder, self._new_id(wall_ns)), data)
            self._seen_ns = None

    def list(self) -> list[Quarantined]:
        """What is kept, oldest first. Raises OSError if the folder cannot be read."""
        found = []
        for name, _ in _files(self._folder):
            with suppress(KeyError):
                found.append(self._look(self._folder, name)[0])
        return found

    def read(self, id: str) -> tuple[Quarantined, Body]:  # noqa: A002  (what the operator types)
        """One of them. Raises KeyError if there is none of that name, ValueError if its file is
        damaged, OSError if it cannot be read."""
        entry, body = self._look(self._folder, id)
        if body is None:
            raise ValueError(f"{os.path.join(self._folder, id)} is damaged: {entry.answer}")
        return entry, body

    def drop(self, id: str) -> None:  # noqa: A002
        """Forget it. Raises KeyError if there is none of that name, OSError."""
        with self._holding(id) as (_, folder):
            os.unlink(id, dir_fd=folder)

    def replay(self, id: str) -> None:  # noqa: A002
        """Have it sent once more; the daemon takes it from there. Raises KeyError if there is none
        of that name, OSError."""
        with self._holding(id) as (place, folder):
            spool_files.make_folder_in(place, REPLAY)
            with spool_files.opened_folder(REPLAY, place) as replay:
                os.rename(id, id, src_dir_fd=folder, dst_dir_fd=replay)
                os.fsync(replay)

    def take_replayed(self, kind: str) -> Iterator[tuple[Body, Callable[[], None]]]:
        """The bodies of `kind` that are to be sent once more, oldest first, each with what is to be
        called when the queue has it on disk: it removes the file, and raises OSError. A damaged
        file goes back to quarantine. Raises OSError if the folder cannot be read."""
        for name, _ in _files(self._replay):
            path = os.path.join(self._replay, name)
            try:
                entry, body = self._look(self._replay, name)
            except KeyError:
                continue
            if body is None:
                spool_files.make_folder(self._folder)
                os.rename(path, os.path.join(self._folder, name))
            elif entry.kind == kind:
                yield body, partial(_remove, path)

    def strangers(self, kind: str) -> dict[str, str]:
        """Files that are to be sent once more but are of another kind than `kind`, with theirs:
        they stay where they are. Raises OSError if the folder cannot be read."""
        found = {}
        for name, _ in _files(self._replay):
            with suppress(KeyError):
                entry, body = self._look(self._replay, name)
                if body is not None and entry.kind != kind:
                    found[os.path.join(self._replay, name)] = entry.kind
        return found

    @contextmanager
    def _holding(self, name: str) -> Iterator[tuple[int, int]]:
        """Descriptors of the folder of the destination and of its quarantine, for root too: were
        one of them a link, the daemon's user could have root move and delete files anywhere.
        Raises KeyError where there is nothing called `name`."""
        self._check(name)
        try:
            with (
                spool_files.opened_folder(self._directory) as place,
                spool_files.opened_folder(FOLDER, place) as folder,
            ):
                yield place, folder
        except FileNotFoundError:
            raise KeyError(name) from None

    def _remove_unfinished(self) -> None:
        """What a process that was killed left behind; only one at a time writes here."""
        for name in os.listdir(self._folder):
            if name.startswith(".") and name.endswith(f".{spool_files.UNFINISHED}"):
                with suppress(OSError):
                    os.unlink(os.path.join(self._folder, name))

    def _make_room(self, size: int) -> None:
        files = _files(self._folder)
        left = sum(size for _, size in files)
        for name, freed in files:
            if left + size <= self._limit:
                break
            # A folder under that name, say: it must not keep younger ones from making room.
            with suppress(OSError):
                os.unlink(os.path.join(self._folder, name))
                left -= freed

    def _new_id(self, wall_ns: int) -> str:
        while True:
            name = _name(wall_ns)
            taken = (os.path.join(folder, name) for folder in (self._folder, self._replay))
            if not any(map(os.path.lexists, taken)):
                return name
            wall_ns += 1

    def _totals(self) -> tuple[int, int]:
        with self._lock:
            try:
                changed_ns = os.stat(self._folder).st_mtime_ns
                if changed_ns != self._seen_ns:
                    sizes = [size for _, size in _files(self._folder)]
                    self._sum = len(sizes), sum(sizes)
                    is_settled = not 0 <= time.time_ns() - changed_ns < _TICK_NS
                    self._seen_ns = changed_ns if is_settled else None
            except OSError:
                self._seen_ns, self._sum = None, (0, 0)
            return self._sum

    def _check(self, name: str) -> None:
        if _ID.match(name) is None:
            raise KeyError(name)

    def _look(self, folder: str, name: str) -> tuple[Quarantined, Body | None]:
        """What the file says, and its body unless it is damaged."""
        self._check(name)
        path = os.path.join(folder, name)
        try:
            return _parse(name, spool_files.read_regular(path))
        except FileNotFoundError:
            raise KeyError(name) from None
        except ValueError as error:
            what = str(error)
        except OSError as error:
            what = error.strerror or repr(error)
        when_ns = size = 0
        with suppress(OSError):
            status = os.lstat(path)
            when_ns, size = status.st_mtime_ns, status.st_size
        return Quarantined(name, when_ns, "", DAMAGED, 0, what, 0, 0, size), None


def _name(wall_ns: int) -> str:
    seconds, nanoseconds = divmod(wall_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{nanoseconds:09d}Z"


def _line(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode("ascii") + b"\n"


def _crc(fields: dict[str, Any], payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_line(fields)))


def _parse(name: str, data: bytes) -> tuple[Quarantined, Body]:
    """Raises ValueError with what is wrong."""
    line, _, payload = data.partition(b"\n")
    try:
        fields: dict[str, Any] = json.loads(line)
        # Out of the same text the same text comes again, so that the CRC covers it.
        if fields.pop("crc") != _crc(fields, payload):
            raise ValueError("its CRC does not fit")
        version = fields.pop("format")
        if version != _FORMAT:
            raise ValueError(f"format {version} is not known, only {_FORMAT}")
        entry = Quarantined(id=name, **fields)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("its first line is not JSON") from None
    except (AttributeError, KeyError, TypeError):
        raise ValueError("its first line is not one of ours") from None
    return entry, Body(payload, entry.points, entry.newest_ns)


def _files(folder: str) -> list[tuple[str, int]]:
    """Names and sizes in `folder`, oldest first, none if it is missing. Raises OSError."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _ID.match(entry.name) is not None:
                    with suppress(FileNotFoundError):
                        found.append((entry.name, entry.stat(follow_symlinks=False).st_size))
    except FileNotFoundError:
        return []
    return sorted(found)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)

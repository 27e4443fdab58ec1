"""Opening the folder of a spool: locking it, and setting right what lies there."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from contextlib import suppress
from dataclasses import dataclass

from telemetryd.delivery.queue import OnDrop
from telemetryd.delivery.spool_files import make_folders, open_lock
from telemetryd.delivery.spool_held import Held
from telemetryd.delivery.spool_scan import Found, missing, scan
from telemetryd.delivery.spool_unusable import put_aside
from telemetryd.errors import Unavailable
from telemetryd.instruments import SPOOL_ERRORS, Instruments

LOCK = "lock"
_log = logging.getLogger("telemetryd.delivery")


class Troubles:
    """Counts and logs, for the destination called `name`, what could not be done with a file."""

    def __init__(self, name: str, instruments: Instruments) -> None:
        self._name = name
        self._instruments = instruments
        instruments.count(SPOOL_ERRORS, name, by=0)

    def __call__(self, doing: str, path: str, error: Exception) -> None:
        why = getattr(error, "strerror", None) or str(error)
        self._instruments.count(SPOOL_ERRORS, self._name)
        self._instruments.warn(
            f"{self._name}/spool/{doing}/{why}",
            f'msg="{doing} failed" destination={self._name} file={path} error="{why}"',
        )

    def unusable(self, path: str, why: str, now: str) -> None:
        self._instruments.count(SPOOL_ERRORS, self._name)
        self._instruments.warn(
            f"{self._name}/spool/{path}",
            f'msg="spool file set aside" destination={self._name} file={path} error="{why}" '
            f"now={now}",
        )


class FolderLock:
    """Keeps other processes out of the folder `directory`, which is made if it is missing, for as
    long as it is open. Raises Unavailable if another one has it, and OSError."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._path = os.path.join(directory, LOCK)
        self._descriptor = self._take()
        self._status = os.fstat(self._descriptor)

    def check(self) -> bool:
        """Whether the folder is still there, with the lock in it. Raises OSError if it is another
        one by now, in which nothing is ours to change: a file system was mounted over it, say."""
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if not os.path.samestat(there, self._status):
            raise OSError(errno.ESTALE, "the folder is another one than at the start")
        return True

    def keep(self) -> bool:
        """Make folder and lock anew if somebody has deleted them; whether they still were there.
        Raises OSError as `check` does, and if another process was faster."""
        if self.check():
            return True
        try:
            gone, self._descriptor = self._descriptor, self._take()
        except Unavailable as error:
            raise OSError(errno.ESTALE, str(error)) from error
        self._status = os.fstat(self._descriptor)
        os.close(gone)
        return False

    def close(self) -> None:
        os.close(self._descriptor)

    def _take(self) -> int:
        make_folders(self._directory)
        descriptor = open_lock(self._path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise Unavailable(
                f"the spool {self._directory} is in use by another process",
                "end the other telemetryd, or give each a spool.directory of its own",
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        return descriptor


@dataclass(slots=True)
class Opened:
    """A folder that is ours, as long as `lock` is open. `front` and `aside`
    were in the hands of the process before. `is_changed`: the cursor is to be written anew."""

    lock: FolderLock
    found: Found
    front: list[Held]
    aside: list[Held]
    is_changed: bool


def open_folder(
    directory: str, kind: str, on_drop: OnDrop, troubles: Troubles, name: str
) -> Opened:
    """Raises Unavailable if another process has it, or it cannot be used."""
    try:
        lock = FolderLock(directory)
    except OSError as error:
        raise _unavailable(directory, error) from error
    try:
        found = scan(directory, kind)
    except OSError as error:
        lock.close()
        raise _unavailable(directory, error) from error
    for path, why in found.unusable.items():
        try:
            troubles.unusable(path, why, put_aside(path))
        except OSError as error:
            troubles("setting aside", path, error)
    for path in found.finished:
        with suppress(OSError):
            os.unlink(path)
    points, records = missing((*found.front, *found.aside), found.places)
    if records:
        on_drop("corrupt", points, records)
    front, aside = (
        [
            Held.on_disk(found.places[number])
            for one in ranges
            for number in range(one.first, one.last + 1)
            if number in found.places
        ]
        for ranges in (found.front, found.aside)
    )
    waiting = len(front) + len(aside) + sum(segment.records for segment in found.segments)
    if waiting:
        _log.info('msg="spool found" destination=%s records=%d', name, waiting)
    return Opened(lock, found, front, aside, bool(records or found.unusable))


def _unavailable(directory: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"cannot keep a spool in {directory}: {error.strerror or error}",
        "make it a folder that telemetryd may write to, or set spool.directory to another one",
    )

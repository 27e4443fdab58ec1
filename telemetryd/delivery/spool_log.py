"""The segments of one spool on disk: appending to the last, removing the first."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from telemetryd.delivery.queue import Body
from telemetryd.delivery.record import HEADER_SIZE, Mark, encode_header, header_of
from telemetryd.delivery.segment import PREAMBLE_SIZE, Segment, encode_preamble, segment_name
from telemetryd.delivery.spool_files import create, sync_folder
from telemetryd.delivery.spool_scan import Found, Place
from telemetryd.delivery.spool_unusable import put_aside

# Says what could not be done, with which file, and why.
Failed = Callable[[str, str, Exception], None]

_LARGEST_SEGMENT = 16 << 20
# Dropping one of them must not empty a small spool, nor a small disk be littered with files.
_FEWEST_SEGMENTS = 8
_SMALLEST_SEGMENT = 128 << 10


@dataclass(slots=True)
class Unsynced:
    """What is written but not known to be on the disk yet: descriptors of its own, the place behind
    the last record, and the folder if names in it are new."""

    end: Mark
    descriptors: list[int] = field(default_factory=list)
    folder: str | None = None

    def sync(self) -> None:
        """Wait until the disk has it. Raises OSError, with as much of it there as was possible; it
        cannot be asked twice."""
        with ExitStack() as rest:
            # Last in, first out; each is called though another one raises.
            if self.folder is not None:
                rest.callback(sync_folder, self.folder)
            for descriptor in reversed(self.descriptors):
                rest.callback(os.close, descriptor)
                rest.callback(os.fdatasync, descriptor)


class Log:
    """The segments in `directory`, as `found` there. Its caller locks. `size` is what the files
    take, in bytes, `end` the place behind the last record that was written."""

    def __init__(self, directory: str, kind: str, found: Found) -> None:
        self._directory = directory
        self._kind = kind
        self._largest = _LARGEST_SEGMENT
        self.segments = found.segments
        self.size = sum(segment.size for segment in found.segments)
        self.end = found.end
        # Never behind what a process before this one wrote: its last record may be torn.
        self._active: Segment | None = None
        self._descriptor = -1
        self._rolled: dict[Segment, int] = {}
        self._is_dirty = False
        self._has_new_names = False
        self._undeleted: list[Segment] = []

    def size_of(self, body: Body) -> int:
        """Most bytes that `body` takes."""
        return PREAMBLE_SIZE + HEADER_SIZE + len(body.data)

    def fit(self, limit: int) -> None:
        """Segments get no larger than is good for a spool of `limit` bytes."""
        share = max(limit // _FEWEST_SEGMENTS, _SMALLEST_SEGMENT)
        self._largest = min(share, _LARGEST_SEGMENT)

    def append(self, number: int, body: Body) -> Place:
        """Write `body` under `number`, which is not below that of `end`; returns where it is now.
        Raises OSError, and nothing of it is left then."""
        before = Mark(number, self.end.records, self.end.points)
        header = header_of(body, before)
        parts = [encode_header(header), body.data]
        if self._active is not None and not self._takes(self._active.size + header.size):
            self.roll()
        if self._active is None:
            segment = self._begin(before, parts)
        else:
            segment = self._active
            self._write(segment, parts)
            segment.size += header.size
            self.size += header.size
        self._is_dirty = True
        self.end = segment.end = header.after
        segment.newest_ns = max(segment.newest_ns, body.newest_ns)
        return Place(segment, segment.size - header.size, header)

    def roll(self) -> None:
        """The next record begins a new segment."""
        if self._active is not None:
            self._rolled[self._active] = self._descriptor
            self._active, self._descriptor = None, -1

    def is_active(self, segment: Segment) -> bool:
        """Whether the next record may be appended to it."""
        return segment is self._active

    def take_out(self, segment: Segment) -> None:
        """It is no longer one of the segments; its file is left to the caller."""
        self._let_go(segment)
        self.segments.remove(segment)

    def delete(self, segments: Sequence[Segment], failed: Failed) -> None:
        """Delete the files of some that were taken out; what cannot be deleted is tried again the
        next time, and not counted in `size` any more. `failed` hears of it."""
        self.size -= sum(segment.size for segment in segments)
        due, self._undeleted = [*self._undeleted, *segments], []
        for segment in due:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(segment.path)
            except OSError as error:
                failed("deleting", segment.path, error)
                self._undeleted.append(segment)

    def unsynced(self) -> Unsynced | None:
        """What is to be synced, which its caller does; None if nothing is. Raises OSError."""
        if not self._is_dirty:
            return None
        folder = self._directory if self._has_new_names else None
        last = [os.dup(self._descriptor)] if self._active is not None else []
        work = Unsynced(self.end, [*self._rolled.values(), *last], folder)
        self._rolled, self._is_dirty, self._has_new_names = {}, False, False
        return work

    @property
    def rolled(self) -> int:
        """How many segments are full but not known to be on the disk yet."""
        return len(self._rolled)

    def close(self) -> None:
        self.roll()
        for segment in tuple(self._rolled):
            self._let_go(segment)

    def _takes(self, size: int) -> bool:
        """Whether the active one may grow to `size`. Nothing is written to a file that somebody
        has deleted: it can be read by nobody."""
        return size <= self._largest and os.fstat(self._descriptor).st_nlink > 0

    def _let_go(self, segment: Segment) -> None:
        """Close what it was written through: the space of a file that is deleted is free only
        then."""
        if segment is self._active:
            self.roll()
        descriptor = self._rolled.pop(segment, None)
        if descriptor is not None:
            os.close(descriptor)

    def _begin(self, before: Mark, parts: list[bytes]) -> Segment:
        path = os.path.join(self._directory, segment_name(before.sequence))
        try:
            self._descriptor = create(path)
        except FileExistsError:
            put_aside(path)
            self._descriptor = create(path)
        parts = [encode_preamble(self._kind, before), *parts]
        segment = self._active = Segment(path, 0, before)
        try:
            self._write(segment, parts)
        except OSError:
            self._let_go(segment)
            with suppress(OSError):
                os.unlink(path)
            raise
        segment.size = sum(map(len, parts))
        self._has_new_names = True
        self.segments.append(segment)
        self.size += segment.size
        return segment

    def _write(self, segment: Segment, parts: list[bytes]) -> None:
        """Write all of `parts` behind the last record. Raises OSError, and cuts off what was
        written."""
        try:
            _write_at(self._descriptor, parts, segment.size)
        except OSError:
            try:
                os.ftruncate(self._descriptor, segment.size)
            except OSError:
                # What is left of it is a torn tail, which nothing may be appended to.
                self.roll()
            raise


def _write_at(descriptor: int, parts: list[bytes], offset: int) -> None:
    """One call, and more only where the kernel took a part: then the next one says why."""
    done = os.pwritev(descriptor, parts, offset)
    if done == sum(map(len, parts)):
        return
    rest = memoryview(b"".join(parts))
    while done < len(rest):
        written = os.pwrite(descriptor, rest[done:], offset + done)
        if not written:
            raise OSError(errno.EIO, "nothing was written")
        done += written

"""The records on disk that wait behind the head, read one by one."""

from __future__ import annotations

import os
from collections.abc import Callable

from telemetryd.delivery.queue import Body
from telemetryd.delivery.record import Mark, find_record, read_body
from telemetryd.delivery.segment import Segment
from telemetryd.delivery.spool_files import open_regular
from telemetryd.delivery.spool_log import Failed, Log
from telemetryd.delivery.spool_scan import Place


class Line:
    """Reads the segments of `log` from `next` on. `records` and `waiting` are how many wait in line
    and the bytes of their bodies. `lost` hears how many points and records are not there any more.
    Its caller locks."""

    def __init__(
        self, log: Log, next_: Mark, lost: Callable[[int, int], None], failed: Failed
    ) -> None:
        self._log = log
        self._lost = lost
        self._failed = failed
        self.next = next_
        self.records = sum(segment.records for segment in log.segments)
        self.waiting = sum(segment.waiting for segment in log.segments)
        self._reading: Segment | None = None
        self._opened: Segment | None = None
        self._descriptor = -1

    def add(self, place: Place) -> None:
        """One more was written behind the others."""
        place.segment.add(place.header)
        self.records += 1
        self.waiting += place.header.length

    def take(self) -> Place | None:
        """The next one, which is in line no more but held; None if there is none, or it cannot be
        opened now."""
        while (segment := self._next_segment()) is not None:
            try:
                descriptor = self._open(segment)
            except (FileNotFoundError, ValueError) as error:
                self._failed("reading", segment.path, error)
                self.skip(segment)
                continue
            except OSError as error:
                # It is there: what is behind it waits until it can be opened, or is dropped.
                self._failed("reading", segment.path, error)
                return None
            try:
                found = find_record(descriptor, segment.offset, segment.size)
            except OSError as error:
                self._failed("reading", segment.path, error)
                found = None
            if found is None:
                self.skip(segment)
                continue
            offset, header = found
            segment.offset = offset + header.size
            if header.sequence >= self.next.sequence:
                self._pass(header.before, header.after)
                segment.take(header)
                segment.held += 1
                self.records -= 1
                self.waiting -= header.length
                return Place(segment, offset, header)
        self._pass(self._log.end, max(self.next, self._log.end))
        return None

    def load(self, place: Place) -> Body | None:
        """The body of a record that was taken; None if it is damaged or gone. Raises OSError if it
        cannot be opened now."""
        try:
            descriptor = self._open(place.segment)
        except (FileNotFoundError, ValueError) as error:
            self._failed("reading", place.segment.path, error)
            return None
        try:
            return read_body(descriptor, place.offset, place.header)
        except OSError as error:
            self._failed("reading", place.segment.path, error)
            return None

    def skip(self, segment: Segment) -> None:
        """Nothing more is to be had from `segment`: what still waits in it is lost."""
        self._leave(segment)
        self._pass(segment.end, max(self.next, segment.end))

    def drop(self, segment: Segment) -> tuple[int, int]:
        """Give up what waits in the first `segment`: points and records. What is missing there is
        lost, not given up."""
        points, records = segment.points, segment.records
        if segment.end.sequence > self.next.sequence:
            next_ = self.next
            self.next = Mark(next_.sequence, next_.records + records, next_.points + points)
            self._pass(segment.end, segment.end)
        self._leave(segment)
        return points, records

    def take_unwritten(self, number: int) -> None:
        """The one numbered `number`, which is not on disk, is in line no more."""
        self.next = Mark(number + 1, self.next.records, self.next.points)

    def wrote_taken(self, place: Place) -> None:
        """And now it is on disk, behind all that were taken before."""
        self.next = Mark(self.next.sequence, *place.header.after[1:])

    def forget(self, segment: Segment) -> None:
        """Close it: the space of a file that is deleted is free only then."""
        if segment is self._opened:
            os.close(self._descriptor)
            self._opened, self._descriptor = None, -1
        if segment is self._reading:
            self._reading = None

    def close(self) -> None:
        if self._opened is not None:
            self.forget(self._opened)

    def _next_segment(self) -> Segment | None:
        """The first one that has something behind `next`."""
        number = self.next.sequence
        if self._reading is None or self._reading.end.sequence <= number:
            behind = (one for one in self._log.segments if one.end.sequence > number)
            self._reading = next(behind, None)
        return self._reading

    def _open(self, segment: Segment) -> int:
        if segment is not self._opened:
            descriptor = open_regular(segment.path)
            self.close()
            self._opened, self._descriptor = segment, descriptor
        return self._descriptor

    def _leave(self, segment: Segment) -> None:
        self.records -= segment.records
        self.waiting -= segment.waiting
        segment.records = segment.points = segment.waiting = 0

    def _pass(self, place: Mark, behind: Mark) -> None:
        """Go on behind `place`; what was written before it and not met is lost."""
        records = place.records - self.next.records
        points = place.points - self.next.points
        self.next = behind
        if records > 0:
            self._lost(max(points, 0), records)

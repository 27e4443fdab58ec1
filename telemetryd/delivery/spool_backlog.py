"""What waits in a spool: the line on disk, and the few records that are in its hands.

Nothing here locks, and nothing waits for the disk: telemetryd.delivery.spool does.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from contextlib import suppress

from telemetryd.clock import Clock
from telemetryd.delivery import cursor as cursors
from telemetryd.delivery.cursor import Cursor, ranges
from telemetryd.delivery.cursor_keeper import CursorKeeper
from telemetryd.delivery.memory_queue import SHUTDOWN
from telemetryd.delivery.queue import Body, OnDrop
from telemetryd.delivery.segment import Segment
from telemetryd.delivery.spool_held import Hands, Held
from telemetryd.delivery.spool_line import Line
from telemetryd.delivery.spool_log import Log
from telemetryd.delivery.spool_opening import Opened, Troubles
from telemetryd.delivery.spool_room import Room

SIZE, AGE, FULL, CORRUPT = "size", "age", "enospc", "corrupt"
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# So many times the size of a body is dropped at once to make a full disk take it.
_ENOUGH = 2


class Backlog:
    """What is in the `hands` comes first, then the `line`, then what could not be written to the
    `log` yet. The lock is only for the `keeper` of the cursor."""

    def __init__(
        self,
        directory: str,
        kind: str,
        room: Room,
        opened: Opened,
        on_drop: OnDrop,
        failed: Troubles,
        name: str,
        clock: Clock,
        lock: threading.RLock,
    ) -> None:
        self._directory = directory
        self._room = room
        self._on_drop = on_drop
        self._failed = failed
        self._folder = opened.lock
        found = opened.found
        self.log = Log(directory, kind, found)
        self.line = Line(self.log, found.next, self._lost, failed)
        path = os.path.join(directory, cursors.NAME)
        self.keeper = CursorKeeper(
            path, lock, self._state, self._delete_finished, opened.lock.check, failed, clock, name
        )
        # The place behind the last record that is known to be on the disk.
        self.synced = found.end
        self._number = found.end.sequence
        self.hands = Hands(opened.front, opened.aside)
        # Done, but their files are there until the cursor says so: with its version.
        self._finished: list[tuple[int, Segment]] = []
        if opened.is_changed:
            self.keeper.mark()

    def add(self, body: Body) -> None:
        """One more behind the others."""
        held = Held.in_memory(self._number, body)
        self._number += 1
        self.hands.unwritten.append(held)
        self.hands.came(held)
        self.write_all()

    def _state(self) -> Cursor:
        """What the cursor is to say: only what is on disk is there after a restart."""
        front, aside = (
            ranges((held.number, held.points) for held in held_ones if held.place is not None)
            for held_ones in (self.hands.front, self.hands.aside.values())
        )
        return Cursor(self.line.next, max(self.line.next, self.synced), front, aside)

    def _lost(self, points: int, records: int) -> None:
        self._on_drop(CORRUPT, points, records)
        self.keeper.mark()

    # The head.

    def first(self) -> Held | None:
        """The head, which is in line no more; its body may still be only on disk."""
        if self.hands.front:
            return self.hands.front[0]
        place = self.line.take()
        if place is not None:
            held = Held.on_disk(place)
            self.hands.came(held)
        elif self.line.records:
            return None
        else:
            next_ = self.line.next.sequence
            held_ = next((one for one in self.hands.unwritten if one.number >= next_), None)
            if held_ is None:
                return None
            held = held_
            self.line.take_unwritten(held.number)
        self.hands.front.append(held)
        return held

    def whole(self) -> Held | None:
        """The head with its body."""
        while (held := self.first()) is not None and held.first is None:
            assert held.place is not None
            try:
                held.body = self.line.load(held.place)
            except OSError as error:
                self._failed("reading", held.place.segment.path, error)
                return None
            if held.body is None:
                self.give_up(held, CORRUPT)
        return held

    def _head(self) -> Held:
        held = self.first()
        if held is None:
            raise IndexError("nothing waits")
        return held

    def end_head(self) -> int:
        """Forget the head, or the first part of it; returns its points."""
        held = self._head()
        points = self.hands.end_first()
        if points is None:
            _, points, _ = held.left
            self._forget(held)
        return points

    def split(self, parts: Sequence[Body]) -> None:
        """`parts` take the place of the head."""
        self._head()
        self.hands.split(parts)

    def set_aside(self) -> None:
        """The head lets the next ones pass."""
        self._head()
        self.hands.set_aside()
        self.keeper.mark()

    def take_back(self, number: int) -> bool:
        """It is the head again; False if it is not there any more."""
        self.keeper.mark()
        return self.hands.take_back(number)

    def give_up(self, held: Held, reason: str) -> None:
        records, points, _ = held.left
        self._forget(held)
        self._on_drop(reason, points, records)

    def _forget(self, held: Held) -> None:
        self.hands.let_go(held)
        if held.place is not None:
            held.place.segment.held -= 1
            self._retire(held.place.segment)
        self.keeper.mark()

    def expire(self, before_ns: int) -> None:
        """Give up what was read before then. A segment goes as a whole when all in it is as old."""
        segments = self.log.segments
        while segments and 0 < segments[0].newest_ns < before_ns:
            self.drop_oldest(AGE)
        for held in self.hands.all_but_pinned():
            if 0 < held.newest_ns < before_ns:
                self.give_up(held, AGE)
        while (first := self.first()) is not None and first is not self.hands.pinned:
            if not 0 < first.newest_ns < before_ns:
                break
            self.give_up(first, AGE)

    def finish(self) -> None:
        """Let go of everything: what the disk would not take is lost now."""
        self.write_all()
        for held in self.hands.only_in_memory():
            self.give_up(held, SHUTDOWN)
        self.hands.pinned = None

    def retire_all(self) -> None:
        """Nothing more is written."""
        self.log.roll()
        for segment in tuple(self.log.segments):
            self._retire(segment)

    # The disk.

    def write_all(self) -> None:
        """Write what is not on disk yet; if that does not work, keep the youngest in memory."""
        try:
            if not self._folder.keep():
                # Somebody deleted it under our hands: what was in it is lost, not what comes.
                self._failed("finding", self._directory, FileNotFoundError("it is made anew"))
                self.log.roll()
            while self.hands.unwritten:
                self._write(self.hands.unwritten[0])
                self.hands.unwritten.popleft()
        except OSError as error:
            self._failed("writing", self._directory, error)
            for held in self.hands.too_many():
                self.give_up(held, FULL)

    def _write(self, held: Held) -> None:
        assert held.body is not None
        self.make_room(size := self.log.size_of(held.body))
        # For the same reason what is given up has to do, for now.
        least = self.log.size - _ENOUGH * size
        while True:
            try:
                place = self.log.append(held.number, held.body)
                break
            except OSError as error:
                is_full = error.errno in _DISK_FULL and self.log.size >= least
                if not is_full or not self.drop_oldest(FULL):
                    raise
        if held.number >= self.line.next.sequence:
            self.line.add(place)
            self.hands.went(held)
        else:
            place.segment.held += 1
            held.place = place
            self.line.wrote_taken(place)
            if held is not self.hands.pinned:
                held.rest()
            # The cursor on disk is beyond it: what a killed process leaves must not say it is done.
            self.keeper.mark()
            with suppress(OSError):
                self.keeper.save_now()
        for segment in self.log.segments[-2:-1]:
            self._retire(segment)

    def make_room(self, size: int) -> None:
        """Drop the oldest until there is room for `size` bytes more. Raises OSError if there is
        none with nothing left to drop."""
        # Asked once: all would go where deleted space shows later (btrfs takes up to 30 s).
        limit = self._room.limit(self.log.size)
        while self.log.size + size > limit:
            reason = SIZE if self.log.size + size > self._room.most else FULL
            if not self.drop_oldest(reason):
                if not size:
                    return
                raise OSError(errno.ENOSPC, "the free space of the disk is left to others")
        self.log.fit(limit)

    def drop_oldest(self, reason: str) -> bool:
        """Delete the oldest segment with all that waits in it, but for the head that is on its way;
        False if there is none."""
        if not self._finished:
            if not self.log.segments:
                return False
            segment = self.log.segments[0]
            points, records = self.line.drop(segment)
            for held in self.hands.in_segment(segment):
                held.place = None
                if held is not self.hands.pinned:
                    count, more, _ = held.left
                    records, points = records + count, points + more
                    self.hands.let_go(held)
            segment.held = 0
            self._finish(segment)
            if records:
                self._on_drop(reason, points, records)
        try:
            self.keeper.save_now()
        except OSError:
            # The disk is full: with the file gone it may work, now or when others let go.
            self._delete_finished(self.keeper.version)
            self.keeper.mark()
            with suppress(OSError):
                self.keeper.save_now()
        return True

    def _retire(self, segment: Segment) -> None:
        """Have its file deleted, if nothing in it waits and nothing more is written to it."""
        is_passed = segment.end.sequence <= self.line.next.sequence
        if segment.is_done and is_passed and not self.log.is_active(segment):
            self._finish(segment)
            self.keeper.mark()

    def _finish(self, segment: Segment) -> None:
        self.line.forget(segment)
        self.log.take_out(segment)
        self._finished.append((self.keeper.version + 1, segment))

    def _delete_finished(self, version: int) -> None:
        """The cursor says, as of `version`, that these are done."""
        due = [segment for at, segment in self._finished if at <= version]
        self._finished = [one for one in self._finished if one[0] > version]
        self.log.delete(due, self._failed)

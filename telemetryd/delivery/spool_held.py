"""The records that a spool has in its hands: the head, what comes right behind it, what is set
aside, and what could not be written to the disk yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from telemetryd.delivery.queue import Body
from telemetryd.delivery.segment import Segment
from telemetryd.delivery.spool_scan import Place

# Bytes of bodies that may wait in memory for the disk, and what each costs besides.
_MOST_UNWRITTEN = 4 << 20
_OVERHEAD = 200


@dataclass(slots=True, eq=False)
class Held:
    """One of them. `body` is None while it is only on disk, `place` while it is only in memory.
    `parts` are what is left of it once it was split; the disk does not know of them."""

    number: int
    points: int
    length: int
    newest_ns: int
    body: Body | None = None
    place: Place | None = None
    parts: deque[Body] | None = None

    @classmethod
    def on_disk(cls, place: Place) -> Held:
        header = place.header
        return cls(header.sequence, header.points, header.length, header.newest_ns, place=place)

    @classmethod
    def in_memory(cls, number: int, body: Body) -> Held:
        return cls(number, body.points, len(body.data), body.newest_ns, body)

    @property
    def first(self) -> Body | None:
        """What to send; None if it is to be read from the disk."""
        return self.parts[0] if self.parts else self.body

    @property
    def left(self) -> tuple[int, int, int]:
        """Bodies, points and bytes that wait."""
        if not self.parts:
            return 1, self.points, self.length
        points = sum(part.points for part in self.parts)
        return len(self.parts), points, sum(len(part.data) for part in self.parts)

    def split(self, parts: Sequence[Body]) -> None:
        """`parts` take the place of the first."""
        if self.parts:
            self.parts.popleft()
        self.parts = deque([*parts, *(self.parts or ())])
        self.rest()

    def rest(self) -> None:
        """It is not on its way any more: what the disk has need not be in memory."""
        if self.place is not None:
            self.body = None


class Hands:
    """`front` is the head and what comes right behind it, `aside` what is set aside, by number;
    `unwritten` comes behind all that is on disk, and may be in `front` or `aside` too. `pinned` is
    the head while it is on its way. `count` and `size` are the bodies and bytes of all of them."""

    def __init__(self, front: Iterable[Held], aside: Iterable[Held]) -> None:
        self.front = deque(front)
        self.aside = {held.number: held for held in aside}
        self.unwritten: deque[Held] = deque()
        self.pinned: Held | None = None
        self.count = self.size = 0
        for held in chain(self.front, self.aside.values()):
            self.came(held)

    def came(self, held: Held) -> None:
        """It counts from now on."""
        count, _, size = held.left
        self.count += count
        self.size += size

    def went(self, held: Held) -> None:
        """It does not any more."""
        count, _, size = held.left
        self.count -= count
        self.size -= size

    def let_go(self, held: Held) -> None:
        """It is nowhere any more."""
        self.went(held)
        if held in self.front:
            self.front.remove(held)
        self.aside.pop(held.number, None)
        if held in self.unwritten:
            self.unwritten.remove(held)

    def all_but_pinned(self) -> list[Held]:
        """Those set aside, and those in front unless they are on their way."""
        return [*self.aside.values(), *(held for held in self.front if held is not self.pinned)]

    def in_segment(self, segment: Segment) -> list[Held]:
        """Those whose record is there."""
        held = chain(self.aside.values(), self.front)
        return [one for one in held if one.place is not None and one.place.segment is segment]

    def only_in_memory(self) -> set[Held]:
        held = chain(self.unwritten, self.front, self.aside.values())
        return {one for one in held if one.place is None}

    def too_many(self) -> list[Held]:
        """The oldest of those that are not on disk, which are to make room for the youngest."""
        over = sum(one.length + _OVERHEAD for one in self.unwritten) - _MOST_UNWRITTEN
        found = []
        for held in self.unwritten:
            if over <= 0:
                break
            if held is not self.pinned:
                found.append(held)
                over -= held.length + _OVERHEAD
        return found

    def end_first(self) -> int | None:
        """Forget the first part of the head; returns its points. None if nothing would be left."""
        held = self.front[0]
        self.pinned = None
        if held.parts is None or len(held.parts) == 1:
            return None
        self.went(held)
        points = held.parts.popleft().points
        self.came(held)
        return points

    def split(self, parts: Sequence[Body]) -> None:
        """`parts` take the place of the head."""
        held = self.front[0]
        self.went(held)
        held.split(parts)
        self.came(held)

    def set_aside(self) -> None:
        """The head lets the next ones pass."""
        held = self.front.popleft()
        self.pinned = None
        held.rest()
        is_latest = held.number > next(reversed(self.aside), 0)
        self.aside[held.number] = held
        if not is_latest:
            self.aside = dict(sorted(self.aside.items()))

    def take_back(self, number: int) -> bool:
        """It is the head again; False if it is not there any more."""
        held = self.aside.pop(number, None)
        if held is None:
            return False
        if self.front:
            self.front[0].rest()
        self.pinned = None
        self.front.appendleft(held)
        return True

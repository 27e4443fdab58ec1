"""Encoded bodies that wait for a destination, oldest first.

Queue is the seam: one destination's thread puts, looks at the head, and tells how it ended. What
keeps the bodies is up to the implementation; this one keeps them in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Called with the reason and the number of points for all that is given up.
OnDrop = Callable[[str, int], None]

FULL = "queue_full"
# What a body costs besides its bytes, so that a million tiny ones cannot fill memory either:
# three small objects, rounded up.
_OVERHEAD = 200


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The body of one request, not compressed, and how many points are in it."""

    data: bytes
    points: int


class Queue(ABC):
    """Bodies in the order in which they came. Used by one thread at a time.

    Each point that is put leaves in one of two ways: acknowledged, or dropped, which calls the
    `on_drop` given to the implementation.
    """

    @abstractmethod
    def put(self, body: Body) -> None:
        """Add a body behind the others; the oldest are dropped where there is no room."""

    @abstractmethod
    def peek(self) -> Body | None:
        """The head: the body to send next."""

    @abstractmethod
    def acknowledge(self) -> None:
        """The destination has the head: forget it."""

    @abstractmethod
    def drop(self, reason: str) -> None:
        """Give the head up."""

    @abstractmethod
    def split(self, parts: Sequence[Body]) -> None:
        """Put these bodies, which hold the same points together, in the place of the head.

        A queue that outlives the process need not remember the parts: sending points twice does
        no harm.
        """

    @property
    @abstractmethod
    def parts(self) -> int:
        """How many parts are left of the body that the head was split from; 0 if it is whole."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes that wait."""

    @abstractmethod
    def __len__(self) -> int:
        """Bodies that wait, parts counted one by one."""


class MemoryQueue(Queue):
    """At most `limit` bytes in memory; lost when the process ends."""

    def __init__(self, limit: int, on_drop: OnDrop) -> None:
        self._limit = limit
        self._on_drop = on_drop
        self._bodies: deque[Body] = deque()
        self._parts = 0
        self._size = 0

    @property
    def size(self) -> int:
        return self._size

    @property
    def parts(self) -> int:
        return self._parts

    def __len__(self) -> int:
        return len(self._bodies)

    def put(self, body: Body) -> None:
        if len(body.data) + _OVERHEAD > self._limit:
            self._on_drop(FULL, body.points)
            return
        while self._weight + len(body.data) + _OVERHEAD > self._limit:
            self.drop(FULL)
        self._append(body)

    def peek(self) -> Body | None:
        return self._bodies[0] if self._bodies else None

    def acknowledge(self) -> None:
        self._pop()

    def drop(self, reason: str) -> None:
        self._on_drop(reason, self._pop().points)

    def split(self, parts: Sequence[Body]) -> None:
        self._pop()
        self._bodies.extendleft(reversed(parts))
        self._size += sum(len(part.data) for part in parts)
        self._parts += len(parts)

    @property
    def _weight(self) -> int:
        return self._size + len(self._bodies) * _OVERHEAD

    def _append(self, body: Body) -> None:
        self._bodies.append(body)
        self._size += len(body.data)

    def _pop(self) -> Body:
        body = self._bodies.popleft()
        self._size -= len(body.data)
        self._parts = max(self._parts - 1, 0)
        return body

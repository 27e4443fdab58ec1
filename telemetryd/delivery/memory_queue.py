"""Bodies that wait in memory, for a daemon that has no place on disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from telemetryd.delivery.queue import Body, OnDrop, Queue

FULL = "queue_full"
SHUTDOWN = "shutdown"
# What a body costs besides its bytes, so that a million tiny ones cannot fill memory either:
# four small objects, rounded up.
_OVERHEAD = 200


@dataclass(slots=True, eq=False)
class _Waiting:
    """What is left of one body that was put: itself, or its parts."""

    number: int
    bodies: deque[Body]
    is_split: bool = False


class MemoryQueue(Queue):
    """At most `limit` bytes in memory; lost when the process ends."""

    def __init__(self, limit: int, on_drop: OnDrop) -> None:
        self._limit = limit
        self._on_drop = on_drop
        self._line: deque[_Waiting] = deque()
        self._aside: dict[int, _Waiting] = {}
        self._is_pinned = False
        self._next = 1
        self._size = 0
        self._count = 0
        self._lock = threading.RLock()

    @property
    def size(self) -> int:
        return self._size

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def is_durable(self) -> bool:
        return False

    @property
    def oldest_ns(self) -> int | None:
        with self._lock:
            firsts = [*list(self._aside.values())[:1], *list(self._line)[:1]]
            return min((one.bodies[0].newest_ns for one in firsts), default=None)

    def __len__(self) -> int:
        return self._count

    def put(self, body: Body) -> None:
        with self._lock:
            if len(body.data) + _OVERHEAD > self._limit:
                self._on_drop(FULL, body.points)
                return
            room = self._limit - len(body.data) - _OVERHEAD
            while self._weight > room and self._drop_oldest():
                pass
            self._line.append(_Waiting(self._next, deque([body])))
            self._next += 1
            self._came(body)

    def sync(self) -> None:
        """Nothing here survives."""

    def expire(self, wall_ns: int) -> None:
        """What fits is kept."""

    def peek(self) -> Body | None:
        with self._lock:
            if not self._line:
                return None
            self._is_pinned = True
            return self._line[0].bodies[0]

    @property
    def head(self) -> int | None:
        with self._lock:
            return self._line[0].number if self._line else None

    @property
    def parts(self) -> int:
        with self._lock:
            first = self._line[0] if self._line else None
            return len(first.bodies) if first is not None and first.is_split else 0

    def acknowledge(self) -> None:
        with self._lock:
            self._pop()

    def drop(self, reason: str) -> None:
        with self._lock:
            self._on_drop(reason, self._pop().points)

    def split(self, parts: Sequence[Body]) -> None:
        with self._lock:
            first = self._line[0]
            self._went(first.bodies.popleft())
            first.bodies.extendleft(reversed(parts))
            first.is_split = True
            for part in parts:
                self._came(part)

    def set_aside(self) -> None:
        with self._lock:
            one = self._line.popleft()
            self._aside[one.number] = one
            self._aside = dict(sorted(self._aside.items()))
            self._is_pinned = False

    @property
    def aside(self) -> Sequence[int]:
        with self._lock:
            return tuple(self._aside)

    def take_back(self, number: int) -> bool:
        with self._lock:
            one = self._aside.pop(number, None)
            if one is None:
                return False
            self._line.appendleft(one)
            self._is_pinned = False
            return True

    def close(self) -> None:
        with self._lock:
            self._is_pinned = False
            while self._drop_oldest(SHUTDOWN):
                pass

    @property
    def _weight(self) -> int:
        return self._size + self._count * _OVERHEAD

    def _drop_oldest(self, reason: str = FULL) -> bool:
        """Drop the oldest body, or part of one, that is not on its way; False without any."""
        for one in chain(self._aside.values(), self._line):
            spared = int(self._is_pinned and one is self._line[0])
            if len(one.bodies) > spared:
                body = one.bodies[spared]
                del one.bodies[spared]
                if not one.bodies and self._aside.pop(one.number, None) is None:
                    self._line.remove(one)
                self._went(body)
                self._on_drop(reason, body.points)
                return True
        return False

    def _pop(self) -> Body:
        first = self._line[0]
        body = first.bodies.popleft()
        if not first.bodies:
            self._line.popleft()
        self._is_pinned = False
        self._went(body)
        return body

    def _came(self, body: Body) -> None:
        self._size += len(body.data)
        self._count += 1

    def _went(self, body: Body) -> None:
        self._size -= len(body.data)
        self._count -= 1

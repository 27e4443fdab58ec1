"""What holds for every queue, in memory or on disk, whatever happens in whatever order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import START_WALL_NS
from support.spools import Drops, Kept

from telemetryd.delivery.memory_queue import MemoryQueue
from telemetryd.delivery.queue import Body, Queue

# Small enough for ten bodies to pass it: the smallest that a spool can be told.
LIMIT = 1 << 20
MOST_POINTS = 200
BYTES_PER_POINT = 1000


class InMemory:
    """A queue, and what it gave up."""

    def __init__(self) -> None:
        self.drops = Drops()
        self.queue: Queue = MemoryQueue(LIMIT, self.drops)

    def restart(self) -> None:
        """It would not survive."""


class OnDisk:
    """The same on disk."""

    def __init__(self, directory: Path) -> None:
        self.drops = Drops()
        self._directory = directory
        self.queue = self._open()

    def _open(self) -> Queue:
        return Kept(self._directory, drops=self.drops, bytes=LIMIT, age=3600).spool

    def restart(self) -> None:
        self.queue.close()
        self.queue = self._open()


@contextmanager
def in_memory() -> Iterator[InMemory]:
    yield InMemory()


@contextmanager
def on_disk() -> Iterator[OnDisk]:
    with tempfile.TemporaryDirectory() as directory:
        one = OnDisk(Path(directory))
        yield one
        one.queue.close()


class Walk:
    """Takes one step after the other and keeps the books."""

    def __init__(self, under: InMemory | OnDisk) -> None:
        self.under = under
        self.put = self.acknowledged = self.numbers = 0
        self.pinned: bytes | None = None
        self.ended: list[int] = []
        self.passed: set[int] = set()
        self.was_split = False

    def step(self, name: str, number: int) -> None:
        queue = self.under.queue
        match name:
            case "put":
                queue.put(piece(number, self.numbers))
                self.put += number
                self.numbers += 1
            case "sync":
                queue.sync()
            case "expire":
                queue.expire(START_WALL_NS)
            case "take_back" if queue.aside:
                chosen = queue.aside[number % len(queue.aside)]
                assert queue.take_back(chosen)
                assert queue.head == chosen
                self.pinned = None
            case "restart" if not self.was_split:
                self.under.restart()
                self.pinned = None
            case "acknowledge" | "drop" | "split" | "set_aside" | "peek":
                self.with_head(name)

    def with_head(self, name: str) -> None:
        queue = self.under.queue
        head, number = queue.peek(), queue.head
        if self.pinned is not None:
            assert head is not None
            assert head.data == self.pinned, "a head on its way was dropped"
        if head is None or number is None:
            return
        self.pinned = None
        if name == "acknowledge":
            self.acknowledged += head.points
            self.ended.append(number)
            queue.acknowledge()
        elif name == "drop":
            self.ended.append(number)
            queue.drop("refused")
        elif name == "set_aside":
            self.passed.add(number)
            queue.set_aside()
            assert number in queue.aside
        elif name == "split" and head.points > 1:
            half = head.points // 2 * BYTES_PER_POINT
            queue.split([_of(head.data[:half]), _of(head.data[half:])])
            self.was_split = True
        elif name == "peek":
            self.pinned = head.data

    def finish(self) -> int:
        """Send the rest; returns how many points that were."""
        left, queue = 0, self.under.queue
        for number in reversed(queue.aside):
            assert queue.take_back(number)
        while (head := queue.peek()) is not None:
            left += head.points
            queue.acknowledge()
        assert (len(queue), queue.size, queue.parts, queue.head) == (0, 0, 0, None)
        return left


def piece(points: int, number: int) -> Body:
    data = (b"%0*d" % (BYTES_PER_POINT, number)) * points
    return Body(data, points, START_WALL_NS)


def _of(data: bytes) -> Body:
    return Body(data, len(data) // BYTES_PER_POINT, START_WALL_NS)


NAMES = [
    *("put", "put", "put", "acknowledge", "drop", "split", "peek"),
    *("set_aside", "take_back", "sync", "expire", "restart"),
]
steps = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, MOST_POINTS)), max_size=60)


@pytest.mark.parametrize("make", [in_memory, on_disk])
@given(steps=steps)
def test_every_point_that_was_put_is_acknowledged_or_waits_or_was_counted_as_dropped(
    make, steps: list[tuple[str, int]]
) -> None:
    with make() as under:
        walk = Walk(under)
        for name, number in steps:
            walk.step(name, number)
            assert list(under.queue.aside) == sorted(under.queue.aside)
            assert under.queue.size <= LIMIT + MOST_POINTS * BYTES_PER_POINT
        left = walk.finish()
        assert walk.put == walk.acknowledged + left + under.drops.points.total()
        in_line = [number for number in walk.ended if number not in walk.passed]
        assert in_line == sorted(in_line)

"""A lane that had to begin in memory and goes on on disk."""

from __future__ import annotations

import threading

import pytest
from support.delivery import NO_ANSWER, OK, in_turn, takes_all
from support.delivery_lanes import LaneBench
from support.servers import eventually

from telemetryd.delivery.destination import Verdict
from telemetryd.delivery.memory_queue import MemoryQueue
from telemetryd.delivery.queue import Body, OnDrop


class Disk(MemoryQueue):
    """Says that it is durable; `synced` is how many bodies were, each time."""

    def __init__(self, on_drop: OnDrop) -> None:
        super().__init__(1 << 20, on_drop)
        self.synced: list[int] = []

    @property
    def is_durable(self) -> bool:
        return True

    def sync(self) -> None:
        self.synced.append(len(self))


def begun(bench: LaneBench, bodies: int) -> None:
    """So many bodies wait in memory."""
    bench.lane.start()
    for count in range(1, bodies + 1):
        bench.read()
        bench.clock.tick(9)
        eventually(lambda count=count: len(bench.queue) == count)


def moved(bench: LaneBench) -> Disk:
    """The queue after a minute in which the disk could be had."""
    bench.open_disk = Disk
    bench.clock.tick(60)
    eventually(lambda: bench.counted("spool_durable") == 1)
    assert isinstance(bench.queue, Disk)
    return bench.queue


def test_all_that_waits_goes_along_in_order_and_is_on_disk_at_once() -> None:
    bench = LaneBench(is_makeshift=True)
    bench.there.answer = in_turn(NO_ANSWER)
    begun(bench, 3)
    memory = bench.queue
    assert isinstance(memory, MemoryQueue)
    for _ in range(2):
        memory.peek()
        memory.set_aside()
    disk = moved(bench)
    assert len(memory) == 0
    assert (len(disk), disk.synced) == (3, [3])
    bench.there.answer = takes_all
    bench.clock.tick(60)
    eventually(lambda: len(bench.there.stored) == 3)
    assert bench.lane.stop(5)
    assert bench.there.stored == [b"1001", b"1011", b"1021"]
    assert bench.dropped("shutdown") == 0


def test_a_request_that_is_on_its_way_then_is_repeated_and_its_answer_counts_for_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = LaneBench(is_makeshift=True)
    asked, gate = threading.Event(), threading.Event()

    def hang(_body: Body) -> Verdict:
        asked.set()
        assert gate.wait(30)
        return OK

    bench.there.answer = hang
    begun(bench, 2)
    assert asked.wait(30)
    disk = moved(bench)
    assert len(disk) == 2
    gate.set()
    eventually(lambda: len(disk) == 0)
    assert bench.lane.stop(5)
    assert bench.there.stored == [b"1001", b"1001", b"1011"]
    assert bench.counted("exporter_points_total") == 2
    assert "failed" not in caplog.text


def test_what_was_not_makeshift_stays_where_it_is() -> None:
    bench = LaneBench()
    bench.open_disk = Disk
    begun(bench, 0)
    memory = bench.queue
    for _ in range(12):
        bench.read()
        bench.clock.tick(10)
    eventually(lambda: bench.counted("exporter_points_total") == 12)
    assert bench.queue is memory
    assert bench.lane.stop(5)


def test_a_lane_that_is_stopped_lets_go_of_the_disk_that_it_has_got() -> None:
    bench = LaneBench(is_makeshift=True)
    bench.there.answer = in_turn(NO_ANSWER)
    begun(bench, 1)
    disk, closed = moved(bench), threading.Event()
    disk.close = closed.set  # type: ignore[method-assign]
    assert bench.lane.stop(5)
    assert closed.is_set()

"""Which batches are sent at a given resolution."""

from __future__ import annotations

from telemetryd.batch import Batch
from telemetryd.delivery.gather import Gather
from telemetryd.metric import Kind, Metric, Series, Unit

_SERIES: tuple[Series, ...] = (Metric("a", "b", Kind.GAUGE, Unit.NONE, "", "").at(),)


def batch(second: float, collector: str = "c", interval: float = 1.0, points: int = 1) -> Batch:
    values = tuple(range(points))
    return Batch(collector, 0, int(second * 1e9), interval, _SERIES * points, values)


def seconds(batches: list[Batch]) -> list[float]:
    return [one.mono_ns / 1e9 for one in batches]


def test_at_resolution_0_every_batch_is_sent() -> None:
    gather = Gather(0, 1000)
    for second in (1, 2, 3):
        gather.offer(batch(second))
    assert seconds(gather.take(int(3e9))) == [1, 2, 3]
    assert gather.take(int(4e9)) == []


def test_the_last_batch_of_each_window_is_sent_when_the_window_is_over() -> None:
    gather = Gather(10, 1000)
    for second in range(25):
        gather.offer(batch(second))
    assert seconds(gather.take(int(24.5e9))) == [9, 19]
    assert gather.take(int(29.9e9)) == []
    assert seconds(gather.take(int(30e9))) == [24]
    assert gather.take(int(40e9)) == []


def test_each_collector_has_its_own_last_batch() -> None:
    gather = Gather(10, 1000)
    for second in range(10):
        gather.offer(batch(second, "fast"))
        if second % 5 == 0:
            gather.offer(batch(second, "slow", 5.0))
    taken = gather.take(int(10e9))
    assert [(one.collector, one.mono_ns // 10**9) for one in taken] == [("slow", 5), ("fast", 9)]


def test_a_collector_no_faster_than_the_resolution_keeps_every_batch() -> None:
    gather = Gather(10, 1000)
    for second in (0.001, 9.999, 20.0):
        gather.offer(batch(second, interval=10.0))
    assert seconds(gather.take(int(20e9))) == [0.001, 9.999, 20.0]


def test_at_the_end_open_windows_are_sent_too() -> None:
    gather = Gather(10, 1000)
    for second in (1, 2, 11, 12):
        gather.offer(batch(second))
    assert seconds(gather.take_all()) == [2, 12]
    assert gather.take_all() == []


def test_what_waits_is_bounded_and_what_is_given_up_is_told_exactly() -> None:
    gather = Gather(0, 10)
    assert [gather.offer(batch(second, points=4)) for second in (1, 2, 3, 4)] == [0, 0, 4, 4]
    assert gather.points == 8
    assert seconds(gather.take(int(5e9))) == [3, 4]
    assert gather.points == 0

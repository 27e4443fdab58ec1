"""The sampling grid: its cadence, the ticks it misses, and collectors that hang."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from support.lanes import PATIENCE_S, Room

from telemetryd.lane import Lane
from telemetryd.runner import State

MISSED = 'telemetryd_lane_missed_ticks_total{lane="1s"}'


def test_collectors_are_sampled_in_turn_at_once_and_then_every_interval(
    make: Callable[..., Room],
) -> None:
    room = make("a", "b")
    assert room.runners["a"].up is None
    room.begin()
    for tick in range(2, 5):
        room.tick(a=tick, b=tick)
    assert [batch.collector for batch in room.batches] == ["a", "b"] * 4
    assert room.moments("a") == room.moments("b") == [0, 1, 2, 3]
    assert room.runners["a"].up is True


def test_the_grid_does_not_drift_however_long_the_samples_take(make: Callable[..., Room]) -> None:
    room = make("a")
    takes = [0.25, 0.0, 0.875, 0.125, 0.96875, 0.5]
    room.probes["a"].takes = takes[0]
    room.begin()
    for tick, (last, now) in enumerate(itertools.pairwise(takes), 2):
        room.probes["a"].takes = now
        room.tick(1.0 - last, a=tick)
    assert room.moments("a") == [0, 1, 2, 3, 4, 5]
    assert room.counted(MISSED) == 0


def test_missed_ticks_are_skipped_and_counted_and_the_grid_stays(make: Callable[..., Room]) -> None:
    room = make("a")
    room.begin()
    room.tick(3.5, a=2)
    assert room.counted(MISSED) == 2
    room.tick(0.5, a=3)
    assert room.moments("a") == [0, 3.5, 4]
    assert room.counted(MISSED) == 2


def test_a_sample_longer_than_the_interval_is_an_overrun(make: Callable[..., Room]) -> None:
    room = make("a")
    room.probes["a"].takes = 1.5
    room.begin()
    room.wait(a=2)
    assert room.moments("a") == [0, 1.5], "the next one is late, but not left out"
    room.tick(0.5, a=3)
    assert room.moments("a") == [0, 1.5, 2]
    assert room.runners["a"].overruns == 1
    assert room.runners["a"].busy_ns == 1.5e9
    assert room.counted(MISSED) == 0


def test_a_start_may_be_put_off_so_that_lanes_do_not_all_tick_together(
    make: Callable[..., Room],
) -> None:
    room = make("a")
    room.lane.start(0.25)
    room.tick(0.25, a=1)
    room.tick(1.0, a=2)
    assert room.moments("a") == [0.25, 1.25]


@pytest.mark.parametrize("step", [-86400.0, 86400.0], ids=["back", "forward"])
def test_a_step_of_the_wall_clock_neither_stalls_nor_doubles_a_sample(
    make: Callable[..., Room], step: float
) -> None:
    room = make("a")
    room.begin()
    room.clock.step_wall(step)
    for tick in range(2, 5):
        room.tick(a=tick)
    assert room.moments("a") == [0, 1, 2, 3]
    assert room.counted(MISSED) == 0
    first, second, *_ = room.batches
    assert second.wall_ns - first.wall_ns == (step + 1) * 1e9


def test_a_collector_that_is_stuck_loses_its_thread_and_the_others_keep_their_cadence(
    make: Callable[..., Room],
) -> None:
    room = make("stuck", "a")
    room.begin()
    room.get_stuck("stuck")
    room.wait(a=2)
    assert room.runners["stuck"].state is State.STUCK
    assert room.runners["stuck"].up is False
    assert room.runners["stuck"].overruns == 1
    room.tick(0.5, a=3)
    for tick in range(4, 8):
        room.tick(a=tick)
    assert room.moments("a") == [0, 1.5, 2, 3, 4, 5, 6]
    assert room.runners["a"].up is True
    assert room.counted(MISSED) == 0
    errors = 'telemetryd_collector_errors_total{collector="stuck",reason="timeout"}'
    assert room.counted(errors) == 1


def test_a_stuck_collector_is_never_entered_again_before_it_returns(
    make: Callable[..., Room],
) -> None:
    room = make("stuck", "a")
    room.begin()
    held = room.get_stuck("stuck")
    room.wait(a=2)
    room.tick(0.5, a=3)
    for tick in range(4, 8):
        room.lane.guard()
        room.tick(a=tick)
    assert len(room.probes["stuck"].threads) == 2
    assert held.is_alive()
    others = set(room.probes["a"].threads) - {held}
    assert len(others) == 1, "one fresh thread carries on"


def test_a_stuck_collector_is_sampled_again_from_the_tick_after_it_has_returned(
    make: Callable[..., Room],
) -> None:
    room = make("stuck", "a")
    room.begin()
    held = room.get_stuck("stuck")
    room.wait(a=2)
    room.probes["stuck"].gate.set()
    held.join(PATIENCE_S)
    assert not held.is_alive()
    assert room.runners["stuck"].up is False
    assert len(room.batches_of("stuck")) == 1, "what it read is too old to publish"
    room.tick(0.5, stuck=2, a=3)
    assert room.runners["stuck"].up is True
    assert room.moments("stuck") == [0, 2]
    assert room.probes["stuck"].threads[-1] is room.probes["a"].threads[-1]


def test_the_guard_leaves_a_lane_in_peace_until_the_deadline_has_passed(
    make: Callable[..., Room],
) -> None:
    room = make("a")
    room.begin()
    room.probes["a"].gate.clear()
    room.probes["a"].inside.clear()
    room.clock.tick(1.0)
    assert room.probes["a"].inside.wait(PATIENCE_S)
    deadline_ns = room.start_ns + 1_500_000_000
    assert room.lane.guard() == deadline_ns
    room.clock.tick(0.499)
    assert room.lane.guard() == deadline_ns
    assert room.runners["a"].state is State.RUNNING
    room.clock.tick(0.001)
    assert room.lane.guard() == room.start_ns + 2_500_000_000, "next tick and its deadline"
    assert room.runners["a"].state is State.STUCK


def test_a_slow_lane_has_a_deadline_of_seconds_not_of_half_its_interval() -> None:
    room = Room()
    assert Lane("60s", 60.0, room.clock, room.instruments).deadline_ns == 5e9
    assert room.lane.deadline_ns == 0.5e9


def test_a_collector_on_a_lane_of_its_own_may_take_the_whole_interval() -> None:
    room = Room()
    lane = Lane("thermal", 2.0, room.clock, room.instruments, alone=True)
    assert lane.deadline_ns == 2e9

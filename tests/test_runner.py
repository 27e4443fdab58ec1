"""Collectors that fail on a lane, join and leave it, and a lane that is asked to stop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.lanes import PATIENCE_S, Probe, Room

from telemetryd.errors import Unavailable
from telemetryd.runner import State


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError(5, "sick"), "io"), (ValueError("odd"), "parse"), (RuntimeError("?"), "exception")],
    ids=["io", "parse", "exception"],
)
def test_an_error_ends_the_sample_of_its_collector_and_nothing_else(
    make: Callable[..., Room], error: Exception, reason: str
) -> None:
    room = make("bad", "a")
    room.probes["bad"].error = error
    room.begin()
    room.tick(bad=2, a=2)
    assert room.runners["bad"].state is State.FAILING
    assert room.runners["bad"].up is False
    assert room.batches_of("bad")[-1].values == (2,), "what it had yielded counts"
    errors = f'telemetryd_collector_errors_total{{collector="bad",reason="{reason}"}}'
    assert room.counted(errors) == 2
    room.probes["bad"].error = None
    room.tick(bad=3)
    assert room.runners["bad"].up is True


def test_it_is_sampled_no_more_once_its_source_has_vanished(make: Callable[..., Room]) -> None:
    room = make("gone", "a")
    room.begin()
    room.probes["gone"].error = Unavailable("no such device", "plug it in")
    room.tick(gone=2, a=2)
    assert room.runners["gone"].state is State.UNAVAILABLE
    assert room.runners["gone"].up is False
    for tick in range(3, 6):
        room.tick(a=tick)
    assert len(room.probes["gone"].threads) == 2


@pytest.mark.parametrize("points", [[None], ["no pair"], [("no series", 1)]], ids=repr)
def test_points_of_another_shape_are_an_error_of_their_collector_and_nothing_else(
    make: Callable[..., Room], points: list[object]
) -> None:
    room = make("bad", "a")
    room.lane.start()
    room.wait(bad=1, a=1)
    room.probes["bad"].extra = points
    for tick in range(2, 4):
        room.tick(a=tick)
    assert room.runners["bad"].up is False
    assert len(room.batches_of("bad")) == 1
    errors = 'telemetryd_collector_errors_total{collector="bad",reason="exception"}'
    assert room.counted(errors) == 2
    room.probes["bad"].extra = []
    room.tick(bad=2)
    assert room.runners["bad"].up is True


def test_a_fault_that_a_collector_reports_is_counted_and_does_not_take_it_down(
    make: Callable[..., Room],
) -> None:
    room = make("a")
    room.begin()
    room.probes["a"].fault(PermissionError(13, "denied"), "/sys/x")
    room.tick(a=2)
    errors = 'telemetryd_collector_errors_total{collector="a",reason="permission"}'
    assert room.counted(errors) == 1
    assert room.runners["a"].up is True


def test_a_collector_may_join_and_leave_a_lane_that_runs(make: Callable[..., Room]) -> None:
    room = make("a", "b")
    room.begin()
    late = Probe("late", room.clock)
    room.lane.add(room.runner(late))
    room.tick(a=2, late=1)
    room.lane.remove(room.runners["a"])
    room.tick(b=3, late=2)
    assert len(room.batches_of("a")) == 2
    assert [runner.name for runner in room.lane.runners] == ["b", "late"]


def test_closing_a_collector_withdraws_its_series_even_if_that_fails(
    make: Callable[..., Room], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = make("a")
    room.begin()

    def refuse() -> None:
        raise OSError("busy")

    monkeypatch.setattr(room.probes["a"], "close", refuse)
    room.runners["a"].close()
    assert not room.pipeline.latest.live(room.clock.mono_ns())
    errors = 'telemetryd_collector_errors_total{collector="a",reason="exception"}'
    assert room.counted(errors) == 1


def test_a_lane_that_is_asked_to_stop_between_ticks_ends_its_thread(
    make: Callable[..., Room],
) -> None:
    room = make("a")
    room.begin()
    room.lane.stop()
    assert room.lane.join(PATIENCE_S)
    (thread,) = room.probes["a"].threads
    assert not thread.is_alive()
    assert room.runners["a"].state is State.RUNNING


def test_a_lane_that_is_asked_to_stop_in_the_middle_of_a_tick_samples_nobody_else(
    make: Callable[..., Room],
) -> None:
    room = make("a", "b")
    room.probes["a"].gate.clear()
    room.lane.start()
    assert room.probes["a"].inside.wait(PATIENCE_S)
    room.lane.stop()
    room.probes["a"].gate.set()
    assert room.lane.join(PATIENCE_S)
    assert [batch.collector for batch in room.batches] == ["a"], "the sample that ran is published"


@pytest.mark.parametrize("is_guarded", [False, True], ids=["", "guarded"])
def test_a_lane_whose_collector_is_stuck_when_it_stops_says_so_and_publishes_nothing_more(
    make: Callable[..., Room],
    is_guarded: bool,
) -> None:
    room = make("stuck", "a")
    room.begin()
    room.probes["stuck"].gate.clear()
    room.probes["stuck"].inside.clear()
    room.clock.tick(1.0)
    assert room.probes["stuck"].inside.wait(PATIENCE_S)
    room.lane.stop()
    if is_guarded:
        room.clock.tick(0.5)
        room.lane.guard()
        assert room.lane.is_started is False, "no fresh thread is started any more"
    assert room.lane.join(0.0) is False
    assert room.runners["stuck"].state is State.STUCK
    room.probes["stuck"].gate.set()
    room.probes["stuck"].threads[-1].join(PATIENCE_S)
    assert room.lane.join(PATIENCE_S) is True
    assert [batch.collector for batch in room.batches] == ["stuck", "a"]


def test_a_lane_that_abandoned_a_thread_before_it_stops_says_so(make: Callable[..., Room]) -> None:
    room = make("stuck", "a")
    room.begin()
    room.get_stuck("stuck")
    room.wait(a=2)
    room.lane.stop()
    assert room.lane.join(PATIENCE_S) is False

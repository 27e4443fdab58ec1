"""The energy counter of a GPU against its power: what is a drift, and what only looks like one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Bench
from support.utilization_laws import untimed

from telemetryd import gpus
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.gpu_energy_drift import MOST_DOUBT, WINDOW_S, GpuEnergyDrift
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Point

LABELS = ("0", "GPU-a")
RATIO = 'telemetryd_gpu_energy_drift_ratio{gpu="0",uuid="GPU-a"}'
DRIFTS = 'telemetryd_gpu_energy_drifts_total{gpu="0",uuid="GPU-a"}'
Values = dict[str, float]


def bench(interval: float = 1.0) -> Bench:
    return Bench(GpuEnergyDrift(DerivedConfig()), interval)


def gpu(
    joules: float | None, watts: float | None, scope: str = "gpu", module: float | None = None
) -> list[Point]:
    readings = (
        (gpus.ENERGY.at(*LABELS), joules),
        (gpus.POWER_AVERAGE.at(*LABELS, scope), watts),
        (gpus.POWER_AVERAGE.at(*LABELS, "module"), module),
    )
    return [(series, value) for series, value in readings if value is not None]


class Steady:
    """A GPU of 100 W whose counter sees `counted` of them."""

    def __init__(self, b: Bench, counted: float = 1.0, start: float = 1e6) -> None:
        self.bench = b
        self.counted = counted
        self.joules = start

    def run(self, seconds: int) -> Values:
        values: Values = {}
        for _ in range(seconds):
            self.joules += 100 * self.counted
            values = self.bench.feed(gpu(self.joules, 100))
        return values


def test_a_counter_that_agrees_with_the_power_does_not_drift() -> None:
    steady = Steady(bench())
    assert steady.run(1) == {DRIFTS: 0}
    assert steady.run(WINDOW_S - 1) == {DRIFTS: 0}
    assert steady.run(1) == {RATIO: 0, DRIFTS: 0}


@pytest.mark.parametrize("counted", [0.9, 1.2, 0.0])
def test_a_drift_is_signed_and_each_minute_of_it_is_counted(counted: float) -> None:
    steady = Steady(bench(), counted)
    values = steady.run(3 * WINDOW_S + 1)
    assert values[RATIO] == pytest.approx(counted - 1)
    assert values[DRIFTS] == 3


@pytest.mark.parametrize("counted", [0.96, 1.04])
def test_less_than_5_percent_is_shown_and_not_counted(counted: float) -> None:
    values = Steady(bench(), counted).run(2 * WINDOW_S + 1)
    assert values == {RATIO: pytest.approx(counted - 1), DRIFTS: 0}


def test_the_figure_stands_until_the_next_minute_is_whole() -> None:
    steady = Steady(bench(), 0.9)
    steady.run(WINDOW_S + 1)
    steady.counted = 1
    assert steady.run(WINDOW_S - 1) == {RATIO: pytest.approx(-0.1), DRIFTS: 1}
    assert steady.run(1) == {RATIO: pytest.approx(0), DRIFTS: 1}


def test_a_driver_that_was_loaded_again_costs_the_minute_and_no_more() -> None:
    steady = Steady(bench())
    steady.run(WINDOW_S + 30)
    steady.joules = 0
    assert steady.run(1) == {DRIFTS: 0}
    assert steady.run(WINDOW_S - 1) == {DRIFTS: 0}
    assert steady.run(1) == {RATIO: 0, DRIFTS: 0}


def test_a_gap_costs_the_minute_and_no_more() -> None:
    steady = Steady(bench())
    steady.run(WINDOW_S + 30)
    steady.bench.clock.tick(GAP_INTERVALS)
    assert steady.run(1) == {DRIFTS: 0}
    assert steady.run(WINDOW_S) == {RATIO: 0, DRIFTS: 0}


def test_readings_that_fail_for_a_moment_are_bridged_and_for_longer_leave_no_old_figure() -> None:
    steady = Steady(bench())
    steady.run(WINDOW_S + 30)
    for _ in range(GAP_INTERVALS - 1):
        steady.joules += 100
        assert steady.bench.feed(gpu(steady.joules, None)) == {RATIO: 0, DRIFTS: 0}
    assert steady.run(30) == {RATIO: 0, DRIFTS: 0}
    for _ in range(GAP_INTERVALS):
        steady.bench.feed(gpu(None, 100))
    assert steady.bench.feed(gpu(None, 100)) == {DRIFTS: 0}


def test_a_lost_gpu_is_published_no_more_and_its_count_goes_on_when_it_returns() -> None:
    steady = Steady(bench(), 0.9)
    steady.run(WINDOW_S + 1)
    for _ in range(10):
        assert steady.bench.feed([(gpus.ENERGY.at("1", "GPU-b"), 1)]) == {}
    assert steady.run(1) == {DRIFTS: 1}
    assert steady.run(WINDOW_S)[DRIFTS] == 2


def test_a_gpu_without_a_counter_or_an_average_has_nothing_to_compare() -> None:
    b = bench()
    for _ in range(WINDOW_S + 2):
        assert b.feed(gpu(None, 100)) == {}
        assert b.feed(gpu(1, None)) == {}


def test_a_counter_of_a_module_is_compared_with_the_power_of_the_module_alone() -> None:
    b, joules = bench(), 0.0
    values = b.feed(gpu(joules, 100))
    for second in range(2 * WINDOW_S + 1):
        joules += 300
        # A failed reading of the module's power is not replaced with the GPU's.
        values = b.feed(gpu(joules, 100, module=None if second == 70 else 300))
    assert values == {RATIO: 0, DRIFTS: 0}


def test_the_power_of_a_module_that_shows_late_begins_a_new_minute() -> None:
    b, joules, figures = bench(), 0.0, []
    for second in range(WINDOW_S + 31):
        joules += 300
        values = b.feed(gpu(joules, 100, module=None if second < 30 else 300))
        figures.append(values.get(RATIO))
    assert figures == [None] * (WINDOW_S + 30) + [0]


def test_a_gpu_that_shows_0_watts_has_no_figure() -> None:
    b = bench()
    for _ in range(2 * WINDOW_S):
        assert b.feed(gpu(5, 0)) == {DRIFTS: 0}


# A GPU under a load: what is true, and what its counter and its sensor make of it.


class Load:
    """Power as a staircase: (time, watts), the first long ago. The counter counts so much of it."""

    def __init__(self, steps: Sequence[tuple[float, float]], counted: float = 1.0) -> None:
        self.counted = counted
        self.steps = [(-1e3, steps[0][1]), *sorted(steps[1:]), (1e9, 0.0)]

    def joules(self, until: float) -> float:
        total = 0.0
        for (begin, watts), (end, _) in pairwise(self.steps):
            total += watts * max(0.0, min(until, end) - begin)
        return total

    def counter(self, now: float) -> float:
        """As the counter shows it: in steps of 100 ms."""
        return self.counted * self.joules(int(now * 10 + 1e-6) / 10)

    def watts(self, now: float, averaged_over: float) -> float:
        if averaged_over == 0:
            return [watts for begin, watts in self.steps if begin <= now][-1]
        return (self.joules(now) - self.joules(now - averaged_over)) / averaged_over


def drifts(
    load: Load, averaged_over: float, interval: float = 1.0, minutes: int = 3
) -> tuple[list[float], Values]:
    """Every figure that there is in so many minutes, and the last values."""
    b, found, values = bench(interval), [], {}
    for tick in range(int(minutes * WINDOW_S / interval) + 1):
        now = tick * interval
        points = gpu(load.counter(now), load.watts(now, averaged_over))
        values = b.feed(points, after=interval)
        if RATIO in values:
            found.append(values[RATIO])
    return found, values


# The counter's own steps: 100 ms of 60 s.
SLACK = 0.005
AVERAGES = (0.0, 0.1, 0.5, 1.0)
power = st.floats(50, 1000)


@pytest.mark.parametrize("averaged_over", AVERAGES)
@pytest.mark.parametrize(("before", "after"), [(70, 700), (700, 70)])
@pytest.mark.parametrize("offset", [-1.05, -0.95, -0.5, -0.05, 0, 0.05, 0.5, 0.95, 1.05, 30])
def test_a_step_of_the_load_at_the_edge_of_a_minute_is_no_drift(
    averaged_over: float, before: float, after: float, offset: float
) -> None:
    load = Load([(0, before), (WINDOW_S + offset, after)])
    found, values = drifts(load, averaged_over)
    assert max(map(abs, found)) < MOST_DOUBT + SLACK
    assert values[DRIFTS] == 0
    # And the steady minute after it has its figure.
    assert values[RATIO] == pytest.approx(0, abs=SLACK)


@untimed
@given(power, st.floats(0, 180), power, st.sampled_from(AVERAGES), st.sampled_from([0.5, 1, 2, 5]))
def test_a_step_of_the_load_at_any_moment_is_no_drift(
    before: float, at: float, after: float, averaged_over: float, interval: float
) -> None:
    found, values = drifts(Load([(0, before), (at, after)]), averaged_over, interval)
    assert all(abs(drift) < MOST_DOUBT + SLACK for drift in found)
    assert values[DRIFTS] == 0


loads = st.lists(st.tuples(st.floats(0, 180), power), min_size=2, max_size=60)


@untimed
@given(loads)
def test_no_load_makes_a_gpu_drift_that_averages_over_the_interval(
    steps: list[tuple[float, float]],
) -> None:
    found, values = drifts(Load(steps), averaged_over=1.0)
    assert all(abs(drift) < MOST_DOUBT + SLACK for drift in found)
    assert values[DRIFTS] == 0


def training(second: float) -> float:
    """A load that swings by a third every few seconds."""
    return 650 if int(second) % 4 else 430


@pytest.mark.parametrize("averaged_over", [0.5, 1.0])
@pytest.mark.parametrize("counted", [0.9, 1.1])
def test_a_real_drift_is_found_under_a_load_that_swings(
    averaged_over: float, counted: float
) -> None:
    load = Load([(second + 0.3, training(second)) for second in range(200)], counted)
    found, values = drifts(load, averaged_over)
    assert found
    assert all(drift == pytest.approx(counted - 1, abs=MOST_DOUBT) for drift in found)
    assert values[DRIFTS] == 3


def test_a_minute_whose_load_changes_too_much_to_tell_has_no_figure() -> None:
    wild = Load([(second + 0.5, 70.0 if second % 2 else 700.0) for second in range(61)])
    found, values = drifts(wild, averaged_over=0.0, minutes=1)
    assert not found
    assert values == {DRIFTS: 0}


anything = st.none() | st.floats(-100, 1e6)


@untimed
@given(st.lists(st.tuples(st.sampled_from([1, 10, 30, 60, 200]), anything, anything), max_size=60))
def test_whatever_is_read_the_count_never_falls_and_moves_with_a_figure_only(
    life: list[tuple[int, float | None, float | None]],
) -> None:
    b, before = bench(30), 0.0
    for after, joules, watts in life:
        values = b.feed(gpu(joules, watts), after=after)
        if DRIFTS in values:
            assert values[DRIFTS] - before in {0, 1}
            if values[DRIFTS] > before:
                assert abs(values[RATIO]) > 0.05
            before = values[DRIFTS]
        else:
            assert before == 0 or not gpu(joules, watts)

"""Watts from joules and joules from watts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock
from support.trees import FIXTURES, Bench, host_at, named

from telemetryd.collectors.hwmon_power import HwmonPower, HwmonPowerConfig
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.energy import MeterEnergy
from telemetryd.instruments import Instruments
from telemetryd.meters import ENERGY, POWER
from telemetryd.metric import Point
from telemetryd.pipeline import Pipeline

PACKAGE = ("rapl", "package", "0", "component")
SUPPLY = ("hwmon", "pin", "psu0", "enclosing")
CARD = ("hwmon", "card", "0000:04:00.0", "component")
GAP = 'telemetryd_energy_gap_seconds_total{source="hwmon"}'


def _joules(meter: tuple[str, ...], value: float) -> Point:
    return ENERGY.at(*meter), value


def _watts(meter: tuple[str, ...], value: float) -> Point:
    return POWER.at(*meter), value


PACKAGE_WATTS = repr(POWER.at(*PACKAGE))
SUPPLY_JOULES = repr(ENERGY.at(*SUPPLY))


@pytest.fixture
def bench() -> Bench:
    return Bench(MeterEnergy(DerivedConfig()))


def test_power_is_the_increase_of_the_energy_over_the_time_that_passed(bench: Bench) -> None:
    assert bench.feed([_joules(PACKAGE, 0)]) == {}
    assert bench.feed([_joules(PACKAGE, 300)], after=2) == {PACKAGE_WATTS: 150}
    assert bench.feed([_joules(PACKAGE, 300)]) == {PACKAGE_WATTS: 0}


def test_power_is_absent_after_a_gap_a_reset_and_a_reading_that_failed(bench: Bench) -> None:
    bench.feed([_joules(PACKAGE, 100)])
    assert bench.feed([_joules(PACKAGE, 900)], after=4) == {}
    assert bench.feed([_joules(PACKAGE, 5)]) == {}
    assert bench.feed([_joules(PACKAGE, 15)]) == {PACKAGE_WATTS: 10}
    assert bench.feed([_joules(CARD, 1)]) == {}
    assert PACKAGE_WATTS not in bench.feed([_joules(PACKAGE, 35), _joules(CARD, 2)])


def test_energy_is_the_trapezoid_between_two_readings_and_starts_at_zero(bench: Bench) -> None:
    assert bench.feed([_watts(SUPPLY, 100)]) == {SUPPLY_JOULES: 0, GAP: 0}
    assert bench.feed([_watts(SUPPLY, 200)], after=2) == {SUPPLY_JOULES: 300, GAP: 0}
    assert bench.feed([_watts(SUPPLY, 0)]) == {SUPPLY_JOULES: 400, GAP: 0}


def test_a_gap_of_more_than_three_intervals_is_counted_and_not_integrated(bench: Bench) -> None:
    bench.feed([_watts(SUPPLY, 100)])
    assert bench.feed([_watts(SUPPLY, 100)], after=3) == {SUPPLY_JOULES: 300, GAP: 0}
    assert bench.feed([_watts(SUPPLY, 100)], after=3.5) == {SUPPLY_JOULES: 300, GAP: 3.5}
    assert bench.feed([_watts(SUPPLY, 100)]) == {SUPPLY_JOULES: 400, GAP: 3.5}


def test_a_meter_that_misses_a_reading_is_bridged_and_gives_no_energy_meanwhile(
    bench: Bench,
) -> None:
    bench.feed([_watts(SUPPLY, 100), _watts(CARD, 10)])
    assert SUPPLY_JOULES not in bench.feed([_watts(CARD, 10)])
    assert bench.feed([_watts(SUPPLY, 200), _watts(CARD, 10)])[SUPPLY_JOULES] == 300


def test_power_that_flows_back_does_not_make_the_counter_fall(bench: Bench) -> None:
    bench.feed([_watts(SUPPLY, 10)])
    assert bench.feed([_watts(SUPPLY, -50)]) == {SUPPLY_JOULES: 0, GAP: 1}
    assert bench.feed([_watts(SUPPLY, 50)]) == {SUPPLY_JOULES: 0, GAP: 2}
    assert bench.feed([_watts(SUPPLY, 50)]) == {SUPPLY_JOULES: 50, GAP: 2}


def test_nothing_is_derived_for_a_meter_with_both_readings_even_when_one_fails(
    bench: Bench,
) -> None:
    assert bench.feed([_joules(CARD, 0), _watts(CARD, 70)]) == {}
    assert bench.feed([_joules(CARD, 70), _watts(CARD, 70)]) == {}
    assert bench.feed([_watts(CARD, 70)]) == {}
    assert bench.feed([_joules(CARD, 210)]) == {}
    assert bench.feed([_joules(CARD, 280)]) == {}


def test_a_collector_that_left_starts_afresh(bench: Bench) -> None:
    bench.feed([_watts(SUPPLY, 100)])
    bench.feed([_watts(SUPPLY, 100)])
    bench.derivation.forget("c")
    assert bench.feed([_watts(SUPPLY, 100)]) == {SUPPLY_JOULES: 0, GAP: 0}


def test_collectors_do_not_share_what_was_last_seen(bench: Bench) -> None:
    bench.feed([_joules(PACKAGE, 0)], collector="rapl")
    bench.feed([_watts(SUPPLY, 100)], collector="hwmon_power", after=0.5)
    assert bench.feed([_joules(PACKAGE, 50)], collector="rapl", after=0.5) == {PACKAGE_WATTS: 50}
    assert bench.feed([_watts(SUPPLY, 100)], collector="hwmon_power", after=0.5) == {
        SUPPLY_JOULES: 100,
        GAP: 0,
    }


_SECONDS = st.integers(1, 8).map(lambda halves: halves / 2)


@given(st.lists(st.tuples(_SECONDS, st.integers(0, 100_000)), min_size=1, max_size=50))
def test_power_times_time_gives_the_energy_back_over_any_load(
    load: list[tuple[float, int]],
) -> None:
    bench = Bench(MeterEnergy(DerivedConfig()))
    energy = 0
    bench.feed([_joules(PACKAGE, energy)])
    for seconds, step in load:
        energy += step
        derived = bench.feed([_joules(PACKAGE, energy)], after=seconds)
        if seconds > 3:
            assert derived == {}
        else:
            assert derived[PACKAGE_WATTS] * seconds == pytest.approx(step)


@given(st.lists(st.tuples(_SECONDS, st.none() | st.integers(-500, 5_000)), min_size=1, max_size=50))
def test_derived_energy_never_falls_and_all_time_is_either_integrated_or_a_gap(
    readings: list[tuple[float, int | None]],
) -> None:
    bench = Bench(MeterEnergy(DerivedConfig()))
    joules, waited, integrated, expected = 0.0, 0.0, 0.0, 0.0
    bench.feed([_watts(SUPPLY, 100), _watts(CARD, 0)])
    last = 100
    gap_of_supply = 0.0
    for seconds, watts in readings:
        points = [_watts(SUPPLY, watts)] if watts is not None else []
        derived = bench.feed([*points, _joules(PACKAGE, 0)], after=seconds)
        waited += seconds
        if watts is None:
            assert SUPPLY_JOULES not in derived
            continue
        if waited <= 3 and last >= 0 and watts >= 0:
            expected += waited * (last + watts) / 2
            integrated += waited
        else:
            gap_of_supply += waited
        assert derived[SUPPLY_JOULES] >= joules
        joules = derived[SUPPLY_JOULES]
        assert joules == pytest.approx(expected)
        assert derived[GAP] == gap_of_supply
        last, waited = watts, 0.0
    assert integrated + gap_of_supply + waited == sum(seconds for seconds, _ in readings)


def test_a_card_with_both_readings_is_published_without_a_duplicate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    tree: Path = FIXTURES / "hwmon" / "energy-and-power"
    collector = HwmonPower(HwmonPowerConfig(), host_at(tree, clock))
    pipeline = Pipeline(Instruments(), [MeterEnergy(DerivedConfig())])
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.tick(1)
            points = list(collector.sample())
            pipeline.publish("hwmon_power", collector, clock.wall_ns(), clock.mono_ns(), points)
    assert caplog.records == []
    [batch] = pipeline.latest.live(clock.mono_ns())
    card = '{source="hwmon",domain="card",device="0000:04:00.0",boundary="component"}'
    package = card.replace("card", "pkg").replace("component", "subcomponent")
    assert named(batch.points) == {
        f"telemetryd_energy_joules_total{card}": 0,
        f"telemetryd_power_watts{card}": 75,
        f"telemetryd_energy_joules_total{package}": 0,
        # The fixture's counter stands still.
        f"telemetryd_power_watts{package}": 0,
    }

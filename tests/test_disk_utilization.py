"""Disk utilization: the share of each interval with I/O in flight."""

from __future__ import annotations

import pytest
from support.trees import Bench

from telemetryd.collectors.disk import IO_TIME
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.disk import DiskUtilization
from telemetryd.metric import Point

RATIO = 'telemetryd_utilization_ratio{resource="disk",device="%s"}'
SECONDS = 'telemetryd_utilization_seconds_total{resource="disk",device="%s"}'
OBSERVED = 'telemetryd_utilization_observed_seconds_total{resource="disk",device="%s"}'


def busy(**seconds: float) -> list[Point]:
    return [(IO_TIME.at(name), value) for name, value in seconds.items()]


def bench() -> Bench:
    return Bench(DiskUtilization(DerivedConfig()))


def test_utilization_is_the_share_of_the_interval_with_io_in_flight() -> None:
    machine = bench()
    assert RATIO % "sda" not in machine.feed(busy(sda=100, sdb=7))
    values = machine.feed(busy(sda=100.5, sdb=7), after=2)
    assert values[RATIO % "sda"] == 0.25
    assert values[SECONDS % "sda"] == 0.5
    assert values[OBSERVED % "sda"] == 2
    assert values[RATIO % "sdb"] == 0
    assert not any("peak" in name for name in values)


def test_busy_time_that_exceeds_the_interval_by_rounding_is_carried_over_and_not_lost() -> None:
    machine = bench()
    machine.feed(busy(sda=0))
    first = machine.feed(busy(sda=1.004))
    assert first[RATIO % "sda"] == 1
    second = machine.feed(busy(sda=1.5))
    assert second[RATIO % "sda"] == pytest.approx(0.5)
    assert second[SECONDS % "sda"] == pytest.approx(1.5)


def test_a_disk_that_never_rests_is_busy_all_the_time_however_the_readings_jitter() -> None:
    machine = bench()
    machine.feed(busy(sda=0))
    values = {}
    for n in range(1, 201):
        values = machine.feed(busy(sda=n + (0.008 if n % 2 else 0)))
    assert values[OBSERVED % "sda"] == 200
    assert values[SECONDS % "sda"] == pytest.approx(200, abs=0.01)


def test_an_interval_with_far_more_busy_time_than_time_has_no_ratio() -> None:
    machine = bench()
    machine.feed(busy(sda=0))
    values = machine.feed(busy(sda=5))
    assert RATIO % "sda" not in values
    assert values[OBSERVED % "sda"] == 0
    after = machine.feed(busy(sda=5.25))
    assert after[RATIO % "sda"] == 0.25
    assert after[SECONDS % "sda"] == 0.25


def test_nothing_is_derived_from_an_interval_in_which_the_counter_fell() -> None:
    machine = bench()
    machine.feed(busy(sda=10, sdb=10))
    values = machine.feed(busy(sda=0.5, sdb=10.5))
    assert RATIO % "sda" not in values
    assert values[RATIO % "sdb"] == 0.5
    assert machine.feed(busy(sda=1, sdb=11))[RATIO % "sda"] == 0.5


def test_nothing_is_derived_from_a_gap() -> None:
    machine = bench()
    machine.feed(busy(sda=10))
    values = machine.feed(busy(sda=12), after=4)
    assert RATIO % "sda" not in values
    assert values[OBSERVED % "sda"] == 0


def test_a_disk_that_goes_takes_its_account_along_and_leaves_the_others_alone() -> None:
    machine = bench()
    machine.feed(busy(sda=10, sdb=10))
    machine.feed(busy(sda=10.5, sdb=10.5))
    values = machine.feed(busy(sdb=11))
    assert not any("sda" in name for name in values)
    assert values[SECONDS % "sdb"] == 1
    back = machine.feed(busy(sda=10.6, sdb=11))
    assert RATIO % "sda" not in back
    assert back[SECONDS % "sda"] == 0


def test_only_its_own_collector_makes_it_forget() -> None:
    machine = bench()
    machine.feed(busy(sda=1), collector="disk")
    machine.derivation.forget("memory")
    assert RATIO % "sda" in machine.feed(busy(sda=1.5), collector="disk")
    machine.derivation.forget("disk")
    assert RATIO % "sda" not in machine.feed(busy(sda=2), collector="disk")

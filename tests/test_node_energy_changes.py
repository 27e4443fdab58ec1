"""When the input energy of the node comes from another meter, and what becomes of the counter."""

from __future__ import annotations

import logging

import pytest
from support.energy_feed import (
    CHANGES,
    GAP,
    NODE,
    POWER,
    Feed,
    gpu,
    power,
)

from telemetryd.derivation import EnergyConfig
from telemetryd.metric import Point

HOUR = 3600
NO_ESTIMATE = EnergyConfig(estimate=False)


def bmc(watts: float) -> list[Point]:
    return [power("redfish", watts)]


def test_a_source_is_left_only_after_five_minutes_of_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "telemetryd.energy")
    feed = Feed()
    steady = {"ipmi": (30, lambda: [power("ipmi", 1010)])}
    feed.run(300, redfish=(30, lambda: bmc(1000)), **steady)
    feed.run(300, **steady)
    assert feed.source == "redfish system"
    assert POWER not in feed.values, "what it said five minutes ago is stale"
    feed.run(30, **steady)
    assert feed.source == "ipmi system"
    assert feed.values[POWER] == 1010
    assert feed.values[CHANGES] == 1
    told = [one.message for one in caplog.records]
    assert [line for line in told if "source=ipmi domain=system" in line] == told[-1:]


def test_the_counter_goes_on_through_a_change_with_what_the_other_measured_meanwhile() -> None:
    feed = Feed(NO_ESTIMATE)
    steady = {"ipmi": (30, lambda: [power("ipmi", 1010)])}
    feed.run(300, redfish=(30, lambda: bmc(1000)), **steady)
    assert feed.values[NODE] == 270_000
    feed.run(360, **steady)
    assert feed.source == "ipmi system"
    assert feed.values[NODE] == 270_000 + 1010 * 360
    assert feed.values[GAP] == 0


def test_nothing_is_counted_twice_when_a_slower_meter_takes_over() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=1.0))
    devices = {"gpu_nvidia": (1, lambda: gpu(1000 * feed.now))}
    feed.run(400, **devices)
    began = feed.history[2][NODE] - 1000 * 2
    for _ in range(400):
        before = feed.values[NODE]
        feed.run(1, redfish=(30, lambda: bmc(1000)), **devices)
        assert before <= feed.values[NODE] <= began + 1000 * feed.now + 1000
    assert feed.source == "redfish system"
    feed.run(31, redfish=(30, lambda: bmc(1000)), **devices)
    assert feed.values[NODE] - began == pytest.approx(1000 * 810, abs=2000)


def test_time_that_nobody_measured_is_a_gap() -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(300, redfish=(30, lambda: bmc(1000)))
    feed.run(400)
    feed.run(60, ipmi=(30, lambda: [power("ipmi", 1010)]))
    assert feed.source == "ipmi system"
    assert feed.values[NODE] == 270_000 + 1010 * 30
    assert feed.values[GAP] == 420


def test_one_that_was_left_stays_away_for_an_hour_though_it_answers() -> None:
    feed = Feed()
    steady = {"ipmi": (30, lambda: [power("ipmi", 1010)])}
    both = {"redfish": (30, lambda: bmc(1000)), **steady}
    feed.run(150, **both)
    feed.run(360, **steady)
    assert feed.source == "ipmi system"
    feed.run(HOUR - 60, **both)
    assert feed.source == "ipmi system"
    feed.run(90, **both)
    assert feed.source == "redfish system"
    assert feed.values[CHANGES] == 2


def test_a_source_that_comes_and_goes_every_few_minutes_does_not_flap() -> None:
    feed = Feed()
    for _ in range(30):
        steady = {"ipmi": (30, lambda: [power("ipmi", 1010)])}
        feed.run(240, redfish=(30, lambda: bmc(1000)), **steady)
        feed.run(240, **steady)
    assert feed.values[CHANGES] == 0
    for _ in range(12):
        feed.run(400, **steady)
        feed.run(200, redfish=(30, lambda: bmc(1000)), **steady)
    assert feed.values[CHANGES] <= 4, "in two hours"


def test_a_better_one_that_comes_up_is_taken_after_it_has_answered_for_five_minutes() -> None:
    feed = Feed()
    steady = {"ipmi": (30, lambda: [power("ipmi", 1010)])}
    feed.run(600, **steady)
    both = {"redfish": (30, lambda: bmc(1000)), **steady}
    feed.run(300, **both)
    assert feed.source == "ipmi system"
    feed.run(60, **both)
    assert feed.source == "redfish system"
    assert feed.values[CHANGES] == 1


def test_in_the_first_two_minutes_a_better_one_is_taken_at_once() -> None:
    feed = Feed()
    feed.run(60, gpu_nvidia=(1, lambda: gpu(500 * feed.now)))
    assert feed.source == "estimate devices"
    feed.run(31, redfish=(30, lambda: bmc(1000)), gpu_nvidia=(1, lambda: gpu(500 * feed.now)))
    assert feed.source == "redfish system"


def test_one_that_fell_silent_is_taken_back_at_once_where_there_is_no_other() -> None:
    feed = Feed(NO_ESTIMATE)
    rest = {"gpu_nvidia": (1, lambda: gpu(500 * feed.now))}
    feed.run(150, redfish=(30, lambda: bmc(1000)), **rest)
    feed.run(400, **rest)  # the BMC restarts
    assert feed.source == ""
    feed.run(60, redfish=(30, lambda: bmc(1000)), **rest)
    assert feed.source == "redfish system"
    assert feed.values[NODE] == 120_000 + 30_000
    assert feed.values[CHANGES] == 0, "it is the same"


def test_a_slow_meter_is_not_taken_for_a_silent_one() -> None:
    feed = Feed()
    rest = {"gpu_nvidia": (1, lambda: gpu(920 * feed.now))}
    feed.run(3601, redfish=(600, lambda: bmc(1000)), **rest)
    assert feed.source == "redfish system"
    assert feed.values[NODE] == pytest.approx(1000 * 3600, rel=0.001)
    assert feed.values[GAP] == 0
    assert feed.values[CHANGES] == 1, "from the estimate, when it had answered for long enough"

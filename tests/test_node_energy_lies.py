"""Meters of the node that lie: 0 W, GPUs left out, stuck values, garbage, missing supplies."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.energy_feed import (
    CHANGES,
    EXCESS,
    GAP,
    INPUT,
    NODE,
    POWER,
    RATIO,
    SPLIT,
    Feed,
    energy,
    gpu,
    power,
)

from telemetryd.derivation import EnergyConfig
from telemetryd.metric import Point

HOUR = 3600
NO_ESTIMATE = EnergyConfig(estimate=False)


def bmc(watts: float) -> list[Point]:
    return [power("redfish", watts)]


@pytest.mark.parametrize("watts", [0.0, -5.0, 4_294_967.295, 1e12])
def test_what_no_node_can_draw_is_no_reading(watts: float) -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(60, redfish=(30, lambda: bmc(1000)))
    before = feed.values
    feed.clock.tick(30)
    feed.give(bmc(watts))
    assert feed.values[NODE] == before[NODE]
    feed.clock.tick(30)
    assert feed.give(bmc(1000))[NODE] == before[NODE] + 60_000, "the good readings are joined"


@pytest.mark.parametrize("joules", [1e15, -3.0])
def test_a_counter_that_jumps_is_believed_from_there_on_only(joules: float) -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(60, redfish=(30, lambda: [energy("redfish", 1000 * feed.now)]))
    before = feed.values[NODE]
    feed.clock.tick(30)
    feed.give([energy("redfish", joules)])
    feed.clock.tick(30)
    assert feed.give([energy("redfish", joules + 30_000)])[NODE] == before + 30_000


def test_a_meter_that_answers_0_watts_is_not_taken() -> None:
    feed = Feed()
    feed.run(
        600, redfish=(30, lambda: bmc(0)), gpu_nvidia=(1, lambda: gpu(500 * feed.now))
    )  # Supermicro X10
    assert feed.source == "estimate devices"


def test_a_counter_that_stands_still_is_left_like_one_that_is_silent() -> None:
    feed = Feed()

    def stuck() -> list[Point]:
        return [energy("redfish", min(feed.now, 120) * 1000), power("redfish", 1000)]

    feed.run(390, redfish=(30, stuck))
    assert feed.source == "redfish psu_input"
    feed.run(60, redfish=(30, stuck))
    assert feed.source == "redfish system"


def test_a_power_that_is_the_same_to_the_last_digit_while_the_devices_move_is_left() -> None:
    feed = Feed()
    watts = [0.0]

    def devices() -> list[Point]:
        watts[0] += 400 if int(feed.now / 40) % 2 else 900
        return gpu(watts[0], 0.5)

    feed.run(290, redfish=(30, lambda: bmc(1200)), gpu_nvidia=(1, devices))
    assert feed.source == "redfish system"
    feed.run(120, redfish=(30, lambda: bmc(1200)), gpu_nvidia=(1, devices))
    assert feed.source == "estimate devices"
    assert feed.values[CHANGES] == 1


def test_a_steady_node_has_a_steady_meter() -> None:
    feed = Feed()
    feed.run(900, redfish=(30, lambda: bmc(1200)), gpu_nvidia=(1, lambda: gpu(900 * feed.now, 0.5)))
    assert feed.source == "redfish system"


def test_a_board_that_leaves_out_the_gpus_is_left_after_five_minutes_for_an_hour() -> None:
    feed = Feed()
    readings = {
        "redfish": (30, lambda: bmc(300 + feed.now % 7)),
        "gpu_nvidia": (1, lambda: gpu(700 * feed.now, 0.9)),
    }
    feed.run(241, **readings)
    assert feed.source == "redfish system"
    assert feed.values[EXCESS] == pytest.approx(400 * 180, rel=0.03)
    assert RATIO % "it" not in feed.values, "no ratio of what is wrong"
    feed.run(210, **readings)
    assert feed.source == "estimate devices"
    feed.run(HOUR - 120, **readings)
    assert feed.source == "estimate devices"
    feed.run(180, **readings)
    assert feed.source == "redfish system"
    assert feed.values[CHANGES] == 2


# Counters that count in large steps


def test_windows_of_a_counter_that_counts_in_large_steps_are_long_enough_for_that() -> None:
    """By hundredths of a kWh: at 500 W one in 72 s, so that a minute has one of them, or none."""
    feed = Feed(EnergyConfig(idle_watts={"gpu *": 100}, estimate=False))

    def counter() -> list[Point]:
        return [energy("redfish", 500 * feed.now // 36_000 * 36_000)]

    devices = {"gpu_nvidia": (1, lambda: gpu(420 * feed.now, 0.9, 1))}
    feed.run(4000, redfish=(30, counter), **devices)
    assert feed.source == "redfish psu_input"
    assert feed.values[EXCESS] == 0
    assert feed.values[INPUT] >= 50 * 36_000
    overhead = feed.values[SPLIT % "overhead"] / feed.values[INPUT]
    assert overhead == pytest.approx(80 / 500, abs=0.02)


def test_a_counter_that_stands_still_now_and_then_has_windows_of_a_minute() -> None:
    feed = Feed(EnergyConfig(idle_watts={"gpu *": 100}, estimate=False))

    def hangs_for_a_while() -> list[Point]:
        since = feed.now % 2000
        return [energy("redfish", 500 * (feed.now - max(0, since - 300) * (since < 365)))]

    devices = {"gpu_nvidia": (1, lambda: gpu(420 * feed.now, 0.9, 1))}
    for until in (605, 4800):
        feed.run(until - feed.now, redfish=(30, hangs_for_a_while), **devices)
        assert feed.values[INPUT] >= 500 * (until - 120)


# Power supplies that come and go


def supplies(*watts: float | None) -> list[Point]:
    return [
        power("redfish", one, "psu_input", str(number))
        for number, one in enumerate(watts)
        if one is not None
    ]


def test_a_supply_that_cannot_be_read_does_not_halve_the_power() -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(60, redfish=(30, lambda: supplies(500, 500)))
    feed.run(60, redfish=(30, lambda: supplies(500, None)))
    assert POWER not in feed.values or feed.values[POWER] == 1000
    feed.run(30, redfish=(30, lambda: supplies(500, 500)))
    assert feed.values[NODE] == 120_000
    assert feed.values[GAP] == 0


def test_a_supply_that_stays_unreadable_makes_the_next_source_the_better_one() -> None:
    feed = Feed()

    def one_of_two() -> list[Point]:
        return [*supplies(500, None), power("redfish", 990)]

    feed.run(90, redfish=(30, lambda: [*supplies(500, 500), power("redfish", 990)]))
    feed.run(360, redfish=(30, one_of_two))
    assert feed.source == "redfish system"
    assert feed.values[POWER] == 990


def test_a_supply_whose_load_the_other_took_over_is_no_failure() -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(60, redfish=(30, lambda: supplies(500, 500)))
    feed.run(60, redfish=(30, lambda: supplies(970, None)))
    assert feed.values[POWER] == 970
    feed.run(60, redfish=(30, lambda: supplies(480, 500)))
    assert feed.values[POWER] == 980
    assert feed.values[GAP] == 0


def test_a_supply_that_was_pulled_is_no_longer_waited_for_after_an_hour() -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(60, redfish=(30, lambda: supplies(500, 500)))
    feed.run(HOUR + 200, redfish=(30, lambda: supplies(700, None)))
    assert feed.values[POWER] == 700


def test_counters_of_supplies_bridge_the_time_in_which_one_could_not_be_read() -> None:
    feed = Feed(NO_ESTIMATE)

    def counters(*, second: bool = True) -> list[Point]:
        found = [energy("redfish", 500 * feed.now, device=str(number)) for number in range(2)]
        return found if second else found[:1]

    feed.run(60, redfish=(30, counters))
    feed.run(120, redfish=(30, lambda: counters(second=False)))
    feed.run(30, redfish=(30, counters))
    assert feed.values[NODE] == 1000 * 150
    assert feed.values[GAP] == 0


# Always


events = st.lists(
    st.tuples(
        st.sampled_from([1, 5, 30, 31, 100, 400, 4000]),
        st.sampled_from(["bmc", "counter", "psu", "ipmi", "gpu"]),
        st.floats(-100, 1e6) | st.floats(500, 1500),
        st.booleans(),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(events)
def test_whatever_meters_say_the_counters_never_fall_and_no_power_is_beyond_reason(
    story: list[tuple[int, str, float, bool]],
) -> None:
    feed = Feed()
    used = 0.0
    for after, what, value, second in story:
        feed.clock.tick(after)
        used += max(0.0, value)
        if what == "bmc":
            feed.give(bmc(value))
        elif what == "counter":
            feed.give([energy("redfish", value)])
        elif what == "psu":
            feed.give(supplies(value, value if second else None), "redfish")
        elif what == "ipmi":
            feed.give([power("ipmi", value)], "ipmi")
        else:
            feed.give(gpu(used), "gpu_nvidia", 30)
    for before, now in pairwise(feed.history):
        for name in (NODE, GAP, CHANGES, EXCESS):
            assert now.get(name, 0.0) >= before.get(name, 0.0), name
        assert 0 <= now.get(POWER, 0.0) <= 200_000

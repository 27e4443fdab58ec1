"""The input energy of the node: which meter is believed, when that changes, and what is missing."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.energy_feed import (
    CHANGES,
    EXCESS,
    GAP,
    NODE,
    POWER,
    RATIO,
    Feed,
    component,
    energy,
    gpu,
    power,
)

from telemetryd import meters
from telemetryd.derivation import EnergyConfig
from telemetryd.metric import Point

HOUR = 3600
NO_ESTIMATE = EnergyConfig(estimate=False)


def bmc(watts: float) -> list[Point]:
    return [power("redfish", watts)]


def info(source: str, domain: str, boundary: str = "enclosing", estimated: str = "false") -> str:
    return (
        f'telemetryd_node_energy_source_info{{source="{source}",domain="{domain}",'
        f'boundary="{boundary}",estimated="{estimated}"}}'
    )


# Which one


ALL = (
    ("redfish psu_input", "redfish", lambda t: [energy("redfish", 1000 * t)]),
    ("redfish system", "redfish", lambda t: [energy("redfish", 1000 * t, "system")]),
    ("redfish psu_input", "redfish", lambda _: [power("redfish", 1000, "psu_input")]),
    ("redfish system", "redfish", lambda _: bmc(1000)),
    ("ipmi system", "ipmi", lambda _: [power("ipmi", 1000)]),
    ("hwmon psu_input", "hwmon_power", lambda _: [power("hwmon", 1000, "pin")]),
    ("hwmon system", "hwmon_power", lambda t: [energy("hwmon", 1000 * t, "energy1")]),
    ("hwmon system", "hwmon_power", lambda _: [power("hwmon", 1000, "power1")]),
    ("estimate devices", "gpu_nvidia", lambda t: gpu(500 * t)),
)


@pytest.mark.parametrize("first", range(len(ALL)))
def test_the_first_that_is_there_is_taken(first: int) -> None:
    feed = Feed()
    for _ in range(5):
        feed.clock.tick(30)
        batches: dict[str, list[Point]] = {}
        for _, collector, read in ALL[first:]:
            batches.setdefault(collector, []).extend(read(feed.now))
        for collector, points in batches.items():
            feed.give(points, collector)
    assert feed.source == ALL[first][0]
    is_estimate = first == len(ALL) - 1
    told = info(*feed.source.split(), *(("component", "true") if is_estimate else ()))
    assert feed.values[told] == 1
    expected = 500 / 0.92 if is_estimate else 1000
    assert feed.values[POWER] == pytest.approx(expected)
    assert feed.values[CHANGES] == 0, "the search in the first two minutes is no change"


def test_meters_that_do_not_see_the_whole_node_are_not_taken() -> None:
    feed = Feed(NO_ESTIMATE)
    for _ in range(20):
        feed.clock.tick(30)
        parts = [
            (meters.POWER.at("ipmi", "system", "bmc", "subcomponent"), 800.0),
            (meters.POWER.at("redfish", "psu_input", "0", "subcomponent"), 800.0),
            (meters.POWER.at("nvml", "module", "0", "enclosing"), 800.0),
            (meters.ENERGY.at("rapl", "psys", "0", "enclosing"), 800.0 * feed.now),
            power("redfish", 800, "psu_output"),
            power("hwmon", 800, "pout1"),
        ]
        feed.give(parts)
    assert feed.source == ""
    assert NODE not in feed.values


def test_two_power_supplies_are_added_up() -> None:
    feed = Feed()
    both = [power("redfish", watts, "psu_input", str(n)) for n, watts in enumerate((400.0, 500.0))]
    feed.run(120, redfish=(30, lambda: both))
    assert feed.values[POWER] == 900
    assert feed.values[NODE] == pytest.approx(900 * 90)


def test_pmbus_outputs_are_not_added_to_the_inputs() -> None:
    feed = Feed()
    supply = [
        power("hwmon", 900, "pin"),
        power("hwmon", 400, "pout1"),
        power("hwmon", 440, "pout2"),
    ]
    feed.run(61, hwmon_power=(1, lambda: supply))
    assert feed.values[POWER] == 900


def test_the_supplies_output_over_input_is_an_efficiency_of_the_window() -> None:
    feed = Feed()

    def supplies() -> list[Point]:
        return [
            power("redfish", 500, "psu_input", "0"),
            power("redfish", 460, "psu_output", "0"),
            power("redfish", 400, "psu_input", "1"),
            power("redfish", 360, "psu_output", "1"),
            power("redfish", 100, "psu_input", "2"),
        ]

    feed.run(200, redfish=(30, supplies), gpu_nvidia=(1, lambda: gpu(500 * feed.now)))
    assert feed.values[RATIO % "psu"] == pytest.approx(820 / 900), "of those that meter both"


# Energy


def test_a_power_is_integrated_between_its_readings() -> None:
    feed = Feed()
    readings = iter([1000.0, 1200.0, 800.0])
    feed.run(90, redfish=(30, lambda: bmc(next(readings))))
    assert feed.values[NODE] == (1000 + 1200) / 2 * 30 + (1200 + 800) / 2 * 30


def test_a_gap_of_more_than_three_intervals_is_not_integrated_but_counted() -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(60, redfish=(30, lambda: bmc(1000)))
    feed.clock.tick(90)
    assert feed.give(bmc(1000))[NODE] == 30_000 + 90_000
    feed.clock.tick(91)
    values = feed.give(bmc(1000))
    assert values[NODE] == 30_000 + 90_000
    assert values[GAP] == 91
    feed.clock.tick(30)
    assert feed.give(bmc(1000))[NODE] == 30_000 + 90_000 + 30_000


def test_an_energy_counter_has_no_gap_but_its_resets() -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(60, redfish=(30, lambda: [energy("redfish", 5e6 + 1000 * feed.now)]))
    feed.clock.tick(200)
    assert feed.give([energy("redfish", 5e6 + 260_000)])[NODE] == 200_000, "from the second on"
    feed.clock.tick(30)
    values = feed.give([energy("redfish", 7.0)])
    assert values[NODE] == 200_000
    assert values[GAP] == 30, "the BMC began again"
    assert POWER not in values
    feed.clock.tick(30)
    assert feed.give([energy("redfish", 7.0 + 29_000)])[NODE] == 229_000


def test_a_wrap_of_a_counter_is_a_gap_and_nothing_else() -> None:
    feed = Feed(NO_ESTIMATE)
    top = 2**32
    readings = iter([top - 70_000, top - 40_000, top - 10_000, 20_000.0, 50_000.0])
    feed.run(150, redfish=(30, lambda: [energy("redfish", next(readings))]))
    assert feed.values[NODE] == 30_000 + 30_000
    assert feed.values[GAP] == 30


def test_a_suspended_machine_has_neither_a_jump_nor_a_negative_step() -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(90, redfish=(30, lambda: bmc(1000)))
    feed.clock.step_wall(8 * HOUR)  # the monotonic clock stood still
    feed.run(30, redfish=(30, lambda: bmc(1000)))
    assert feed.values[NODE] == 90_000
    feed.clock.tick(8 * HOUR)  # a virtual machine, where it did not
    feed.run(30, redfish=(30, lambda: bmc(1000)))
    assert feed.values[NODE] <= 120_000
    assert feed.values[GAP] >= 8 * HOUR


# Meters that lie


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


# Change


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


# The estimate


def test_the_estimate_is_devices_and_other_watts_over_the_efficiency() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=0.8, other_watts=100))

    def cpus() -> list[Point]:
        return [
            component("rapl", 150 * feed.now, "package"),
            component("rapl", 50 * feed.now, "dram"),
        ]

    feed.run(101, gpu_nvidia=(1, lambda: gpu(500 * feed.now)), rapl=(1, cpus))
    assert feed.values[POWER] == pytest.approx((500 + 200 + 100) / 0.8)
    assert feed.values[NODE] == pytest.approx(1000 * 99, rel=0.02)
    assert feed.values[info("estimate", "devices", "component", "true")] == 1


def test_the_estimate_can_be_switched_off() -> None:
    feed = Feed(NO_ESTIMATE)
    feed.run(100, gpu_nvidia=(1, lambda: gpu(500 * feed.now)))
    assert feed.source == ""
    assert NODE not in feed.values


def test_meters_that_are_read_a_moment_apart_give_no_wild_power() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=1.0))
    for _ in range(50):
        feed.clock.tick(0.998)
        feed.give(gpu(500 * feed.now), "gpu_nvidia", 1.0)
        feed.clock.tick(0.002)
        feed.give([component("rapl", 200 * feed.now, "package")], "rapl", 1.0)
        if len(feed.history) > 2:
            assert feed.values[POWER] == pytest.approx(700)


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

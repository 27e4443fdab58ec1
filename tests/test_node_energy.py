"""The input energy of the node: which meter is believed, when that changes, and what is missing."""

from __future__ import annotations

import pytest
from support.energy_feed import (
    CHANGES,
    GAP,
    NODE,
    POWER,
    RATIO,
    Feed,
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
    ("redfish psu_output", "redfish", lambda _: [power("redfish", 920, "psu_output")]),
    ("hwmon psu_output", "hwmon_power", lambda _: [power("hwmon", 920, "pout1")]),
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
    is_of_devices = first == len(ALL) - 1
    is_estimate = is_of_devices or "output" in feed.source
    boundary = "component" if is_of_devices else "enclosing"
    assert feed.values[info(*feed.source.split(), boundary, str(is_estimate).lower())] == 1
    expected = 500 / 0.92 if is_of_devices else 1000
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

"""The input energy of a node without a meter of it: from what its power supplies give, or from its
devices."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError
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
    Reading,
    component,
    gpu,
    power,
)

from telemetryd import meters
from telemetryd.derivation import EnergyConfig
from telemetryd.metric import Point

ESTIMATED = (
    'telemetryd_node_energy_source_info{source="%s",domain="%s",boundary="%s",estimated="true"}'
)


# From the power supplies


def hpe(*watts: float) -> list[Point]:
    """What the supplies of an HPE machine give; of what they take its BMC tells nothing."""
    return [power("redfish", one, "psu_output", str(n)) for n, one in enumerate(watts)]


def test_what_the_supplies_give_over_their_efficiency_is_an_estimate_of_what_they_take() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=0.94, idle_watts={"gpu *": 100}))
    readings: dict[str, tuple[float, Reading]] = {
        "redfish": (30, lambda: hpe(222, 200, 86, 57)),
        "gpu_nvidia": (1, lambda: gpu(300 * feed.now, 0.9, 1)),
    }
    feed.run(200, **readings)
    assert feed.source == "redfish psu_output"
    assert feed.values[ESTIMATED % ("redfish", "psu_output", "enclosing")] == 1
    assert feed.values[POWER] == pytest.approx(565 / 0.94)
    before = feed.values
    feed.run(240, **readings)
    step = {name: feed.values[name] - before[name] for name in (NODE, INPUT, SPLIT % "overhead")}
    assert step == pytest.approx(
        {
            NODE: 565 / 0.94 * 240,
            INPUT: 565 / 0.94 * 240,
            SPLIT % "overhead": (565 / 0.94 - 300) * 240,
        }
    )
    assert RATIO % "psu" not in feed.values, "what was assumed is not measured"


def test_supplies_that_give_less_than_the_devices_use_are_an_error_and_left() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=0.94))
    readings: dict[str, tuple[float, Reading]] = {
        "redfish": (30, lambda: hpe(200 + feed.now % 7)),
        "gpu_nvidia": (1, lambda: gpu(500 * feed.now, 0.9, 1)),
    }
    feed.run(500, **readings)
    assert feed.values[EXCESS] > 0
    assert feed.source == "estimate devices"
    assert feed.values[CHANGES] == 1


def test_a_meter_of_the_input_stands_before_the_supplies_output() -> None:
    feed = Feed()
    both = [*hpe(500), power("hwmon", 560, "power1")]
    feed.run(120, redfish=(30, lambda: both))
    assert feed.source == "hwmon system"


def test_estimates_can_be_switched_off() -> None:
    feed = Feed(EnergyConfig(estimate=False))
    feed.run(100, gpu_nvidia=(1, lambda: gpu(500 * feed.now)), redfish=(30, lambda: hpe(500)))
    assert feed.source == ""
    assert NODE not in feed.values


# From the devices


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
    assert feed.values[ESTIMATED % ("estimate", "devices", "component")] == 1


def test_counters_bridge_a_time_in_which_devices_could_not_be_read() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=0.8, other_watts=100))
    readings: dict[str, tuple[float, Reading]] = {
        "rapl": (1, lambda: [component("rapl", 200 * feed.now, "package")]),
        "gpu_nvidia": (1, lambda: gpu(500 * feed.now)),
    }
    feed.run(100, **readings)
    before = feed.values[NODE]
    feed.run(60, rapl=readings["rapl"])
    feed.run(2, **readings)
    assert feed.values[NODE] - before == pytest.approx(1000 * 62)
    feed.run(60)
    feed.run(2, **readings)
    assert feed.values[NODE] - before == pytest.approx(1000 * 124)
    assert feed.values[GAP] == 0


def test_a_time_whose_energy_the_devices_do_not_tell_is_a_gap() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=0.8))
    gpu_j = cpu_j = 0.0

    def readings(gpu_w: float) -> dict[str, tuple[float, Reading]]:
        return {
            "rapl": (1, lambda: [component("rapl", cpu_j + 200 * feed.now, "package")]),
            "gpu_nvidia": (1, lambda: gpu(gpu_j + gpu_w * feed.now)),
        }

    feed.run(100, **readings(500))
    before = feed.values[NODE]
    feed.run(60, rapl=readings(500)["rapl"])
    gpu_j = -500 * feed.now  # the driver was loaded again
    feed.run(2, **readings(500))
    assert feed.values[GAP] == 61
    lost_j = 500 / 0.8 * 61
    assert feed.values[NODE] - before == pytest.approx(700 / 0.8 * 62 - lost_j)
    feed.run(40)
    gpu_j = cpu_j = -2000 * feed.now
    feed.run(2, **readings(1000))
    assert feed.values[GAP] == pytest.approx(61 + 41), "of both, but it is one time"


def test_powers_do_not_bridge_a_time_in_which_nobody_looked() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=1.0))
    card = [(meters.POWER.at("nvml", "gpu", "0", "component"), 500.0)]
    readings: dict[str, tuple[float, Reading]] = {"gpu_nvidia": (1, lambda: card)}
    feed.run(101, **readings)
    feed.run(60)
    feed.run(101, **readings)
    assert feed.values[NODE] == pytest.approx(500 * 200)
    assert feed.values[GAP] == 61


def test_meters_that_are_read_a_moment_apart_give_no_wild_power() -> None:
    feed = Feed(EnergyConfig(psu_efficiency=1.0))
    for _ in range(50):
        feed.clock.tick(0.998)
        feed.give(gpu(500 * feed.now), "gpu_nvidia", 1.0)
        feed.clock.tick(0.002)
        feed.give([component("rapl", 200 * feed.now, "package")], "rapl", 1.0)
        if len(feed.history) > 2:
            assert feed.values[POWER] == pytest.approx(700)


def test_the_windows_of_an_estimate_have_each_device_as_of_their_edges() -> None:
    """Packages are read every 10 s, and their load steps at will: none of that is overhead."""
    idle = {"gpu *": 50.0, "cpu *": 50.0}
    feed = Feed(EnergyConfig(psu_efficiency=0.8, other_watts=100, idle_watts=idle))
    cpu_j = 0.0

    def cpus() -> list[Point]:
        nonlocal cpu_j
        cpu_j += 10 * (100 + feed.now * 7 % 300)
        return [component("rapl", cpu_j, "package")]

    feed.run(400, gpu_nvidia=(1, lambda: gpu(500 * feed.now, 0.9, 1)), rapl=(10, cpus))
    values = feed.values
    overhead_j, whole_j = values[SPLIT % "overhead"], values[INPUT]
    seconds = 60.0 * round((overhead_j - 0.2 * whole_j) / (100 * 60))
    assert seconds >= 240
    assert overhead_j == pytest.approx(0.2 * whole_j + 100 * seconds)
    assert whole_j <= values[NODE]


@pytest.mark.parametrize(
    "setting", ["psu_efficiency", "other_watts", "budget_watts", "pue", "price_per_kwh"]
)
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -1.0])
def test_what_is_no_finite_number_is_refused(setting: str, value: float) -> None:
    with pytest.raises(ValidationError, match=setting):
        EnergyConfig.model_validate({setting: value})


def test_an_efficiency_that_no_supply_has_is_refused() -> None:
    with pytest.raises(ValidationError, match="psu_efficiency"):
        EnergyConfig(psu_efficiency=1e-300)

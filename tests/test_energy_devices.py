"""Devices that come, go and change their number, and what was told of them long ago."""

from __future__ import annotations

from itertools import pairwise

import pytest
from support.energy_feed import (
    SPLIT,
    UNATTRIBUTED,
    Feed,
    Reading,
    component,
    energy,
    gpu,
    power,
)
from support.energy_node import IDLE_WATTS, SYSTEM, EnergyNode, job
from support.trees import named

from telemetryd import gpus, meters
from telemetryd.derivation import EnergyConfig
from telemetryd.derived.balance import split
from telemetryd.derived.balance.results import Results
from telemetryd.metric import Point

PCI = "0000:c1:00.0"
IDLE_POWER = 'telemetryd_energy_idle_power_watts{device_kind="gpu",device="%s"}'
OF_JOB = 'telemetryd_owner_energy_joules_total{owner_kind="job",owner="7"}'


def nvidia(uuid: str, joules: float) -> list[Point]:
    facts = ("0", "nvidia", "NVIDIA H100", "hopper", "", "", "0", "0")
    return [(gpus.INFO.at("0", uuid, *facts), 1), component("nvml", joules)]


def test_a_number_that_another_gpu_has_now_brings_that_ones_idle_power() -> None:
    feed = Feed()
    feed.balance.restore({"GPU-a": {"70": 600.0}, "GPU-b": {"110": 600.0}})
    feed.run(5, gpu_nvidia=(1, lambda: nvidia("GPU-a", 300 * feed.now)))
    assert feed.values[IDLE_POWER % "0"] == pytest.approx(70, abs=1)
    feed.run(5, gpu_nvidia=(1, lambda: nvidia("GPU-b", 300 * feed.now)))
    assert feed.values[IDLE_POWER % "0"] == pytest.approx(110, abs=1)


# A card whose meter and activity come from two collectors


def card(owner: str = "") -> list[Point]:
    facts = ("", "amd", "MI300X", "", PCI, "", "128", "0")
    points: list[Point] = [
        (gpus.INFO.at("card1", "u", *facts), 1),
        (gpus.BUSY.at("card1", "u"), 0.8),
        (gpus.PROCESSES.at("card1", "u"), 1),
    ]
    if owner:
        points.append((gpus.OWNER_PROCESSES.at("card1", "u", "job", owner), 1))
    return points


def board() -> list[Point]:
    return [(meters.POWER.at("hwmon", "PPT", PCI, "component"), 440.0), power("hwmon", 800.0)]


@pytest.mark.parametrize("first", ["gpu_amd", "hwmon_power"])
def test_what_was_learned_of_a_card_is_found_whichever_collector_comes_first(first: str) -> None:
    feed = Feed()
    feed.balance.restore({f"gpu {PCI}": {"40": 600.0}})
    readings: dict[str, Reading] = {"gpu_amd": card, "hwmon_power": board}
    for name in (first, *(readings.keys() - {first})):
        feed.give(readings[name](), name, 1)
    feed.run(3, gpu_amd=(1, card), hwmon_power=(1, board))
    assert feed.values[IDLE_POWER % PCI] == pytest.approx(40, abs=1)


def test_nobody_pays_for_a_card_of_which_nothing_was_told_for_long() -> None:
    feed = Feed(EnergyConfig(idle_watts={"gpu *": 40}, estimate=False))
    feed.run(100, gpu_amd=(1, lambda: card("7")), hwmon_power=(1, board))
    assert feed.values[OF_JOB] == pytest.approx(800 * 60)
    feed.run(600, hwmon_power=(1, board))
    assert feed.values[OF_JOB] < 800 * 140
    assert feed.values[UNATTRIBUTED] > 800 * 400


# Jobs that hold a GPU, and owners' readings that stopped


def test_nobody_holds_a_gpu_by_what_was_told_of_jobs_long_ago() -> None:
    node = EnergyNode(gpu_count=1, config=EnergyConfig(idle_watts=IDLE_WATTS))
    node.compute(SYSTEM, 1.0)
    node.compute(job(7), 4.0)
    node.gpus[0].jobs.add(job(7))
    node.run(100)
    node.silent.add("owners")
    node.run(100)
    held = node.value(SPLIT % "allocated_idle")
    node.run(200)
    assert node.value(SPLIT % "allocated_idle") == held
    assert node.value(SPLIT % "unallocated") > 0
    node.assert_adds_up()


# Rounding


def test_unattributed_energy_does_not_fall_by_rounding() -> None:
    """Parts of which the sum is not quite the whole: seen as a reset, that would count again all
    there is."""
    results = Results()
    results.add(split.Window(60.0, 1000.0, 0.0), frozenset())
    seen = [named(results.points())[UNATTRIBUTED]]
    for count in range(2, 60):
        owners = {job(number): 3e5 / count for number in range(count)}
        results.add(split.Window(60.0, 3e5, 3e5, {}, owners), frozenset(owners))
        seen.append(named(results.points())[UNATTRIBUTED])
    assert all(before <= now for before, now in pairwise(seen))
    assert seen[-1] == 1000.0


def test_a_gpu_that_was_away_is_counted_from_its_return() -> None:
    feed = Feed(EnergyConfig(idle_watts={"gpu *": 100}, estimate=False))
    node: dict[str, tuple[float, Reading]] = {
        "redfish": (30, lambda: [energy("redfish", 500 * feed.now)]),
        "gpu_nvidia": (1, lambda: gpu(300 * feed.now, 0.9, 1)),
    }
    away: dict[str, tuple[float, Reading]] = {"redfish": node["redfish"]}
    feed.run(130, **node)
    before = feed.values
    feed.run(300, **away)
    feed.run(300, **node)
    for name in (SPLIT % state for state in ("dynamic", "floor", "overhead")):
        assert feed.values[name] > before[name]
    assert feed.values[SPLIT % "dynamic"] == pytest.approx(2 * feed.values[SPLIT % "floor"])

"""Where the input energy of the node went: five states that add up, over closed windows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.energy_feed import (
    EXCESS,
    EXCESS_TIME,
    INPUT,
    NODE,
    RATIO,
    SPLIT,
    UNATTRIBUTED,
    Feed,
    Reading,
    Watched,
    component,
    cpu_share,
    energy,
    gpu,
    power,
)

from telemetryd import gpus, meters
from telemetryd.derivation import EnergyConfig
from telemetryd.derived.balance.families import STATES
from telemetryd.metric import Point

IDLE = EnergyConfig(idle_watts={"gpu *": 100, "cpu *": 50}, estimate=False)
DEFINITIONS = ("productive", "active", "it", "psu")


def states(feed: Feed) -> dict[str, float]:
    return {state: feed.values[SPLIT % state] for state in STATES}


def test_each_device_is_in_the_state_of_what_it_did() -> None:
    node = Watched(IDLE)
    node.run(90 + 6)
    assert states(node.feed) == pytest.approx(
        {
            "dynamic": 200 * 60 + 70 * 60,
            "floor": 100 * 60 + 50 * 60,
            "allocated_idle": 0,
            "unallocated": 0,
            "overhead": 80 * 60,
        }
    )
    assert node.feed.values[RATIO % "productive"] == pytest.approx(270 / 500)
    assert node.feed.values[RATIO % "active"] == pytest.approx(420 / 500)
    assert node.feed.values[RATIO % "it"] == pytest.approx(420 / 500)


@pytest.mark.parametrize(
    ("processes", "jobs", "held", "free"),
    [(0, [], 0, 420), (1, [], 300, 120), (0, ["7"], 120, 300), (1, ["7"], 420, 0)],
    ids=["nobody", "process-on-gpu", "job-on-node", "both"],
)
def test_what_does_nothing_is_allocated_if_somebody_holds_it_else_unallocated(
    processes: int, jobs: list[str], held: float, free: float
) -> None:
    node = Watched(IDLE)
    node.gpu_share = node.cpu_share = 0.02
    node.processes, node.jobs = processes, jobs
    node.run(156 + 6)
    assert states(node.feed)["allocated_idle"] == pytest.approx(held * 120)
    assert states(node.feed)["unallocated"] == pytest.approx(free * 120)
    assert states(node.feed)["dynamic"] == 0


@pytest.mark.parametrize(("share", "is_active"), [(0.0499, False), (0.05, True)])
def test_five_percent_is_active(share: float, is_active: bool) -> None:
    node = Watched(IDLE)
    node.gpu_share = share
    node.run(96)
    assert (states(node.feed)["dynamic"] > 70 * 60 + 1) == is_active


def test_a_busy_device_below_its_idle_power_has_no_dynamic_energy() -> None:
    node = Watched(IDLE)
    node.gpu_w, node.cpu_w = 60, 30
    node.run(96)
    assert states(node.feed)["floor"] == pytest.approx(90 * 60)
    assert states(node.feed)["dynamic"] == 0


def test_800_of_1000_kwh_are_an_efficiency_of_80_percent() -> None:
    node = Watched(EnergyConfig(idle_watts={"gpu *": 0.001, "cpu *": 0.001}, estimate=False))
    node.gpu_w, node.cpu_w, node.other_w = 7_000, 1_000, 2_000
    node.run(96)
    assert node.feed.values[RATIO % "productive"] == pytest.approx(800 / 1000, abs=1e-6)


def test_an_idle_tray_is_all_overhead_and_devices_that_nobody_has() -> None:
    feed = Feed()
    gpu_watts, cpu_watts, input_w = (232.168, 238.654, 242.523, 240.424), (86.664, 90.502), 1361.53

    def gpus_idle() -> list[Point]:
        return [
            point
            for number, watts in enumerate(gpu_watts)
            for point in gpu(watts * feed.now, 0.0, 0, str(number))
        ]

    def packages() -> list[Point]:
        return [
            component("rapl", watts * feed.now, "package", str(number))
            for number, watts in enumerate(cpu_watts)
        ]

    tray: dict[str, tuple[float, Reading]] = {
        "cpu": (1, lambda: cpu_share(0.001)),
        "rapl": (1, packages),
        "gpu_nvidia": (1, gpus_idle),
        "redfish": (30, lambda: [power("redfish", input_w)]),
    }
    feed.run(425, **tray)
    before = states(feed) | {"input": feed.values[INPUT]}
    feed.run(60, **tray)
    values = feed.values
    assert values[RATIO % "productive"] == 0
    assert values[RATIO % "active"] == 0
    assert values[RATIO % "it"] == pytest.approx(0.8306, abs=5e-5)
    assert states(feed)["overhead"] - before["overhead"] == pytest.approx(230.595 * 60, rel=1e-6)
    assert values[INPUT] - before["input"] == pytest.approx(input_w * 60)
    assert states(feed)["unallocated"] == pytest.approx(values[INPUT] - states(feed)["overhead"])
    assert values[UNATTRIBUTED] == pytest.approx(values[INPUT])


# Windows


def test_a_step_of_the_load_at_the_edge_of_a_window_lies_nowhere() -> None:
    """The edge of the window is in the middle of a tick of the GPU: the tick is divided there."""
    feed = Feed(IDLE)
    gpu_j = 0.0

    def tick(watts: float, at: float) -> None:
        nonlocal gpu_j
        feed.clock.tick(at - feed.now)
        gpu_j += watts
        feed.give(gpu(gpu_j, 0.9, 1), "gpu_nvidia", 1)

    def bmc(joules: float, at: float) -> None:
        feed.clock.tick(at - feed.now)
        feed.give([energy("redfish", joules)])

    tick(0, 0.5)
    bmc(1e6, 1.0)
    for second in range(1, 31):
        tick(100, second + 0.5)
    bmc(1e6 + 30 * 150, 31.0)
    for second in range(31, 91):
        tick(100, second + 0.5)
    # Since the last tick, half a second ago, it draws 500 W.
    first_j, second_j = 59.5 * 150 + 0.5 * 550, 60 * 550
    bmc(1e6 + 30 * 150 + first_j, 91.0)
    tick(500, 91.5)
    tick(500, 92.5)
    assert feed.values[INPUT] == pytest.approx(first_j)
    assert states(feed)["overhead"] == pytest.approx(60 * 50)
    assert states(feed)["dynamic"] == pytest.approx(0.5 * 400)
    for second in range(93, 151):
        tick(500, second + 0.5)
    bmc(1e6 + 30 * 150 + first_j + second_j, 151.0)
    tick(500, 151.5)
    tick(500, 152.5)
    assert feed.values[INPUT] == pytest.approx(first_j + second_j)
    assert states(feed)["overhead"] == pytest.approx(120 * 50)
    assert states(feed)["dynamic"] == pytest.approx(60.5 * 400)


def test_windows_are_a_minute_or_longer_and_end_where_the_meter_was_read() -> None:
    node = Watched(IDLE)
    seen: set[float] = set()
    for _ in range(400):
        node.run(1)
        seen.add(node.feed.values.get(INPUT, 0.0))
    assert sorted(seen) == pytest.approx([500 * 60 * n for n in range(7)])


def test_the_states_add_up_to_the_input_of_the_windows() -> None:
    node = Watched(IDLE)
    for second in range(700):
        node.gpu_w = 100 + second % 600
        node.gpu_share = (second % 50) / 50
        node.processes = second // 70 % 2
        node.cpu_w, node.cpu_share = 50 + second % 90, (second % 90) / 90
        node.run(1)
        if INPUT in node.feed.values:
            assert sum(states(node.feed).values()) == pytest.approx(node.feed.values[INPUT])
    assert node.feed.values[INPUT] > 0


def test_a_device_that_is_late_is_waited_for_but_not_for_ever() -> None:
    node = Watched(IDLE)
    node.run(89)
    node.lost.add("gpu_nvidia")
    node.run(2)
    node.lost.clear()
    node.run(5)
    assert node.feed.values[INPUT] == pytest.approx(500 * 60)
    assert states(node.feed)["overhead"] == pytest.approx(80 * 60)
    node.run(50)
    node.lost.add("gpu_nvidia")
    node.run(60)
    assert node.feed.values[INPUT] == pytest.approx(500 * 60)
    node.run(30)
    assert node.feed.values[INPUT] == pytest.approx(500 * 120)


def test_a_device_that_is_lost_costs_the_window_in_which_it_was_lost() -> None:
    node = Watched(IDLE)
    node.run(100)
    before = node.feed.values[INPUT]
    node.lost.add("gpu_nvidia")
    node.run(70)
    assert node.feed.values[INPUT] == before, "what the GPU used is not overhead"
    assert RATIO % "it" not in node.feed.values
    node.run(70)
    assert node.feed.values[INPUT] == pytest.approx(before + 500 * 60)
    assert node.feed.values[RATIO % "it"] == pytest.approx(120 / 500)


def test_a_hole_in_the_readings_of_the_nodes_meter_leaves_its_windows_out() -> None:
    feed = Feed(IDLE)

    def watts() -> list[Point]:
        return [power("redfish", 500)]

    def devices() -> list[Point]:
        return gpu(300 * feed.now, 0.9, 1)

    feed.run(155, redfish=(30, watts), gpu_nvidia=(1, devices))
    before = feed.values[INPUT]
    feed.run(200, gpu_nvidia=(1, devices))
    assert RATIO % "it" in feed.values
    feed.run(35, redfish=(30, watts), gpu_nvidia=(1, devices))
    assert RATIO % "it" not in feed.values, "the last window is long ago"
    feed.run(90, redfish=(30, watts), gpu_nvidia=(1, devices))
    assert feed.values[INPUT] == pytest.approx(before + 500 * 60)
    assert feed.values[NODE] > feed.values[INPUT]
    assert feed.values[EXCESS] == 0, "it was not there; it told nothing wrong"


# The boundary


def test_devices_above_the_nodes_meter_are_an_error_and_never_overhead() -> None:
    node = Watched(IDLE)
    node.other_w = -42  # a tenth of what the devices use is missing
    node.run(96)
    assert node.feed.values[EXCESS] == pytest.approx(42 * 60)
    assert node.feed.values[EXCESS_TIME] == pytest.approx(60)
    assert states(node.feed)["overhead"] == 0
    assert sum(states(node.feed).values()) == pytest.approx(node.feed.values[INPUT])
    assert not any(RATIO % name in node.feed.values for name in DEFINITIONS)


def test_two_percent_are_an_error_of_measurement() -> None:
    node = Watched(IDLE)
    node.other_w = -420 * 0.0195
    node.run(96)
    assert node.feed.values[EXCESS] == 0
    assert states(node.feed)["overhead"] == 0
    assert sum(states(node.feed).values()) == pytest.approx(node.feed.values[INPUT])
    assert node.feed.values[RATIO % "it"] == 1


def test_what_encloses_or_is_inside_a_component_is_not_added() -> None:
    node = Watched(IDLE)
    node.more = [
        (meters.POWER.at("nvml", "module", "0", "enclosing"), 900.0),
        (meters.POWER.at("nvml", "memory", "0", "subcomponent"), 90.0),
    ]
    node.run(96)
    assert states(node.feed)["overhead"] == pytest.approx(80 * 60)


def test_a_grace_socket_is_a_cpu_and_a_meter_that_nobody_knows_is_overhead() -> None:
    feed = Feed(EnergyConfig(idle_watts={"cpu *": 50}, estimate=False))

    def board() -> list[Point]:
        return [
            (meters.POWER.at("hwmon", "Grace Power Socket 0", "NVDA1:00", "component"), 120.0),
            (meters.POWER.at("hwmon", "power1", "ina226-0", "component"), 33.0),
            power("hwmon", 800.0, "Module Power Socket 0"),
        ]

    feed.run(100, cpu=(1, lambda: cpu_share(0.5)), hwmon_power=(1, board))
    assert feed.source == "hwmon system"
    assert states(feed)["dynamic"] == pytest.approx(70 * 60)
    assert states(feed)["overhead"] == pytest.approx(680 * 60)


def test_a_card_of_another_maker_is_found_by_its_pci_address() -> None:
    feed = Feed(EnergyConfig(idle_watts={"gpu *": 40}, estimate=False))
    pci = "0000:c1:00.0"
    facts = ("", "amd", "MI300X", "", pci, "", "128", "0")

    def cards() -> list[Point]:
        return [
            (gpus.INFO.at("card1", "u", *facts), 1),
            (gpus.BUSY.at("card1", "u"), 0.8),
            (gpus.PROCESSES.at("card1", "u"), 1),
        ]

    def board() -> list[Point]:
        return [(meters.POWER.at("hwmon", "PPT", pci, "component"), 440.0), power("hwmon", 800.0)]

    feed.run(100, gpu_amd=(1, cards), hwmon_power=(1, board))
    assert states(feed)["dynamic"] == pytest.approx(400 * 60)
    assert states(feed)["floor"] == pytest.approx(40 * 60)
    assert feed.values[f'telemetryd_energy_idle_power_watts{{device_kind="gpu",device="{pci}"}}']


# What is not known


def test_without_idle_power_there_is_no_split_but_the_ratio_that_does_without() -> None:
    node = Watched(EnergyConfig(estimate=False))
    node.run(200)
    assert not any(name.startswith("telemetryd_node_energy_split") for name in node.feed.values)
    assert node.feed.values[RATIO % "it"] == pytest.approx(420 / 500)
    assert RATIO % "productive" not in node.feed.values


def test_a_package_whose_memory_cannot_be_read_for_a_moment_loses_nothing() -> None:
    node = Watched(IDLE)
    rapl, second = node._rapl, 0

    def flaky() -> list[Point]:
        nonlocal second
        second += 1
        return rapl()[: 1 if second % 7 in {2, 3} else 2]

    node._rapl = flaky  # type: ignore[method-assign]
    node.run(160)
    assert states(node.feed)["overhead"] == pytest.approx(80 * 120)


def test_a_gpu_counter_that_was_reset_is_bridged_by_its_power() -> None:
    node = Watched(IDLE)
    node.more = [(meters.POWER.at("nvml", "gpu", "0", "component"), 300.0)]
    node.run(60)
    node.gpu_j = 0.0
    node.run(36)
    assert states(node.feed)["overhead"] == pytest.approx(80 * 60)


def test_under_mig_without_activity_a_gpu_well_above_its_idle_power_is_active() -> None:
    feed = Feed(IDLE)
    watts = 130.0

    def mig() -> list[Point]:
        info, meter, _, processes = gpu(watts * feed.now, 0.0, 1)
        return [info, meter, processes]

    readings: dict[str, tuple[float, Reading]] = {
        "gpu_nvidia": (1, mig),
        "redfish": (30, lambda: [power("redfish", 500)]),
    }
    feed.run(100, **readings)
    assert states(feed)["dynamic"] == pytest.approx(30 * 60)
    assert states(feed)["floor"] == pytest.approx(100 * 60)


loads = st.lists(
    st.tuples(
        st.floats(0, 1000), st.floats(0, 1), st.integers(0, 2),
        st.floats(0, 300), st.floats(0, 1), st.floats(-50, 500), st.integers(1, 50),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(loads)
def test_whatever_the_load_the_states_add_up_and_the_ratios_are_ratios(
    load: list[tuple[float, float, int, float, float, float, int]],
) -> None:
    node = Watched(IDLE)
    for gpu_w, gpu_s, processes, cpu_w, cpu_s, other_w, seconds in load:
        node.gpu_w, node.gpu_share, node.processes = gpu_w, gpu_s, processes
        node.cpu_w, node.cpu_share = cpu_w, cpu_s
        node.other_w = max(other_w, -(gpu_w + cpu_w))
        node.run(seconds)
        values = node.feed.values
        for name in DEFINITIONS:
            assert 0 <= values.get(RATIO % name, 0.0) <= 1
        if INPUT in values:
            assert min(states(node.feed).values()) >= 0
            whole = pytest.approx(values[INPUT], rel=1e-9, abs=1e-6)
            assert sum(states(node.feed).values()) == whole

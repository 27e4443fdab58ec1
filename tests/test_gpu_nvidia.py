"""What a GPU is, and what is read of it on every tick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.gpu_series import only, sampling
from support.gpus import Node
from support.nvml import FakeNvml, Process
from support.trees import host_at, write_tree

from telemetryd.collectors.gpu_nvidia import GpuNvidia

MIB = 1 << 20
# Of an H100 under a burn-in load: what nvidia-smi showed of a real one.
TICK = {
    'gpu_busy_ratio{gpu="0"}': 1.0,
    'gpu_memory_busy_ratio{gpu="0"}': 0.11,
    'gpu_memory_total_bytes{gpu="0"}': 81559 * MIB,
    'gpu_memory_reserved_bytes{gpu="0"}': 479 * MIB,
    'gpu_memory_used_bytes{gpu="0"}': 19818 * MIB,
    'gpu_memory_free_bytes{gpu="0"}': 61262 * MIB,
    'gpu_clock_hertz{gpu="0",clock="graphics"}': 1_980_000_000,
    'gpu_clock_hertz{gpu="0",clock="sm"}': 1_980_000_000,
    'gpu_clock_hertz{gpu="0",clock="memory"}': 2_619_000_000,
    'gpu_clock_hertz{gpu="0",clock="video"}': 1_545_000_000,
    'gpu_temperature_celsius{gpu="0",sensor="gpu"}': 59,
    'gpu_temperature_celsius{gpu="0",sensor="memory"}': 55,
    'gpu_temperature_margin_celsius{gpu="0"}': 26,
    'gpu_temperature_limit_margin_celsius{gpu="0",limit="shutdown"}': -8,
    'gpu_temperature_limit_margin_celsius{gpu="0",limit="slowdown"}': -2,
    'gpu_temperature_limit_margin_celsius{gpu="0",limit="gpu_max"}': 0,
    'gpu_temperature_limit_margin_celsius{gpu="0",limit="memory_max"}': 0,
    'gpu_encoder_busy_ratio{gpu="0"}': 0.0,
    'gpu_decoder_busy_ratio{gpu="0"}': 0.0,
    'gpu_performance_state{gpu="0"}': 0,
    'gpu_pcie_link_generation{gpu="0"}': 5,
    'gpu_pcie_link_width{gpu="0"}': 16,
}
FACTS = {
    'gpu_clock_max_hertz{gpu="0",clock="graphics"}': 1_980_000_000,
    'gpu_clock_max_hertz{gpu="0",clock="sm"}': 1_980_000_000,
    'gpu_clock_max_hertz{gpu="0",clock="memory"}': 2_619_000_000,
    'gpu_clock_max_hertz{gpu="0",clock="video"}': 1_545_000_000,
    'gpu_pcie_link_generation_max{gpu="0"}': 5,
    'gpu_pcie_link_width_max{gpu="0"}': 16,
}
# Everything that is asked of an H100 in a second.
EACH_TICK = {
    "nvmlDeviceGetFieldValues": 2,
    "nvmlDeviceGetUtilizationRates": 1,
    "nvmlDeviceGetMemoryInfo_v2": 1,
    "nvmlDeviceGetClockInfo": 4,
    "nvmlDeviceGetCurrentClocksEventReasons": 1,
    "nvmlDeviceGetTemperatureV": 1,
    "nvmlDeviceGetMarginTemperature": 1,
    "nvmlDeviceGetEncoderUtilization": 1,
    "nvmlDeviceGetDecoderUtilization": 1,
    "nvmlDeviceGetPerformanceState": 1,
    "nvmlDeviceGetCurrPcieLinkGeneration": 1,
    "nvmlDeviceGetCurrPcieLinkWidth": 1,
    "nvmlGpmSampleGet": 1,
    "nvmlGpmMetricsGet": 1,
    "nvmlDeviceGetComputeRunningProcesses_v3": 1,
    "nvmlDeviceGetGraphicsRunningProcesses_v3": 1,
    "nvmlDeviceGetProcessUtilization": 1,
}
# What comes on top every 30 s.
SLOW = {
    "nvmlDeviceGetMigMode": 1,
    "nvmlDeviceGetFieldValues": 5,
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetEccMode": 1,
    "nvmlDeviceGetNvLinkState": 18,
    "nvmlDeviceGetGpuFabricInfoV": 1,
}
ONCE = (
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetSerial",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetMinorNumber",
    "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetMaxPcieLinkGeneration",
    "nvmlDeviceGetMaxPcieLinkWidth",
    "nvmlDeviceGetPowerManagementDefaultLimit",
    "nvmlDeviceGetPowerManagementLimitConstraints",
    "nvmlDeviceGetNumFans",
    "nvmlGpmQueryDeviceSupport",
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with closing(Node(tmp_path, gpus=1, events=False)) as node:
        node.fake.busy()
        yield node


def test_what_a_gpu_reports_is_converted_to_base_units(node: Node) -> None:
    values = node.sample()
    assert {name: values.get(name) for name in TICK} == TICK
    assert {name: values.get(name) for name in FACTS} == FACTS
    assert node.faults == []


def test_an_idle_gpu_reports_zeros_and_not_nothing(node: Node) -> None:
    node.fake.idle()
    values = node.sample()
    for name in ("gpu_busy_ratio", "gpu_memory_busy_ratio", "gpu_memory_used_bytes"):
        assert values[f'{name}{{gpu="0"}}'] == 0
    assert values['gpu_clock_hertz{gpu="0",clock="sm"}'] == 345_000_000


def test_what_is_read_every_second_and_nothing_else(node: Node) -> None:
    node.samples(2)
    assert sampling(node) == EACH_TICK
    assert sampling(node, 3) == {name: 3 * count for name, count in EACH_TICK.items()}


def test_what_changes_seldom_is_read_every_thirty_seconds(node: Node) -> None:
    node.samples(29)
    quiet = sampling(node)
    assert quiet == EACH_TICK
    assert sampling(node) - quiet == SLOW
    assert sampling(node) == EACH_TICK


def test_the_slow_interval_is_the_configuration_s(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=1, slow_interval=300, events=False)) as node:
        node.sample()
        calls = sampling(node, 10, after=60)
    assert calls["nvmlDeviceGetEccMode"] == 2
    assert calls["nvmlDeviceGetUtilizationRates"] == 10


def test_what_never_changes_is_read_once(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=2, events=False)) as node:
        node.samples(5, after=30)
        counts = node.fake.call_counts()
    assert {name: counts[name] for name in ONCE} == dict.fromkeys(ONCE, 2)
    assert counts["nvmlDeviceGetMaxClockInfo"] == 8
    assert counts["nvmlInitWithFlags"] == 1


def test_a_gpu_says_who_it_is(tmp_path: Path) -> None:
    write_tree(tmp_path, {"sys/bus/pci/devices/0000:2b:00.0/numa_node": "1\n"})
    clock = FakeClock()
    with closing(Node(tmp_path, host=host_at(tmp_path, clock))) as node:
        values = dict(node.collector.sample())
    infos = [s for s in values if s.metric.name == "telemetryd_gpu_info"]
    assert [dict(zip(s.metric.labels, s.labels, strict=True)) for s in infos][1] == {
        "gpu": "1",
        "uuid": "GPU-00000001-0000-4000-8000-000000000001",
        "index": "1",
        "vendor": "nvidia",
        "model": "NVIDIA H100 80GB HBM3",
        "architecture": "Hopper",
        "pci": "0000:2b:00.0",
        "serial": "1650000000001",
        "minor": "1",
        "numa_node": "1",
    }
    assert infos[0].labels[-1] == ""  # no such file


def test_the_versions_of_the_driver_are_reported(node: Node) -> None:
    values = node.sample()
    driver = 'driver="590.48.01",library="13.590.48.01",cuda="13.1"'
    assert only(values, "gpu_driver_info") == {f'gpu_driver_info{{vendor="nvidia",{driver}}}': 1}


def _info(tmp_path: Path, **state: Any) -> dict[str, str]:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.gpu(0, state)
    write_tree(tmp_path, {"sys/bus/pci/devices/0000:1b:00.0/numa_node": "-1\n"})
    clock = FakeClock()
    with closing(Node(tmp_path, fake=fake, host=host_at(tmp_path, clock), events=False)) as node:
        (info,) = [s for s, _ in node.collector.sample() if s.metric.name == "telemetryd_gpu_info"]
    return dict(zip(info.metric.labels, info.labels, strict=True))


def test_identity_that_is_not_known_is_empty(tmp_path: Path) -> None:
    info = _info(tmp_path, serial=None, arch=4711, name=None)
    assert (info["serial"], info["architecture"], info["model"]) == ("", "", "")
    assert info["numa_node"] == ""  # the kernel's -1


def test_a_pci_domain_above_ffff_is_written_as_the_kernel_does(tmp_path: Path) -> None:
    assert _info(tmp_path, pci="00010000:5A:1F.0")["pci"] == "10000:5a:1f.0"


def test_a_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    assert _info(tmp_path, name="Fut\\xe9 GPU")["model"] == "Fut\\udce9 GPU"


def test_two_gpus_of_one_uuid_are_told_apart_by_their_number(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.gpu(1, uuid=fake.state["g0.uuid"])
    fake.busy(1)
    with closing(Node(tmp_path, fake=fake, events=False)) as node:
        values = node.sample()
    assert only(values, "gpu_busy_ratio") == {
        'gpu_busy_ratio{gpu="0"}': 0.0,
        'gpu_busy_ratio{gpu="1"}': 1.0,
    }


@pytest.mark.parametrize(
    ("bit", "reason"),
    [
        (0x1, "gpu_idle"),
        (0x2, "application_clocks"),
        (0x4, "software_power_cap"),
        (0x8, "hardware_slowdown"),
        (0x10, "sync_boost"),
        (0x20, "software_thermal"),
        (0x40, "hardware_thermal"),
        (0x80, "hardware_power_brake"),
        (0x100, "display_clocks"),
    ],
)
def test_each_reason_for_low_clocks_has_a_name(node: Node, bit: int, reason: str) -> None:
    node.fake.gpu(0, clock_reasons=bit)
    reasons = only(node.sample(), "gpu_throttle_active")
    assert len(reasons) == 9
    assert {name for name, on in reasons.items() if on} == {
        f'gpu_throttle_active{{gpu="0",reason="{reason}"}}'
    }


def test_several_reasons_may_hold_the_clocks_down_at_once(node: Node) -> None:
    node.fake.gpu(0, clock_reasons=0x48 | 1 << 40)  # and one that is not known yet
    reasons = only(node.sample(), "gpu_throttle_active")
    assert [name for name, on in reasons.items() if on] == [
        'gpu_throttle_active{gpu="0",reason="hardware_slowdown"}',
        'gpu_throttle_active{gpu="0",reason="hardware_thermal"}',
    ]


def test_throttle_time_is_in_seconds(node: Node) -> None:
    times = {74: 1, 76: 2, 269: 3, 270: 4, 271: 5_000_000_000_123}
    node.fake.gpu(0, {f"fi.{field}": time for field, time in times.items()})
    assert only(node.sample(), "gpu_throttled_seconds_total") == {
        'gpu_throttled_seconds_total{gpu="0",reason="software_power_cap"}': 1e-9,
        'gpu_throttled_seconds_total{gpu="0",reason="sync_boost"}': 2e-9,
        'gpu_throttled_seconds_total{gpu="0",reason="software_thermal"}': 3e-9,
        'gpu_throttled_seconds_total{gpu="0",reason="hardware_thermal"}': 4e-9,
        'gpu_throttled_seconds_total{gpu="0",reason="hardware_power_brake"}': 5000.000000123,
    }


def test_a_performance_state_that_is_not_known_is_absent(node: Node) -> None:
    node.fake.gpu(0, pstate=8)
    assert node.sample()['gpu_performance_state{gpu="0"}'] == 8
    node.fake.gpu(0, pstate=32)
    assert not only(node.sample(), "gpu_performance_state")
    node.fake.gpu(0, pstate=15)
    assert node.sample()['gpu_performance_state{gpu="0"}'] == 15


def test_a_gpu_below_freezing_and_past_its_limit_reports_so(node: Node) -> None:
    node.fake.gpu(0, temp=-3, temp_margin=-11)
    values = node.sample()
    assert values['gpu_temperature_celsius{gpu="0",sensor="gpu"}'] == -3
    assert values['gpu_temperature_margin_celsius{gpu="0"}'] == -11


def test_every_fan_has_its_speed(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=1, model="RTX2080S")) as node:
        node.fake.gpu(0, {"fan.0": 38, "fan.1": 104})
        values = node.sample()
    assert only(values, "gpu_fan_speed_ratio") == {
        'gpu_fan_speed_ratio{gpu="0",fan="0"}': 0.38,
        'gpu_fan_speed_ratio{gpu="0",fan="1"}': 1.04,  # the driver documents that it may
    }


@pytest.mark.parametrize(("fans", "found"), [(1, 1), (2, 0)])
def test_an_old_driver_knows_the_speed_of_an_only_fan(
    tmp_path: Path, fans: int, found: int
) -> None:
    fake = FakeNvml(tmp_path, gpus=1, model="RTX2080S", without=["nvmlDeviceGetFanSpeed_v2"])
    fake.gpu(0, fans=fans)
    with closing(Node(tmp_path, fake=fake)) as node:
        assert len(only(node.sample(), "gpu_fan_speed_ratio")) == found


def test_a_gpu_without_fans_has_no_speed_of_fans(node: Node) -> None:
    assert not only(node.sample(), "gpu_fan_speed_ratio")


def test_an_old_driver_counts_reserved_memory_as_used(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1, old_driver=True)
    fake.busy()
    with closing(Node(tmp_path, fake=fake)) as node:
        values = node.sample()
    assert values['gpu_memory_total_bytes{gpu="0"}'] == 81559 * MIB
    assert values['gpu_memory_used_bytes{gpu="0"}'] == (19818 + 479) * MIB
    assert values['gpu_memory_free_bytes{gpu="0"}'] == 61262 * MIB
    assert not only(values, "gpu_memory_reserved_bytes")


def test_an_old_driver_gives_temperature_and_throttle_reasons_by_their_old_names(
    tmp_path: Path,
) -> None:
    fake = FakeNvml(tmp_path, gpus=1, old_driver=True)
    fake.busy()
    fake.gpu(0, clock_reasons=4)
    with closing(Node(tmp_path, fake=fake)) as node:
        values = node.sample()
    assert values['gpu_temperature_celsius{gpu="0",sensor="gpu"}'] == 59
    assert values['gpu_throttle_active{gpu="0",reason="software_power_cap"}'] == 1
    assert node.faults == []


PCIE = {
    'gpu_pcie_bytes_per_second{gpu="0",direction="transmit"}': 259_423 * 1024,
    'gpu_pcie_bytes_per_second{gpu="0",direction="receive"}': 244 * 1024,
}


@pytest.mark.parametrize(
    ("model", "settings", "calls"),
    [
        ("L40S", {}, 0),
        ("L40S", {"pcie_throughput": True}, 2),
        ("H100", {"pcie_throughput": True}, 0),
        ("H100", {"pcie_throughput": True, "gpm": False}, 2),
    ],
)
def test_the_call_that_blocks_is_made_only_where_it_is_asked_for_and_there_is_no_gpm(
    tmp_path: Path, model: str, settings: dict[str, Any], calls: int
) -> None:
    with closing(Node(tmp_path, gpus=1, model=model, **settings)) as node:
        node.fake.gpu(0, pcie_tx_kbs=259_423, pcie_rx_kbs=244)
        node.sample()
        assert sampling(node)["nvmlDeviceGetPcieThroughput"] == calls
        if calls:
            assert only(node.sample(), "gpu_pcie_bytes_per_second") == PCIE


def test_every_declared_family_occurs_and_no_other(tmp_path: Path) -> None:
    """On one GPU that has everything: a fan, retired pages, instances, a XID."""
    fake = FakeNvml(tmp_path, gpus=1)
    fake.busy()
    fake.gpu(0, {"fans": 1, "fan.0": 30, "profiles_enforced": 1, "retired.sbe": 0})
    fake.gpu(0, {"retired.dbe": 0, "retired.pending": 0, "fabric_health": 2})
    fake.processes(0, Process(4711, MIB, sm=3))
    with closing(Node(tmp_path, fake=fake, slow_interval=1)) as node:
        seen = families_of(node.samples(2))
        fake.mig(0, ["3g.40gb"])
        fake.xid(0, 79)
        for _ in range(40):  # its thread takes the XID when it can
            seen |= families_of(node.sample())
            if "gpu_xid_last_time_seconds" in seen:
                break
    assert seen == {metric.name.removeprefix("telemetryd_") for metric in GpuNvidia.metrics}


def families_of(values: dict[str, float]) -> set[str]:
    return {name.partition("{")[0] for name in values}

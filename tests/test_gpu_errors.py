"""What the collector of NVIDIA GPUs makes of calls that are refused or fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gpus import Node
from support.nvml import FakeNvml, Process

from telemetryd.collectors.gpu_nvidia import driver as driver_module

Make = Callable[..., Node]
ENCODER = "nvmlDeviceGetEncoderUtilization"
MISSING = 'gpu_readings_missing{{gpu="{}",reason="{}"}}'


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Make]:
    """Makes a node of fake GPUs; at the end the library was never misused."""
    nodes: list[Node] = []

    def make(gpus: int = 1, model: str = "H100", **settings: Any) -> Node:
        settings.setdefault("events", False)  # their thread takes a moment to end
        nodes.append(Node(tmp_path, gpus, model, **settings))
        return nodes[-1]

    yield make
    for one in nodes:
        one.close()
        assert (one.fake.misuse, one.fake.gpm_samples) == (0, 0)


# Unsupported


def test_an_unsupported_call_is_made_once_counted_and_named(node: Make) -> None:
    before = node().sample()[MISSING.format(0, "unsupported")]
    one = node()
    one.fake.error(ENCODER, 3)
    values = one.sample()
    assert values[MISSING.format(0, "unsupported")] == before + 1, "in the same sample"
    assert 'gpu_encoder_busy_ratio{gpu="0"}' not in values
    one.samples(5)
    assert one.fake.call_counts()[ENCODER] == 1
    (remark,) = one.collector.remarks()
    assert remark.startswith("GPU 0: not supported: ")
    assert "encoder" in remark
    assert one.faults == []


def test_what_was_unsupported_is_asked_for_again_when_the_library_is_opened_again(
    node: Make,
) -> None:
    one = node()
    one.fake.error(ENCODER, 3)
    assert 'gpu_encoder_busy_ratio{gpu="0"}' not in one.samples(2)
    one.fake.clear_error(ENCODER)
    assert 'gpu_encoder_busy_ratio{gpu="0"}' not in one.sample()
    one.fake.reload_driver()
    one.sample()
    assert 'gpu_encoder_busy_ratio{gpu="0"}' in one.sample(after=5)


def test_gpus_with_the_same_gaps_share_a_remark(node: Make) -> None:
    one = node(gpus=3)
    one.fake.error("nvmlDeviceGetPersistenceMode", 4, gpu=1)
    one.sample()
    remarks = list(one.collector.remarks())
    assert [remark.split(": ")[:2] for remark in remarks] == [
        ["GPU 0, 1, 2", "not supported"],
        ["GPU 1", "permission denied (run as root, or give the service /dev/nvidia*)"],
    ]
    assert remarks[1].endswith(": persistence mode")


def test_an_old_driver_is_read_through_its_older_functions(node: Make, tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1, old_driver=True)
    one = node(fake=fake)
    one.sample()
    values = one.sample()
    assert values['gpu_memory_total_bytes{gpu="0"}'] > 0
    assert 'gpu_memory_reserved_bytes{gpu="0"}' not in values, "it counts it as used"
    assert values['gpu_temperature_celsius{gpu="0",sensor="gpu"}'] == fake.value(0, "temp")
    assert values['gpu_throttle_active{gpu="0",reason="gpu_idle"}'] == 1
    assert values['gpu_power_average_watts{gpu="0",scope="gpu"}'] > 0
    assert values[MISSING.format(0, "old_driver")] >= 1
    assert any("the driver is too old for: " in remark for remark in one.collector.remarks())
    assert one.faults == []


def test_a_call_that_the_driver_gives_up_later_is_left_out(node: Make) -> None:
    one = node()
    before = one.sample()
    assert 'gpu_encoder_busy_ratio{gpu="0"}' in before
    one.fake.error(ENCODER, 26)
    missing = MISSING.format(0, "unsupported")
    assert one.sample()[missing] == before[missing] + 1
    calls = one.fake.call_counts()[ENCODER]
    values = one.sample()
    assert one.fake.call_counts()[ENCODER] == calls
    assert 'gpu_encoder_busy_ratio{gpu="0"}' not in values
    assert one.faults == []


# Permission


def test_a_call_without_permission_is_one_fault_and_is_tried_again_slowly(node: Make) -> None:
    one = node(slow_interval=30)
    one.fake.error(ENCODER, 4)
    values = one.samples(20)
    assert values[MISSING.format(0, "permission")] == 1
    assert len(one.faults) == 1
    assert one.faults[0][0] == "permission"
    assert "run as root" in one.faults[0][1]
    one.sample(after=30)
    assert [reason for reason, _ in one.faults] == ["permission"] * 2
    one.fake.clear_error(ENCODER)
    assert 'gpu_encoder_busy_ratio{gpu="0"}' not in one.sample()
    values = one.sample(after=30)
    assert 'gpu_encoder_busy_ratio{gpu="0"}' in values
    assert values[MISSING.format(0, "permission")] == 0
    assert len(one.faults) == 2


@pytest.mark.parametrize("reading", ["nvmlDeviceGetPersistenceMode", ENCODER])
def test_a_reading_that_is_permitted_again_is_there_once_and_fresh(
    node: Make, reading: str
) -> None:
    one = node()
    one.fake.error(reading, 4)
    one.sample()
    one.fake.clear_error(reading)
    one.sample(after=30)  # fails if a series occurs twice
    one.fake.gpu(0, util_enc=42)
    assert one.sample()['gpu_encoder_busy_ratio{gpu="0"}'] == 0.42


def test_a_field_without_permission_is_tried_again_slowly(node: Make) -> None:
    memory = 'gpu_temperature_celsius{gpu="0",sensor="memory"}'
    one = node()
    one.fake.gpu(0, {"fi.82.ret": 4})
    values = one.samples(10)
    assert memory not in values
    assert [reason for reason, _ in one.faults] == ["permission"]
    assert values[MISSING.format(0, "permission")] == 1
    one.fake.gpu(0, {"fi.82.ret": None})
    values = one.sample(after=30)
    assert values[memory] == one.fake.value(0, "temp_memory")
    assert values[MISSING.format(0, "permission")] == 0


def test_a_gpu_without_any_permission_is_not_lost_and_floods_nobody(node: Make) -> None:
    one = node(gpus=2)
    one.fake.error(None, 4, gpu=1)
    one.sample()
    first = len(one.faults)
    values = one.samples(10)
    assert len(one.faults) == first
    assert values['gpu_lost{gpu="1"}'] == 0
    assert values['gpu_busy_ratio{gpu="0"}'] == 0


# Other codes


@pytest.mark.parametrize("code", [6, 21])
def test_a_reading_without_data_is_absent_and_no_fault(node: Make, code: int) -> None:
    one = node()
    one.fake.error(ENCODER, code)
    values = one.samples(2)
    assert 'gpu_encoder_busy_ratio{gpu="0"}' not in values
    assert one.faults == []
    one.fake.clear_error(ENCODER)
    assert 'gpu_encoder_busy_ratio{gpu="0"}' in one.sample()


def test_more_processes_than_there_is_room_for_are_all_read(node: Make) -> None:
    one = node()
    one.fake.processes(0, *(Process(1000 + i, 1 << 20) for i in range(50)))
    listing = "nvmlDeviceGetComputeRunningProcesses_v3"
    before = one.fake.call_counts().get(listing, 0)
    assert one.sample()['gpu_processes{gpu="0"}'] == 50
    assert one.fake.call_counts()[listing] == before + 2
    assert one.faults == []


def test_a_call_that_never_has_enough_room_is_a_fault_and_ends(node: Make) -> None:
    one = node()
    one.fake.error(ENCODER, 7)
    calls = one.fake.call_counts().get(ENCODER, 0)
    values = one.sample()
    assert one.fake.call_counts()[ENCODER] == calls + 2
    assert [reason for reason, _ in one.faults] == ["io"]
    assert values['gpu_lost{gpu="0"}'] == 0


def test_a_reading_that_fails_is_counted_each_time_and_the_others_go_on(node: Make) -> None:
    one = node()
    one.fake.error(ENCODER, 10)
    values = one.samples(3)
    assert [reason for reason, _ in one.faults] == ["timeout"] * 3
    assert one.faults[0][1].startswith("GPU 0: encoder: Timeout (10)")
    assert 'gpu_decoder_busy_ratio{gpu="0"}' in values


def test_one_reading_with_an_unknown_error_for_ever_does_not_lose_the_gpu(node: Make) -> None:
    one = node()
    one.sample()
    one.fake.error(ENCODER, 999)
    values = one.samples(6)
    assert values['gpu_lost{gpu="0"}'] == 0
    assert 'gpu_decoder_busy_ratio{gpu="0"}' in values
    assert one.fake.call_counts()["nvmlInitWithFlags"] == 1


@pytest.mark.parametrize("code", [999, 16])
def test_unknown_errors_from_everything_make_a_gpu_lost_at_the_third_time(
    node: Make, code: int
) -> None:
    one = node(gpus=2)
    one.sample()
    one.fake.error(None, code, gpu=1)
    lost = [one.sample()['gpu_lost{gpu="1"}'] for _ in range(4)]
    assert lost == [0, 0, 1, 1]
    values = one.sample()
    assert [name for name in values if 'gpu="1"' in name and "xid" not in name] == [
        'gpu_lost{gpu="1"}'
    ]
    assert 'gpu_busy_ratio{gpu="0"}' in values
    one.fake.clear_error(None, gpu=1)
    assert one.sample()['gpu_lost{gpu="1"}'] == 0


def test_unknown_errors_from_everything_twice_are_faults_and_no_more(node: Make) -> None:
    one = node()
    one.sample()
    for _ in range(3):
        one.fake.error(None, 999, gpu=0)
        assert one.samples(2)['gpu_lost{gpu="0"}'] == 0
        one.fake.clear_error(None, gpu=0)
        assert one.sample()['gpu_lost{gpu="0"}'] == 0
    assert one.faults
    assert one.fake.call_counts()["nvmlInitWithFlags"] == 1


# Texts


def test_a_text_that_is_not_utf8_is_shown_escaped(node: Make) -> None:
    one = node()
    one.fake.reload_driver()
    one.fake.gpu(0, name="H\\xff100", serial="\\xc3")
    one.sample()
    (info,) = [name for name in one.sample(after=5) if name.startswith("gpu_info")]
    assert 'model="H\\udcff100"' in info
    assert info.isascii()


def test_a_gpu_without_a_name_is_read_all_the_same(node: Make, tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.remove_from(0, "name", "serial", "arch", "pci")
    values = node(fake=fake).sample()
    (info,) = [name for name in values if name.startswith("gpu_info")]
    assert 'model="",architecture="",pci="",serial="",minor="0",numa_node=""' in info
    assert 'gpu_busy_ratio{gpu="0"}' in values


def test_an_error_without_a_name_is_told_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    error = driver_module.NvmlError(777, "nvmlDeviceGetPowerUsage")
    assert (error.reason, error.code) == ("io", 777)
    assert "777" in str(error)
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert str(driver_module.NvmlError(777, "it")) == "it: NVML error 777"

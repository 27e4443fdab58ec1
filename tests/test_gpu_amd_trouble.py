"""The gpu_amd collector and GPUs that sleep, fail, lie, come and go."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from support.amd_gpus import MI300X, SECOND, TREES, Machine, of_card
from support.trees import host_at

from telemetryd.collectors.gpu_amd import GpuAmd
from telemetryd.collectors.hwmon_power import HwmonPower
from telemetryd.errors import Unavailable


def test_a_gpu_that_sleeps_is_not_touched_and_only_its_identity_is_reported(
    tmp_path: Path,
) -> None:
    machine = Machine("suspended", tmp_path)
    sleeping = machine.root / MI300X
    kept = {"uevent", "vendor", "device", "class", "unique_id", "product_name", "serial_number",
            "numa_node", "runtime_status"}  # fmt: skip
    for path in list(sleeping.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name not in kept:
            path.unlink()
            path.mkdir()  # reading it would be an error
    fdinfo = machine.root / "proc/900/fdinfo/4"
    fdinfo.unlink()
    fdinfo.write_text("drm-client-id: no number\ndrm-engine-gfx: x\n")
    values = machine.values()
    assert machine.faults == []
    assert [name for name in values if 'gpu="card1"' in name and not name.startswith("info{")] == []
    assert values['busy_ratio{gpu="card2"}'] == 0.73
    assert values['processes{gpu="card2"}'] == 1
    assert "card1: sleeps; it is not woken up to be read" in machine.gpus.remarks()


def test_a_gpu_that_wakes_up_is_read_at_once_and_left_alone_when_it_sleeps_again(
    tmp_path: Path,
) -> None:
    machine = Machine("suspended", tmp_path)
    machine.values()
    machine.write("power/runtime_status", "active\n")
    values = machine.values()
    assert values['busy_ratio{gpu="card1"}'] == 0.73
    assert values['power_limit_watts{gpu="card1",limit="enforced"}'] == 750
    machine.write("power/runtime_status", "suspended\n")
    assert 'busy_ratio{gpu="card1"}' not in machine.values()


def test_a_gpu_that_does_not_answer_is_lost_with_one_fault_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    machine = Machine("suspended", tmp_path)
    machine.write("power/runtime_status", "active\n")
    machine.values()
    machine.break_all()
    values = machine.values()
    assert {name: value for name, value in values.items() if 'gpu="card1"' in name} == {
        next(name for name in values if name.startswith('info{gpu="card1"')): 1,
        'lost{gpu="card1"}': 1,
    }
    assert (values['lost{gpu="card2"}'], values['busy_ratio{gpu="card2"}']) == (0, 0.73)
    assert [reason for reason, _ in machine.faults] == ["lost"]
    assert "does not answer: [Errno 5]" in machine.faults[0][1]
    machine.write("gpu_busy_percent", "5\n")
    machine.write("hwmon/hwmon4/power1_cap", "500000000\n")
    values = machine.values()
    assert (values['lost{gpu="card1"}'], values['busy_ratio{gpu="card1"}']) == (0, 0.05)
    # What is read every 30 seconds is read again at once.
    assert values['power_limit_watts{gpu="card1",limit="enforced"}'] == 500


def test_one_reading_that_fails_is_absent_and_reported_and_the_gpu_is_not_lost(
    tmp_path: Path,
) -> None:
    machine = Machine("mi300x", tmp_path)
    machine.values()
    machine.break_("mem_busy_percent")
    values = machine.values()
    assert 'memory_busy_ratio{gpu="card1"}' not in values
    assert (values['lost{gpu="card1"}'], values['busy_ratio{gpu="card1"}']) == (0, 0.73)
    assert [reason for reason, _ in machine.faults] == ["io"]
    assert "mem_busy_percent" in machine.faults[0][1]


class _Refusing:
    """A file that is there and answers with an error, as only a driver can."""

    def __init__(self, path: str, code: int) -> None:
        self.path = path
        self.code = code

    def read(self) -> bytes:
        raise OSError(self.code, os.strerror(self.code), self.path)

    def close(self) -> None:
        pass


def _refuse(machine: Machine, code: int, *files: str) -> dict[str, float]:
    """One tick in which these files (all, if none is named) answer with an error."""
    machine.values()
    (gpu,) = machine.gpus._gpus
    gpu.readings = [
        (one, _Refusing(one.path, code) if one.path.endswith(files or ("",)) else attribute)
        for one, attribute in gpu.readings
    ]
    return machine.values()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EBUSY])
def test_a_gpu_that_is_reset_or_fell_asleep_is_one_fault_and_not_lost(
    code: int, tmp_path: Path
) -> None:
    machine = Machine("mi300x", tmp_path)
    values = _refuse(machine, code)
    assert values['lost{gpu="card1"}'] == 0
    assert 'busy_ratio{gpu="card1"}' not in values
    assert [reason for reason, _ in machine.faults] == ["driver"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENODATA, 524])
def test_a_driver_that_answers_that_it_does_not_offer_a_reading_is_no_fault(
    code: int, tmp_path: Path
) -> None:
    machine = Machine("mi300x", tmp_path)
    values = _refuse(machine, code, "mem_busy_percent")
    assert 'memory_busy_ratio{gpu="card1"}' not in values
    assert (values['lost{gpu="card1"}'], values['busy_ratio{gpu="card1"}']) == (0, 0.73)
    assert machine.faults == []


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EIO, errno.ETIME])
def test_a_gpu_whose_driver_fails_at_everything_is_lost(code: int, tmp_path: Path) -> None:
    machine = Machine("mi300x", tmp_path)
    assert _refuse(machine, code)['lost{gpu="card1"}'] == 1
    assert [reason for reason, _ in machine.faults] == ["lost"]


@pytest.mark.parametrize(
    ("file", "text", "reason", "metric"),
    [
        ("gpu_busy_percent", "65535\n", "invalid", "busy_ratio"),
        ("gpu_busy_percent", "-1\n", "invalid", "busy_ratio"),
        ("gpu_busy_percent", "\n", "parse", "busy_ratio"),
        ("mem_info_vram_used", "N/A\n", "parse", "memory_used_bytes"),
        ("mem_info_vram_total", "\n", "parse", "memory_total_bytes"),
        ("pp_dpm_sclk", "OD_SCLK:\n", "parse", "clock_max_hertz__clock__graphics"),
        ("ras/umc_err_count", "nothing\n", "parse", "ecc_errors_total"),
        ("ras/umc_err_count", "ue: x\n", "parse", "ecc_errors_total"),
    ],
)
def test_nonsense_is_absent_and_reported_never_0_and_never_clamped(
    file: str, text: str, reason: str, metric: str, tmp_path: Path
) -> None:
    machine = Machine("mi300x", tmp_path)
    machine.write(file, text)
    values = machine.values()
    (name,) = of_card("card1", **{metric: 0})
    assert not any(one.startswith(name.rstrip("}")) for one in values)
    assert values['lost{gpu="card1"}'] == 0
    assert [reason for reason, _ in machine.faults] == [reason]
    assert file in machine.faults[0][1]


@pytest.mark.parametrize(
    ("file", "text", "metric"),
    [
        ("ras/umc_err_count", "Query currently inaccessible\n", "ecc_errors_total"),
        ("pp_dpm_mclk", "\n", "clock_max_hertz__clock__memory"),
        ("hwmon/hwmon4/power1_cap", "0\n", "power_limit_watts__limit__enforced"),
        ("hwmon/hwmon4/power1_cap", "\n", "power_limit_watts__limit__enforced"),
    ],
)
def test_an_answer_that_says_nothing_is_absent_and_no_fault(
    file: str, text: str, metric: str, tmp_path: Path
) -> None:
    machine = Machine("mi300x", tmp_path)
    machine.write(file, text)
    (name,) = of_card("card1", **{metric: 0})
    assert not any(one.startswith(name.rstrip("}")) for one in machine.values())
    assert machine.faults == []


def test_what_seldom_changes_is_read_every_30_seconds(tmp_path: Path) -> None:
    name = 'power_limit_watts{gpu="card1",limit="enforced"}'
    machine = Machine("mi300x", tmp_path)
    assert machine.values()[name] == 750
    machine.write("hwmon/hwmon4/power1_cap", "500000000\n")
    assert machine.values(after=20)[name] == 750
    assert machine.values(after=10)[name] == 500


def test_a_chip_that_is_registered_anew_is_read_under_its_new_name(tmp_path: Path) -> None:
    machine = Machine("mi300x", tmp_path)
    machine.values()
    hwmon = machine.root / MI300X / "hwmon"
    (hwmon / "hwmon4").rename(hwmon / "hwmon9")
    (hwmon / "hwmon9/power1_input").write_text("99000000\n")
    assert machine.values(after=30)['power_instant_watts{gpu="card1",scope="gpu"}'] == 99


def test_cards_that_come_and_go_are_noticed_and_one_that_went_is_lost(tmp_path: Path) -> None:
    machine = Machine("suspended", tmp_path)
    machine.write("power/runtime_status", "active\n")
    nodes = machine.root / "sys/class/drm"
    for node in ("card2", "renderD136"):
        (nodes / node).rename(tmp_path / node)
    values = machine.values()
    assert (values['lost{gpu="card1"}'], values['lost{gpu="card2"}']) == (0, 1)
    assert 'busy_ratio{gpu="card2"}' not in values
    assert machine.faults[0][0] == "lost"
    assert machine.values()['lost{gpu="card2"}'] == 1
    assert len(machine.faults) == 1
    for node in ("card2", "renderD136"):
        (tmp_path / node).rename(nodes / node)
    values = machine.values()
    assert (values['lost{gpu="card2"}'], values['busy_ratio{gpu="card2"}']) == (0, 0.73)


def test_when_the_last_gpu_goes_it_is_lost_and_the_collector_unavailable(tmp_path: Path) -> None:
    machine = Machine("mi300x", tmp_path)
    machine.values()
    shutil.rmtree(machine.root / "sys/class/drm")
    points = []
    with pytest.raises(Unavailable, match="no GPU with the driver amdgpu"):
        points.extend(machine.gpus.sample())
    assert [(repr(series), value) for series, value in points] == [
        ('telemetryd_gpu_lost{gpu="card1",uuid="8c1e5b9f2a7d4c31"}', 1)
    ]


def test_a_gpu_whose_identity_cannot_be_read_yet_is_tried_again(tmp_path: Path) -> None:
    machine = Machine("suspended", tmp_path)
    nodes = machine.root / "sys/class/drm"
    (nodes / "card2").rename(tmp_path / "card2")
    machine.values()
    machine.break_("unique_id", SECOND)
    (tmp_path / "card2").rename(nodes / "card2")
    machine.faults.clear()
    machine.values()
    machine.values()
    assert [reason for reason, _ in machine.faults] == ["io", "io"]
    machine.write("unique_id", "8c1e5b9f2a7d4c32\n", SECOND)
    assert machine.values()['lost{gpu="card2"}'] == 0


def test_an_excluded_gpu_is_left_alone(tmp_path: Path) -> None:
    machine = Machine("suspended", tmp_path, exclude=("0000:05:*",))
    assert not any('gpu="card1"' in name for name in machine.values())


def test_cards_of_others_make_it_unavailable_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as gone:
        GpuAmd(GpuAmd.Config(), host_at(TREES / "no-gpu"))
    assert "no GPU with the driver amdgpu" in gone.value.why
    assert "modprobe amdgpu" in gone.value.remedy
    assert "GPUs of NVIDIA are read by gpu_nvidia" in gone.value.remedy


def test_power_is_no_meter_a_second_time() -> None:
    assert not set(GpuAmd.metrics) & set(HwmonPower.metrics)


def test_every_sample_has_the_same_series_objects_and_only_declared_metrics() -> None:
    gpus = GpuAmd(GpuAmd.Config(), host_at(TREES / "mi300x"))
    first, second = list(gpus.sample()), list(gpus.sample())
    assert len(first) == len({series for series, _ in first})
    assert all(a is b for (a, _), (b, _) in zip(first, second, strict=True))
    assert {series.metric for series, _ in first} <= set(GpuAmd.metrics)
    gpus.close()
    gpus.close()

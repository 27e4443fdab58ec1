"""The gpu_amd collector on trees with one defect each: what amdgpu offers, and what it does not."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.trees import FIXTURES, host_at, values_of

from telemetryd.collectors.gpu_amd import GpuAmd
from telemetryd.collectors.hwmon_power import HwmonPower
from telemetryd.errors import Unavailable

TREES = FIXTURES / "gpu_amd"
MI300X = "sys/devices/pci0000:00/0000:00:01.1/0000:05:00.0"
SECOND = "sys/devices/pci0000:00/0000:00:01.1/0000:15:00.0"
ANSWERS_EIO = "/proc/self/mem"


class _Machine:
    """A copy of a tree that can be changed, read on a fake clock."""

    def __init__(self, tree: str, root: Path, **config: object) -> None:
        self.root = shutil.copytree(TREES / tree, root / "machine", symlinks=True)
        self.clock = FakeClock()
        self.faults: list[tuple[str, str]] = []
        chosen = GpuAmd.Config.model_validate(config)
        self.gpus = GpuAmd(chosen, host_at(self.root, self.clock))
        self.gpus.on_fault = lambda reason, what: self.faults.append((reason, what))

    def values(self, after: float = 1.0) -> dict[str, float]:
        self.clock.tick(after)
        return {_short(name): value for name, value in values_of(self.gpus).items()}

    def write(self, file: str, text: str, gpu: str = MI300X) -> None:
        path = self.root / gpu / file
        if path.is_symlink():
            path.unlink()
        path.write_text(text)

    def break_(self, file: str, gpu: str = MI300X) -> None:
        path = self.root / gpu / file
        path.unlink()
        path.symlink_to(ANSWERS_EIO)
        self.gpus.close()  # what is open would answer on; it is opened again

    def break_all(self, gpu: str = MI300X) -> None:
        """As if the GPU did not answer its driver: what asks the hardware fails."""
        for file in ("gpu_busy_percent", "mem_busy_percent"):
            self.break_(file, gpu)
        for path in (self.root / gpu).glob("hwmon/*/*_input"):
            self.break_(str(path.relative_to(self.root / gpu)), gpu)


def _short(name: str) -> str:
    """'busy_ratio{gpu="card1"}' of a name with its uuid and prefix."""
    family, _, labels = name.removeprefix("telemetryd_gpu_").partition("{")
    kept = [one for one in labels.rstrip("}").split(",") if not one.startswith("uuid=")]
    return f"{family}{{{','.join(kept)}}}"


def _values(tree: str, tmp_path: Path) -> dict[str, float]:
    machine = _Machine(tree, tmp_path)
    values = machine.values()
    assert machine.faults == []
    infos = ("info{", "driver_info{")
    return {name: value for name, value in values.items() if not name.startswith(infos)}


def _of(card: str, **values: float) -> dict[str, float]:
    """Expected values: `clock_hertz__clock__graphics` has a label."""
    named = {}
    for key, value in values.items():
        family, *labels = key.split("__")
        texts = [f'{k}="{v}"' for k, v in zip(labels[::2], labels[1::2], strict=True)]
        texts.insert(0, f'gpu="{card}"')
        named[f"{family}{{{','.join(texts)}}}"] = value
    return named


def test_an_mi300x_gives_what_its_driver_offers(tmp_path: Path) -> None:
    expected = _of(
        "card1",
        lost=0,
        busy_ratio=0.73,
        memory_busy_ratio=0.41,
        memory_total_bytes=206141652992,
        memory_used_bytes=103070826496,
        clock_hertz__clock__graphics=2_087_000_000,
        clock_hertz__clock__memory=1_300_000_000,
        clock_max_hertz__clock__graphics=2_100_000_000,
        clock_max_hertz__clock__memory=1_300_000_000,
        temperature_celsius__sensor__gpu=61,
        temperature_celsius__sensor__memory=48,
        power_instant_watts__scope__gpu=412,
        power_limit_watts__limit__enforced=750,
        power_limit_watts__limit__default=750,
        power_limit_watts__limit__max=750,
        power_limit_watts__limit__min=0,
        pcie_link_generation=5,
        pcie_link_width=16,
        pcie_link_generation_max=5,
        pcie_link_width_max=16,
        pcie_replays_total=2,
        ecc_errors_total__type__corrected__lifetime__volatile=3,
        ecc_errors_total__type__uncorrected__lifetime__volatile=0,
        processes=2,
        process_memory_bytes__pid__4100__command__python3=80 << 30,
        process_memory_bytes__pid__4200__command__ffmpeg=256 << 20,
        owner_memory_bytes__owner_kind__job__owner__7=80 << 30,
        owner_memory_bytes__owner_kind__system__owner__system=256 << 20,
    )
    assert _values("mi300x", tmp_path) == expected


def test_an_edge_sensor_is_the_gpus_temperature_and_the_average_power_is_told_apart(
    tmp_path: Path,
) -> None:
    values = _values("mi210", tmp_path)
    expected = _of(
        "card0",
        busy_ratio=0,
        temperature_celsius__sensor__gpu=35,
        temperature_celsius__sensor__junction=38,
        temperature_celsius__sensor__memory=41,
        power_average_watts__scope__gpu=43,
        power_limit_watts__limit__min=100,
        ecc_errors_total__type__corrected__lifetime__volatile=12,
        ecc_errors_total__type__uncorrected__lifetime__volatile=1,
    )
    assert expected.items() <= values.items()
    assert not any(name.startswith("power_instant") for name in values)


def test_the_fan_is_a_share_of_its_highest_speed(tmp_path: Path) -> None:
    assert _values("own-switch", tmp_path)['fan_speed_ratio{gpu="card1",fan="1"}'] == 0.4


def test_inside_a_processor_the_power_is_that_of_the_module_and_the_marked_level_is_the_clock(
    tmp_path: Path,
) -> None:
    values = _values("inside-processor", tmp_path)
    assert values['power_instant_watts{gpu="card0",scope="module"}'] == 17
    assert values['clock_hertz{gpu="card0",clock="graphics"}'] == 1_100_000_000
    # Two levels are marked: none is known to be in use.
    assert 'clock_hertz{gpu="card0",clock="memory"}' not in values
    assert values['clock_max_hertz{gpu="card0",clock="memory"}'] == 2_800_000_000
    assert not any(name.startswith(("pcie_", "power_limit")) for name in values)


def test_what_a_driver_does_not_offer_is_absent_and_no_fault(tmp_path: Path) -> None:
    assert _values("busy-not-offered", tmp_path) == _of(
        "card0",
        lost=0,
        memory_total_bytes=68702699520,
        memory_used_bytes=11452416,
        temperature_celsius__sensor__gpu=35,
        processes=0,
    )


def test_doctor_is_told_what_a_gpu_does_not_offer(tmp_path: Path) -> None:
    machine = _Machine("mi300x", tmp_path)
    machine.values()
    assert list(machine.gpus.remarks()) == [
        "card1: not offered or not known: power_average, fan_speed"
    ]


def test_identity_is_on_the_info_series_and_the_uuid_is_the_unique_id(tmp_path: Path) -> None:
    names = set(values_of(_Machine("mi300x", tmp_path).gpus))
    assert (
        'telemetryd_gpu_info{gpu="card1",uuid="8c1e5b9f2a7d4c31",index="",vendor="amd",'
        'model="AMD Instinct MI300X OAM",architecture="",pci="0000:05:00.0",'
        'serial="692316000512",minor="128",numa_node="0"}'
    ) in names
    assert 'telemetryd_gpu_driver_info{vendor="amd",driver="6.10.5",library="",cuda=""}' in names


def test_without_a_unique_id_the_pci_address_stands_for_it(tmp_path: Path) -> None:
    names = set(values_of(_Machine("inside-processor", tmp_path).gpus))
    assert (
        'telemetryd_gpu_info{gpu="card0",uuid="0000:c4:00.0",index="",vendor="amd",'
        'model="1002:15bf",architecture="",pci="0000:c4:00.0",serial="",minor="128",'
        'numa_node=""}'
    ) in names


def test_two_cards_of_one_device_give_every_reading_once(tmp_path: Path) -> None:
    values = _values("two-cards-one-device", tmp_path)
    assert [name for name in values if name.startswith("power_instant")] == [
        'power_instant_watts{gpu="card9",scope="gpu"}'
    ]


def test_a_process_of_rocm_has_no_utilization_for_its_queues_bypass_the_kernel(
    tmp_path: Path,
) -> None:
    machine = _Machine("mi300x", tmp_path)
    machine.values()
    for pid, fd, engine in ((4100, 8, "dma:\t600"), (4200, 5, "dec:\t9500000000")):
        path = machine.root / f"proc/{pid}/fdinfo/{fd}"
        text = path.read_text()
        path.write_text(text[: text.index("drm-engine-")] + f"drm-engine-{engine} ns\n")
    values = machine.values(after=10)
    shares = {name: value for name, value in values.items() if "process_utilization" in name}
    assert shares == {'process_utilization_ratio{gpu="card1",pid="4200",command="ffmpeg"}': 0.25}


def test_processes_are_looked_at_at_their_own_interval(tmp_path: Path) -> None:
    machine = _Machine("mi300x", tmp_path, process_interval=30)
    assert machine.values()['processes{gpu="card1"}'] == 2
    shutil.rmtree(machine.root / "proc/4200")
    assert machine.values(after=29)['processes{gpu="card1"}'] == 2
    assert machine.values(after=1)['processes{gpu="card1"}'] == 1


def test_a_gpu_that_sleeps_is_not_touched_and_only_its_identity_is_reported(
    tmp_path: Path,
) -> None:
    machine = _Machine("suspended", tmp_path)
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
    machine = _Machine("suspended", tmp_path)
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
    machine = _Machine("suspended", tmp_path)
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
    machine = _Machine("mi300x", tmp_path)
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


def _refuse(machine: _Machine, code: int, *files: str) -> dict[str, float]:
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
    machine = _Machine("mi300x", tmp_path)
    values = _refuse(machine, code)
    assert values['lost{gpu="card1"}'] == 0
    assert 'busy_ratio{gpu="card1"}' not in values
    assert [reason for reason, _ in machine.faults] == ["driver"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENODATA, 524])
def test_a_driver_that_answers_that_it_does_not_offer_a_reading_is_no_fault(
    code: int, tmp_path: Path
) -> None:
    machine = _Machine("mi300x", tmp_path)
    values = _refuse(machine, code, "mem_busy_percent")
    assert 'memory_busy_ratio{gpu="card1"}' not in values
    assert (values['lost{gpu="card1"}'], values['busy_ratio{gpu="card1"}']) == (0, 0.73)
    assert machine.faults == []


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EIO, errno.ETIME])
def test_a_gpu_whose_driver_fails_at_everything_is_lost(code: int, tmp_path: Path) -> None:
    machine = _Machine("mi300x", tmp_path)
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
    machine = _Machine("mi300x", tmp_path)
    machine.write(file, text)
    values = machine.values()
    (name,) = _of("card1", **{metric: 0})
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
    machine = _Machine("mi300x", tmp_path)
    machine.write(file, text)
    (name,) = _of("card1", **{metric: 0})
    assert not any(one.startswith(name.rstrip("}")) for one in machine.values())
    assert machine.faults == []


def test_what_seldom_changes_is_read_every_30_seconds(tmp_path: Path) -> None:
    name = 'power_limit_watts{gpu="card1",limit="enforced"}'
    machine = _Machine("mi300x", tmp_path)
    assert machine.values()[name] == 750
    machine.write("hwmon/hwmon4/power1_cap", "500000000\n")
    assert machine.values(after=20)[name] == 750
    assert machine.values(after=10)[name] == 500


def test_a_chip_that_is_registered_anew_is_read_under_its_new_name(tmp_path: Path) -> None:
    machine = _Machine("mi300x", tmp_path)
    machine.values()
    hwmon = machine.root / MI300X / "hwmon"
    (hwmon / "hwmon4").rename(hwmon / "hwmon9")
    (hwmon / "hwmon9/power1_input").write_text("99000000\n")
    assert machine.values(after=30)['power_instant_watts{gpu="card1",scope="gpu"}'] == 99


def test_cards_that_come_and_go_are_noticed_and_one_that_went_is_lost(tmp_path: Path) -> None:
    machine = _Machine("suspended", tmp_path)
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
    machine = _Machine("mi300x", tmp_path)
    machine.values()
    shutil.rmtree(machine.root / "sys/class/drm")
    points = []
    with pytest.raises(Unavailable, match="no GPU with the driver amdgpu"):
        points.extend(machine.gpus.sample())
    assert [(repr(series), value) for series, value in points] == [
        ('telemetryd_gpu_lost{gpu="card1",uuid="8c1e5b9f2a7d4c31"}', 1)
    ]


def test_a_gpu_whose_identity_cannot_be_read_yet_is_tried_again(tmp_path: Path) -> None:
    machine = _Machine("suspended", tmp_path)
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
    machine = _Machine("suspended", tmp_path, exclude=("0000:05:*",))
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

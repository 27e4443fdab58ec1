"""The gpu_intel collector on trees of i915 and xe: clocks, energy, limits, and busy by clients."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.trees import FIXTURES, host_at, values_of

from telemetryd.collectors.gpu_intel import GpuIntel
from telemetryd.collectors.hwmon_power import HwmonPower
from telemetryd.errors import Unavailable

TREES = FIXTURES / "gpu_intel"
B580 = "sys/devices/pci0000:00/0000:00:06.0/0000:03:00.0"
UNREADABLE = Path("/sys/bus/platform/uevent")


class _Machine:
    """A copy of a tree that can be changed, read on a fake clock."""

    def __init__(self, tree: str, root: Path) -> None:
        self.root = shutil.copytree(TREES / tree, root / "machine", symlinks=True)
        self.clock = FakeClock()
        self.faults: list[tuple[str, str]] = []
        self.gpus = GpuIntel(GpuIntel.Config(), host_at(self.root, self.clock))
        self.gpus.on_fault = lambda reason, what: self.faults.append((reason, what))

    def values(self, after: float = 1.0) -> dict[str, float]:
        """By name without prefix, gpu and uuid: there is one GPU in each tree."""
        self.clock.tick(after)
        values = {}
        for name, value in values_of(self.gpus).items():
            family, _, labels = name.removeprefix("telemetryd_gpu_").partition("{")
            kept = labels.rstrip("}").split(",")[2:]
            if "_info" not in name:
                values[f"{family}{{{','.join(kept)}}}" if kept else family] = value
        return values

    def energy(self, uj: int) -> dict[str, float]:
        (self.root / B580 / "hwmon/hwmon1/energy1_input").write_text(f"{uj}\n")
        return self.values()

    def replace(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def test_i915_gives_clock_energy_temperature_limits_and_the_link_of_its_switch(
    tmp_path: Path,
) -> None:
    machine = _Machine("flex-170", tmp_path)
    assert machine.values() == {
        "lost": 0,
        'clock_hertz{clock="graphics"}': 1_950_000_000,
        'clock_max_hertz{clock="graphics"}': 2_050_000_000,
        'temperature_celsius{sensor="gpu"}': 57,
        "energy_joules_total": 123456.789012,
        'power_limit_watts{limit="enforced"}': 150,
        'power_limit_watts{limit="default"}': 120,
        "pcie_link_generation": 4,
        "pcie_link_width": 16,
        "pcie_link_generation_max": 4,
        "pcie_link_width_max": 16,
        "processes": 1,
        'process_memory_bytes{pid="700",command="transcoder"}': 256 << 20,
        'owner_processes{owner_kind="system",owner="system"}': 1,
        'owner_memory_bytes{owner_kind="system",owner="system"}': 256 << 20,
    }
    assert machine.faults == []


def test_older_i915_has_its_clocks_beside_the_card(tmp_path: Path) -> None:
    machine = _Machine("flex-170", tmp_path)
    card = machine.root / "sys/class/drm/card0"
    shutil.rmtree(card / "gt")
    (card / "gt_act_freq_mhz").write_text("1300\n")
    values = machine.values()
    assert values['clock_hertz{clock="graphics"}'] == 1_300_000_000
    assert values['clock_max_hertz{clock="graphics"}'] == 2_050_000_000


def test_xe_gives_the_card_before_the_package_and_the_limit_that_there_is(
    tmp_path: Path,
) -> None:
    values = _Machine("b580", tmp_path).values()
    expected = {
        'clock_hertz{clock="graphics"}': 2_850_000_000,
        'clock_max_hertz{clock="graphics"}': 2_900_000_000,
        'temperature_celsius{sensor="gpu"}': 60,
        'temperature_celsius{sensor="memory"}': 62,
        'temperature_celsius{sensor="pcie"}': 50,
        "energy_joules_total": 414,
        'power_limit_watts{limit="enforced"}': 190,
    }
    assert expected.items() <= values.items()
    assert 'power_limit_watts{limit="default"}' not in values


def test_without_the_cards_energy_it_is_that_of_the_package(tmp_path: Path) -> None:
    values = _Machine("a770-xe", tmp_path).values()
    assert values["energy_joules_total"] == 5
    assert values['power_limit_watts{limit="enforced"}'] == 190
    assert values['power_limit_watts{limit="default"}'] == 190
    # Switched off between two pieces of work: the clock stands still.
    assert values['clock_hertz{clock="graphics"}'] == 0


def test_of_two_limits_the_lower_holds_and_one_that_is_off_is_none(tmp_path: Path) -> None:
    machine = _Machine("b580", tmp_path)
    hwmon = machine.root / B580 / "hwmon/hwmon1"
    (hwmon / "power1_max").write_text("120000000\n")
    assert machine.values()['power_limit_watts{limit="enforced"}'] == 120
    (hwmon / "power1_max").write_text("0\n")
    assert machine.values(after=30)['power_limit_watts{limit="enforced"}'] == 190
    (hwmon / "power1_cap").write_text("0\n")
    assert 'power_limit_watts{limit="enforced"}' not in machine.values(after=30)
    assert machine.faults == []


def test_the_gpu_is_as_busy_as_its_busiest_class_between_two_looks(tmp_path: Path) -> None:
    machine = _Machine("flex-170", tmp_path)
    assert "busy_ratio" not in machine.values()
    for pid, fd in ((700, 5), (700, 6), (701, 5)):
        file = f"proc/{pid}/fdinfo/{fd}"
        machine.replace(file, "render:\t1000000000", "render:\t4000000000")
        machine.replace(file, "video:\t4000000000", "video:\t18000000000")
    values = machine.values(after=10)
    # 14 s of two video engines in 10 s, 3 s of one render engine.
    assert values["busy_ratio"] == 0.7
    assert values['process_utilization_ratio{pid="700",command="transcoder"}'] == 0.7
    # Until the next look it is the last one known.
    assert machine.values(after=5)["busy_ratio"] == 0.7
    assert machine.values(after=5)["busy_ratio"] == 0


def test_cycles_of_xe_give_the_same(tmp_path: Path) -> None:
    machine = _Machine("b580", tmp_path)
    machine.values()
    for pid in (700, 810):
        machine.replace(f"proc/{pid}/fdinfo/5", "cycles-rcs:\t100000", "cycles-rcs:\t300000")
        machine.replace(f"proc/{pid}/fdinfo/5", "cycles-ccs:\t100000", "cycles-ccs:\t300000")
    machine.replace("proc/700/fdinfo/5", "cycles-ccs:\t4000", "cycles-ccs:\t604000")
    machine.replace("proc/810/fdinfo/5", "cycles-rcs:\t0", "cycles-rcs:\t50000")
    values = machine.values(after=10)
    assert values["busy_ratio"] == 0.75
    assert values['process_utilization_ratio{pid="700",command="llama-server"}'] == 0.75
    assert values['process_utilization_ratio{pid="810",command="browser"}'] == 0.25
    assert values["processes"] == 2


def test_an_engine_counter_that_falls_leaves_the_busy_share_unknown(tmp_path: Path) -> None:
    machine = _Machine("flex-170", tmp_path)
    machine.values()
    for pid, fd in ((700, 5), (700, 6), (701, 5)):
        machine.replace(f"proc/{pid}/fdinfo/{fd}", "render:\t1000000000", "render:\t999")
    values = machine.values(after=10)
    assert "busy_ratio" not in values
    assert not any(name.startswith("process_utilization") for name in values)
    assert values["processes"] == 1


def test_processes_that_may_not_be_looked_at_are_one_fault_and_leave_it_unknown(
    tmp_path: Path,
) -> None:
    if not UNREADABLE.exists():
        pytest.skip(f"{UNREADABLE} is not there to stand for a file that may not be read")
    machine = _Machine("b580", tmp_path)
    for pid in (700, 810):
        fdinfo = machine.root / f"proc/{pid}/fdinfo/5"
        fdinfo.unlink()
        fdinfo.symlink_to(UNREADABLE)
    for _ in range(3):
        values = machine.values(after=10)
        assert "busy_ratio" not in values
        assert "processes" not in values
        assert "energy_joules_total" in values
    assert [reason for reason, _ in machine.faults] == ["permission"]
    assert "CAP_SYS_PTRACE" in machine.faults[0][1]
    assert any("CAP_SYS_PTRACE" in remark for remark in machine.gpus.remarks())


def test_energy_stands_as_the_driver_counts_it(tmp_path: Path) -> None:
    machine = _Machine("b580", tmp_path)
    assert machine.energy(414_000_000)["energy_joules_total"] == 414
    assert machine.energy(414_500_001)["energy_joules_total"] == 414.500001


def test_an_energy_counter_that_went_back_gives_nothing_once_and_goes_on(tmp_path: Path) -> None:
    machine = _Machine("b580", tmp_path)
    machine.energy(414_000_000)
    assert "energy_joules_total" not in machine.energy(2_000_000)
    assert machine.faults[0][0] == "invalid"
    assert "went back (414000000 then 2000000 uJ)" in machine.faults[0][1]
    assert machine.energy(3_000_000)["energy_joules_total"] == 3


def test_an_energy_of_0_is_one_that_could_not_be_read(tmp_path: Path) -> None:
    machine = _Machine("b580", tmp_path)
    assert "energy_joules_total" not in machine.energy(0)
    assert machine.energy(414_000_000)["energy_joules_total"] == 414
    assert "energy_joules_total" not in machine.energy(0)
    assert machine.energy(415_000_000)["energy_joules_total"] == 415
    assert [reason for reason, _ in machine.faults] == ["invalid", "invalid"]


def test_the_energy_counter_is_followed_through_the_refresh_of_what_there_is(
    tmp_path: Path,
) -> None:
    machine = _Machine("b580", tmp_path)
    machine.energy(414_000_000)
    machine.clock.tick(30)
    assert "energy_joules_total" not in machine.energy(1_000)


def test_a_gpu_of_which_nothing_can_be_read_is_lost(tmp_path: Path) -> None:
    machine = _Machine("b580", tmp_path)
    device = machine.root / B580
    for path in (*device.glob("hwmon/hwmon1/*_input"), device / "tile0/gt0/freq0/act_freq"):
        path.unlink()
        path.mkdir()  # answers EISDIR
    assert machine.values() == {"lost": 1}
    assert [reason for reason, _ in machine.faults] == ["lost"]


def test_without_a_gpu_of_intel_it_is_unavailable_with_the_remedy(tmp_path: Path) -> None:
    for tree in (FIXTURES / "gpu_amd/no-gpu", FIXTURES / "gpu_amd/mi300x", tmp_path):
        with pytest.raises(Unavailable) as gone:
            GpuIntel(GpuIntel.Config(), host_at(tree))
        assert "no GPU with the driver i915 or xe" in gone.value.why
        assert "GPUs of NVIDIA are read by gpu_nvidia" in gone.value.remedy


def test_energy_is_no_meter_a_second_time() -> None:
    assert not set(GpuIntel.metrics) & set(HwmonPower.metrics)


@pytest.mark.parametrize("tree", ["flex-170", "a770-xe", "b580"])
def test_every_sample_has_the_same_series_objects_and_only_declared_metrics(tree: str) -> None:
    gpus = GpuIntel(GpuIntel.Config(), host_at(TREES / tree))
    first, second = list(gpus.sample()), list(gpus.sample())
    assert len(first) == len({series for series, _ in first})
    assert all(a is b for (a, _), (b, _) in zip(first, second, strict=True))
    assert {series.metric for series, _ in first} <= set(GpuIntel.metrics)
    gpus.close()
    gpus.close()

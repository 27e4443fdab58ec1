"""The hwmon_power collector on trees with one defect each: which chips measure what."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.trees import FIXTURES, RECORDED, host_at, values_of, write_tree

from telemetryd.collectors.hwmon_power import HwmonPower, HwmonPowerConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Host

TREES = FIXTURES / "hwmon"


def _watts(domain: str, device: str, boundary: str) -> str:
    return (
        f'telemetryd_power_watts{{source="hwmon",domain="{domain}",device="{device}",'
        f'boundary="{boundary}"}}'
    )


def _joules(domain: str, device: str, boundary: str) -> str:
    return _watts(domain, device, boundary).replace("power_watts", "energy_joules_total")


def _values(tree: str, **config: object) -> dict[str, float]:
    chosen = HwmonPowerConfig.model_validate(config)
    return values_of(HwmonPower(chosen, host_at(TREES / tree)))


class _Machine:
    """A copy of a tree that can be changed, read on a fake clock."""

    def __init__(self, root: Path, tree: str | None = None, **files: str) -> None:
        self.root = root / "machine"
        self.clock = FakeClock()
        self.faults: list[tuple[str, str]] = []
        if tree is not None:
            shutil.copytree(TREES / tree, self.root, symlinks=True)
        self.write("hwmon0", **files)
        self.collector = HwmonPower(HwmonPowerConfig(), host_at(self.root, self.clock))
        self.collector.on_fault = lambda reason, what: self.faults.append((reason, what))

    def chip(self, entry: str) -> Path:
        return self.root / "sys/class/hwmon" / entry

    def write(self, entry: str, **files: str) -> None:
        write_tree(self.chip(entry), {name: f"{text}\n" for name, text in files.items()})

    def values(self, after: float = 1.0) -> dict[str, float]:
        self.clock.tick(after)
        return values_of(self.collector)


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ("acpi-meter", {_watts("power1", "ACPI000D:00", "enclosing"): 412}),
        (
            "grace-hopper",
            {
                _watts("Module Power Socket 0", "ACPI000D:00", "enclosing"): 600,
                _watts("Grace Power Socket 0", "ACPI000D:01", "component"): 210,
                _watts("CPU Power Socket 0", "ACPI000D:02", "subcomponent"): 150,
                _watts("SysIO Power Socket 0", "ACPI000D:03", "subcomponent"): 40,
            },
        ),
        ("average-and-input", {_watts("PPT", "0000:03:00.0", "component"): 118}),
        ("gpu-inside-processor", {_watts("PPT", "amdgpu", "subcomponent"): 28}),
        ("mi300a", {_watts("PPT", "0000:01:00.0", "subcomponent"): 400}),
        ("average-of-a-lifetime", {_watts("system", "occ", "subcomponent"): 250}),
        (
            "two-alike",
            {
                _watts("power1", "ina226/hwmon1", "subcomponent"): 1,
                _watts("power1", "ina226/hwmon2", "subcomponent"): 2,
            },
        ),
        (
            "energy-and-power",
            {
                _joules("card", "0000:04:00.0", "component"): 0,
                _watts("card", "0000:04:00.0", "component"): 75,
                _joules("pkg", "0000:04:00.0", "subcomponent"): 0,
            },
        ),
        ("switched-off", {_watts("power1", "ina3221", "subcomponent"): 1}),
        ("power-not-known", {_watts("pin", "pmbus", "enclosing"): 300}),
    ],
)
def test_each_meter_has_one_reading_and_the_boundary_of_its_chip(
    tree: str, expected: dict[str, float]
) -> None:
    assert _values(tree) == expected


def test_an_operator_can_say_what_a_chip_measures() -> None:
    assert _values("switched-off", boundaries={"ina*": "enclosing"}) == {
        _watts("power1", "ina3221", "enclosing"): 1
    }


def test_a_recorded_tree_gives_every_meter_once_and_no_unknown_chip_as_a_component() -> None:
    tree = RECORDED / "sysfs" / "rapl-kepler"
    if not tree.is_dir():
        pytest.skip(f"the recorded trees are not here: {tree}")
    values = values_of(HwmonPower(HwmonPowerConfig(), Host(sysfs=str(tree), clock=FakeClock())))
    assert values[_watts("Package", "k10temp", "subcomponent")] == 45
    assert values[_watts("GPU", "amdgpu", "subcomponent")] == 118
    # Two sensors of this chip have one label.
    assert values[_watts("package power1", "multi_sensor", "subcomponent")] == 50
    assert values[_watts("package power2", "multi_sensor", "subcomponent")] == 30
    assert _watts("PSU_Rail_B", "test_power_chip", "subcomponent") in values
    assert _watts("PSU_Rail_C", "test_power_chip", "subcomponent") not in values
    assert values[_joules("Sensor_C", "multi_energy", "subcomponent")] == 0
    assert values[_joules("energy1", "power_chip", "subcomponent")] == 0
    assert _joules("Rail_C", "energy_with_enable", "subcomponent") not in values
    assert not any("component" in name and "subcomponent" not in name for name in values)


def test_energy_is_counted_from_the_first_reading_and_a_reset_gives_nothing(
    tmp_path: Path,
) -> None:
    name = _joules("energy1", "xe", "component")
    machine = _Machine(tmp_path, name="xe", energy1_input="9000000")
    assert machine.values()[name] == 0
    machine.write("hwmon0", energy1_input="9500001")
    assert machine.values()[name] == 0.500001
    machine.write("hwmon0", energy1_input="100")
    assert name not in machine.values()
    assert machine.faults[0][0] == "invalid"
    assert "energy1_input: the energy counter went back" in machine.faults[0][1]
    machine.write("hwmon0", energy1_input="1000100")
    assert machine.values()[name] == 1.500001


def test_energy_and_power_without_labels_are_of_one_meter(tmp_path: Path) -> None:
    machine = _Machine(tmp_path, name="ina238", energy1_input="7", power1_input="5000000")
    assert machine.values() == {
        _joules("power1", "ina238", "subcomponent"): 0,
        _watts("power1", "ina238", "subcomponent"): 5,
    }


def test_a_counter_that_was_registered_again_does_not_add_what_it_starts_with(
    tmp_path: Path,
) -> None:
    name = _joules("energy1", "xe", "component")
    machine = _Machine(tmp_path, name="xe", energy1_input="1000000")
    machine.values()
    machine.write("hwmon0", energy1_input="3000000")
    assert machine.values()[name] == 2
    # The old folder stays elsewhere, so that the new one cannot get its inode number.
    machine.chip("hwmon0").rename(tmp_path / "before")
    machine.write("hwmon0", name="xe", energy1_input="900000000")
    assert machine.values()[name] == 2
    machine.write("hwmon0", energy1_input="901000000")
    assert machine.values()[name] == 3


@pytest.mark.parametrize("content", ["", "N/A"])
def test_a_reading_that_is_no_number_is_absent_and_the_others_go_on(
    content: str, tmp_path: Path
) -> None:
    machine = _Machine(tmp_path, name="pmbus", power1_input=content, power2_input="2000000")
    assert machine.values() == {_watts("power2", "pmbus", "enclosing"): 2}
    assert machine.faults[0][0] == "parse"
    assert "power1_input" in machine.faults[0][1]


def test_a_sensor_that_answers_with_an_error_is_absent_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    machine = _Machine(tmp_path, name="pmbus", power2_input="2000000")
    (machine.chip("hwmon0") / "power1_input").symlink_to("/proc/self/mem")  # answers EIO
    machine.collector = HwmonPower(HwmonPowerConfig(), host_at(machine.root, machine.clock))
    machine.collector.on_fault = lambda reason, what: machine.faults.append((reason, what))
    assert machine.values() == {_watts("power2", "pmbus", "enclosing"): 2}
    assert machine.faults[0][0] == "io"


def test_a_power_that_the_firmware_does_not_know_is_reported(tmp_path: Path) -> None:
    machine = _Machine(tmp_path, "power-not-known")
    machine.values()
    assert machine.faults[0][0] == "invalid"
    assert "power1_average: the power is not known" in machine.faults[0][1]


def test_chips_that_come_and_go_are_noticed(tmp_path: Path) -> None:
    one, two = _watts("power1", "pmbus", "enclosing"), _watts("power1", "ina226", "subcomponent")
    machine = _Machine(tmp_path, name="pmbus", power1_input="1000000")
    assert machine.values() == {one: 1}
    machine.write("hwmon1", name="ina226", power1_input="2000000")
    assert machine.values() == {one: 1, two: 2}
    shutil.rmtree(machine.chip("hwmon0"))
    assert machine.values() == {two: 2}
    assert machine.faults == []
    shutil.rmtree(machine.chip("hwmon1"))
    with pytest.raises(Unavailable, match="no power or energy meter"):
        machine.values()


def test_an_excluded_chip_is_never_opened() -> None:
    config = HwmonPowerConfig(exclude=("power_meter",))
    collector = HwmonPower(config, host_at(TREES / "power-not-known"))
    collector.on_fault = lambda reason, what: pytest.fail(f"{reason}: {what}")
    assert values_of(collector) == {_watts("pin", "pmbus", "enclosing"): 300}


def test_without_meters_it_is_unavailable(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {"sys/class/hwmon/hwmon0/name": "coretemp\n", "sys/class/hwmon/hwmon0/temp1_input": "1\n"},
    )
    with pytest.raises(Unavailable, match=r"no power or energy meter under .*; load the driver"):
        HwmonPower(HwmonPowerConfig(), host_at(tmp_path))

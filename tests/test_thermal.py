"""The thermal collector on trees with one defect each."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.trees import FIXTURES, RECORDED, host_at, values_of, write_tree

from telemetryd.collectors.thermal import Thermal, ThermalConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Host

TREES = FIXTURES / "thermal"


def _sensor(what: str, chip: str, device: str, sensor: str, label: str = "", **limit: str) -> str:
    more = "".join(f',{name}="{value}"' for name, value in limit.items())
    return (
        f'telemetryd_thermal_{what}{{chip="{chip}",device="{device}",sensor="{sensor}",'
        f'label="{label}"{more}}}'
    )


def _open(root: Path, **config: object) -> tuple[Thermal, list[tuple[str, str]]]:
    thermal = Thermal(ThermalConfig.model_validate(config), host_at(root))
    faults: list[tuple[str, str]] = []
    thermal.on_fault = lambda reason, what: faults.append((reason, what))
    return thermal, faults


def test_a_server_shows_its_sensors_with_labels_and_limits_in_base_units() -> None:
    thermal, faults = _open(TREES / "server")
    cpu = ("coretemp", "coretemp.0")
    board = ("nct6798", "nct6775.656")
    zone = 'zone="0",type="x86_pkg_temp"'
    assert values_of(thermal) == {
        _sensor("temperature_celsius", *cpu, "temp1", "Package id 0"): 61,
        _sensor("temperature_limit_celsius", *cpu, "temp1", "Package id 0", limit="max"): 85,
        _sensor("temperature_limit_celsius", *cpu, "temp1", "Package id 0", limit="crit"): 95,
        _sensor("temperature_celsius", *cpu, "temp2", "Core 0"): 58.5,
        _sensor("temperature_limit_celsius", *cpu, "temp2", "Core 0", limit="max"): 85,
        _sensor("temperature_limit_celsius", *cpu, "temp2", "Core 0", limit="crit"): 95,
        _sensor("fan_rpm", *board, "fan1"): 1450,
        _sensor("fan_limit_rpm", *board, "fan1", limit="min"): 300,
        # A fan that stands still is a reading.
        _sensor("fan_rpm", *board, "fan2"): 0,
        _sensor("voltage_volts", *board, "in0", "Vcore"): 1.016,
        _sensor("voltage_limit_volts", *board, "in0", "Vcore", limit="min"): 0,
        _sensor("voltage_limit_volts", *board, "in0", "Vcore", limit="max"): 1.744,
        _sensor("current_amperes", *board, "curr1"): 2.5,
        _sensor("current_limit_amperes", *board, "curr1", limit="crit"): 9,
        f"telemetryd_thermal_zone_temperature_celsius{{{zone}}}": 62,
        f'telemetryd_thermal_zone_limit_celsius{{{zone},limit="critical"}}': 100,
    }
    assert faults == []


def test_a_recorded_tree_gives_voltages_and_currents_of_every_chip() -> None:
    tree = RECORDED / "sysfs" / "rapl-kepler"
    if not tree.is_dir():
        pytest.skip(f"the recorded trees are not here: {tree}")
    values = values_of(Thermal(ThermalConfig(), Host(sysfs=str(tree))))
    assert values[_sensor("voltage_volts", "max20730", "max20730", "in1")] == 48
    assert values[_sensor("current_amperes", "max20730", "max20730", "curr1")] == 10
    # Several chips here are an ina3221 that belongs to no device; one has a channel switched off.
    rail = ("ina3221", "ina3221/hwmon_disabled_channel")
    assert values[_sensor("voltage_volts", *rail, "in2", "channel_2")] == 5
    assert _sensor("voltage_volts", *rail, "in3", "channel_3") not in values


def test_a_temperature_below_zero_is_a_reading() -> None:
    thermal, faults = _open(TREES / "below-zero")
    assert values_of(thermal) == {_sensor("temperature_celsius", "lm75", "lm75", "temp1"): -5.5}
    assert faults == []


def test_a_sensor_that_the_chip_calls_faulty_is_absent_and_reported() -> None:
    thermal, faults = _open(TREES / "open-diode")
    assert values_of(thermal) == {_sensor("temperature_celsius", "nct6798", "nct6798", "temp2"): 40}
    assert [reason for reason, _ in faults] == ["invalid"]
    assert "temp1_input: the chip reports that this sensor is faulty" in faults[0][1]


def test_a_reading_that_is_no_number_is_absent_and_reported() -> None:
    thermal, faults = _open(TREES / "reading-empty")
    assert values_of(thermal) == {_sensor("temperature_celsius", "nct6798", "nct6798", "temp3"): 40}
    assert [reason for reason, _ in faults] == ["parse", "parse"]
    assert "temp1_input" in faults[0][1]


def test_a_sensor_that_answers_with_an_error_is_absent_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    chip = "sys/class/hwmon/hwmon0/"
    write_tree(tmp_path, {chip + "name": "nct6798\n", chip + "temp2_input": "40000\n"})
    (tmp_path / chip / "temp1_input").symlink_to("/proc/self/mem")  # opens, and answers EIO
    thermal, faults = _open(tmp_path)
    for _ in range(2):
        assert list(values_of(thermal)) == [
            _sensor("temperature_celsius", "nct6798", "nct6798", "temp2")
        ]
    assert [reason for reason, _ in faults] == ["io", "io"]


def test_a_limit_that_cannot_be_read_is_reported_and_the_reading_stays(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon0/"
    write_tree(
        tmp_path,
        {chip + "name": "lm75\n", chip + "temp1_input": "40000\n", chip + "temp1_max": "\n"},
    )
    thermal, faults = _open(tmp_path)
    assert len(values_of(thermal)) == 1
    assert "temp1_max" in faults[0][1]


def test_chips_of_one_name_are_told_apart_by_their_device_not_by_their_number() -> None:
    thermal, _ = _open(TREES / "two-disks")
    assert values_of(thermal) == {
        _sensor("temperature_celsius", "nvme", "nvme0", "temp1", "Composite"): 35,
        _sensor("temperature_celsius", "nvme", "nvme1", "temp1", "Composite"): 45,
    }


def test_sensors_with_one_label_stay_apart() -> None:
    thermal, _ = _open(TREES / "labels-repeat")
    assert values_of(thermal) == {
        _sensor("temperature_celsius", "nct6798", "nct6798", "temp1", "AUX"): 30,
        _sensor("temperature_celsius", "nct6798", "nct6798", "temp2", "AUX"): 31,
    }


def test_what_is_switched_off_is_left_alone() -> None:
    thermal, faults = _open(TREES / "switched-off")
    assert values_of(thermal) == {
        _sensor("temperature_celsius", "ibmpowernv", "ibmpowernv", "temp2"): 33
    }
    assert faults == []


def test_a_zone_that_does_not_know_its_temperature_is_absent_and_reported() -> None:
    thermal, faults = _open(TREES / "temperature-not-known")
    zone = 'telemetryd_thermal_zone_temperature_celsius{zone="1",type="acpitz"}'
    assert values_of(thermal) == {zone: 27.8}
    assert {reason for reason, _ in faults} == {"invalid"}
    assert sorted(what.split(":")[0].rpartition("/")[2] for _, what in faults) == [
        "temp",
        "trip_point_0_temp",
    ]


def test_chips_that_come_go_and_are_replaced_are_noticed(tmp_path: Path) -> None:
    hwmon = tmp_path / "sys/class/hwmon"
    write_tree(hwmon, {"hwmon0/name": "lm75\n", "hwmon0/temp1_input": "20000\n"})
    thermal, faults = _open(tmp_path)
    one = _sensor("temperature_celsius", "lm75", "lm75", "temp1")
    two = _sensor("temperature_celsius", "tmp102", "tmp102", "temp1")
    assert values_of(thermal) == {one: 20}
    write_tree(hwmon, {"hwmon1/name": "tmp102\n", "hwmon1/temp1_input": "30000\n"})
    assert values_of(thermal) == {one: 20, two: 30}
    (hwmon / "hwmon0").rename(tmp_path / "before")
    write_tree(hwmon, {"hwmon0/name": "lm75\n", "hwmon0/temp1_input": "25000\n"})
    assert values_of(thermal) == {one: 25, two: 30}
    shutil.rmtree(hwmon / "hwmon0")
    assert values_of(thermal) == {two: 30}
    assert faults == []
    shutil.rmtree(hwmon)
    with pytest.raises(Unavailable, match="no sensor to read"):
        values_of(thermal)


def test_an_excluded_chip_or_zone_is_never_opened() -> None:
    thermal, _ = _open(TREES / "server", exclude=("nct*", "x86*"))
    assert {name.partition('"')[2].partition('"')[0] for name in values_of(thermal)} == {"coretemp"}
    thermal, faults = _open(TREES / "temperature-not-known", include=("acpi*",))
    values_of(thermal)
    assert all("thermal_zone0" not in what for _, what in faults)


def test_a_label_that_is_not_utf8_becomes_escapes(tmp_path: Path) -> None:
    chip = "sys/class/hwmon/hwmon0/"
    write_tree(
        tmp_path,
        {chip + "name": "lm75\n", chip + "temp1_input": "1000\n", chip + "temp1_label": b"T\xb0\n"},
    )
    thermal, _ = _open(tmp_path)
    [name] = values_of(thermal)
    assert r'label="T\udcb0"' in name or r'label="T\xb0"' in name
    name.encode()


def test_without_sensors_it_is_unavailable(tmp_path: Path) -> None:
    write_tree(tmp_path, {"sys/class/thermal/cooling_device0/type": "Processor\n"})
    with pytest.raises(Unavailable, match=r"no sensor to read under .*; load the drivers"):
        Thermal(ThermalConfig(), host_at(tmp_path))

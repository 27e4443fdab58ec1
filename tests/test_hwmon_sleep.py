"""Sensors of a device that sleeps, such as a graphics card: reading them would wake it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.clock import FakeClock
from support.trees import host_at, values_of, write_tree

from telemetryd.collectors.hwmon_power import HwmonPower, HwmonPowerConfig
from telemetryd.collectors.thermal import Thermal, ThermalConfig

CARD, BOARD = "sys/class/hwmon/hwmon1/", "sys/class/hwmon/hwmon0/"
# A sensor that is read although it must not be is reported: this is no number.
UNTOUCHED = "never read\n"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """A machine whose graphics card sleeps, and a chip that never does."""
    write_tree(
        tmp_path,
        {
            BOARD + "name": "lm75\n",
            BOARD + "temp1_input": "20000\n",
            BOARD + "power1_input": "5000000\n",
            CARD + "name": "amdgpu\n",
            CARD + "temp1_input": UNTOUCHED,
            CARD + "temp1_crit": UNTOUCHED,
            CARD + "power1_average": UNTOUCHED,
            CARD + "device/power/control": "auto\n",
            CARD + "device/power/runtime_status": "suspended\n",
        },
    )
    return tmp_path


def _wake(card: Path) -> None:
    write_tree(
        card,
        {
            CARD + "temp1_input": "40000\n",
            CARD + "temp1_crit": "90000\n",
            CARD + "power1_average": "30000000\n",
            CARD + "device/power/runtime_status": "active\n",
        },
    )


def test_temperatures_of_a_card_appear_with_their_limits_when_it_wakes(card: Path) -> None:
    thermal = Thermal(ThermalConfig(), host_at(card))
    faults: list[tuple[str, str]] = []
    thermal.on_fault = lambda reason, what: faults.append((reason, what))
    for _ in range(3):
        assert list(values_of(thermal).values()) == [20]
    _wake(card)
    for _ in range(2):
        assert sorted(values_of(thermal).values()) == [20, 40, 90]
    write_tree(card, {CARD + "device/power/runtime_status": "suspending\n"})
    assert list(values_of(thermal).values()) == [20]
    assert faults == []
    thermal.close()


def test_power_of_a_card_appears_when_it_wakes(card: Path) -> None:
    power = HwmonPower(HwmonPowerConfig(), host_at(card, FakeClock()))
    faults: list[tuple[str, str]] = []
    power.on_fault = lambda reason, what: faults.append((reason, what))
    for _ in range(3):
        assert list(values_of(power).values()) == [5]
    _wake(card)
    assert sorted(values_of(power).values()) == [5, 30]
    assert faults == []
    power.close()


def test_a_card_that_the_kernel_never_puts_to_sleep_is_always_read(card: Path) -> None:
    _wake(card)
    # "on" keeps it awake, whatever the status says.
    write_tree(
        card,
        {CARD + "device/power/control": "on\n", CARD + "device/power/runtime_status": "suspended"},
    )
    power = HwmonPower(HwmonPowerConfig(), host_at(card, FakeClock()))
    assert sorted(values_of(power).values()) == [5, 30]
    power.close()

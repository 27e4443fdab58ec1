"""The chips of /sys/class/hwmon, and the sensors each has.

Documentation/hwmon/sysfs-interface.rst. hwmonN changes between boots, so a chip is known by its
name and by the device it belongs to: `coretemp` of `coretemp.0`. Old drivers (and
acpi_power_meter, in Linux 6.1) leave their files in the device's folder instead of the chip's.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from telemetryd.host import Attribute, Host

_FILE = re.compile(r"((?:temp|fan|in|curr|power|energy)[0-9]+)_([a-z_]+)\Z")

# Documentation/power/runtime_pm.rst
_ASLEEP = frozenset({b"suspended", b"suspending"})

Listing = tuple[tuple[str, int], ...]


def listing(path: str) -> Listing:
    """The entries of a directory with their inode numbers, empty if it is not there.

    It differs when something came, went, or was replaced under the same name: a device that is
    registered again gets another inode.
    """
    try:
        with os.scandir(path) as entries:
            return tuple(sorted((entry.name, entry.inode()) for entry in entries))
    except (FileNotFoundError, NotADirectoryError):
        return ()


@dataclass(frozen=True, slots=True)
class Chip:
    """One hwmon chip. `device` names the device that it belongs to, or repeats the chip's name
    if it belongs to none; two chips that would be called the same have hwmonN appended.

    `sensors` has the files of each sensor: {"temp1": {"input", "label", "crit"}}.
    `entry` and `inode` tell whether it is still the chip that it was.
    """

    name: str
    device: str
    folder: str
    sensors: dict[str, frozenset[str]]
    entry: str
    inode: int

    def path(self, sensor: str, file: str) -> str:
        return os.path.join(self.folder, f"{sensor}_{file}")

    def text(self, host: Host, sensor: str, file: str) -> str:
        """What a label says; empty if there is none or it cannot be read."""
        if file not in self.sensors[sensor]:
            return ""
        try:
            return host.text(self.path(sensor, file))
        except OSError:
            return ""

    def is_off(self, host: Host, sensor: str) -> bool:
        """Whether the sensor is switched off: reading it would fail with ENODATA."""
        return self.text(host, sensor, "enable") == "0"


class Sleepers:
    """The chips whose device the kernel may put to sleep, such as a graphics card: reading their
    sensors would wake it."""

    def __init__(self, host: Host, chips: Iterable[Chip] = ()) -> None:
        self._status: dict[str, Attribute] = {}
        for chip in chips:
            power = os.path.join(class_folder(host), chip.entry, "device/power")
            try:
                if host.text(os.path.join(power, "control")) == "auto":
                    status = Attribute(os.path.join(power, "runtime_status"))
                    self._status[chip.entry] = status
            except OSError:
                continue  # a kernel or a device without runtime power management

    def asleep(self) -> frozenset[str]:
        """The entries of those that sleep now."""
        return frozenset(entry for entry, status in self._status.items() if _sleeps(status))

    def close(self) -> None:
        for status in self._status.values():
            status.close()


def _sleeps(status: Attribute) -> bool:
    try:
        return status.read().strip() in _ASLEEP
    except OSError:
        return False  # it is gone, which its sensors will tell


def class_folder(host: Host) -> str:
    return host.sys("class/hwmon")


def find_chips(
    host: Host,
    found: Listing,
    wants: Callable[[str], bool],
    fault: Callable[[Exception, str], None],
) -> list[Chip]:
    """The chips among `found` whose name is wanted; of the others only the name was read."""
    chips = []
    for entry, inode in found:
        folder = os.path.join(class_folder(host), entry)
        try:
            name = _name(host, folder) or entry
            if wants(name):
                device = _device(folder) or name
                chips.append(Chip(name, device, *_sensors(host, folder), entry, inode))
        except OSError as error:
            fault(error, folder)
    called = Counter((chip.name, chip.device) for chip in chips)
    return [
        chip
        if called[chip.name, chip.device] == 1
        else replace(chip, device=f"{chip.device}/{chip.entry}")
        for chip in chips
    ]


def _name(host: Host, folder: str) -> str:
    for path in ("name", "device/name"):
        try:
            return host.text(os.path.join(folder, path))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return ""


def _device(folder: str) -> str:
    path = os.path.join(folder, "device")
    return os.path.basename(os.path.realpath(path)) if os.path.isdir(path) else ""


def _sensors(host: Host, folder: str) -> tuple[str, dict[str, frozenset[str]]]:
    """The folder that holds the sensors' files, and the files of each sensor."""
    for place in (folder, os.path.join(folder, "device")):
        sensors: dict[str, set[str]] = {}
        for file in host.names(place):
            match = _FILE.match(file)
            if match is not None:
                sensors.setdefault(match[1], set()).add(match[2])
        if sensors:
            ordered = sorted(sensors, key=_natural)
            return place, {sensor: frozenset(sensors[sensor]) for sensor in ordered}
    return folder, {}


def _natural(sensor: str) -> tuple[str, int]:
    kind = sensor.rstrip("0123456789")
    return kind, int(sensor[len(kind) :])

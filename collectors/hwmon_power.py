"""Power and energy meters that the board's chips offer: PSUs, ACPI power meters, GPUs, rails.

From /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst): power*_average or power*_input in
microwatts, energy*_input in microjoules. A sensor that has both kinds of power gives one of them,
always the same: the average, because its integral misses nothing between two readings; the
instantaneous one where the average spans more than a minute (the IBM OCC's spans its lifetime).

Only chips that are known to measure a whole device which nothing else here measures are a
`component`. A chip that is not known is a `subcomponent`: it enters no sum and is taken for no
node's input. `boundaries` in the configuration says otherwise.
"""

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Iterator

from pydantic import Field

from telemetryd.clock import Clock
from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Attribute, Host
from telemetryd.hwmon import Chip, Listing, Sleepers, class_folder, find_chips, listing
from telemetryd.meters import ENERGY, POWER, Boundary, EnergyCounter
from telemetryd.metric import Point, Series

SOURCE = "hwmon"
_LONGEST_AVERAGE_MS = 60_000
# Shell patterns of chip and domain; the first that fits decides.
_BOUNDARIES: tuple[tuple[str, str, Boundary], ...] = (
    # NVIDIA Grace: the socket's total stands beside its rails, the module's includes the GPU
    # (Grace Performance Tuning Guide, "Power Telemetry"). Elsewhere ACPI meters see the machine.
    ("power_meter", "Grace Power*", "component"),
    ("power_meter", "CPU Power*", "subcomponent"),
    ("power_meter", "SysIO Power*", "subcomponent"),
    ("power_meter", "*", "enclosing"),
    # Power supplies (Documentation/hwmon/pmbus.rst and the drivers' own pages), IBM's system meter.
    ("pmbus", "*", "enclosing"),
    ("cffps*", "*", "enclosing"),
    ("ipsps*", "*", "enclosing"),
    ("dps*", "*", "enclosing"),
    ("pfe*", "*", "enclosing"),
    ("crps*", "*", "enclosing"),
    ("intel_crps*", "*", "enclosing"),
    ("ym2151*", "*", "enclosing"),
    ("aem*", "*", "enclosing"),
    # Graphics cards. Intel's package is on its card, and a tile on the GPU.
    ("xe", "pkg", "subcomponent"),
    ("xe", "*", "component"),
    ("i915", "*", "component"),
    ("nouveau", "*", "component"),
)
# An AMD GPU is measured alone, except inside a processor: there the driver gives the power of the
# whole socket, which RAPL measures too. Such a one has no power cap (amdgpu_pm.c), but for the
# MI300A, known by its PCI device number.
_AMD_GPU = "amdgpu"
_MI300A = "0x74a0"

# "Not known" in ACPI's _PMM, which drivers before Linux 5.16 passed on as 4.3 MW.
_ACPI_UNKNOWN_UW = 0xFFFFFFFF * 1000


class HwmonPowerConfig(CollectorConfig, Filters):
    """[collectors.hwmon_power]: `include` and `exclude` are matched with chips."""

    include: tuple[str, ...] = Field(
        ("*",), description="shell patterns of the hwmon chips to read, such as power_meter"
    )
    exclude: tuple[str, ...] = Field(
        (), description="shell patterns of the hwmon chips to leave alone"
    )
    boundaries: dict[str, Boundary] = Field(
        {},
        description="what chips measure, by shell pattern, where the daemon does not know or is "
        'wrong: { ina226 = "enclosing" }; only "component" is added up',
    )


class _Reading:
    """A power reading, or an energy counter with the joules it has counted so far."""

    __slots__ = ("attribute", "chip", "counter", "series")

    def __init__(self, chip: Chip, series: Series, path: str) -> None:
        self.chip = chip
        self.series = series
        self.attribute = Attribute(path)
        self.counter = EnergyCounter() if series.metric is ENERGY else None

    def read(self, clock: Clock) -> float:
        """Joules or watts. Raises OSError, ValueError, ReadError."""
        value = int(self.attribute.read())
        if self.counter is not None:
            return self.counter.advance(value, clock.mono_ns())
        if value == _ACPI_UNKNOWN_UW and self.chip.name == "power_meter":
            raise ReadError("invalid", "the power is not known")
        return value / 1e6


class HwmonPower(Collector):
    """Watts of each meter that gives power, joules since the first reading of each that counts
    energy. An energy counter that goes back was reset: that interval is lost and reported. A
    device that sleeps is not woken: it has no power until it wakes.

    Raises Unavailable if no chip has a meter.
    """

    Config = HwmonPowerConfig
    metrics = (ENERGY, POWER)
    may_block = True

    def __init__(self, config: HwmonPowerConfig, host: Host) -> None:
        super().__init__(config, host)
        self._wants = config.wants
        self._boundaries = config.boundaries
        self._seen: Listing | None = None
        self._readings: list[_Reading] = []
        self._sleepers = Sleepers(host)
        self._look(listing(class_folder(host)))

    def sample(self) -> Iterator[Point]:
        seen = listing(class_folder(self.host))
        if seen != self._seen:
            self._look(seen)
            self._seen = seen
        clock = self.host.clock
        asleep = self._sleepers.asleep()
        for one in self._readings:
            if one.chip.entry in asleep:
                continue
            try:
                yield one.series, one.read(clock)
            except (OSError, ValueError, ReadError) as error:
                self.fault(error, one.attribute.path)

    def _look(self, chips: Listing) -> None:
        """Find the meters again. Raises Unavailable if there is none."""
        self.close()
        before = {one.series: one for one in self._readings}
        found = find_chips(self.host, chips, self._wants, self.fault)
        self._sleepers = Sleepers(self.host, found)
        self._readings = [one for chip in found for one in self._of(chip)]
        if not self._readings:
            raise Unavailable(
                f"no power or energy meter under {class_folder(self.host)}",
                "load the driver of the board's meter (modprobe acpi_power_meter, pmbus); "
                "many boards have none that the kernel can read",
            )
        for one in self._readings:
            known = before.get(one.series)
            if known is not None and known.counter is not None:
                one.counter = known.counter
                if known.chip.inode != one.chip.inode:
                    # The driver registered again, and its counter began again with it.
                    one.counter.rebase()

    def _of(self, chip: Chip) -> Iterator[_Reading]:
        files = {sensor: file for sensor in chip.sensors if (file := self._file(chip, sensor))}
        labels = {sensor: self._label(chip, sensor) for sensor in files}
        shared = Counter((_kind(sensor), label) for sensor, label in labels.items())
        for sensor, file in files.items():
            label = labels[sensor]
            if not label:
                # Energy and power of one number and no label are of one meter.
                power = sensor.replace("energy", "power")
                domain = power if labels.get(power) == "" else sensor
            elif shared[_kind(sensor), label] > 1:
                domain = f"{label} {sensor}"
            else:
                domain = label
            metric = POWER if _kind(sensor) == "power" else ENERGY
            series = metric.at(SOURCE, domain, chip.device, self._boundary(chip, domain))
            yield _Reading(chip, series, chip.path(sensor, file))

    def _file(self, chip: Chip, sensor: str) -> str | None:
        """The file to read a meter from; None if the sensor is no meter, or is switched off."""
        files = chip.sensors[sensor]
        kind = _kind(sensor)
        if kind not in {"power", "energy"} or chip.is_off(self.host, sensor):
            return None
        if kind == "power" and "average" in files:
            span = chip.text(self.host, sensor, "average_interval")
            if "input" not in files or not span.isdecimal() or int(span) <= _LONGEST_AVERAGE_MS:
                return "average"
        return "input" if "input" in files else None

    def _label(self, chip: Chip, sensor: str) -> str:
        """What the meter measures; oem_info is ACPI meters' (hwmon/acpi_power_meter.rst)."""
        return chip.text(self.host, sensor, "label") or chip.text(self.host, sensor, "oem_info")

    def _boundary(self, chip: Chip, domain: str) -> Boundary:
        for pattern, boundary in self._boundaries.items():
            if fnmatch.fnmatchcase(chip.name, pattern):
                return boundary
        if chip.name == _AMD_GPU:
            return "component" if self._is_graphics_card(chip) else "subcomponent"
        for pattern, domains, boundary in _BOUNDARIES:
            if fnmatch.fnmatchcase(chip.name, pattern) and fnmatch.fnmatchcase(domain, domains):
                return boundary
        return "subcomponent"

    def _is_graphics_card(self, chip: Chip) -> bool:
        if "cap" not in chip.sensors.get("power1", ()):
            return False
        try:
            return self.host.text(os.path.join(chip.folder, "device/device")) != _MI300A
        except OSError:
            return True

    def close(self) -> None:
        self._sleepers.close()
        for one in self._readings:
            one.attribute.close()


def _kind(sensor: str) -> str:
    return sensor.rstrip("0123456789")

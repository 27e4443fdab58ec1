"""Temperatures, fans, voltages and currents with their limits, and thermal zones.

From /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst) and /sys/class/thermal
(Documentation/driver-api/thermal/sysfs-api.rst). Labels, limits and whether a sensor is switched
off are read when a chip is found, readings on every sample. Chips that come and go are noticed by
the listing of their class. A device that sleeps is not woken: its sensors and their limits are
absent until it wakes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.duration import Seconds
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Attribute, Host
from telemetryd.hwmon import Chip, Listing, Sleepers, class_folder, find_chips, listing
from telemetryd.metric import Kind, Metric, Point, Series, Unit

_SENSOR = ("chip", "device", "sensor", "label")
_LIMIT = (*_SENSOR, "limit")
_ABOUT_LIMITS = (
    "Read when the chip was found; a board may leave nonsense in a limit it does not use."
)

TEMPERATURE = Metric(
    "thermal", "temperature", Kind.GAUGE, Unit.CELSIUS,
    "Temperature at each sensor of the board.", "hwmon temp*_input (millidegrees)", _SENSOR,
)  # fmt: skip
TEMPERATURE_LIMIT = Metric(
    "thermal", "temperature_limit", Kind.GAUGE, Unit.CELSIUS,
    f"Limits of a temperature sensor: min, max, crit, emergency, lcrit. {_ABOUT_LIMITS}",
    "hwmon temp*_{min,max,crit,emergency,lcrit} (millidegrees)", _LIMIT,
)  # fmt: skip
FAN = Metric(
    "thermal", "fan", Kind.GAUGE, Unit.RPM,
    "Speed of each fan.", "hwmon fan*_input (rpm)", _SENSOR,
)  # fmt: skip
FAN_LIMIT = Metric(
    "thermal", "fan_limit", Kind.GAUGE, Unit.RPM,
    f"Limits of a fan's speed: min, max. {_ABOUT_LIMITS}",
    "hwmon fan*_{min,max} (rpm)", _LIMIT,
)  # fmt: skip
VOLTAGE = Metric(
    "thermal", "voltage", Kind.GAUGE, Unit.VOLTS,
    "Voltage at each sensor of the board.", "hwmon in*_input (millivolts)", _SENSOR,
)  # fmt: skip
VOLTAGE_LIMIT = Metric(
    "thermal", "voltage_limit", Kind.GAUGE, Unit.VOLTS,
    f"Limits of a voltage: min, max, crit, lcrit. {_ABOUT_LIMITS}",
    "hwmon in*_{min,max,crit,lcrit} (millivolts)", _LIMIT,
)  # fmt: skip
CURRENT = Metric(
    "thermal", "current", Kind.GAUGE, Unit.AMPERES,
    "Current at each sensor of the board.", "hwmon curr*_input (milliamperes)", _SENSOR,
)  # fmt: skip
CURRENT_LIMIT = Metric(
    "thermal", "current_limit", Kind.GAUGE, Unit.AMPERES,
    f"Limits of a current: min, max, crit, lcrit. {_ABOUT_LIMITS}",
    "hwmon curr*_{min,max,crit,lcrit} (milliamperes)", _LIMIT,
)  # fmt: skip
ZONE = Metric(
    "thermal", "zone_temperature", Kind.GAUGE, Unit.CELSIUS,
    "Temperature of each thermal zone; its number may change between boots, its type does not.",
    "thermal_zone*/temp (millidegrees), driver-api/thermal/sysfs-api.rst", ("zone", "type"),
)  # fmt: skip
ZONE_LIMIT = Metric(
    "thermal", "zone_limit", Kind.GAUGE, Unit.CELSIUS,
    "Temperature at which the kernel shuts the machine down (critical) or tells the zone's driver "
    f"(hot). {_ABOUT_LIMITS}",
    "thermal_zone*/trip_point_*_temp (millidegrees)", ("zone", "type", "limit"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Quantity:
    """What the files of a kind of sensor mean, and how many of their units make a base unit."""

    reading: Metric
    limit: Metric
    units: int
    limits: tuple[str, ...]


_QUANTITIES = {
    "temp": _Quantity(
        TEMPERATURE, TEMPERATURE_LIMIT, 1000, ("min", "max", "crit", "emergency", "lcrit")
    ),
    "fan": _Quantity(FAN, FAN_LIMIT, 1, ("min", "max")),
    "in": _Quantity(VOLTAGE, VOLTAGE_LIMIT, 1000, ("min", "max", "crit", "lcrit")),
    "curr": _Quantity(CURRENT, CURRENT_LIMIT, 1000, ("min", "max", "crit", "lcrit")),
}
_ZONE_FOLDER = re.compile(r"thermal_zone([0-9]+)\Z")
_TRIP_TYPE = re.compile(r"trip_point_[0-9]+_type\Z")
_TRIPS = frozenset({"critical", "hot"})
# "Not known" of a zone or trip point (THERMAL_TEMP_INVALID, include/linux/thermal.h).
_NO_TEMPERATURE = -274000
_OF_ZONES = frozenset({ZONE, ZONE_LIMIT})


class ThermalConfig(CollectorConfig, Filters):
    """[collectors.thermal]: `include` and `exclude` are matched with chips and types of zones."""

    interval: Seconds = Field(5.0, ge=0.05, le=3600, description="time between two samples")
    include: tuple[str, ...] = Field(
        ("*",),
        description="shell patterns of the hwmon chips (coretemp, nvme) and thermal zone types "
        "(x86_pkg_temp) to read",
    )
    exclude: tuple[str, ...] = Field(
        (), description="shell patterns of the hwmon chips and thermal zone types to leave alone"
    )


@dataclass(frozen=True, slots=True)
class _Input:
    """A sensor to read; `trouble` is the file in which the chip says that it cannot be trusted."""

    series: Series
    units: int
    reading: Attribute
    chip: str = ""
    trouble: Attribute | None = None

    def read(self) -> float:
        """The reading in base units. Raises OSError, ValueError, ReadError."""
        if self.trouble is not None and int(self.trouble.read()):
            raise ReadError("invalid", "the chip reports that this sensor is faulty")
        value = int(self.reading.read())
        if value == _NO_TEMPERATURE and self.series.metric in _OF_ZONES:
            raise ReadError("invalid", "the temperature is not known")
        return value / self.units

    def close(self) -> None:
        self.reading.close()
        if self.trouble is not None:
            self.trouble.close()


class Thermal(Collector):
    """Raises Unavailable if there is no sensor and no zone with a temperature."""

    Config = ThermalConfig
    metrics = (
        TEMPERATURE, TEMPERATURE_LIMIT, FAN, FAN_LIMIT, VOLTAGE, VOLTAGE_LIMIT,
        CURRENT, CURRENT_LIMIT, ZONE, ZONE_LIMIT,
    )  # fmt: skip
    may_block = True

    def __init__(self, config: ThermalConfig, host: Host) -> None:
        super().__init__(config, host)
        self._wants = config.wants
        self._zones = host.sys("class/thermal")
        self._seen: tuple[Listing, Listing, frozenset[str]] | None = None
        self._sleepers = Sleepers(host)
        self._inputs: list[_Input] = []
        self._limits: list[Point] = []
        # Only whether there is something: limits are slow to read and may fail, so they are left
        # to the first sample, which can report it.
        if not any(self._sensors(*self._listings())):
            raise self._nothing()

    def sample(self) -> Iterator[Point]:
        chips, zones = self._listings()
        asleep = self._sleepers.asleep()
        if (chips, zones, asleep) != self._seen:
            asleep = self._look(chips, zones)
            self._seen = chips, zones, asleep
        for one in self._inputs:
            try:
                yield one.series, one.read()
            except (OSError, ValueError, ReadError) as error:
                self.fault(error, one.reading.path)
        yield from self._limits

    def _listings(self) -> tuple[Listing, Listing]:
        return listing(class_folder(self.host)), listing(self._zones)

    def _nothing(self) -> Unavailable:
        return Unavailable(
            f"no sensor to read under {class_folder(self.host)} or {self._zones}",
            "load the drivers of the board's sensors (sensors-detect finds them); "
            "virtual machines have none",
        )

    def _look(self, chips: Listing, zones: Listing) -> frozenset[str]:
        """Find the sensors again, and the chips that sleep. Raises Unavailable if none is left."""
        self.close()
        found = list(self._sensors(chips, zones))
        if not found:
            raise self._nothing()
        asleep = self._sleepers.asleep()
        awake = [pair for pair in found if pair[0].chip not in asleep]
        self._inputs = [one for one, _ in awake]
        self._limits = [point for _, limits in awake for point in self._values(limits)]
        return asleep

    def _sensors(self, chips: Listing, zones: Listing) -> Iterator[tuple[_Input, list[_Input]]]:
        """Each sensor, with its limits."""
        found = find_chips(self.host, chips, self._wants, self.fault)
        self._sleepers = Sleepers(self.host, found)
        for chip in found:
            for sensor, files in chip.sensors.items():
                quantity = _QUANTITIES.get(sensor.rstrip("0123456789"))
                if quantity and "input" in files and not chip.is_off(self.host, sensor):
                    yield self._sensor(chip, sensor, quantity)
        for folder, _ in zones:
            match = _ZONE_FOLDER.match(folder)
            if match is not None:
                yield from self._zone(os.path.join(self._zones, folder), match[1])

    def _sensor(self, chip: Chip, sensor: str, quantity: _Quantity) -> tuple[_Input, list[_Input]]:
        files = chip.sensors[sensor]
        labels = (chip.name, chip.device, sensor, chip.text(self.host, sensor, "label"))
        trouble = Attribute(chip.path(sensor, "fault")) if "fault" in files else None
        reading = Attribute(chip.path(sensor, "input"))
        limits = [
            _Input(
                quantity.limit.at(*labels, limit),
                quantity.units,
                Attribute(chip.path(sensor, limit)),
            )
            for limit in quantity.limits
            if limit in files
        ]
        series = quantity.reading.at(*labels)
        return _Input(series, quantity.units, reading, chip.entry, trouble), limits

    def _zone(self, folder: str, number: str) -> Iterator[tuple[_Input, list[_Input]]]:
        files = self.host.names(folder)
        if "temp" not in files:
            return
        try:
            kind = self.host.text(os.path.join(folder, "type"))
            # A zone that is switched off answers with an error.
            off = "mode" in files and self.host.text(os.path.join(folder, "mode")) == "disabled"
        except OSError as error:
            self.fault(error, folder)
            return
        if off or not self._wants(kind):
            return
        trips: dict[str, _Input] = {}
        for file in filter(_TRIP_TYPE.match, files):
            path = os.path.join(folder, file)
            try:
                trip = self.host.text(path)
            except OSError as error:
                self.fault(error, path)
                continue
            if trip in _TRIPS:
                limit = Attribute(path.removesuffix("type") + "temp")
                trips.setdefault(trip, _Input(ZONE_LIMIT.at(number, kind, trip), 1000, limit))
        reading = Attribute(os.path.join(folder, "temp"))
        yield _Input(ZONE.at(number, kind), 1000, reading), list(trips.values())

    def _values(self, limits: list[_Input]) -> Iterator[Point]:
        for limit in limits:
            try:
                yield limit.series, limit.read()
            except (OSError, ValueError, ReadError) as error:
                self.fault(error, limit.reading.path)
            limit.close()

    def close(self) -> None:
        self._sleepers.close()
        for one in self._inputs:
            one.close()

"""Where in a resource a reading stands, and which values are none.

Watts are EnvironmentMetrics.PowerWatts.Reading, PowerSupplyMetrics.InputPowerWatts.Reading and
OutputPowerWatts.Reading, or in the older Power resource PowerControl[].PowerConsumedWatts and
PowerSupplies[].PowerInputWatts, PowerOutputWatts, LastPowerOutputWatts. Energy is EnergyJoules or
EnergykWh, which are counters (DSP2046). null says that there is no reading now.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from telemetryd.collectors.redfish.session import Document, link
from telemetryd.errors import ReadError
from telemetryd.meters import Boundary
from telemetryd.metric import Metric, Series

SOURCE = "redfish"
_JOULES_PER_KWH = 3.6e6

Keys = tuple[str | int, ...]
INPUT_POWER: Keys = ("InputPowerWatts", "Reading")
OUTPUT_POWER: Keys = ("OutputPowerWatts", "Reading")
POWER_WATTS: Keys = ("PowerWatts", "Reading")
# The finer one first.
ENERGIES: tuple[tuple[Keys, float], ...] = (
    (("EnergyJoules", "Reading"), 1.0),
    (("EnergykWh", "Reading"), _JOULES_PER_KWH),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose reading it is: the labels of its meter."""

    domain: str
    device: str
    boundary: Boundary

    def series(self, metric: Metric) -> Series:
        return metric.at(SOURCE, self.domain, self.device, self.boundary)


@dataclass(frozen=True, slots=True)
class Reading:
    """One number of a resource. `most` is where a number stands that it cannot exceed."""

    series: Series
    keys: Keys
    scale: float = 1.0
    most: Keys = ()
    zero_is_a_lie: bool = False

    @property
    def name(self) -> str:
        """Where it stands in the resource."""
        return "/".join(map(str, self.keys))

    def read(self, document: Document) -> float | None:
        """In base units; None if the BMC says that it has none, or that a supply is idle.
        Raises ReadError for what cannot be a reading."""
        value = number(document, self.keys)
        if value is None:
            return None
        if value < 0:
            raise ReadError("invalid", f"{value:g} is less than nothing")
        if value == 0:
            if self.zero_is_a_lie:
                raise ReadError("invalid", "0 W of a machine that runs: this BMC does not measure")
            return None
        if self.most:
            most = number(document, self.most)
            if most and value > most:
                raise ReadError("invalid", f"{value:g} W is more than the capacity of {most:g} W")
        return value * self.scale


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource that is asked for on every round. `supplies` is what it lists, if it lists the
    power supplies: another list means that one was added or pulled."""

    path: str
    readings: tuple[Reading, ...] = ()
    supplies: tuple[str, ...] | None = None


@dataclass(slots=True)
class Plan:
    """What to ask for, found out once. `remarks` tell an operator what was chosen and why."""

    resources: list[Resource] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    is_complete: bool = True


def number(document: Document, keys: Keys) -> float | None:
    """The number there; None for null and for nothing. Raises ReadError for anything else."""
    found: object = document
    for key in keys:
        if isinstance(key, int):
            found = found[key] if isinstance(found, list) and key < len(found) else None
        elif isinstance(found, dict):
            found = found.get(key)
        elif found is not None:
            raise ReadError("parse", f"{type(found).__name__} in place of an object")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ReadError("parse", f"{type(found).__name__} in place of a number")
    try:
        value = float(found)
    except OverflowError as error:
        raise ReadError("invalid", "too large a number") from error
    if not math.isfinite(value):
        raise ReadError("invalid", f"{value} in place of a number")
    return value


def reading_at(document: Document, keys: Keys) -> int:
    """2 if a reading stands there, 1 if something that is none, such as 0 or a text, 0 if there
    is nothing or null."""
    try:
        value = number(document, keys)
    except ReadError:
        return 1
    return 0 if value is None else 2 if value > 0 else 1


def energy_of(document: Document) -> tuple[Keys, float] | None:
    """The finest energy counter that the document has, and what makes joules of it."""
    for keys, scale in ENERGIES:
        if reading_at(document, keys):
            return keys, scale
    # One that has no value now may have one later.
    return next((found for found in ENERGIES if found[0][0] in document), None)


def listed(document: Document) -> tuple[str, ...] | None:
    """The power supplies that a collection or a Power resource lists, None if it lists none."""
    members = document.get("Members")
    if isinstance(members, list):
        return tuple(filter(None, (link(one) for one in members if isinstance(one, dict))))
    supplies = document.get("PowerSupplies")
    if isinstance(supplies, list):
        return tuple(identity(one, position) for position, one in enumerate(supplies))
    return None


def identity(supply: object, position: int) -> str:
    """What the BMC calls a member of a list: its id, or else its position."""
    if isinstance(supply, dict):
        for key in ("MemberId", "Id"):
            found = supply.get(key)
            if isinstance(found, str | int) and str(found).strip():
                return str(found).strip()
    return str(position)

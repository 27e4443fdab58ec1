"""A chassis of a BMC (DSP2046, Chassis), what it is and what was found of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from telemetryd.collectors.redfish.session import Document, link
from telemetryd.meters import Boundary

_PART_TYPES = frozenset({"Component", "Module", "Card", "Cartridge", "Expander", "Zone"})
# The chassis of an NVIDIA baseboard and of each GPU on it; not all have a ChassisType that says so.
_PART_PREFIX = "HGX_"
_ENCLOSURE_TYPES = frozenset({"Enclosure", "Rack", "RackGroup", "Row", "Pod", "Shelf", "Sidecar"})


@dataclass(frozen=True, slots=True)
class Supply:
    """A power supply: `path` of its metrics and `document`, or its position in Power."""

    id: str
    name: str
    document: Document
    path: str = ""
    position: int = -1


@dataclass(slots=True)
class Chassis:
    """A chassis and what was found of it. `is_silent`: it has a meter that gives nothing now."""

    path: str
    document: Document
    supplies: list[Supply] = field(default_factory=list)
    collection: tuple[str, tuple[str, ...]] | None = None
    metrics: tuple[str, Document] | None = None
    power: tuple[str, Document] | None = None
    control: int | None = None
    is_silent: bool = False
    boundary: Boundary = "enclosing"

    @property
    def name(self) -> str:
        """The end of its path, which mostly is its id."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def id(self) -> str:
        found = self.document.get("Id")
        return found if isinstance(found, str) and found.strip() else self.name

    @property
    def is_part(self) -> bool:
        return self._kind in _PART_TYPES or self.is_named_part

    @property
    def is_named_part(self) -> bool:
        return self.id.startswith(_PART_PREFIX)

    @property
    def is_enclosure(self) -> bool:
        """Whether it may hold several machines; alone, it is one (DMTF calls "Enclosure" what
        fits no other description)."""
        return self._kind in _ENCLOSURE_TYPES

    @property
    def container(self) -> str:
        return (link(self.document, "Links", "ContainedBy") or "").rstrip("/")

    @property
    def systems(self) -> frozenset[str]:
        links = self.document.get("Links")
        found = links.get("ComputerSystems") if isinstance(links, dict) else None
        members = found if isinstance(found, list) else []
        return frozenset(
            path.rstrip("/") for one in members if isinstance(one, dict) and (path := link(one))
        )

    @property
    def has_meters(self) -> bool:
        return bool(self.supplies or self.metrics or self.control is not None)

    @property
    def _kind(self) -> str:
        return str(self.document.get("ChassisType"))


def machines_of(chassis: list[Chassis]) -> tuple[list[Chassis], list[Chassis]]:
    """Those that may be a machine: standing for themselves, and contained in another of them."""
    containers = {one.path.rstrip("/"): one for one in chassis}
    whole = [one for one in chassis if not one.is_part]
    machines = [one for one in whole if not one.is_enclosure]
    # Where there are none but enclosures, or parts, one of them is the machine.
    machines = machines or whole or [one for one in chassis if not one.is_named_part]
    inside = [one for one in machines if _is_inside(one, machines, containers)]
    return [one for one in machines if one not in inside], inside


def _is_inside(chassis: Chassis, machines: list[Chassis], containers: dict[str, Chassis]) -> bool:
    above = chassis
    for _ in containers:  # no longer, should they go round in a circle
        container = containers.get(above.container)
        if container is None or container is chassis:
            return False
        if container in machines:
            return True
        above = container
    return False

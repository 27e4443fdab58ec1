"""Energy of CPU packages, their parts, memory and platform, from RAPL.

From /sys/class/powercap (Documentation/power/powercap/powercap.rst, the zones' names from
drivers/powercap/intel_rapl_common.c); AMD processors have the same interface. A zone is known by
its `name`, never by its place: `dram` is a child folder of its package and yet not inside its
energy, and the index in a folder's name is hexadecimal.

`energy_uj` wraps at `max_energy_range_uj`, and starts again from 0 after a suspend or when the
driver is reloaded. A value below the last one is a wrap if that is possible at all: if the energy
it would mean, over the time that passed, is not more power than the zone can draw. Otherwise the
counter was reset, and nothing is derived for that interval.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from pydantic import Field

from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.duration import Seconds
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Attribute, Host
from telemetryd.meters import ENERGY, GAP, Boundary, EnergyCounter
from telemetryd.metric import Point

SOURCE = "rapl"
_FOLDER = re.compile(r"intel-rapl[a-z-]*(?::[0-9a-f]+)+\Z")
# "package-0", "package-0-die-1", "psys", "psys-1"
_TOP = re.compile(r"(package|psys)(?:-(.+))?\Z")
_BOUNDARIES: dict[str, Boundary] = {
    "package": "component",
    "dram": "component",
    "core": "subcomponent",
    "uncore": "subcomponent",
    "psys": "enclosing",
}
# Out of the air, well above what is sold: a package or its memory; a whole node with its GPUs.
_MOST_WATTS = 3_000
_MOST_PLATFORM_WATTS = 20_000


class RaplConfig(CollectorConfig, Filters):
    """[collectors.rapl]: `include` and `exclude` are matched with the names of zones."""

    interval: Seconds = Field(
        1.0,
        ge=0.05,
        le=10,
        description="time between two samples; a counter may wrap every 20 s at full power",
    )
    include: tuple[str, ...] = Field(
        ("*",), description="shell patterns of the zones to read, such as package-*, dram, psys"
    )
    exclude: tuple[str, ...] = Field(
        (), description="shell patterns of the zones to leave alone, such as core, uncore"
    )


class _Zone:
    __slots__ = ("counter", "energy", "key", "series")

    def __init__(self, folder: str, range_uj: int, domain: str, device: str) -> None:
        boundary = _BOUNDARIES.get(domain, "subcomponent")
        most_watts = _MOST_PLATFORM_WATTS if domain == "psys" else _MOST_WATTS
        self.key = (folder, range_uj, domain, device)
        self.series = ENERGY.at(SOURCE, domain, device, boundary)
        self.energy = Attribute(os.path.join(folder, "energy_uj"))
        self.counter = EnergyCounter(range_uj, most_watts)


class Rapl(Collector):
    """Joules of each zone since it was first read.

    Raises Unavailable if there is no zone, or if none may be read: energy_uj belongs to root
    alone since CVE-2020-8694.
    """

    Config = RaplConfig
    metrics = (ENERGY, GAP)

    def __init__(self, config: RaplConfig, host: Host) -> None:
        super().__init__(config, host)
        self._wants = config.wants
        self._class = host.sys("class/powercap")
        self._names: list[str] | None = None
        self._known: dict[tuple[str, int, str, str], _Zone] = {}
        self._zones: list[_Zone] = []
        self._gap = GAP.at(SOURCE)
        self._look_at_zones()
        self._try_to_read()

    def sample(self) -> Iterator[Point]:
        names = self.host.names(self._class)
        if names != self._names:
            self._look_at_zones()
            self._names = names
        clock = self.host.clock
        for zone in self._zones:
            try:
                energy_uj = int(zone.energy.read())
                yield zone.series, zone.counter.advance(energy_uj, clock.mono_ns())
            except (OSError, ValueError, ReadError) as error:
                self.fault(error, zone.energy.path)
        yield self._gap, sum(zone.counter.gap_seconds for zone in self._known.values())

    def _try_to_read(self) -> None:
        """Raises Unavailable if not a single zone can be read."""
        problem: OSError | None = None
        for zone in self._zones:
            try:
                zone.energy.read()
            except OSError as error:
                problem = problem or error
            else:
                return
        if problem is not None:
            raise Unavailable(
                f"cannot read {problem.filename}: {problem.strerror}",
                "install the tmpfiles rule from systemd/ or run as root"
                if isinstance(problem, PermissionError)
                else "see the kernel's log for intel_rapl",
            ) from problem

    def _look_at_zones(self) -> None:
        """Find the zones again; those known before go on counting where they were.

        Raises Unavailable if there is none.
        """
        zones: dict[tuple[str, str], _Zone] = {}
        for folder, domain, device in self._identified():
            # The same energy is offered twice: by MSR, which comes first, and by MMIO.
            if (domain, device) in zones:
                continue
            path = os.path.join(folder, "max_energy_range_uj")
            try:
                range_uj = int(self.host.read(path))
                if range_uj <= 0:
                    raise ReadError("invalid", f"a range of {range_uj} uJ")  # noqa: TRY301
            except (OSError, ValueError, ReadError) as error:
                self.fault(error, path)
                continue
            key = (folder, range_uj, domain, device)
            zones[domain, device] = self._known.get(key) or _Zone(*key)
        if not zones:
            self.close()
            raise Unavailable(
                f"no RAPL zone to read under {self._class}",
                "load the driver (modprobe intel_rapl_msr); virtual machines seldom have RAPL",
            )
        self._zones = list(zones.values())
        for zone in self._known.values():
            if zone not in self._zones:
                zone.energy.close()
        self._known.update((zone.key, zone) for zone in self._zones)

    def _identified(self) -> Iterator[tuple[str, str, str]]:
        """The folder, domain and device of each zone that the filters let through."""
        folders = self._folders()
        names: dict[str, str] = {}
        for folder, path in folders.items():
            try:
                names[folder] = self.host.text(os.path.join(path, "name"))
            except OSError as error:
                self.fault(error, path)
        for folder, name in names.items():
            if self._wants(name):
                yield folders[folder], *_identity(folder, names)

    def _folders(self) -> dict[str, str]:
        """The path of each zone by the name of its folder, intel-rapl before intel-rapl-mmio.

        The class links to all of them; one that is only inside its parent is found there.
        """
        paths: dict[str, str] = {}
        places = [self._class]
        for place in places:
            for folder in self.host.names(place):
                if _FOLDER.match(folder) and folder not in paths:
                    paths[folder] = os.path.join(place, folder)
                    places.append(paths[folder])
        by_interface = sorted(paths, key=lambda folder: folder.split(":"))
        return {folder: paths[folder] for folder in by_interface}

    def close(self) -> None:
        for zone in self._known.values():
            zone.energy.close()


def _identity(folder: str, names: dict[str, str]) -> tuple[str, str]:
    """Domain and device of the zone in `folder`: "package", "0" or "dram", "0"."""
    top = folder
    while (parent := top.rpartition(":")[0]) in names:
        top = parent
    match = _TOP.match(names[top])
    if match is None:
        return names[folder], top.rpartition(":")[2]
    return match[1] if top == folder else names[folder], match[2] or "0"

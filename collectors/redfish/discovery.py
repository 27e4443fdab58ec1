"""Which chassis is this machine, and which of its resources have readings.

A BMC lists a chassis for each thing that has one: the machine, its GPU baseboard (HGX_Chassis_0
and one for each GPU), the enclosure that it shares with other machines. Counted once is only
what the machine takes in, so of those that have readings

1. parts of a machine are left out: by ChassisType, or by an Id that begins with HGX_,
2. enclosures beside them are left out, by ChassisType: they may feed several machines,
3. one that is contained in another of the rest is left out,
4. those with power supplies stand for those without,
5. those that a ComputerSystem is linked with stand for those without; if the rest belongs to more
   than one system, nobody but the operator can tell which is this machine.

`chassis` in the configuration says otherwise. A part chosen there is a `subcomponent`.

Power supplies and the whole are each read from the newer resources (PowerSubsystem,
EnvironmentMetrics) or from the older one (Power), whichever has readings; never from both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from telemetryd.collectors.redfish.chassis import Chassis, Supply, machines_of
from telemetryd.collectors.redfish.connection import SECTION, BmcError
from telemetryd.collectors.redfish.meters import (
    ENERGIES,
    INPUT_POWER,
    OUTPUT_POWER,
    POWER_WATTS,
    Plan,
    identity,
    listed,
    reading_at,
)
from telemetryd.collectors.redfish.session import Document, link

Fetch = Callable[[str], Document]
_CHASSIS = "/redfish/v1/Chassis"
# Far more than any BMC has; more would be a mistake of somebody's.
_MOST_MEMBERS, _MOST_PAGES = 256, 8
_CONSUMED = "PowerConsumedWatts"
# Members of PowerControl that are a share of the whole: Lenovo's XCC has some.
_SHARES = ("cpu", "memory", "gpu", "accelerator", "subsystem", "sub-system", "storage", "fan")


class Discovery:
    """Looks through a BMC once. Raises BmcError if it does not get to the end of it, or if there
    is no meter of this machine."""

    def __init__(self, fetch: Fetch, chosen: Sequence[str], plan: Plan) -> None:
        self._fetch = fetch
        self._chosen = chosen
        self._plan = plan
        self._count = 0
        self.faults: list[tuple[Exception, str]] = []

    def chassis(self, root: Document) -> list[Chassis]:
        """Those that are read, with what was found of them."""
        found = self._all(link(root, "Chassis") or _CHASSIS)
        if self._chosen:
            return self._named(found)
        for tier in machines_of(found):
            metered = [one for one in tier if self._look_into(one)]
            if metered:
                return self._this_machine(metered, found)
            if any(one.is_silent for one in tier):
                break  # a part has a reading, perhaps, but is not the whole
        raise BmcError(
            "missing",
            f"no power reading of a machine in {_ids(found) or 'the BMC, which has no chassis'}",
            f"newer firmware may have one; for a part or an enclosure set {SECTION}.chassis",
            ends_round=True,
        )

    def _all(self, path: str) -> list[Chassis]:
        found = [Chassis(one, {}) for one in _members(self._pages(path))]
        self._count = len(found)
        if self._chosen:
            # A BMC with forty chassis takes a minute for them all.
            named = [one for one in found if one.name in self._chosen]
            found = named if len(named) == len(self._chosen) else found
        return [one for one in found if self._reads(one)]

    def _reads(self, chassis: Chassis) -> bool:
        """Read the chassis; False if it is not there. What is broken may be the machine itself:
        then nothing is chosen at all."""
        try:
            chassis.document = self._fetch(chassis.path)
        except BmcError as error:
            if error.reason == "missing":
                return False
            if error.ends_round or self._chosen:
                raise
            raise BmcError(
                error.reason, error.what, f"name this machine's in {SECTION}.chassis"
            ) from error
        return True

    def _named(self, found: list[Chassis]) -> list[Chassis]:
        names = {name for one in found for name in (one.id, one.name)}
        unknown = [name for name in self._chosen if name not in names]
        if unknown:
            raise BmcError(
                "missing",
                f"the BMC has no chassis {', '.join(unknown)}",
                f"correct {SECTION}.chassis: there are {_ids(found)}",
                ends_round=True,
            )
        picked = [one for one in found if one.id in self._chosen or one.name in self._chosen]
        metered = [one for one in picked if self._look_into(one)]
        if not metered:
            raise BmcError(
                "missing",
                f"no power reading in chassis {_ids(picked)}",
                f"choose another in {SECTION}.chassis",
                ends_round=True,
            )
        for one in metered:
            one.boundary = "subcomponent" if one.is_part and self._count > 1 else "enclosing"
        return metered

    def _this_machine(self, metered: list[Chassis], found: list[Chassis]) -> list[Chassis]:
        rest = [one for one in metered if one.supplies] or metered
        rest = [one for one in rest if one.systems] or rest
        systems = frozenset[str]().union(*(one.systems for one in rest))
        if len(rest) > 1 and len(systems) != 1:
            raise BmcError(
                "invalid",
                f"several machines, or parts of one, have power readings: chassis {_ids(rest)}",
                f"name those of this machine in {SECTION}.chassis",
                ends_round=True,
            )
        others = [one for one in found if one not in rest]
        if others:
            self._plan.remarks.append(
                f"chassis {_ids(rest)} is taken for the machine; left out: {_ids(others)}"
            )
        return rest

    def _look_into(self, chassis: Chassis) -> bool:
        """Find the meters of a chassis; whether it has any."""
        supplies = self._newer_supplies(chassis)
        metrics_path, metrics = self._optional(link(chassis.document, "EnvironmentMetrics"))
        score = _score([metrics], (POWER_WATTS, *(keys for keys, _ in ENERGIES)))
        supply_keys = (INPUT_POWER, OUTPUT_POWER, ENERGIES[1][0])
        supply_score = _score((one.document for one in supplies), supply_keys)
        power: Document = {}
        if score < 2 or supply_score < 2:
            path, power = self._optional(link(chassis.document, "Power"))
            position, older_score = _whole(power)
            older = _older_supplies(power)
            older_keys = ("PowerInputWatts",), ("PowerOutputWatts",), ("LastPowerOutputWatts",)
            if older_score > score:
                score, metrics = 0, {}
                chassis.power, chassis.control = (path, power), position
            older_supply_score = _score((one.document for one in older), older_keys)
            if older_supply_score > supply_score:
                supplies, supply_score = older, older_supply_score
                chassis.power, chassis.collection = (path, power), None
        if score:
            chassis.metrics = metrics_path, metrics
        chassis.supplies = supplies if supply_score else []
        chassis.is_silent = (
            POWER_WATTS[0] in metrics
            or any(INPUT_POWER[0] in one.document for one in supplies)
            or any(_CONSUMED in one for one in _objects(power, "PowerControl").values())
        )
        return chassis.has_meters

    def _newer_supplies(self, chassis: Chassis) -> list[Supply]:
        _, subsystem = self._optional(link(chassis.document, "PowerSubsystem"))
        collection = link(subsystem, "PowerSupplies")
        if collection is None:
            return []
        try:
            first, *pages = self._pages(collection)
        except BmcError as error:
            self._excuse(error)
            return []
        chassis.collection = collection, first
        supplies = []
        for position, path in enumerate(_members([first, *pages])):
            _, supply = self._optional(path)
            metrics_path, metrics = self._optional(link(supply, "Metrics"))
            name = str(supply.get("Name") or "")
            supplies.append(Supply(identity(supply, position), name, metrics, metrics_path))
        return supplies

    def _pages(self, path: str) -> Iterator[tuple[str, ...]]:
        """The members of a collection, page by page."""
        page: str | None = path
        for _ in range(_MOST_PAGES):
            if page is None:
                return
            document = self._fetch(page)
            yield listed(document) or ()
            page = link({"@odata.id": document.get("Members@odata.nextLink")})

    def _optional(self, path: str | None) -> tuple[str, Document]:
        """A resource that another generation, or another BMC, does not have."""
        if path is None:
            return "", {}
        try:
            return path, self._fetch(path)
        except BmcError as error:
            self._excuse(error)
            return path, {}

    def _excuse(self, error: BmcError) -> None:
        """Go on without a resource that is not there, or is broken; raise everything else."""
        if error.reason == "missing":
            return
        if error.ends_round or error.reason == "timeout":
            raise error
        self._plan.is_complete = False
        self.faults.append((error, ""))


def _members(pages: Iterable[tuple[str, ...]]) -> list[str]:
    return list(dict.fromkeys(path for page in pages for path in page))[:_MOST_MEMBERS]


def _score(documents: Iterable[Document], places: Iterable[tuple[str | int, ...]]) -> int:
    wanted = tuple(places)
    return max((reading_at(one, keys) for one in documents for keys in wanted), default=0)


def _whole(power: Document) -> tuple[int | None, int]:
    """Which member of PowerControl is the whole, and how good its reading is."""
    for position, control in _objects(power, "PowerControl").items():
        what = f"{control.get('PhysicalContext', '')} {control.get('Name', '')}".lower()
        score = reading_at(control, (_CONSUMED,))
        if score and not any(share in what for share in _SHARES):
            return position, score
    return None, 0


def _older_supplies(power: Document) -> list[Supply]:
    return [
        Supply(identity(one, position), str(one.get("Name") or ""), one, position=position)
        for position, one in _objects(power, "PowerSupplies").items()
    ]


def _objects(document: Document, key: str) -> dict[int, Document]:
    """The objects in a list of the document, by their position."""
    found = document.get(key)
    members = found if isinstance(found, list) else []
    return {position: one for position, one in enumerate(members) if isinstance(one, dict)}


def _ids(chassis: list[Chassis]) -> str:
    return ", ".join(one.id for one in chassis)

"""What is asked for on every round, from what was found once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from telemetryd.collectors.redfish.chassis import Chassis, Supply
from telemetryd.collectors.redfish.meters import (
    INPUT_POWER,
    OUTPUT_POWER,
    POWER_WATTS,
    Keys,
    Place,
    Plan,
    Reading,
    Resource,
    energy_of,
    listed,
    reading_at,
)
from telemetryd.collectors.redfish.vendors import Vendor, domain_of_consumed
from telemetryd.meters import ENERGY, POWER, Boundary

_LONGEST_NAME = 100
_OLDER_INPUT = "PowerInputWatts"
# The first that has a reading; the last of them is what the first version had.
_OLDER_OUTPUTS = ("PowerOutputWatts", "LastPowerOutputWatts")


def make_plan(plan: Plan, chassis: list[Chassis], vendor: Vendor | None) -> None:
    """Add the resources of these chassis to `plan`."""
    names = Counter(supply.name for one in chassis for supply in one.supplies)
    ids: set[str] = set()
    taken: set[str] = set()
    for one in chassis:
        device = _distinct(one.id, ids)
        of_chassis = f"{device}/" if len(chassis) > 1 else ""
        # Names tell supplies apart, except where all of them have the same.
        labels = (
            supply.name if supply.name and names[supply.name] == 1 else supply.id
            for supply in one.supplies
        )
        devices = [_distinct(of_chassis + label, taken) for label in labels]
        _plan_chassis(plan, one, device, devices, vendor)


def _distinct(device: str, taken: set[str]) -> str:
    """A label that no other has: ids should differ, and do not on every BMC."""
    device = device.strip()[:_LONGEST_NAME]
    tried, count = device, 1
    while not tried or tried in taken:
        count += 1
        tried = f"{device}/{count}"
    taken.add(tried)
    return tried


def _plan_chassis(
    plan: Plan, chassis: Chassis, device: str, devices: list[str], vendor: Vendor | None
) -> None:
    boundary = chassis.boundary
    older: list[Reading] = []
    for supply, name in zip(chassis.supplies, devices, strict=True):
        readings = list(_supply(supply, name, boundary))
        if supply.path:
            _add(plan, supply.path, readings)
        else:
            older += readings
    if chassis.collection is not None and chassis.supplies:
        path, members = chassis.collection
        plan.resources.append(Resource(path, supplies=members))
    domain = "part" if boundary == "subcomponent" else domain_of_consumed(vendor)
    whole = Place(domain, device, boundary)
    # Where the supplies say what they give, that is its sum already.
    outputs = (OUTPUT_POWER, *((key,) for key in _OLDER_OUTPUTS))
    gives_output = any(
        reading_at(one.document, keys) for one in chassis.supplies for keys in outputs
    )
    if whole.domain != "psu_output" or not gives_output:
        older += _whole(plan, chassis, whole)
    if chassis.power is not None:
        path, document = chassis.power
        lists = chassis.collection is None and chassis.supplies
        _add(plan, path, older, listed(document) if lists else None)
    if vendor is not None:
        plan.remarks.append(f"chassis {chassis.id}: {vendor.why} ({vendor.source})")


def _add(
    plan: Plan, path: str, readings: list[Reading], supplies: tuple[str, ...] | None = None
) -> None:
    if readings:
        plan.resources.append(Resource(path, tuple(readings), supplies))


def _whole(plan: Plan, chassis: Chassis, place: Place) -> list[Reading]:
    """Plan the newer resource of the whole; what the older one has of it."""
    if chassis.control is not None:
        keys: Keys = ("PowerControl", chassis.control, "PowerConsumedWatts")
        return [Reading(place.series(POWER), keys, zero_is_a_lie=True)]
    if chassis.metrics is not None:
        path, document = chassis.metrics
        readings = []
        if POWER_WATTS[0] in document:
            readings.append(Reading(place.series(POWER), POWER_WATTS, zero_is_a_lie=True))
        if (found := energy_of(document)) is not None:
            readings.append(Reading(place.series(ENERGY), *found))
        _add(plan, path, readings)
    return []


def _supply(supply: Supply, device: str, boundary: Boundary) -> Iterator[Reading]:
    taken = Place("psu_input", device, boundary)
    given = Place("psu_output", device, boundary)
    return (
        _newer_supply(supply, taken, given) if supply.path else _older_supply(supply, taken, given)
    )


def _newer_supply(supply: Supply, taken: Place, given: Place) -> Iterator[Reading]:
    """A supply that has no reading now, such as an idle one, may have one later."""
    if INPUT_POWER[0] in supply.document:
        yield Reading(taken.series(POWER), INPUT_POWER)
    if (found := energy_of(supply.document)) is not None:
        yield Reading(taken.series(ENERGY), *found)
    if OUTPUT_POWER[0] in supply.document:
        yield Reading(given.series(POWER), OUTPUT_POWER)


def _older_supply(supply: Supply, taken: Place, given: Place) -> Iterator[Reading]:
    here = ("PowerSupplies", supply.position)
    if _OLDER_INPUT in supply.document:
        # Dell's iDRAC 7 and 8 give the rating of the input: 900 W for a supply of 750 W.
        most = (*here, "PowerCapacityWatts")
        yield Reading(taken.series(POWER), (*here, _OLDER_INPUT), most=most)
    output = max(_OLDER_OUTPUTS, key=lambda key: reading_at(supply.document, (key,)))
    if output in supply.document:
        yield Reading(given.series(POWER), (*here, output))

"""Every tick: power, its limits, and the energy counter.

Average and instantaneous power are different readings, by tens of watts under a load that changes,
and never stand in for each other. The meters that energy figures are worked out from
(telemetryd/meters.py) get the counter and the average; of a GPU that knows no average, the power at
the moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_uint, c_ulonglong

from telemetryd.collectors.gpu_nvidia.driver import OK, Driver, Function
from telemetryd.collectors.gpu_nvidia.fields import Field
from telemetryd.collectors.gpu_nvidia.identity import Identity
from telemetryd.collectors.gpu_nvidia.reading import Read, Reading, number
from telemetryd.gpus import ENERGY, POWER_AVERAGE, POWER_INSTANT, POWER_LIMIT
from telemetryd.meters import ENERGY as METER_ENERGY
from telemetryd.meters import POWER as METER_POWER
from telemetryd.metric import Point, Series

SOURCE = "nvml"
_SCOPES = {"gpu": 0, "module": 1, "memory": 2}
_BOUNDARIES = {"gpu": "component", "module": "enclosing", "memory": "subcomponent"}
_OF_MODULE = frozenset({"power of the module", "average power of the module"})
# That of GA100, the last whose nvmlDeviceGetPowerUsage is no average: see nvml.h.
_GA100 = (8, 0)


def scopes(identity: Identity) -> Iterator[Field]:
    """Power by scope: the header's comments disagree about the numbers, so each is tried."""
    for scope, code in _SCOPES.items():
        labels = (*identity.labels, scope)
        meter = METER_POWER.at(SOURCE, scope, identity.gpu, _BOUNDARIES[scope])
        average = POWER_AVERAGE.at(*labels)
        yield Field(f"average power of the {scope}", 185, (average, meter), per=1000, scope=code)
        instant = POWER_INSTANT.at(*labels)
        yield Field(f"power of the {scope}", 186, (instant,), per=1000, scope=code)


def has_module(names: frozenset[str]) -> bool:
    """Whether among the fields that are answered are those of a module (Grace Hopper and the
    like): its energy counter then covers the whole of it."""
    return not _OF_MODULE.isdisjoint(names)


def fields(identity: Identity, *, module: bool) -> Iterator[Field]:
    """Limits and energy."""
    enforced = POWER_LIMIT.at(*identity.labels, "enforced")
    requested = POWER_LIMIT.at(*identity.labels, "requested")
    yield Field("enforced power limit", 190, (enforced,), per=1000)
    yield Field("requested power limit", 192, (requested,), per=1000)
    yield Field("energy", 83, _energy_series(identity, module=module), per=1000)


def readings(
    driver: Driver, handle: object, identity: Identity, known: frozenset[str], *, module: bool
) -> Iterator[Reading]:
    """The calls for what is not among the fields that are answered, whose names are `known`."""
    labels = identity.labels
    if "average power of the gpu" not in known:
        name, to = "power of the meter", [METER_POWER.at(SOURCE, "gpu", identity.gpu, "component")]
        if identity.compute_capability > _GA100:
            name, to = "average power of the gpu", [POWER_AVERAGE.at(*labels, "gpu"), *to]
        elif "power of the gpu" not in known:
            name, to = "power of the gpu", [POWER_INSTANT.at(*labels, "gpu"), *to]
        yield Reading(name, _power_usage(driver, handle, tuple(to)))
    if "enforced power limit" not in known:
        limit = POWER_LIMIT.at(*labels, "enforced")
        name = "nvmlDeviceGetEnforcedPowerLimit"
        read = number(driver, name, handle, to=limit, per=1000)
        yield Reading("enforced power limit", read)
    if "energy" not in known:
        energies = _energy_series(identity, module=module)
        yield Reading("energy", _energy(driver, handle, energies))


def _energy_series(identity: Identity, *, module: bool) -> tuple[Series, ...]:
    scope = "module" if module else "gpu"
    meter = METER_ENERGY.at(SOURCE, scope, identity.gpu, _BOUNDARIES[scope])
    return ENERGY.at(*identity.labels), meter


def _power_usage(driver: Driver, handle: object, to: tuple[Series, ...]) -> Read | None:
    function = driver.function("nvmlDeviceGetPowerUsage")
    if function is None:
        return None
    power_mw = c_uint()
    arguments = (handle, byref(power_mw))
    return _to_each(function, arguments, power_mw, to)


def _energy(driver: Driver, handle: object, to: tuple[Series, ...]) -> Read | None:
    function = driver.function("nvmlDeviceGetTotalEnergyConsumption")
    if function is None:
        return None
    energy_mj = c_ulonglong()
    arguments = (handle, byref(energy_mj))
    return _to_each(function, arguments, energy_mj, to)


def _to_each(
    function: Function,
    arguments: tuple[object, ...],
    value: c_uint | c_ulonglong,
    to: tuple[Series, ...],
) -> Read:
    """The way to read a number of thousandths that is several series."""

    def read(points: list[Point]) -> int:
        code = function(*arguments)
        if code == OK:
            whole = value.value / 1000
            points += [(series, whole) for series in to]
        return code

    return read

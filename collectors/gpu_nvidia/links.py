"""NVLink and the fabric behind it, every 30 s: which links are up, their speed, their errors."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ctypes import byref, c_uint, c_void_p, create_string_buffer
from uuid import UUID

from telemetryd.collectors.gpu_nvidia.driver import (
    ABSENT,
    OK,
    UNSUPPORTED,
    Driver,
    NvmlError,
)
from telemetryd.collectors.gpu_nvidia.families import (
    FABRIC,
    FABRIC_FAULT,
    FABRIC_HEALTHY,
    NVLINK_ERRORS,
)
from telemetryd.collectors.gpu_nvidia.fields import Field, FieldValues
from telemetryd.collectors.gpu_nvidia.identity import Identity
from telemetryd.collectors.gpu_nvidia.reading import Read, Reading, Report
from telemetryd.gpus import NVLINK_SPEED, NVLINK_UP
from telemetryd.metric import Point, Series

# NVML_NVLINK_MAX_LINKS of nvml.h
_MOST_LINKS = 36
_NO_SUCH_LINK = 2  # NVML_ERROR_INVALID_ARGUMENT
_NOT_SUPPORTED = 3
# The field with the sum over all links where there is one (up to Ampere), else that of each link
# (from Hopper on), which is summed here.
_ERRORS: dict[str, tuple[int | None, int | None]] = {
    "crc_flit": (38, None),
    "crc_data": (45, None),
    "crc": (None, 163),
    "replay": (52, 161),
    "recovery": (59, 162),
    "ecc_data": (160, None),
    "receive": (None, 208),
    "recovery_failed": (None, 214),
    "symbol": (None, 221),
}
_STATES = {1: "not_started", 2: "in_progress", 3: "completed"}
_COMPLETED = 3
# nvml.h: NVML_GPU_FABRIC_HEALTH_MASK_*: two bits each, 1 = true, 2 = false, 0 = not told.
_FAULTS = {
    "degraded_bandwidth": 0,
    "route_recovery": 2,
    "route_unhealthy": 4,
    "access_timeout_recovery": 6,
}
# Four bits: 0 = not told, 1 = none, above = what is wrong.
_CONFIGURATION_SHIFT = 8
# c_nvmlGpuFabricInfo_v2_t: version, cluster, status, clique, state, health.
_FABRIC = struct.Struct("=I16siIB3xI")


def readings(
    driver: Driver, handle: c_void_p, identity: Identity, report: Report
) -> Iterator[Reading]:
    """Nothing of NVLink for a GPU that has none. Raises NvmlError if the GPU is gone."""
    labels = identity.labels
    links = _links(driver, handle)
    if links:
        yield Reading("NVLink states", _states(driver, handle, labels, links))
        speed = NVLINK_SPEED.at(*labels)
        yield from _speeds(driver, handle, speed, links, report)
        yield from _errors(driver, handle, labels, links, report)
    yield Reading("fabric", _fabric(driver, handle, labels))


def _links(driver: Driver, handle: c_void_p) -> list[int]:
    """The links that this GPU has, up or down."""
    links = []
    for link in range(_MOST_LINKS):
        try:
            driver.number("nvmlDeviceGetNvLinkState", handle, link)
        except NvmlError as code:
            if code.is_lifecycle:
                raise
            if code.code == _NO_SUCH_LINK:
                break
        else:
            links.append(link)
    return links


def _states(
    driver: Driver, handle: c_void_p, labels: tuple[str, str], links: list[int]
) -> Read | None:
    function = driver.function("nvmlDeviceGetNvLinkState")
    if function is None:
        return None
    state = c_uint()
    calls = [(NVLINK_UP.at(*labels, str(link)), (handle, link, byref(state))) for link in links]

    def read(points: list[Point]) -> int:
        """The code is that of the last link that failed; one that the driver does not speak of any
        more takes none of the others with it."""
        failed = OK
        for series, arguments in calls:
            code = function(*arguments)
            if code == OK:
                points.append((series, state.value))
            elif code not in UNSUPPORTED and code not in ABSENT:
                failed = code
        return failed

    return read


def _speeds(
    driver: Driver, handle: c_void_p, to: Series, links: list[int], report: Report
) -> Iterator[Reading]:
    """The speed that all links have in common, else the highest: one that is down has none."""
    common = FieldValues(driver, handle, [Field("NVLink speed", 90, (to,), 1_000_000)], report)
    if common.names:
        yield Reading("NVLink speed", common.read)
        return
    fields = [Field(f"speed of NVLink {link}", 164, (to,), 1_000_000, scope=link) for link in links]
    of_each = FieldValues(driver, handle, fields, report)
    yield Reading("NVLink speed", _highest(of_each))


def _errors(
    driver: Driver,
    handle: c_void_p,
    labels: tuple[str, str],
    links: list[int],
    report: Report,
) -> Iterator[Reading]:
    for kind, (total, of_each) in _ERRORS.items():
        to = (NVLINK_ERRORS.at(*labels, kind),)
        name = f"NVLink errors ({kind})"
        if total is not None:
            values = FieldValues(driver, handle, [Field(name, total, to)], report)
            if values.names:
                yield Reading(name, values.read)
                continue
        if of_each is not None:
            fields = [Field(f"{name} of link {link}", of_each, to, scope=link) for link in links]
            values = FieldValues(driver, handle, fields, report)
            if len(values.names) == len(links):
                yield Reading(name, _sum(values, len(links)))


def _highest(values: FieldValues) -> Read:
    """The highest value of a field over all links; nothing if no link has one."""
    parts: list[Point] = []

    def read(points: list[Point]) -> int:
        if not values.names:
            return _NOT_SUPPORTED
        parts.clear()
        code = values.read(parts)
        highest = max((value for _, value in parts), default=0)
        if highest:
            points.append((parts[0][0], highest))
        return code

    return read


def _sum(values: FieldValues, expected: int) -> Read:
    """The sum of a field over all links; nothing if one is missing, since a sum of fewer would
    look like a counter that fell."""
    parts: list[Point] = []

    def read(points: list[Point]) -> int:
        parts.clear()
        code = values.read(parts)
        if code == OK and len(parts) == expected:
            points.append((parts[0][0], sum(value for _, value in parts)))
        return code

    return read


def _fabric(driver: Driver, handle: c_void_p, labels: tuple[str, str]) -> Read | None:
    function = driver.function("nvmlDeviceGetGpuFabricInfoV")
    if function is None:
        return None
    buffer = create_string_buffer(_FABRIC.size)
    version = driver.nvml.nvmlGpuFabricInfo_v2
    healthy = FABRIC_HEALTHY.at(*labels)

    def read(points: list[Point]) -> int:
        _FABRIC.pack_into(buffer, 0, version, b"", 0, 0, 0, 0)
        code = function(handle, buffer)
        if code != OK:
            return code
        _, cluster, status, clique, state, health = _FABRIC.unpack(buffer)
        if state not in _STATES:  # 0: there is no fabric
            return OK
        identity = (
            _STATES[state],
            "success" if status == OK else f"error {status}",
            str(UUID(bytes=cluster)),
            str(clique),
        )
        faults = dict(_faults(health))
        well = state == _COMPLETED and status == OK and not any(faults.values())
        points.append((FABRIC.at(*labels, *identity), 1))
        points.append((healthy, int(well)))
        points += [(FABRIC_FAULT.at(*labels, fault), is_on) for fault, is_on in faults.items()]
        return OK

    return read


def _faults(health: int) -> Iterator[tuple[str, int]]:
    """The faults that this driver tells of, each on or off."""
    for fault, shift in _FAULTS.items():
        told = health >> shift & 0x3
        if told:
            yield fault, int(told == 1)
    configuration = health >> _CONFIGURATION_SHIFT & 0xF
    if configuration:
        yield "incorrect_configuration", int(configuration > 1)

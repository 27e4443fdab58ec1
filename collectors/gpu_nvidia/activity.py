"""Every tick: how busy, full, hot and throttled a GPU is."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import Array, byref, c_int, c_uint, c_ulonglong

from telemetryd.collectors.gpu_nvidia.driver import OK, Driver, NvmlError
from telemetryd.collectors.gpu_nvidia.families import (
    PERFORMANCE_STATE,
    TEMPERATURE_LIMIT,
    TEMPERATURE_MARGIN,
    THROTTLE,
    THROTTLED,
)
from telemetryd.collectors.gpu_nvidia.fields import Field
from telemetryd.collectors.gpu_nvidia.identity import CLOCKS, Identity
from telemetryd.collectors.gpu_nvidia.reading import Read, Reading, number
from telemetryd.gpus import (
    BUSY,
    CLOCK,
    DECODER_BUSY,
    ENCODER_BUSY,
    FAN_SPEED,
    MEMORY_BUSY,
    MEMORY_FREE,
    MEMORY_RESERVED,
    MEMORY_TOTAL,
    MEMORY_USED,
    NVLINK_BYTES,
    PCIE_GENERATION,
    PCIE_RATE,
    PCIE_WIDTH,
    TEMPERATURE,
)
from telemetryd.metric import Metric, Point, Series

# nvmlClocksEventReasons
REASONS = {
    "gpu_idle": 0x1,
    "application_clocks": 0x2,
    "software_power_cap": 0x4,
    "hardware_slowdown": 0x8,
    "sync_boost": 0x10,
    "software_thermal": 0x20,
    "hardware_thermal": 0x40,
    "hardware_power_brake": 0x80,
    "display_clocks": 0x100,
}
_THROTTLE_TIMES = {
    "software_power_cap": 74,
    "sync_boost": 76,
    "software_thermal": 269,
    "hardware_thermal": 270,
    "hardware_power_brake": 271,
}
_TEMPERATURE_LIMITS = {"shutdown": 193, "slowdown": 194, "memory_max": 195, "gpu_max": 196}
ALL_LINKS = 0xFFFFFFFF
_UNKNOWN_STATE = 32


def fields(identity: Identity) -> Iterator[Field]:
    """What comes as a field value."""
    labels = identity.labels
    yield Field("memory temperature", 82, (TEMPERATURE.at(*labels, "memory"),))
    for reason, field in _THROTTLE_TIMES.items():
        name = f"time of throttling ({reason})"
        yield Field(name, field, (THROTTLED.at(*labels, reason),), per=10**9)
    for limit, field in _TEMPERATURE_LIMITS.items():
        name = f"temperature limit ({limit})"
        yield Field(name, field, (TEMPERATURE_LIMIT.at(*labels, limit),))
    for direction, field in (("transmit", 138), ("receive", 139)):
        to = (NVLINK_BYTES.at(*labels, direction),)
        yield Field(f"NVLink data ({direction})", field, to, 1024, scope=ALL_LINKS)


def readings(
    driver: Driver,
    handle: object,
    identity: Identity,
    *,
    pcie_throughput: bool,
) -> Iterator[Reading]:
    """What takes a call of its own."""
    labels = identity.labels

    def one(name: str, *arguments: object, to: Series, scale: int = 1) -> Read | None:
        return number(driver, name, handle, *arguments, to=to, scale=scale)

    yield Reading("utilization", _utilization(driver, handle, labels))
    yield Reading("memory", *memory(driver, handle, labels))
    for name, clock in CLOCKS.items():
        to = CLOCK.at(*labels, name)
        read = one("nvmlDeviceGetClockInfo", clock, to=to, scale=1_000_000)
        yield Reading(f"{name} clock", read)
    yield Reading(
        "throttle reasons",
        _throttle(driver, handle, labels, "nvmlDeviceGetCurrentClocksEventReasons"),
        _throttle(driver, handle, labels, "nvmlDeviceGetCurrentClocksThrottleReasons"),
    )
    sensor = TEMPERATURE.at(*labels, "gpu")
    yield Reading(
        "temperature",
        _temperature(driver, handle, sensor),
        one("nvmlDeviceGetTemperature", 0, to=sensor),
    )
    yield Reading("temperature margin", _margin(driver, handle, labels))
    encoder, decoder = ENCODER_BUSY, DECODER_BUSY
    yield Reading("encoder", _coder(driver, handle, labels, "Encoder", encoder))
    yield Reading("decoder", _coder(driver, handle, labels, "Decoder", decoder))
    yield Reading("performance state", _performance_state(driver, handle, labels))
    generation, width = PCIE_GENERATION.at(*labels), PCIE_WIDTH.at(*labels)
    yield Reading("PCIe generation", one("nvmlDeviceGetCurrPcieLinkGeneration", to=generation))
    yield Reading("PCIe width", one("nvmlDeviceGetCurrPcieLinkWidth", to=width))
    yield from _fans(driver, handle, labels)
    if pcie_throughput:
        for direction, code in (("transmit", 0), ("receive", 1)):
            rate = PCIE_RATE.at(*labels, direction)
            read = one("nvmlDeviceGetPcieThroughput", code, to=rate, scale=1024)
            yield Reading(f"PCIe throughput ({direction})", read)


def memory(driver: Driver, handle: object, labels: tuple[str, str]) -> tuple[Read | None, ...]:
    """The two ways to read the memory of a GPU or MIG instance."""
    total, used = MEMORY_TOTAL.at(*labels), MEMORY_USED.at(*labels)
    free, reserved = MEMORY_FREE.at(*labels), MEMORY_RESERVED.at(*labels)
    new = driver.function("nvmlDeviceGetMemoryInfo_v2")
    old = driver.function("nvmlDeviceGetMemoryInfo")
    words = (c_ulonglong * 5)()  # version, total, reserved, free, used; or total, free, used
    version = driver.nvml.nvmlMemory_v2

    def with_reserved(points: list[Point]) -> int:
        assert new is not None
        words[0] = version
        code = new(handle, words)
        if code == OK:
            points += (
                (total, words[1]), (reserved, words[2]), (free, words[3]), (used, words[4]),
            )  # fmt: skip
        return code

    def without(points: list[Point]) -> int:
        assert old is not None
        code = old(handle, words)
        if code == OK:
            points += ((total, words[0]), (free, words[1]), (used, words[2]))
        return code

    return None if new is None else with_reserved, None if old is None else without


def _utilization(driver: Driver, handle: object, labels: tuple[str, str]) -> Read | None:
    function = driver.function("nvmlDeviceGetUtilizationRates")
    if function is None:
        return None
    words = (c_uint * 2)()
    busy, memory_busy = BUSY.at(*labels), MEMORY_BUSY.at(*labels)

    def read(points: list[Point]) -> int:
        code = function(handle, words)
        if code == OK:
            points += ((busy, words[0] / 100), (memory_busy, words[1] / 100))
        return code

    return read


def _coder(
    driver: Driver, handle: object, labels: tuple[str, str], which: str, metric: Metric
) -> Read | None:
    function = driver.function(f"nvmlDeviceGet{which}Utilization")
    if function is None:
        return None
    percent, period_us = c_uint(), c_uint()
    arguments = (handle, byref(percent), byref(period_us))
    to = metric.at(*labels)

    def read(points: list[Point]) -> int:
        code = function(*arguments)
        if code == OK:
            points.append((to, percent.value / 100))
        return code

    return read


def _throttle(driver: Driver, handle: object, labels: tuple[str, str], name: str) -> Read | None:
    function = driver.function(name)
    if function is None:
        return None
    active = c_ulonglong()
    arguments = (handle, byref(active))
    series = [(THROTTLE.at(*labels, reason), bit) for reason, bit in REASONS.items()]

    def read(points: list[Point]) -> int:
        code = function(*arguments)
        if code == OK:
            mask = active.value
            points += [(to, 1 if mask & bit else 0) for to, bit in series]
        return code

    return read


def _temperature(driver: Driver, handle: object, to: Series) -> Read | None:
    """nvmlTemperature_v1_t: version, sensor (0, the GPU), degrees."""
    words = (c_int * 3)(driver.nvml.nvmlTemperature_v1, 0, 0)
    return _last(driver, "nvmlDeviceGetTemperatureV", handle, words, to)


def _margin(driver: Driver, handle: object, labels: tuple[str, str]) -> Read | None:
    """nvmlMarginTemperature_v1_t: version, degrees."""
    words = (c_int * 2)(driver.nvml.nvmlMarginTemperature_v1, 0)
    to = TEMPERATURE_MARGIN.at(*labels)
    return _last(driver, "nvmlDeviceGetMarginTemperature", handle, words, to)


def _last(
    driver: Driver, name: str, handle: object, words: Array[c_int], to: Series
) -> Read | None:
    """The way to read the last word of a structure of signed words."""
    function = driver.function(name)
    if function is None:
        return None

    def read(points: list[Point]) -> int:
        code = function(handle, words)
        if code == OK:
            points.append((to, words[-1]))
        return code

    return read


def _performance_state(driver: Driver, handle: object, labels: tuple[str, str]) -> Read | None:
    function = driver.function("nvmlDeviceGetPerformanceState")
    if function is None:
        return None
    state = c_uint()
    arguments = (handle, byref(state))
    to = PERFORMANCE_STATE.at(*labels)

    def read(points: list[Point]) -> int:
        code = function(*arguments)
        if code == OK and state.value != _UNKNOWN_STATE:
            points.append((to, state.value))
        return code

    return read


def _fans(driver: Driver, handle: object, labels: tuple[str, str]) -> Iterator[Reading]:
    try:
        fans = driver.number("nvmlDeviceGetNumFans", handle)
    except NvmlError as code:
        if code.is_lifecycle:
            raise
        fans = 0
    for fan in range(fans):
        to = FAN_SPEED.at(*labels, str(fan))
        first = number(driver, "nvmlDeviceGetFanSpeed_v2", handle, fan, to=to, per=100)
        only = number(driver, "nvmlDeviceGetFanSpeed", handle, to=to, per=100)
        yield Reading(f"fan {fan}", first, only if fans == 1 else None)

"""GPU performance monitoring (GPM, Hopper and later): what nvidia-smi's utilization does not tell.

The driver gives figures for the time between two samples that are at least 100 ms apart. The last
sample is kept: each tick takes one more and asks for the time in between. Samples belong to the
library and are freed before it is closed. The counters are shared with profilers, and so the
configuration can leave them alone.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref, c_char, c_void_p
from functools import partial

from telemetryd.clock import Clock
from telemetryd.collectors.gpu_nvidia.driver import OK, Driver, Function, NvmlError
from telemetryd.collectors.gpu_nvidia.identity import Identity
from telemetryd.gpus import (
    DRAM_ACTIVE,
    GRAPHICS_ACTIVE,
    NVLINK_RATE,
    PCIE_RATE,
    SM_ACTIVE,
    SM_OCCUPANCY,
    TENSOR_ACTIVE,
)
from telemetryd.metric import Point, Series

# What a value is divided by.
_PERCENT = 100
_MIB = 1 / (1 << 20)
# nvmlGpmMetric_t: id, code, value, three pointers.
_METRIC = struct.Struct("=4xid24x")
# nvmlGpmMetricsGet_t begins with version, number of metrics, and two samples.
_HEADER_BYTES = 24
# The driver asks for more than 100 ms between two samples.
_LEAST_NS = 110_000_000


class Gpm:
    """The activity of a GPU, or of a GPU instance of it, from one reading to the next.

    `take` fills a sample. A GPU gives what it has: a metric that it refuses is absent.
    """

    def __init__(
        self,
        driver: Driver,
        labels: tuple[str, str],
        take: Callable[[c_void_p], int],
        get: Function,
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._take = take
        self._get = get
        self._clock = clock
        self._wanted: list[tuple[int, Series, float]] = [
            (1, GRAPHICS_ACTIVE.at(*labels), _PERCENT),
            (2, SM_ACTIVE.at(*labels), _PERCENT),
            (3, SM_OCCUPANCY.at(*labels), _PERCENT),
            (5, TENSOR_ACTIVE.at(*labels), _PERCENT),
            (10, DRAM_ACTIVE.at(*labels), _PERCENT),
            (20, PCIE_RATE.at(*labels, "transmit"), _MIB),
            (21, PCIE_RATE.at(*labels, "receive"), _MIB),
            (60, NVLINK_RATE.at(*labels, "receive"), _MIB),
            (61, NVLINK_RATE.at(*labels, "transmit"), _MIB),
        ]
        nvml = driver.nvml
        self._request = nvml.c_nvmlGpmMetricsGet_t(
            version=nvml.NVML_GPM_METRICS_GET_VERSION, numMetrics=len(self._wanted)
        )
        for metric, (number, _, _) in zip(self._request.metrics, self._wanted, strict=False):
            metric.metricId = number
        answers = c_char * (_METRIC.size * len(self._wanted))
        self._answers = answers.from_buffer(self._request, _HEADER_BYTES)
        self._arguments = (byref(self._request),)
        self._last, self._next = nvml.c_nvmlGpmSample_t(), nvml.c_nvmlGpmSample_t()
        self._last_ns: int | None = None

    @classmethod
    def of_gpu(
        cls, driver: Driver, handle: c_void_p, identity: Identity, clock: Clock
    ) -> Gpm | None:
        """For a whole GPU; None if it has no GPM. Raises NvmlError if the GPU is gone."""
        take, get = driver.function("nvmlGpmSampleGet"), driver.function("nvmlGpmMetricsGet")
        if take is None or get is None or not _has_gpm(driver, handle):
            return None
        return cls(driver, identity.labels, partial(take, handle), get, clock)

    @classmethod
    def of_instance(
        cls,
        driver: Driver,
        parent: c_void_p,
        gpu_instance: int,
        labels: tuple[str, str],
        clock: Clock,
    ) -> Gpm | None:
        """For a GPU instance of `parent`; None if that has no GPM. Raises NvmlError if the GPU is
        gone."""
        take, get = driver.function("nvmlGpmMigSampleGet"), driver.function("nvmlGpmMetricsGet")
        if take is None or get is None or not _has_gpm(driver, parent):
            return None
        return cls(driver, labels, partial(take, parent, gpu_instance), get, clock)

    def read(self, points: list[Point]) -> int:
        """What went on since the reading before, unless that was too short ago."""
        now_ns, last_ns = self._clock.mono_ns(), self._last_ns
        if last_ns is not None and now_ns - last_ns < _LEAST_NS:
            return OK
        code = self._take(self._next) if self._next else self._begin()
        if code != OK:
            self._last_ns = None
            return code
        self._last, self._next = self._next, self._last
        self._last_ns = now_ns
        if last_ns is None:
            return OK
        self._request.sample1, self._request.sample2 = self._next, self._last
        code = self._get(*self._arguments)
        if code != OK:
            return code
        for (_, series, per), (answer, value) in zip(
            self._wanted, _METRIC.iter_unpack(self._answers), strict=True
        ):
            if answer == OK and math.isfinite(value):
                points.append((series, value / per))
        return OK

    def close(self) -> None:
        """Free the samples."""
        for sample in (self._last, self._next):
            if sample:
                with suppress(NvmlError):  # the library may be gone, and they with it
                    self._driver.call("nvmlGpmSampleFree", sample)
        empty = self._driver.nvml.c_nvmlGpmSample_t
        self._last, self._next, self._last_ns = empty(), empty(), None

    def _begin(self) -> int:
        """Allocate the samples and take the first. Returns NVML's code."""
        try:
            for sample in (self._last, self._next):
                self._driver.call("nvmlGpmSampleAlloc", byref(sample))
        except NvmlError as error:
            self.close()
            return error.code
        return self._take(self._next)


def _has_gpm(driver: Driver, handle: c_void_p) -> bool:
    nvml = driver.nvml
    support = nvml.c_nvmlGpmSupport_t(version=nvml.NVML_GPM_SUPPORT_VERSION)
    try:
        driver.call("nvmlGpmQueryDeviceSupport", handle, byref(support))
    except NvmlError as code:
        if code.is_lifecycle:
            raise
        return False
    return bool(support.isSupportedDevice)

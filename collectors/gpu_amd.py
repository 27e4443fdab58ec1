"""GPUs of AMD, as amdgpu shows them in sysfs: how busy, full, hot, fast, powered and healthy.

Documentation/gpu/amdgpu/thermal.rst and driver-misc.rst, whose text is in
drivers/gpu/drm/amd/pm/amdgpu_pm.c; error counts from Documentation/gpu/amdgpu/ras.rst; processes
from Documentation/gpu/drm-usage-stats.rst. No ROCm is needed. What a GPU has differs much: an
MI300X has no fan, no edge temperature and no average of its power.

Power is published in telemetryd_gpu_power_*, beside the GPU's other readings, and as a meter by
hwmon_power, which reads the same chip: only the meter is to be added up. amdgpu counts no energy;
hwmon_power integrates the power. On a processor with a GPU inside it is the power of the whole
(scope="module"); such a one has no power cap, but for the MI300A.

Left out: `gpu_metrics`, a binary table whose layout changes with the model and which repeats most
of this. Partitions of an MI300 share its sensors and are one GPU here; their clients count for it.
Engine time does not include what ROCm starts (its queues bypass the kernel): a process that KFD
knows has no utilization.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from telemetryd import gpus
from telemetryd.drm.cards import Card
from telemetryd.drm.collector import METRICS, DrmCollector
from telemetryd.drm.readings import Gpu, Reading, limit_uw, percent, scaled
from telemetryd.errors import ReadError
from telemetryd.metric import Metric, Point

_MI300A = "1002:74a0"
_CHIP = "amdgpu"
# One level of pp_dpm_sclk: "1: 2100Mhz *", the one in use is marked. "S: 19Mhz" is deep sleep.
_LEVEL = re.compile(rb"\w+:\s*([0-9]+)\s*mhz\s*(\*?)", re.IGNORECASE)
_CLOCKS = (("freq1_input", "pp_dpm_sclk", "graphics"), ("freq2_input", "pp_dpm_mclk", "memory"))
_SENSORS = {"temp1_input": "gpu", "temp2_input": "junction", "temp3_input": "memory"}
_LIMITS = (
    ("power1_cap", "enforced"),
    ("power1_cap_default", "default"),
    ("power1_cap_max", "max"),
)
_ERRORS = {b"ce": "corrected", b"ue": "uncorrected"}
# While it resets a GPU: drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c.
_NO_COUNTS_NOW = b"Query currently inaccessible"


class GpuAmd(DrmCollector):
    """Raises Unavailable if amdgpu drives nothing here."""

    vendor = "amd"
    drivers = frozenset({"amdgpu"})
    offers = (
        gpus.BUSY, gpus.MEMORY_BUSY, gpus.MEMORY_TOTAL, gpus.MEMORY_USED, gpus.CLOCK,
        gpus.CLOCK_MAX, gpus.TEMPERATURE, gpus.POWER_AVERAGE, gpus.POWER_INSTANT,
        gpus.POWER_LIMIT, gpus.FAN_SPEED, gpus.PCIE_GENERATION, gpus.PCIE_REPLAYS,
        gpus.ECC_ERRORS, gpus.PROCESSES,
    )  # fmt: skip
    metrics = (
        *METRICS, gpus.MEMORY_BUSY, gpus.MEMORY_TOTAL, gpus.MEMORY_USED, gpus.POWER_AVERAGE,
        gpus.POWER_INSTANT, gpus.FAN_SPEED, gpus.PCIE_REPLAYS, gpus.ECC_ERRORS,
    )  # fmt: skip

    def identity(self, card: Card) -> tuple[str, str, str]:
        """The driver has these in memory: they can be read while the GPU sleeps."""
        unique_id, product_name, serial_number = (
            self._fact(card.path(file)) for file in ("unique_id", "product_name", "serial_number")
        )
        return unique_id, product_name, serial_number

    def _fact(self, path: str) -> str:
        try:
            return self.host.text(path)
        except FileNotFoundError:
            return ""

    def readings(self, gpu: Gpu) -> Iterator[Reading]:
        here = frozenset(self.host.names(gpu.card.folder))
        folder, files = self.sensors(gpu, _CHIP)
        yield from self._load(gpu, here)
        yield from self._clocks(gpu, here, folder, files)
        # The channels have fixed meanings; without an edge, the hottest place stands for the GPU.
        for file, sensor in _SENSORS.items():
            if file in files:
                name = "gpu" if sensor == "junction" and "temp1_input" not in files else sensor
                series = gpus.TEMPERATURE.at(*gpu.labels, name)
                yield Reading(series, os.path.join(folder, file), scaled(1000))
        yield from self._power(gpu, folder, files)
        if {"pwm1", "pwm1_max"} <= files:
            highest = self.value(os.path.join(folder, "pwm1_max"), int)
            if highest:
                series = gpus.FAN_SPEED.at(*gpu.labels, "1")
                yield Reading(series, os.path.join(folder, "pwm1"), scaled(int(highest)))

    def _load(self, gpu: Gpu, here: frozenset[str]) -> Iterator[Reading]:
        for metric, file, convert, asks_gpu in (
            (gpus.BUSY, "gpu_busy_percent", percent, True),
            (gpus.MEMORY_BUSY, "mem_busy_percent", percent, True),
            # The driver's own account: it answers even if the GPU does not.
            (gpus.MEMORY_USED, "mem_info_vram_used", int, False),
        ):
            if file in here:
                yield Reading(metric.at(*gpu.labels), gpu.card.path(file), convert, asks_gpu)

    def _clocks(
        self, gpu: Gpu, here: frozenset[str], folder: str, files: frozenset[str]
    ) -> Iterator[Reading]:
        for file, levels, clock in _CLOCKS:
            series = gpus.CLOCK.at(*gpu.labels, clock)
            if file in files:
                yield Reading(series, os.path.join(folder, file), int)
            elif levels in here:
                yield Reading(series, gpu.card.path(levels), _current_level)

    def _power(self, gpu: Gpu, folder: str, files: frozenset[str]) -> Iterator[Reading]:
        scope = self._power_scope(gpu.card, files)
        for metric, file in (
            (gpus.POWER_AVERAGE, "power1_average"),
            (gpus.POWER_INSTANT, "power1_input"),
        ):
            if file in files:
                series = metric.at(*gpu.labels, scope)
                yield Reading(series, os.path.join(folder, file), scaled(1_000_000))

    def _power_scope(self, card: Card, files: frozenset[str]) -> str:
        alone = "power1_cap" in files and card.pci_id != _MI300A
        return "gpu" if alone else "module"

    def slow_points(self, gpu: Gpu) -> Iterator[Point]:
        card, labels = gpu.card, gpu.labels
        folder, _ = self.sensors(gpu, _CHIP)
        yield from self._point(gpus.MEMORY_TOTAL, labels, card.path("mem_info_vram_total"))
        yield from self._point(gpus.PCIE_REPLAYS, labels, card.path("pcie_replay_count"))
        for _, levels, clock in _CLOCKS:
            highest = self.value(card.path(levels), _highest_level)
            if highest is not None:
                yield gpus.CLOCK_MAX.at(*labels, clock), highest
        for file, limit in _LIMITS:
            watts = self.value(os.path.join(folder, file), limit_uw)
            if watts is not None:
                yield gpus.POWER_LIMIT.at(*labels, limit), watts
        least = self.value(os.path.join(folder, "power1_cap_min"), _watts)
        if least is not None:
            yield gpus.POWER_LIMIT.at(*labels, "min"), least
        yield from self._errors(gpu)
        yield from self.link_points(gpu)

    def _point(self, metric: Metric, labels: tuple[str, ...], path: str) -> Iterator[Point]:
        value = self.value(path, int)
        if value is not None:
            yield metric.at(*labels), value

    def _errors(self, gpu: Gpu) -> Iterator[Point]:
        """Memory errors: "ue: 0", "ce: 0", and on newer GPUs "de: 0" for those put off."""
        path = gpu.card.path("ras/umc_err_count")
        counts: dict[str, int] = {}

        def parse(raw: bytes) -> None:
            if raw.startswith(_NO_COUNTS_NOW):
                return
            for line in raw.splitlines():
                name, _, count = line.partition(b":")
                if name in _ERRORS:
                    counts[_ERRORS[name]] = int(count)
            if not counts:
                raise ReadError("parse", "no counts of errors")

        self.value(path, parse)
        for kind, count in counts.items():
            yield gpus.ECC_ERRORS.at(*gpu.labels, kind, "volatile"), count

    def counts_all(self, pid: str) -> bool:
        return not os.path.isdir(self.host.sys("class/kfd/kfd/proc", pid))


def _levels(raw: bytes) -> list[tuple[int, bool]]:
    levels = [(int(mhz) * 1_000_000, bool(mark)) for mhz, mark in _LEVEL.findall(raw)]
    if not levels:
        raise ReadError("parse", "no clock levels")
    return levels


def _highest_level(raw: bytes) -> float | None:
    """Hertz of the highest level; an empty table is of a clock that cannot be set."""
    return max(hertz for hertz, _ in _levels(raw)) if raw.strip() else None


def _current_level(raw: bytes) -> float | None:
    """Hertz of the level in use. Where several are marked, none of them is known to be in use."""
    marked = [hertz for hertz, is_current in _levels(raw) if is_current] if raw.strip() else []
    return marked[0] if len(marked) == 1 else None


def _watts(raw: bytes) -> float | None:
    """Microwatts, of a limit that may well be 0."""
    text = raw.strip()
    return int(text) / 1e6 if text else None

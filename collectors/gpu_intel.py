"""GPUs of Intel, as i915 and xe show them: how busy, hot, fast and powered.

Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon and sysfs-driver-intel-xe-hwmon; clocks
from drivers/gpu/drm/i915/gt/intel_gt_sysfs_pm.c and drivers/gpu/drm/xe/xe_gt_freq.c; clients from
Documentation/gpu/drm-usage-stats.rst.

Neither driver says in sysfs how busy a GPU is: that is worked out from the engine time of its
clients, over the interval at which they are looked at, and so needs the right to look at the
processes of others. Memory in use is told only by client. The clock is that of the first graphics
tile; it is 0 while that is switched off between two pieces of work.

Energy is that of the card, else that of the package, since the driver was loaded. It stands here
beside the GPU's other readings; as a meter it is published by hwmon_power, which reads the same
chip: only the meter is to be added up. The drivers give no power. A GPU inside a processor has no
energy of its own here: RAPL's domain uncore has it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

from telemetryd import gpus
from telemetryd.drm.cards import Card, class_folder
from telemetryd.drm.clients import Use
from telemetryd.drm.collector import METRICS, DrmCollector
from telemetryd.drm.readings import Gpu, Reading, limit_uw, scaled
from telemetryd.errors import ReadError
from telemetryd.metric import Point

_TEMPERATURE = re.compile(r"(temp[0-9]+)_input\Z")
_SENSORS = {"": "gpu", "pkg": "gpu", "vram": "memory"}
# Actual and highest clock, by driver; i915 has the second pair since Linux 5.19.
_CLOCKS = (
    ("device/tile0/gt0/freq0/act_freq", "device/tile0/gt0/freq0/rp0_freq"),
    ("gt/gt0/rps_act_freq_mhz", "gt/gt0/rps_RP0_freq_mhz"),
    ("gt_act_freq_mhz", "gt_RP0_freq_mhz"),
)
# The card's sensors, else those of the package (power2_*), as xe has them on DG2. PL1 is the limit
# over seconds (max), PL2 the one over less (cap); Battlemage may have only the latter.
_CHANNELS = ("1", "2")


class GpuIntel(DrmCollector):
    """Raises Unavailable if neither i915 nor xe drives anything here."""

    vendor = "intel"
    drivers = frozenset({"i915", "xe"})
    offers = (
        gpus.BUSY, gpus.CLOCK, gpus.CLOCK_MAX, gpus.TEMPERATURE, gpus.POWER_LIMIT, gpus.ENERGY,
        gpus.PCIE_GENERATION, gpus.PROCESSES,
    )  # fmt: skip
    metrics = (*METRICS, gpus.ENERGY)

    def identity(self, card: Card) -> tuple[str, str, str]:  # noqa: ARG002
        return "", "", ""

    def readings(self, gpu: Gpu) -> Iterator[Reading]:
        labels = gpu.labels
        clocks = self._clock_files(gpu)
        if clocks is not None:
            yield Reading(gpus.CLOCK.at(*labels, "graphics"), clocks[0], _hertz)
        folder, files = self.sensors(gpu, gpu.card.driver)
        yield from self._temperatures(gpu, folder, files)
        for channel in _CHANNELS:
            file = f"energy{channel}_input"
            if file in files:
                path = os.path.join(folder, file)
                known = {one.path: one.convert for one, _ in gpu.readings}
                convert = known.get(path) or energy_counter()
                yield Reading(gpus.ENERGY.at(*labels), path, convert)
                break

    def _temperatures(self, gpu: Gpu, folder: str, files: frozenset[str]) -> Iterator[Reading]:
        named: set[str] = set()
        for file in sorted(files):
            match = _TEMPERATURE.match(file)
            if match is not None:
                label = self.text(os.path.join(folder, f"{match[1]}_label"))
                name = _SENSORS.get(label, label)
                if name in named:
                    name = match[1]
                named.add(name)
                series = gpus.TEMPERATURE.at(*gpu.labels, name)
                yield Reading(series, os.path.join(folder, file), scaled(1000))

    def _clock_files(self, gpu: Gpu) -> tuple[str, str] | None:
        folder = os.path.join(class_folder(self.host), gpu.card.name)
        for pair in _CLOCKS:
            actual, highest = (os.path.join(folder, file) for file in pair)
            if os.path.exists(actual):
                return actual, highest
        return None

    def slow_points(self, gpu: Gpu) -> Iterator[Point]:
        labels = gpu.labels
        clocks = self._clock_files(gpu)
        if clocks is not None:
            highest = self.value(clocks[1], _hertz)
            if highest:
                yield gpus.CLOCK_MAX.at(*labels, "graphics"), highest
        folder, files = self.sensors(gpu, gpu.card.driver)
        for limit, kinds in (("enforced", ("max", "cap")), ("default", ("rated_max",))):
            watts = self._least_limit(folder, files, kinds)
            if watts is not None:
                yield gpus.POWER_LIMIT.at(*labels, limit), watts
        yield from self.link_points(gpu)

    def _least_limit(
        self, folder: str, files: frozenset[str], kinds: tuple[str, ...]
    ) -> float | None:
        """The lowest of these limits of the card, else of the package; one that is off is none."""
        for channel in _CHANNELS:
            found = [
                watts
                for kind in kinds
                if f"power{channel}_{kind}" in files
                for watts in (self.value(os.path.join(folder, f"power{channel}_{kind}"), limit_uw),)
                if watts is not None
            ]
            if found:
                return min(found)
        return None

    def busy(self, gpu: Gpu, use: Use) -> Iterator[Point]:
        if use.busy is not None:
            yield gpus.BUSY.at(*gpu.labels), use.busy


def _hertz(raw: bytes) -> int:
    return int(raw) * 1_000_000


def energy_counter() -> Callable[[bytes], float]:
    """Joules of a counter of microjoules, as it stands.

    Raises ReadError for 0, which xe gives where it could not read the counter, and once for a
    value below the last one: the counter was reset, and goes on from there.
    """
    last_uj = 0

    def convert(raw: bytes) -> float:
        nonlocal last_uj
        uj = int(raw)
        if uj <= 0:
            raise ReadError("invalid", f"the energy is not known ({uj} uJ)")
        before, last_uj = last_uj, uj
        if uj < before:
            raise ReadError("invalid", f"the energy counter went back ({before} then {uj} uJ)")
        return uj / 1e6

    return convert

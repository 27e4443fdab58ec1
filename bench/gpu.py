"""What GPUs cost: 8 fake H100, read by nvidia-ml-py through the collector and, as the peer,
the way a plain exporter in Python reads them: one function of nvidia-ml-py after the other, into
prometheus-client's gauges.

The fake library counts the CPU time that its callers spend inside it; what is given here is
without that. A real driver takes 0.02 to 0.36 ms a call, mostly waiting.

`python bench/gpu.py cost|growth` is the child that `measure` starts: a process of its own, so that
nothing else is counted.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
GPUS = 8
_ROUNDS = 5
_SAMPLES = 120
GROWTH_SAMPLES = 100_000
# Growth is taken from here on: caches are full, every branch was taken.
_SETTLED = 5_000
_SPEED = 1_000


@dataclass(frozen=True, slots=True)
class Gpus:
    """CPU in microseconds for one sample of all GPUs, medians; values for each GPU; the resident
    memory in KiB after 5,000 and after 100,000 samples."""

    collect_us: float
    derive_us: float
    library_us: float
    values: float
    plain_us: float
    plain_values: float
    settled_kib: int
    grown_kib: int

    @property
    def per_value(self) -> float:
        """Of what the plain way costs for a value."""
        return (self.collect_us / self.values) / (self.plain_us / self.plain_values)


def measure() -> Gpus:
    """Raises subprocess.CalledProcessError if the fake library cannot be compiled."""
    rounds = [_child("cost") for _ in range(_ROUNDS)]
    growth = _child("growth")
    medians = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    return Gpus(**medians, settled_kib=growth["settled_kib"], grown_kib=growth["grown_kib"])


def _child(what: str) -> dict[str, int]:
    command = [sys.executable, str(Path(__file__)), what]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)


def _node(folder: Path):
    from support.nvml import FakeNvml, Process  # noqa: PLC0415

    fake = FakeNvml(folder, gpus=GPUS)
    with fake.batch():
        fake.busy()
        for gpu in range(GPUS):
            fake.processes(gpu, Process(pid=1, memory=30 << 30, sm=90))
    return fake


class _Counted:
    """CPU time of this process without what went by inside the library."""

    def __init__(self, fake) -> None:
        self._fake = fake

    def start(self) -> None:
        self._library = self._fake.busy_ns
        self._cpu = time.process_time_ns()

    def stop(self) -> tuple[float, float]:
        """Microseconds outside of the library, and inside."""
        cpu = time.process_time_ns() - self._cpu
        library = self._fake.busy_ns - self._library
        return (cpu - library) / 1000, library / 1000


def _cost(folder: Path) -> dict[str, float]:
    from telemetryd import plugins  # noqa: PLC0415
    from telemetryd.clock import Clock  # noqa: PLC0415
    from telemetryd.collectors.gpu_nvidia import GpuNvidia, GpuNvidiaConfig  # noqa: PLC0415
    from telemetryd.derivation import DerivedConfig  # noqa: PLC0415
    from telemetryd.host import Host  # noqa: PLC0415
    from telemetryd.instruments import Instruments  # noqa: PLC0415
    from telemetryd.pipeline import Pipeline  # noqa: PLC0415

    fake = _node(folder)

    class Ahead(Clock):
        """The machine's clock, moved ahead."""

        ahead_ns = 0

        def mono_ns(self) -> int:
            return super().mono_ns() + self.ahead_ns

    clock = Ahead()
    collector = GpuNvidia(GpuNvidiaConfig(library=str(fake.library)), Host(clock=clock))
    derivations = [kind(DerivedConfig()) for kind in plugins.derivation_classes()]
    pipeline = Pipeline(Instruments(), derivations)
    counted = _Counted(fake)
    collected, derived, library = [], [], []
    points: list = []
    for _ in range(_SAMPLES):
        clock.ahead_ns += 1_000_000_000
        fake.advance(1)
        counted.start()
        points = list(collector.sample())
        outside, inside = counted.stop()
        collected.append(outside)
        library.append(inside)
        counted.start()
        pipeline.publish("gpu_nvidia", collector, clock.wall_ns(), clock.mono_ns(), points)
        derived.append(counted.stop()[0])
    collector.close()
    plain, plain_values = _plain(fake, counted)
    of_gpus = [series for series, _ in points if series.metric.subsystem == "gpu"]
    return {
        "collect_us": statistics.median(collected),
        "derive_us": statistics.median(derived),
        "library_us": statistics.median(library),
        "values": len(of_gpus) / GPUS,
        "plain_us": plain,
        "plain_values": plain_values,
    }


def _plain(fake, counted: _Counted) -> tuple[float, float]:
    """Microseconds for a sample, and values for each GPU, the plain way."""
    import pynvml as n  # noqa: PLC0415
    from prometheus_client import CollectorRegistry, Gauge  # noqa: PLC0415

    registry = CollectorRegistry()
    gauges: dict[str, Gauge] = {}

    def put(name: str, labels: tuple[str, str], value: float) -> None:
        if name not in gauges:
            gauges[name] = Gauge(f"plain_{name}", name, ["gpu", "uuid"], registry=registry)
        gauges[name].labels(*labels).set(value)

    fields = (185, 186, 190, 192, 83, 82, 74, 76, 269, 270, 271, 193, 194, 195, 196, 3, 4, 5, 6)
    fields += (142, 143, 144, 145, 94, 95, 230)
    scoped = [(185, 2), (138, 0xFFFFFFFF), (139, 0xFFFFFFFF)]

    def sample(handle, labels: tuple[str, str]) -> None:
        for value in n.nvmlDeviceGetFieldValues(handle, [*fields, *scoped]):
            if value.nvmlReturn == 0:
                kind = value.valueType
                number = value.value.uiVal if kind == 1 else value.value.ullVal
                put(f"field_{value.fieldId}_{value.scopeId}", labels, number)
        rates = n.nvmlDeviceGetUtilizationRates(handle)
        put("gpu", labels, rates.gpu)
        put("memory", labels, rates.memory)
        info = n.nvmlDeviceGetMemoryInfo(handle, version=n.nvmlMemory_v2)
        put("memory_total", labels, info.total)
        put("memory_used", labels, info.used)
        put("memory_free", labels, info.free)
        put("memory_reserved", labels, info.reserved)
        for clock in range(4):
            put(f"clock_{clock}", labels, n.nvmlDeviceGetClockInfo(handle, clock))
        reasons = n.nvmlDeviceGetCurrentClocksEventReasons(handle)
        for bit in range(9):
            put(f"reason_{bit}", labels, reasons >> bit & 1)
        put("temperature", labels, n.nvmlDeviceGetTemperatureV(handle, 0))
        put("margin", labels, n.nvmlDeviceGetMarginTemperature(handle))
        put("encoder", labels, n.nvmlDeviceGetEncoderUtilization(handle)[0])
        put("decoder", labels, n.nvmlDeviceGetDecoderUtilization(handle)[0])
        put("pstate", labels, n.nvmlDeviceGetPerformanceState(handle))
        put("generation", labels, n.nvmlDeviceGetCurrPcieLinkGeneration(handle))
        put("width", labels, n.nvmlDeviceGetCurrPcieLinkWidth(handle))
        put("processes", labels, len(n.nvmlDeviceGetComputeRunningProcesses(handle)))

    with fake.bound():
        n.nvmlInit()
        handles = [n.nvmlDeviceGetHandleByIndex(gpu) for gpu in range(GPUS)]
        labels = [(str(gpu), n.nvmlDeviceGetUUID(h)) for gpu, h in enumerate(handles)]
        took = []
        for _ in range(_SAMPLES):
            counted.start()
            for handle, names in zip(handles, labels, strict=True):
                sample(handle, names)
            took.append(counted.stop()[0])
    return statistics.median(took), len(gauges)


def _growth(folder: Path) -> dict[str, int]:
    from telemetryd.clock import Clock  # noqa: PLC0415
    from telemetryd.collectors.gpu_nvidia import GpuNvidia, GpuNvidiaConfig  # noqa: PLC0415
    from telemetryd.host import Host  # noqa: PLC0415

    fake = _node(folder)
    fake.set({"clock.speed": _SPEED})

    class Fast(Clock):
        """A clock on which a sample follows the other a second later."""

        def mono_ns(self) -> int:
            return super().mono_ns() * _SPEED

        def wait_until(self, mono_ns: int, stop) -> bool:  # noqa: ARG002
            return super().wait_until(super().mono_ns() + 1_000_000_000, stop)

    collector = GpuNvidia(GpuNvidiaConfig(library=str(fake.library)), Host(clock=Fast()))
    settled = 0
    for number in range(GROWTH_SAMPLES):
        for _ in collector.sample():
            pass
        if number == _SETTLED:
            gc.collect()
            settled = _resident_kib()
    gc.collect()
    grown = _resident_kib()
    collector.close()
    return {"settled_kib": settled, "grown_kib": grown}


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps({"cost": _cost, "growth": _growth}[sys.argv[1]](Path(name))))

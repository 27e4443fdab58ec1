"""A real NVIDIA GPU, read by the real library, beside nvidia-smi in the same seconds.

Skipped where there is none. `pytest -m hardware -s` prints what both said, and how long each call
to the driver took: docs/gpu.md has such a table.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from telemetryd.collectors.gpu_nvidia import GpuNvidia, GpuNvidiaConfig
from telemetryd.collectors.gpu_nvidia.driver import _name_of
from telemetryd.errors import Unavailable
from telemetryd.host import Host

pytestmark = [pytest.mark.hardware, pytest.mark.long]

_QUERY = {
    "power.draw.average": ("power_average_watts", 1.0),
    "memory.used": ("memory_used_bytes", float(1 << 20)),
    "clocks.sm": ("clock_hertz", 1e6),
    "temperature.gpu": ("temperature_celsius", 1.0),
    "utilization.gpu": ("busy_ratio", 0.01),
}
_LOAD = """
import time, torch
a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
end = time.monotonic() + 40
while time.monotonic() < end:
    for _ in range(50):
        a @ a
    torch.cuda.synchronize()
"""


@pytest.fixture
def collector() -> Iterator[GpuNvidia]:
    try:
        collector = GpuNvidia(GpuNvidiaConfig(), Host())
    except Unavailable as gone:
        pytest.skip(f"no NVIDIA GPU: {gone.why}")
    if (library := _name_of(collector._driver._loaded)) and "pytest" in library:
        # The loader gives what is loaded under this name already.
        collector.close()
        pytest.skip("the fake driver is loaded in this process: run these tests alone")
    yield collector
    collector.close()


@pytest.fixture
def load() -> Iterator[None]:
    """A matrix product in bf16 on the first GPU, warm."""
    probe = "import torch; assert torch.cuda.is_available()"
    if subprocess.run([sys.executable, "-c", probe], check=False, capture_output=True).returncode:
        pytest.skip("no PyTorch that sees the GPU, for a load")
    with subprocess.Popen([sys.executable, "-c", _LOAD]) as process:
        time.sleep(12)
        yield
        process.terminate()


def _ours(collector: GpuNvidia) -> dict[str, float]:
    values = {}
    for series, value in collector.sample():
        labels = dict(zip(series.metric.labels, series.labels, strict=True))
        wanted = {"gpu": "0", "scope": "gpu", "clock": "sm", "sensor": "gpu"}
        if labels.get("gpu") and all(labels.get(k, v) == v for k, v in wanted.items()):
            values[series.metric.name.removeprefix("telemetryd_gpu_")] = value
    return values


def _smi() -> dict[str, float]:
    fields = ",".join(_QUERY)
    answer = subprocess.run(
        ["nvidia-smi", "-i", "0", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    numbers = [float(word) for word in answer.split(",")]
    return dict(zip(_QUERY, numbers, strict=True))


@pytest.mark.parametrize("query", list(_QUERY))
def test_a_loaded_gpu_reads_as_nvidia_smi_reads_it(
    query: str, collector: GpuNvidia, load: None
) -> None:
    name, unit = _QUERY[query]
    list(collector.sample())
    ours, theirs = [], []
    for _ in range(8):
        ours.append(_ours(collector)[name])
        theirs.append(_smi()[query] * unit)
        time.sleep(0.5)
    mean, expected = statistics.mean(ours), statistics.mean(theirs)
    print(f"\n{query}: {mean:.6g} here, {expected:.6g} by nvidia-smi")
    assert mean == pytest.approx(expected, rel=0.02)


def test_the_energy_counter_is_the_integral_of_nvidia_smis_power(
    collector: GpuNvidia, load: None
) -> None:
    samples: list[tuple[float, float]] = []
    list(collector.sample())
    start, first = time.monotonic(), _ours(collector)["energy_joules_total"]
    while time.monotonic() - start < 15:
        samples.append((time.monotonic(), _smi()["power.draw.average"]))
        time.sleep(0.2)
    seconds = time.monotonic() - start
    joules = _ours(collector)["energy_joules_total"] - first
    watts = statistics.mean(power for _, power in samples)
    print(f"\nenergy: {joules:.1f} J counted, {watts * seconds:.1f} J by nvidia-smi's power")
    assert joules == pytest.approx(watts * seconds, rel=0.02)


def test_a_sample_makes_every_call_and_tells_its_latency(collector: GpuNvidia) -> None:
    """Prints the table of latencies; fails if a call that this GPU supports goes missing."""
    took: dict[str, list[float]] = {}
    list(collector.sample())
    (gpu, *_) = collector._gpus()
    for reading in gpu._tick._due:
        points: list[object] = []
        for _ in range(20):
            before = time.perf_counter_ns()
            reading.read(points)  # type: ignore[misc, arg-type]
            took.setdefault(reading.name, []).append((time.perf_counter_ns() - before) / 1e6)
            time.sleep(0.12 if reading.name == "GPM" else 0)
    for name, times in sorted(took.items(), key=lambda one: -statistics.median(one[1])):
        print(f"| {name} | {statistics.median(times):.3f} | {max(times):.3f} |")
    assert {"fields", "utilization", "memory", "temperature"} <= set(took)

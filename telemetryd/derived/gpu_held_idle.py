"""GPUs that somebody holds and does not use.

A GPU is held while a process has it open or memory on it is in use, and idle while its activity is
below a threshold. One that was both for a while, without interruption, is held idle. Not at once:
a job that loads its data, or waits for the network, is no waste.
"""

from __future__ import annotations

from collections.abc import Iterator

from telemetryd import gpus
from telemetryd.batch import Batch
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.gpu_readings import ABSENT, Gpu, GpuDerivation, Places, Row
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Kind, Metric, Point, Unit

HELD_IDLE = Metric(
    "gpu", "held_idle", Kind.GAUGE, Unit.NONE,
    "1 while a GPU or MIG instance is held (a process on it, or at least derived.held_idle_memory "
    "in use) and was idle meanwhile (activity below derived.held_idle_activity) for "
    "derived.held_idle_after or longer, else 0; absent when that is not known.",
    "derived", gpus.GPU,
)  # fmt: skip
SECONDS = Metric(
    "gpu", "held_idle", Kind.COUNTER, Unit.SECONDS,
    "Time during which telemetryd_gpu_held_idle was 1, since the daemon started.",
    "derived", gpus.GPU,
)  # fmt: skip


class HeldIdle(GpuDerivation):
    """telemetryd_gpu_held_idle and its seconds, for each GPU and MIG instance.

    Activity is that of the multiprocessors (SM_ACTIVE) where a batch has it, else the share of time
    with a kernel (BUSY). The latter is never the smaller, so that a fallback does not find a GPU
    idle that was not. A GPU that tells neither its processes nor its memory may be held or not; one
    that tells neither activity may be idle or not: its figure is absent.

    A reading that is missing is no activity: the wait goes on over GAP_INTERVALS intervals without
    one, and starts again after more. An interval counts if the GPU was held idle at both ends.
    """

    inputs = (gpus.SM_ACTIVE, gpus.BUSY, gpus.PROCESSES, gpus.MEMORY_USED)
    metrics = (HELD_IDLE, SECONDS)

    def new(self, collector: str, labels: tuple[str, str]) -> Gpu:  # noqa: ARG002
        return _Gpu(self.config, labels)


class _Gpu(Gpu):
    def __init__(self, config: DerivedConfig, labels: tuple[str, str]) -> None:
        super().__init__()
        self._config = config
        self._after_ns = int(config.held_idle_after * 1e9)
        self._series = HELD_IDLE.at(*labels), SECONDS.at(*labels)
        self._seconds = 0.0
        # When it was last known what the GPU does, since when it has been held and idle, and
        # whether that was long enough.
        self._known_ns = 0
        self._since_ns: int | None = None
        self._is_held_idle = False
        self._sm_at = self._busy_at = self._processes_at = self._memory_at = ABSENT
        self._is_known = False

    def look(self, places: Places) -> None:
        super().look(places)
        self._sm_at = places.of(gpus.SM_ACTIVE)
        self._busy_at = places.of(gpus.BUSY)
        self._processes_at = places.of(gpus.PROCESSES)
        self._memory_at = places.of(gpus.MEMORY_USED)

    def figures(self, values: Row, batch: Batch) -> Iterator[Point]:
        held_idle, seconds = self._series
        is_waste = self._is_held_and_idle(values)
        if is_waste is not None:
            self._is_known = True
            self._observe(batch, is_waste=is_waste)
            yield held_idle, int(self._is_held_idle)
        if self._is_known:
            yield seconds, self._seconds

    def _is_held_and_idle(self, values: Row) -> bool | None:
        """Whether it is held and idle at the moment; None: not known."""
        activity = values[self._sm_at]
        if activity is None:
            activity = values[self._busy_at]
        processes, memory = values[self._processes_at], values[self._memory_at]
        if activity is None or not 0 <= activity <= 1 or (processes is None and memory is None):
            return None
        config = self._config
        is_held = bool(processes) or (memory is not None and memory >= config.held_idle_memory)
        return is_held and activity < config.held_idle_activity

    def _observe(self, batch: Batch, *, is_waste: bool) -> None:
        now_ns = batch.mono_ns
        seconds, self._known_ns = (now_ns - self._known_ns) / 1e9, now_ns
        if not is_waste:
            self._since_ns, self._is_held_idle = None, False
            return
        if self._since_ns is None or seconds > GAP_INTERVALS * batch.interval:
            self._since_ns, self._is_held_idle = now_ns, False
        was_held_idle = self._is_held_idle
        self._is_held_idle = now_ns - self._since_ns >= self._after_ns
        if was_held_idle:
            self._seconds += seconds

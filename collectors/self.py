"""The daemon itself: what it costs, and how each of its collectors is doing."""

from __future__ import annotations

import platform
import resource
import threading
from collections.abc import Iterator

import psutil

from telemetryd import __version__, instruments
from telemetryd.collector import Collector, CollectorConfig, CollectorHealth, DaemonView
from telemetryd.host import Host
from telemetryd.metric import Kind, Metric, Point, Series, Unit

UP = Metric(
    "collector", "up", Kind.GAUGE, Unit.NONE,
    "1 if the last sample of a collector went through, 0 if it failed, is stuck, or its hardware "
    "is required and missing.",
    "the daemon itself", ("collector",),
)  # fmt: skip
DURATION = Metric(
    "collector", "duration", Kind.GAUGE, Unit.SECONDS,
    "How long the last sample of a collector took.", "the daemon itself", ("collector",),
)  # fmt: skip
BUSY = Metric(
    "collector", "busy", Kind.COUNTER, Unit.SECONDS,
    "Time spent in all samples of a collector.", "the daemon itself", ("collector",),
)  # fmt: skip
SAMPLES = Metric(
    "collector", "samples", Kind.COUNTER, Unit.NONE,
    "Samples taken of a collector.", "the daemon itself", ("collector",),
)  # fmt: skip
OVERRUNS = Metric(
    "collector", "overruns", Kind.COUNTER, Unit.NONE,
    "Samples of a collector that took longer than its interval, or were given up as stuck.",
    "the daemon itself", ("collector",),
)  # fmt: skip
CPU = Metric(
    "process", "cpu", Kind.COUNTER, Unit.SECONDS,
    "CPU time the daemon has used, in user and system mode.",
    "getrusage(2)", ("mode",),
)  # fmt: skip
MEMORY = Metric(
    "process", "resident_memory", Kind.GAUGE, Unit.BYTES,
    "Memory of the daemon that is resident.", "/proc/self/statm, through psutil",
)  # fmt: skip
FILES = Metric(
    "process", "open_files", Kind.GAUGE, Unit.NONE,
    "File descriptors the daemon holds.", "/proc/self/fd, through psutil",
)  # fmt: skip
FILES_LIMIT = Metric(
    "process", "open_files_limit", Kind.GAUGE, Unit.NONE,
    "File descriptors the daemon may hold.", "getrlimit(2), through psutil",
)  # fmt: skip
THREADS = Metric(
    "process", "threads", Kind.GAUGE, Unit.NONE,
    "Threads of the daemon.", "the daemon itself",
)  # fmt: skip
STARTED = Metric(
    "process", "start_time", Kind.GAUGE, Unit.SECONDS,
    "When the daemon started, in seconds since 1970.", "/proc/self/stat, through psutil",
)  # fmt: skip
BUILD = Metric(
    "build", "", Kind.INFO, Unit.NONE,
    "Version of the daemon and of the Python that runs it.", "the daemon itself",
    ("version", "python"),
)  # fmt: skip

_OF_COLLECTORS = (UP, DURATION, BUSY, SAMPLES, OVERRUNS)
_CPU_USER, _CPU_SYSTEM = CPU.at("user"), CPU.at("system")
_MEMORY, _FILES, _THREADS = MEMORY.at(), FILES.at(), THREADS.at()


class Self(Collector):
    """Always there."""

    metrics = (
        *_OF_COLLECTORS, CPU, MEMORY, FILES, FILES_LIMIT, THREADS, STARTED, BUILD,
        *instruments.METRICS,
    )  # fmt: skip

    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config, host)
        self._daemon: DaemonView | None = None
        self._series: dict[str, tuple[Series, ...]] = {}
        self._process = psutil.Process()
        self._constants = (
            (FILES_LIMIT.at(), self._process.rlimit(psutil.RLIMIT_NOFILE)[0]),
            (STARTED.at(), self._process.create_time()),
            (BUILD.at(__version__, platform.python_version()), 1),
        )

    def attach(self, daemon: DaemonView) -> None:
        self._daemon = daemon

    def sample(self) -> Iterator[Point]:
        if self._daemon is not None:
            for health in self._daemon.health():
                yield from self._of_collector(health)
            yield from self._daemon.instrument_points()
        yield from self._of_process()

    def _of_collector(self, health: CollectorHealth) -> Iterator[Point]:
        series = self._series.get(health.name)
        if series is None:
            series = tuple(metric.at(health.name) for metric in _OF_COLLECTORS)
            self._series[health.name] = series
        up, duration, busy, samples, overruns = series
        if health.up is not None:
            yield up, int(health.up)
        if health.samples:
            yield duration, health.duration_ns / 1e9
        yield busy, health.busy_ns / 1e9
        yield samples, health.samples
        yield overruns, health.overruns

    def _of_process(self) -> Iterator[Point]:
        # To the microsecond; /proc/self/stat has ticks of 10 ms.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield _CPU_USER, usage.ru_utime
        yield _CPU_SYSTEM, usage.ru_stime
        yield _MEMORY, self._process.memory_info().rss
        yield _FILES, self._process.num_fds()
        yield _THREADS, threading.active_count()
        yield from self._constants

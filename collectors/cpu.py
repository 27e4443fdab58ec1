"""CPU time per CPU and mode, load, scheduling, frequency and thermal throttling.

From /proc/stat and /proc/loadavg (proc_stat(5), proc_loadavg(5)) and, per CPU,
/sys/devices/system/cpu/cpuN/cpufreq/scaling_cur_freq (Documentation/admin-guide/pm/cpufreq.rst)
and thermal_throttle/ (arch/x86/kernel/cpu/mce/therm_throt.c).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from telemetryd.collector import Collector, CollectorConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Attribute, Host, Table
from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker

# The columns of a cpu row up to steal. guest and guest_nice follow, but the kernel has already
# counted them in user and nice (kernel/sched/cputime.c, account_guest_time).
MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
_COLUMNS = 11
_CPU_NAME = re.compile(r"cpu([0-9]+)\Z")

TIME = Metric(
    "cpu", "time", Kind.COUNTER, Unit.SECONDS,
    "Time each CPU spent in each mode. Time of virtual guests is inside user and nice. iowait is "
    "a guess of the kernel's that may fall.",
    "/proc/stat, proc_stat(5)", ("cpu", "mode"),
)  # fmt: skip
CONTEXT_SWITCHES = Metric(
    "cpu", "context_switches", Kind.COUNTER, Unit.NONE,
    "Context switches of all CPUs.", "/proc/stat ctxt, proc_stat(5)",
)  # fmt: skip
INTERRUPTS = Metric(
    "cpu", "interrupts", Kind.COUNTER, Unit.NONE,
    "Interrupts serviced since boot.", "/proc/stat intr, proc_stat(5)",
)  # fmt: skip
FORKS = Metric(
    "cpu", "forks", Kind.COUNTER, Unit.NONE,
    "Processes and threads started.", "/proc/stat processes, proc_stat(5)",
)  # fmt: skip
TASKS = Metric(
    "cpu", "tasks", Kind.GAUGE, Unit.NONE,
    "Tasks that can run now, and tasks blocked waiting for I/O.",
    "/proc/stat procs_running and procs_blocked, proc_stat(5)", ("state",),
)  # fmt: skip
LOAD = Metric(
    "cpu", "load", Kind.GAUGE, Unit.NONE,
    "Load average over the given number of minutes: tasks that run, want to, or wait for disk.",
    "/proc/loadavg, proc_loadavg(5)", ("minutes",),
)  # fmt: skip
FREQUENCY = Metric(
    "cpu", "frequency", Kind.GAUGE, Unit.HERTZ,
    "Frequency at which each CPU runs now.",
    "cpufreq/scaling_cur_freq (kHz), admin-guide/pm/cpufreq.rst", ("cpu",),
)  # fmt: skip
THROTTLES = Metric(
    "cpu", "thermal_throttles", Kind.COUNTER, Unit.NONE,
    "Times a core or its package was slowed down because it was too hot.",
    "thermal_throttle/{core,package}_throttle_count, therm_throt.c", ("cpu", "scope"),
)  # fmt: skip

# Looking a series up costs more than reading its value: these are always the same.
_LOADS = (LOAD.at("1"), LOAD.at("5"), LOAD.at("15"))
_INTERRUPTS = INTERRUPTS.at()
_NAMED = (
    (b"ctxt", CONTEXT_SWITCHES.at()),
    (b"processes", FORKS.at()),
    (b"procs_running", TASKS.at("running")),
    (b"procs_blocked", TASKS.at("blocked")),
)


class Cpu(Collector):
    """Raises Unavailable if /proc/stat is not readable."""

    metrics = (TIME, CONTEXT_SWITCHES, INTERRUPTS, FORKS, TASKS, LOAD, FREQUENCY, THROTTLES)

    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config, host)
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")
        self._stat = Table(host.proc("stat"), 65536)
        self._loadavg = Attribute(host.proc("loadavg"))
        try:
            self._stat.read()
        except OSError as error:
            raise Unavailable(
                f"cannot read {self._stat.path}: {error.strerror}", "mount procfs there"
            ) from error
        self._rows: tuple[bytes, ...] = ()
        self._series: list[Series] = []
        self._pick = picker(())
        self._attributes: list[tuple[Series, Attribute, float]] = []

    def sample(self) -> Iterator[Point]:
        yield from self._times()
        try:
            yield from zip(_LOADS, map(float, self._loadavg.read().split()[:3]), strict=True)
        except (OSError, ValueError) as error:
            self.fault(error, self._loadavg.path)
        for series, attribute, scale in self._attributes:
            try:
                yield series, int(attribute.read()) * scale
            except (OSError, ValueError) as error:
                self.fault(error, attribute.path)

    def _times(self) -> Iterator[Point]:
        # The file has one row for all CPUs, one for each that is online, then named rows; `intr`
        # may be long. Splitting the block of CPU rows at once is several times cheaper than rows.
        cpus, _, rest = self._stat.read().partition(b"intr ")
        words = cpus.split()
        rows = tuple(words[_COLUMNS::_COLUMNS])
        if rows != self._rows:
            self._look_at_cpus(words, rows)
        hz = self._ticks_per_second
        yield from zip(self._series, [n / hz for n in map(int, self._pick(words))], strict=True)
        total, _, named = rest.partition(b"\n")
        yield _INTERRUPTS, int(total.partition(b" ")[0])
        values = dict(line.split(b" ", 1) for line in named.splitlines())
        for word, series in _NAMED:
            yield series, int(values[word])

    def _look_at_cpus(self, words: list[bytes], rows: tuple[bytes, ...]) -> None:
        """The CPUs that are online have changed: find their columns and their files again."""
        if len(words) != _COLUMNS * (len(rows) + 1) or not all(map(_is_cpu, rows)):
            raise ValueError(f"{self._stat.path}: a cpu row has not {_COLUMNS} columns")
        names = [row[3:].decode() for row in rows]
        self._series = [TIME.at(name, mode) for name in names for mode in MODES]
        columns = [
            row * _COLUMNS + column
            for row in range(1, len(rows) + 1)
            for column in range(1, len(MODES) + 1)
        ]
        self._pick = picker(columns)
        self._close_attributes()
        self._attributes = [found for name in names for found in self._files_of(name)]
        self._rows = rows

    def _files_of(self, cpu: str) -> Iterator[tuple[Series, Attribute, float]]:
        folder = self.host.sys("devices/system/cpu", f"cpu{cpu}")
        for series, path, scale in (
            (FREQUENCY.at(cpu), "cpufreq/scaling_cur_freq", 1000.0),
            (THROTTLES.at(cpu, "core"), "thermal_throttle/core_throttle_count", 1),
            (THROTTLES.at(cpu, "package"), "thermal_throttle/package_throttle_count", 1),
        ):
            if os.path.exists(os.path.join(folder, path)):
                yield series, Attribute(os.path.join(folder, path)), scale

    def _close_attributes(self) -> None:
        for _, attribute, _ in self._attributes:
            attribute.close()

    def close(self) -> None:
        self._stat.close()
        self._loadavg.close()
        self._close_attributes()


def _is_cpu(row: bytes) -> bool:
    return _CPU_NAME.match(row.decode("ascii", "replace")) is not None

"""The machine as a whole: boot time, clock, open files, threads, and who it is.

From /proc/sys (Documentation/admin-guide/sysctl), /proc/stat, /proc/loadavg, adjtimex(2),
os-release(5) and /sys/class/dmi/id. What changes once in a boot is read once a minute. Serial
numbers are not read.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from telemetryd.collector import Collector, CollectorConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Attribute, Host
from telemetryd.metric import Kind, Metric, Point, Series, Unit

if TYPE_CHECKING:
    from telemetryd.kernel_clock import KernelClock

_REFRESH_NS = 60_000_000_000
_TIMEX = "adjtimex(2)"

BOOT_TIME = Metric(
    "system", "boot_time", Kind.GAUGE, Unit.SECONDS,
    "When the machine booted, in seconds since 1970 by its own clock.",
    "/proc/stat btime, proc_stat(5)",
)  # fmt: skip
TIME = Metric(
    "system", "time", Kind.GAUGE, Unit.SECONDS,
    "What the machine's clock said when it was read, in seconds since 1970.", "clock_gettime(2)",
)  # fmt: skip
CLOCK_SYNCHRONIZED = Metric(
    "system", "clock_synchronized", Kind.GAUGE, Unit.NONE,
    "1 if a time daemon keeps the clock within a known error, 0 if not.",
    f"{_TIMEX} maxerror below 16 s",
)  # fmt: skip
CLOCK_OFFSET = Metric(
    "system", "clock_offset", Kind.GAUGE, Unit.SECONDS,
    "What the kernel has still to correct of the clock's error. Time daemons that steer the clock "
    "themselves, such as chrony, leave this at 0.",
    f"{_TIMEX} offset",
)  # fmt: skip
CLOCK_MAX_ERROR = Metric(
    "system", "clock_max_error", Kind.GAUGE, Unit.SECONDS,
    "Furthest that the clock may be from true time; 16 s stands for not known.",
    f"{_TIMEX} maxerror",
)  # fmt: skip
CLOCK_ESTIMATED_ERROR = Metric(
    "system", "clock_estimated_error", Kind.GAUGE, Unit.SECONDS,
    "How far the time daemon thinks the clock is from true time.", f"{_TIMEX} esterror",
)  # fmt: skip
FILE_HANDLES = Metric(
    "system", "file_handles", Kind.GAUGE, Unit.NONE,
    "File handles in use by all processes.", "/proc/sys/fs/file-nr, sysctl/fs.rst",
)  # fmt: skip
FILE_HANDLES_LIMIT = Metric(
    "system", "file_handles_limit", Kind.GAUGE, Unit.NONE,
    "File handles that may be in use at most.", "/proc/sys/fs/file-nr, sysctl/fs.rst",
)  # fmt: skip
THREADS = Metric(
    "system", "threads", Kind.GAUGE, Unit.NONE,
    "Threads of all processes and of the kernel.", "/proc/loadavg, proc_loadavg(5)",
)  # fmt: skip
THREADS_LIMIT = Metric(
    "system", "threads_limit", Kind.GAUGE, Unit.NONE,
    "Threads that there may be at most.", "/proc/sys/kernel/threads-max, sysctl/kernel.rst",
)  # fmt: skip
PID_LIMIT = Metric(
    "system", "pid_limit", Kind.GAUGE, Unit.NONE,
    "Process and thread numbers lie below this, so that there cannot be more of them.",
    "/proc/sys/kernel/pid_max, sysctl/kernel.rst",
)  # fmt: skip
INFO = Metric(
    "system", "", Kind.INFO, Unit.NONE,
    "The machine: its name, kernel, operating system, maker, model and CPU.",
    "/proc/sys/kernel, os-release(5), /sys/class/dmi/id, /proc/cpuinfo",
    ("hostname", "kernel", "architecture", "os", "vendor", "product", "cpu"),
)  # fmt: skip

# Made once: looking one up costs as much as reading a file.
_TIME = TIME.at()
_CLOCK = tuple(
    metric.at()
    for metric in (CLOCK_SYNCHRONIZED, CLOCK_OFFSET, CLOCK_MAX_ERROR, CLOCK_ESTIMATED_ERROR)
)
_HANDLES = FILE_HANDLES.at(), FILE_HANDLES_LIMIT.at()
_THREADS = THREADS.at()


class System(Collector):
    """Raises Unavailable if /proc/sys/kernel is not readable.

    The kernel's own clock is asked only on the machine we run on: it says nothing of another.
    """

    metrics = (
        BOOT_TIME, TIME, CLOCK_SYNCHRONIZED, CLOCK_OFFSET, CLOCK_MAX_ERROR, CLOCK_ESTIMATED_ERROR,
        FILE_HANDLES, FILE_HANDLES_LIMIT, THREADS, THREADS_LIMIT, PID_LIMIT, INFO,
    )  # fmt: skip

    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config, host)
        self._hostname = Attribute(host.proc("sys/kernel/hostname"))
        self._file_nr = Attribute(host.proc("sys/fs/file-nr"))
        self._loadavg = Attribute(host.proc("loadavg"))
        try:
            self._hostname.read()
        except OSError as error:
            raise Unavailable(
                f"cannot read {self._hostname.path}: {error.strerror}", "mount procfs there"
            ) from error
        self._read_clock: Callable[[], KernelClock] | None = None
        if host.is_live:
            from telemetryd.kernel_clock import read_kernel_clock  # noqa: PLC0415  (costs memory)

            self._read_clock = read_kernel_clock
        self._cpu: str | None = None
        self._due_ns: int | None = None
        self._settled: list[Point] = []
        self._identity: tuple[str, ...] = ()
        self._name: bytes | None = None
        self._info: Series | None = None

    def sample(self) -> Iterator[Point]:
        clock = self.host.clock
        yield _TIME, clock.wall_ns() / 1e9
        yield from self._clock()
        yield from self._counts()
        now_ns = clock.mono_ns()
        if self._due_ns is None or now_ns >= self._due_ns:
            self._due_ns = now_ns + _REFRESH_NS
            self._settled = list(self._limits())
            self._identity = self._identify()
            self._name = None
        yield from self._settled
        try:
            name = self._hostname.read()
        except OSError as error:
            self.fault(error, self._hostname.path)
            return
        if name != self._name or self._info is None:
            self._info = INFO.at(os.fsdecode(name).strip(), *self._identity)
            self._name = name
        yield self._info, 1

    def _clock(self) -> Iterator[Point]:
        if self._read_clock is None:
            return
        try:
            clock = self._read_clock()
        except OSError as error:
            self.fault(error, "adjtimex")
            return
        synchronized = int(clock.synchronized)
        values = synchronized, clock.offset, clock.max_error, clock.estimated_error
        yield from zip(_CLOCK, values, strict=True)

    def _counts(self) -> Iterator[Point]:
        try:
            # The second number is a leftover that is always 0.
            used, _, limit = map(int, self._file_nr.read().split())
            yield from zip(_HANDLES, (used, limit), strict=True)
        except (OSError, ValueError) as error:
            self.fault(error, self._file_nr.path)
        try:
            # Load thrice, then `runnable/all`.
            yield _THREADS, int(self._loadavg.read().split()[3].partition(b"/")[2])
        except (OSError, ValueError, IndexError) as error:
            self.fault(error, self._loadavg.path)

    def _limits(self) -> Iterator[Point]:
        for metric, path in (
            (THREADS_LIMIT, self.host.proc("sys/kernel/threads-max")),
            (PID_LIMIT, self.host.proc("sys/kernel/pid_max")),
        ):
            try:
                yield metric.at(), int(self.host.read(path))
            except (OSError, ValueError) as error:
                self.fault(error, path)
        path = self.host.proc("stat")
        try:
            after = self.host.read(path).split(b"\nbtime ")[1]
            yield BOOT_TIME.at(), int(after.split(None, 1)[0])
        except (OSError, ValueError, IndexError) as error:
            self.fault(error, path)

    def _identify(self) -> tuple[str, ...]:
        """The labels of INFO behind the host name; empty where the machine does not say."""
        if self._cpu is None:
            self._cpu = self._cpu_model()
        kernel = self.host.proc("sys/kernel")
        architecture = self.text(os.path.join(kernel, "arch"))  # since Linux 6.1
        if not architecture and self.host.is_live:
            architecture = os.uname().machine
        dmi = self.host.sys("class/dmi/id")
        return (
            self.text(os.path.join(kernel, "osrelease")),
            architecture,
            self._os_name(),
            self.text(os.path.join(dmi, "sys_vendor")),
            self.text(os.path.join(dmi, "product_name")),
            self._cpu,
        )

    def _os_name(self) -> str:
        """PRETTY_NAME of os-release(5), which is written as for a shell."""
        for path in (self.host.root("/etc/os-release"), self.host.root("/usr/lib/os-release")):
            for line in self.text(path).splitlines():
                key, _, value = line.partition("=")
                if key == "PRETTY_NAME":
                    try:
                        return " ".join(shlex.split(value))
                    except ValueError as error:
                        self.fault(error, path)
        return ""

    def _cpu_model(self) -> str:
        """The first `model name` in cpuinfo; not every architecture gives one."""
        # One read: the first CPU is enough, and on some kernels all of them take milliseconds.
        cpuinfo = Attribute(self.host.proc("cpuinfo"))
        try:
            for line in cpuinfo.read().splitlines():
                key, _, value = line.partition(b":")
                if key.strip() == b"model name":
                    return os.fsdecode(value).strip()
        except OSError as error:
            self.fault(error, cpuinfo.path)
        finally:
            cpuinfo.close()
        return ""

    def close(self) -> None:
        self._hostname.close()
        self._file_nr.close()
        self._loadavg.close()

"""Disk utilization: the share of each interval in which at least one operation was in flight.

The kernel books that time (io_ticks) in whole jiffies of up to 10 ms, on a clock that runs like
ours, at the moment it prints the row; an interval, however, ends where the collector took the time
before it read. So the busy time of a disk without a pause can exceed the interval by a jiffy and
by the time between the two moments, and falls as much short of a later one. What exceeds an
interval is neither thrown away (the sum would lose a little each time) nor published as a ratio
above 1: it is carried to the next interval, where it belongs. The ratio stays within its bounds by
the definition of a share, and the integral keeps every millisecond that the kernel counted.

More than MOST_AHEAD_S too much is no rounding. Kernels before 5.18 book an operation of seconds
when it ends; from 6.10 on, two CPUs that start at once can book the idle time since the last
operation as busy (update_io_ticks, block/blk-core.c). Of such an interval nothing is known:
it has no ratio and is not observed.

A kernel before 6.10 also books a jiffy for every operation that begins in one: many short
operations look busier there than they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from telemetryd.batch import Batch, LatestTable
from telemetryd.collectors.disk import IO_TIME
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.derived.steps import Counters
from telemetryd.derived.utilization import OBSERVED, RATIO, SECONDS, Account
from telemetryd.metric import Point

# One jiffy at 100 Hz, and the rest for a thread that waits for a CPU before it reads: a guess.
MOST_AHEAD_S = 0.05


class DiskUtilization(Derivation):
    """`disk` of each disk. Busy, not saturated: many disks serve several operations at once, so
    telemetryd_disk_queue_time_seconds_total stands beside it.

    The counter wraps after 49 days of work (32 bits of milliseconds), and falls when another disk
    takes the name: nothing is derived from an interval in which it fell.
    """

    inputs = (IO_TIME,)
    metrics = (RATIO, SECONDS, OBSERVED)

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        self._collector = ""
        self._counters = Counters(IO_TIME)
        self._disks: dict[str, _Disk] = {}

    def forget(self, collector: str) -> None:
        if collector == self._collector:
            self._counters = Counters(IO_TIME)
            self._disks.clear()

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:  # noqa: ARG002
        self._collector = batch.collector
        step = self._counters.advance(batch)
        if self._counters.changed:
            names = [series.labels[0] for series in self._counters.series]
            self._disks = {name: self._disks.get(name) or _Disk(name) for name in names}
        if step is None:
            for disk in self._disks.values():
                disk.miss(batch.mono_ns)
        else:
            for disk, busy in zip(self._disks.values(), step.increases, strict=True):
                disk.observe(busy, step.seconds, batch.mono_ns)
        for disk in self._disks.values():
            yield from disk.account.points()


class _Disk:
    """The account of one disk, and the busy time that the kernel has counted ahead of ours."""

    __slots__ = ("_ahead", "account")

    def __init__(self, name: str) -> None:
        self.account = Account("disk", name)
        self._ahead = 0.0

    def miss(self, mono_ns: int) -> None:
        """An interval of which nothing is known."""
        self._ahead = 0.0
        self.account.observe(None, 0, mono_ns)

    def observe(self, busy: float | None, seconds: float, mono_ns: int) -> None:
        """`busy` seconds of an interval; None or less than 0: the counter began anew."""
        if busy is None or busy < 0:
            self.miss(mono_ns)
            return
        busy += self._ahead
        if busy <= seconds:
            self._ahead = 0.0
            self.account.observe(busy / seconds, seconds, mono_ns)
        elif busy <= seconds + MOST_AHEAD_S:
            self._ahead = busy - seconds
            self.account.observe(1.0, seconds, mono_ns)
        else:
            self.miss(mono_ns)

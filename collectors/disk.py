"""Disk I/O of whole disks: operations, bytes, time, queue, and what each disk is.

From /proc/diskstats (Documentation/admin-guide/iostats.rst). Sectors there are always 512 bytes,
whatever the disk's own (Documentation/block/stat.rst). Linux 4.18 added the columns of discards,
5.5 those of flushes; where they are missing there are no such series. Whole disks are the names
in /sys/block; the other rows are partitions, whose bytes would count twice.

Also left out:
- dm-* and md* by default: their bytes are those of the disks below them. To see them, set
  `exclude` without them, and leave them out of sums.
- A path of a multipath NVMe disk (nvme0c1n1) if the disk itself (nvme0n1) counts. In older
  kernels, Debian 12's 6.1 among them, it does not: its paths are then all there is.
- A disk whose accounting is switched off (queue/iostats 0): its zeros are not readings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from pydantic import Field

from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Host, Table
from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker
from telemetryd.summed_times import SummedTimes

_SECTOR_BYTES = 512
_NAME = 2
_FEWEST_COLUMNS = 14
_PATH = re.compile(r"(nvme[0-9]+)c[0-9]+(n[0-9]+)\Z")
# What a disk is changes rarely (a volume grows, accounting is switched): a guess, and cheap. A new
# disk's row and its folder in sysfs do not appear at the same instant: look once more soon after.
_DESCRIBE_EVERY_NS = 60_000_000_000
_DESCRIBE_SOON_NS = 1_000_000_000

_FILE = "/proc/diskstats, admin-guide/iostats.rst"
OPERATIONS = Metric(
    "disk", "operations", Kind.COUNTER, Unit.NONE,
    "Operations completed.", _FILE, ("device", "operation"),
)  # fmt: skip
MERGED = Metric(
    "disk", "merged_operations", Kind.COUNTER, Unit.NONE,
    "Operations that were merged into a neighbour before they were issued.",
    _FILE, ("device", "operation"),
)  # fmt: skip
BYTES = Metric(
    "disk", "", Kind.COUNTER, Unit.BYTES,
    "Bytes read, written and discarded.", _FILE, ("device", "operation"),
)  # fmt: skip
TIME = Metric(
    "disk", "time", Kind.COUNTER, Unit.SECONDS,
    "Time that operations took, summed over all of them, since the daemon began to watch the "
    "disk; divided by the operations completed: the latency.",
    _FILE, ("device", "operation"),
)  # fmt: skip
QUEUE_TIME = Metric(
    "disk", "queue_time", Kind.COUNTER, Unit.SECONDS,
    "Time that operations were in flight, summed over all of them, since the daemon began to "
    "watch the disk; its rate is the average depth of the queue.",
    _FILE, ("device",),
)  # fmt: skip
IO_TIME = Metric(
    "disk", "io_time", Kind.COUNTER, Unit.SECONDS,
    "Time in which at least one operation was in flight.", _FILE, ("device",),
)  # fmt: skip
IN_FLIGHT = Metric(
    "disk", "in_flight_operations", Kind.GAUGE, Unit.NONE,
    "Operations in flight now.", _FILE, ("device",),
)  # fmt: skip
SIZE = Metric(
    "disk", "size", Kind.GAUGE, Unit.BYTES,
    "Capacity of the disk.", "/sys/block/*/size (sectors of 512 bytes)", ("device",),
)  # fmt: skip
INFO = Metric(
    "disk", "", Kind.INFO, Unit.NONE,
    "What the disk is: its model (empty if it does not say) and whether the kernel takes it for "
    "one with rotating platters.",
    "/sys/block/*/device/model and queue/rotational", ("device", "model", "rotational"),
)  # fmt: skip

# The columns of a row, by what their numbers are. A row may end before the last of them.
_COUNTS = (
    (OPERATIONS, "read", 3), (MERGED, "read", 4), (OPERATIONS, "write", 7), (MERGED, "write", 8),
    (OPERATIONS, "discard", 14), (MERGED, "discard", 15), (OPERATIONS, "flush", 18),
)  # fmt: skip
_SECTORS = ((BYTES, "read", 5), (BYTES, "write", 9), (BYTES, "discard", 16))
_SUMMED_TIMES = (
    (TIME, "read", 6), (TIME, "write", 10), (TIME, "discard", 17), (TIME, "flush", 19),
    (QUEUE_TIME, "", 13),
)  # fmt: skip
_IO_TIMES = ((IO_TIME, "", 12),)
_GAUGES = ((IN_FLIGHT, "", 11),)


class DiskConfig(CollectorConfig, Filters):
    """Names are those of /proc/diskstats."""

    exclude: tuple[str, ...] = Field(
        ("loop*", "ram*", "zram*", "fd*", "sr*", "dm-*", "md*"),
        description="shell patterns of the disks to leave alone; dm-* and md* repeat the bytes of "
        "the disks below them",
    )


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of /proc/diskstats: the disk's name, and where its `width` words begin."""

    name: str
    begin: int
    width: int


class Disk(Collector):
    """Raises Unavailable if /proc/diskstats or /sys/block is not readable, or no disk is there."""

    Config = DiskConfig
    metrics = (
        OPERATIONS, MERGED, BYTES, TIME, QUEUE_TIME, IO_TIME, IN_FLIGHT, SIZE, INFO,
    )  # fmt: skip

    def __init__(self, config: DiskConfig, host: Host) -> None:
        super().__init__(config, host)
        self._wants = config.wants
        self._file = Table(host.proc("diskstats"), 65536)
        self._length = -1
        self._names: tuple[bytes, ...] = ()
        self._pick_names = picker(())
        self._pick = picker(())
        self._series: list[Series] = []
        self._ends = (0, 0, 0, 0)
        self._times = SummedTimes()
        # The disks that are published, with what describes them; None: not looked for yet.
        self._disks: dict[str, list[Point]] | None = None
        self._candidates: list[str] = []
        self._described: list[Point] = []
        self._odd: list[str] = []
        self._describe_at_ns = 0
        try:
            data = self._file.read()
            blocks = os.listdir(host.sys("block"))
        except OSError as error:
            self.close()
            raise Unavailable(
                f"cannot read {error.filename}: {error.strerror}", "mount procfs and sysfs there"
            ) from error
        if not blocks:
            self.close()
            raise Unavailable(f"{host.sys('block')} is empty", "nothing, if there are no disks")
        self._look(data, data.split())
        if not self._series and not self._odd:
            self.close()
            raise Unavailable(
                f"no disk in {self._file.path} that include and exclude let through",
                "nothing, if this machine has none",
            )

    def sample(self) -> Iterator[Point]:
        numbers = self._numbers()
        for row in self._odd:
            self.fault(ReadError("parse", f"cannot make sense of {row!r}"), self._file.path)
        counts, sectors, sums, busy = self._ends
        seconds = self._times.advance(numbers[sectors:sums], numbers[:counts])
        if self._times.reset:
            # Another disk may stand there now.
            self._describe_at_ns = 0
        yield from zip(
            self._series,
            chain(
                numbers[:counts],
                [n * _SECTOR_BYTES for n in numbers[counts:sectors]],
                seconds,
                [n / 1000 for n in numbers[sums:busy]],
                numbers[busy:],
            ),
            strict=True,
        )
        yield from self._described

    def _numbers(self) -> list[int]:
        data = self._file.read()
        words = data.split()
        if (
            self._odd
            or len(words) != self._length
            or self._pick_names(words) != self._names
            or not data.endswith(b"\n")
            or self.host.clock.mono_ns() >= self._describe_at_ns
        ):
            self._look(data, words)
        try:
            return list(map(int, self._pick(words)))
        except ValueError:
            self._look(data, words)
            return list(map(int, self._pick(words)))

    def _look(self, data: bytes, words: list[bytes]) -> None:
        """Rows have come or gone, or it is time: find the columns of each disk again."""
        rows = list(self._rows(data))
        self._length = len(words)
        self._pick_names = picker([row.begin + _NAME for row in rows])
        self._names = self._pick_names(words)
        disks = self._published(rows, words)
        series: list[Series] = []
        owners: list[int] = []
        positions: list[int] = []
        ends = []
        for group in (_COUNTS, _SECTORS, _SUMMED_TIMES, _IO_TIMES, _GAUGES):
            for number, disk in enumerate(disks):
                for metric, operation, column in group:
                    if column < disk.width:
                        labels = (disk.name, operation) if operation else (disk.name,)
                        series.append(metric.at(*labels))
                        owners.append(number)
                        positions.append(disk.begin + column)
            ends.append(len(series))
        self._series, self._pick = series, picker(positions)
        counts, sectors, sums, busy, _ = ends
        self._ends = (counts, sectors, sums, busy)
        self._times.arrange(series[sectors:sums], owners[sectors:sums], owners[:counts])

    def _rows(self, data: bytes) -> Iterator[_Row]:
        """The rows that are whole; the others are kept in `_odd`, to be reported."""
        self._odd = []
        begin = 0
        for line in data.splitlines(keepends=True):
            words = line.split()
            width = len(words)
            numbers = words[:_NAME] + words[_NAME + 1 :]
            if (
                width < _FEWEST_COLUMNS
                or not line.endswith(b"\n")
                or not all(map(bytes.isdigit, numbers))
            ):
                self._odd.append(os.fsdecode(line).rstrip("\n"))
            else:
                yield _Row(os.fsdecode(words[_NAME]), begin, width)
            begin += width

    def _published(self, rows: Sequence[_Row], words: Sequence[bytes]) -> list[_Row]:
        """The rows to publish. What sysfs says of them is read when names change, or it is time."""
        rows = [row for row in rows if self._wants(row.name)]
        candidates = [row.name for row in rows]
        now_ns = self.host.clock.mono_ns()
        if self._disks is None or candidates != self._candidates or now_ns >= self._describe_at_ns:
            whole = set(self.host.names(self.host.sys("block")))
            counted = {
                row.name
                for row in rows
                if _in_sysfs(row.name) in whole
                and self._counts(row.name, words[row.begin + _NAME + 1 : row.begin + row.width])
            }
            self._disks = {
                name: list(self._describe(name))
                for name in candidates
                if name in counted and _disk_of(name) not in counted - {name}
            }
            self._described = list(chain.from_iterable(self._disks.values()))
            settled = candidates == self._candidates
            self._describe_at_ns = now_ns + (_DESCRIBE_EVERY_NS if settled else _DESCRIBE_SOON_NS)
            self._candidates = candidates
        return [row for row in rows if row.name in self._disks]

    def _counts(self, disk: str, numbers: Sequence[bytes]) -> bool:
        """Whether the kernel counts this disk's I/O.

        Drivers without a request queue of blk-mq count as they please (drbd always, NVMe multipath
        in older kernels never): of them, one that shows a number counts.
        """
        if self._attribute(disk, "queue/iostats") != "0":
            return True
        if not os.path.isdir(self.host.sys("block", _in_sysfs(disk), "mq")):
            return any(number != b"0" for number in numbers)
        self.fault(
            ReadError(
                "missing",
                f"the kernel does not count the I/O of {disk}; "
                f"write 1 to {self.host.sys('block', _in_sysfs(disk), 'queue/iostats')}",
            )
        )
        return False

    def _describe(self, disk: str) -> Iterator[Point]:
        rotational = {"0": "false", "1": "true"}.get(self._attribute(disk, "queue/rotational"), "")
        yield INFO.at(disk, self._attribute(disk, "device/model"), rotational), 1
        sectors = self._attribute(disk, "size")
        if sectors.isdecimal():
            yield SIZE.at(disk), int(sectors) * _SECTOR_BYTES

    def _attribute(self, disk: str, name: str) -> str:
        """An attribute of the disk as text; empty if the disk has none, or it cannot be read."""
        return self.text(self.host.sys("block", _in_sysfs(disk), name))

    def close(self) -> None:
        self._file.close()


def _disk_of(path: str) -> str:
    """The multipath NVMe disk that nvme0c1n1 is a path of: nvme0n1. Any other name is itself."""
    return _PATH.sub(r"\1\2", path)


def _in_sysfs(disk: str) -> str:
    """The name of a disk as a file: cciss/c0d0 is cciss!c0d0 (lib/kobject.c)."""
    return disk.replace("/", "!")

"""Memory as operators look at it: levels, swap, hugepages, page faults, paging, OOM kills.

Levels from /proc/meminfo (proc_meminfo(5)), where `kB` means KiB and HugePages_* are plain counts;
events from /proc/vmstat (mm/vmstat.c). A line that this kernel does not have gives no series:
a kernel without MemAvailable has no `available`, and MemFree never stands in for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from operator import mul

from telemetryd.collector import Collector, CollectorConfig
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Attribute, Host, Table
from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _level(quantity: str, line: str, text: str, unit: Unit = Unit.BYTES) -> Metric:
    source = f"/proc/meminfo {line}, proc_meminfo(5)"
    return Metric("memory", quantity, Kind.GAUGE, unit, text, source)


def _events(quantity: str, text: str, lines: str, unit: Unit = Unit.NONE, *labels: str) -> Metric:
    return Metric("memory", quantity, Kind.COUNTER, unit, text, f"/proc/vmstat {lines}", labels)


TOTAL = _level(
    "total", "MemTotal", "Memory that the kernel manages: installed less what is reserved at boot."
)
AVAILABLE = _level(
    "available", "MemAvailable",
    "The kernel's estimate of what new programs could take without swapping. Absent before "
    "Linux 3.14.",
)  # fmt: skip
SWAP_TOTAL = _level("swap_total", "SwapTotal", "Swap space; 0 if there is none.")
SWAP_FREE = _level("swap_free", "SwapFree", "Swap space not in use.")

# Lines in kB, by name.
_BYTES = {
    "MemTotal": TOTAL,
    "MemFree": _level("free", "MemFree", "Memory that nothing uses, not even a cache."),
    "MemAvailable": AVAILABLE,
    "Buffers": _level("buffers", "Buffers", "Cache of raw block devices."),
    "Cached": _level("cached", "Cached", "Page cache of files, with tmpfs and shared memory."),
    "Shmem": _level("shmem", "Shmem", "Shared memory and tmpfs; inside cached."),
    "SReclaimable": _level(
        "slab_reclaimable", "SReclaimable", "Kernel objects that can be given up under pressure."
    ),
    "SUnreclaim": _level(
        "slab_unreclaimable", "SUnreclaim", "Kernel objects that cannot be given up."
    ),
    "Dirty": _level("dirty", "Dirty", "Pages that wait to be written to disk."),
    "Writeback": _level("writeback", "Writeback", "Pages that are being written to disk now."),
    "AnonPages": _level(
        "anonymous", "AnonPages", "Memory of programs without a file behind it: heaps, stacks."
    ),
    "AnonHugePages": _level(
        "anonymous_huge", "AnonHugePages", "The part of anonymous in transparent hugepages."
    ),
    "Mapped": _level("mapped", "Mapped", "Files mapped into programs, such as libraries."),
    "PageTables": _level("page_tables", "PageTables", "Tables that map virtual addresses."),
    "KernelStack": _level("kernel_stack", "KernelStack", "Kernel stacks of all tasks."),
    "Committed_AS": _level(
        "committed", "Committed_AS", "Memory promised to programs, whether or not they use it."
    ),
    "CommitLimit": _level(
        "commit_limit", "CommitLimit",
        "The most that may be promised; binding only if vm.overcommit_memory is 2.",
    ),
    "SwapTotal": SWAP_TOTAL,
    "SwapFree": SWAP_FREE,
    "SwapCached": _level("swap_cached", "SwapCached", "Memory that also still stands in swap."),
    "HardwareCorrupted": _level(
        "hardware_corrupted", "HardwareCorrupted",
        "Memory taken out of use because the hardware reported it bad.",
    ),
    "Hugepagesize": _level("hugepage_size", "Hugepagesize", "Size of a hugepage of the pool."),
}  # fmt: skip

# Lines that are counts of hugepages of the default size. Each a family of its own: as values of
# one label they would overlap (free ones are among all) and add up to nothing.
_PAGES = {
    "HugePages_Total": _level(
        "hugepages", "HugePages_Total", "Hugepages in the pool.", Unit.NONE
    ),
    "HugePages_Free": _level(
        "hugepages_free", "HugePages_Free", "Hugepages in the pool not handed out.", Unit.NONE
    ),
    "HugePages_Rsvd": _level(
        "hugepages_reserved", "HugePages_Rsvd",
        "Free hugepages that are promised to a program already.", Unit.NONE,
    ),
    "HugePages_Surp": _level(
        "hugepages_surplus", "HugePages_Surp",
        "Hugepages above vm.nr_hugepages, given back when freed.", Unit.NONE,
    ),
}  # fmt: skip

# Minor faults are the difference of the two. It is not exported: the kernel sums the two counters
# one after the other, so that on a quiet machine their difference can step back, which reads as a
# counter reset.
FAULTS = _events(
    "page_faults", "Page faults of all programs, minor and major.", "pgfault"
)  # fmt: skip
MAJOR_FAULTS = _events(
    "major_page_faults", "Page faults that had to wait for a disk.", "pgmajfault"
)
OOM_KILLS = _events(
    "oom_kills", "Processes killed because memory ran out, on the machine or in a control group.",
    "oom_kill",
)  # fmt: skip
PAGED = _events(
    "paged", "Bytes moved from disks into memory (in) and from memory to disks (out).",
    "pgpgin and pgpgout (KiB)", Unit.BYTES, "direction",
)  # fmt: skip
SWAPPED = _events(
    "swapped", "Bytes moved from swap into memory (in) and from memory to swap (out).",
    "pswpin and pswpout (pages)", Unit.BYTES, "direction",
)  # fmt: skip


class Memory(Collector):
    """Raises Unavailable if /proc/meminfo is not readable."""

    metrics = (
        *_BYTES.values(), *_PAGES.values(), FAULTS, MAJOR_FAULTS, OOM_KILLS, PAGED, SWAPPED,
    )  # fmt: skip

    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config, host)
        # One record of the kernel's, handed out in one go; 64 lines of at most 30 characters.
        meminfo = Attribute(host.proc("meminfo"), 16384)
        try:
            meminfo.read()
        except OSError as error:
            raise Unavailable(
                f"cannot read {meminfo.path}: {error.strerror}", "mount procfs there"
            ) from error
        levels = {line: _Line(metric.at(), 1024, "kB") for line, metric in _BYTES.items()}
        counts = {line: _Line(metric.at(), 1, "") for line, metric in _PAGES.items()}
        events = {
            "pgfault": _Line(FAULTS.at(), 1, ""),
            "pgmajfault": _Line(MAJOR_FAULTS.at(), 1, ""),
            "oom_kill": _Line(OOM_KILLS.at(), 1, ""),
            "pgpgin": _Line(PAGED.at("in"), 1024, ""),
            "pgpgout": _Line(PAGED.at("out"), 1024, ""),
            "pswpin": _Line(SWAPPED.at("in"), _PAGE_BYTES, ""),
            "pswpout": _Line(SWAPPED.at("out"), _PAGE_BYTES, ""),
        }
        self._files = (
            _Lines(meminfo, {**levels, **counts}),
            _Lines(Table(host.proc("vmstat"), 65536), events),
        )

    def sample(self) -> Iterator[Point]:
        for lines in self._files:
            try:
                points, odd = lines.read()
            except (OSError, ReadError) as error:
                self.fault(error, lines.file.path)
                continue
            yield from points
            for line in odd:
                self.fault(ReadError("parse", f"cannot make sense of {line!r}"), lines.file.path)

    def close(self) -> None:
        for lines in self._files:
            lines.file.close()


class _Line:
    """What a line of a file is: its series, the factor to base units, the unit that it must
    have."""

    __slots__ = ("scale", "series", "unit")

    def __init__(self, series: Series, scale: int, unit: str) -> None:
        self.series = series
        self.scale = scale
        self.unit = unit


class _Lines:
    """Chosen lines of a file of `name value` or `name value unit` lines.

    Where they stand is worked out once, and again when the file has another shape.
    """

    def __init__(self, file: Attribute, wanted: Mapping[str, _Line]) -> None:
        self.file = file
        self._wanted = {name.encode(): line for name, line in wanted.items()}
        self._length = -1
        self._marks: tuple[bytes, ...] = ()
        self._pick_marks = picker(())
        self._pick = picker(())
        self._series: list[Series] = []
        self._scales: list[int] = []
        self._odd: list[str] = []

    def read(self) -> tuple[Iterator[Point], list[str]]:
        """What the lines say, and the lines that make no sense. Raises OSError, or ReadError if
        none of the lines is there."""
        data = self.file.read()
        words = data.split()
        if self._odd or len(words) != self._length or self._pick_marks(words) != self._marks:
            self._look(data, words)
        try:
            values = list(map(int, self._pick(words)))
        except ValueError:
            self._look(data, words)
            values = list(map(int, self._pick(words)))
        return zip(self._series, map(mul, values, self._scales), strict=True), self._odd

    def _look(self, data: bytes, words: list[bytes]) -> None:
        """Find the lines. Their names and units are the marks by which they are known again."""
        marks: list[int] = []
        values: list[int] = []
        self._series, self._scales, self._odd = [], [], []
        position = 0
        for row in data.splitlines():
            fields = row.split()
            line = self._wanted.get(fields[0].rstrip(b":")) if fields else None
            if line is None:
                pass
            elif fields[1:2] == [] or not fields[1].isdigit() or fields[2:] != _words(line.unit):
                self._odd.append(os.fsdecode(row))
            else:
                marks += [position, *range(position + 2, position + len(fields))]
                values.append(position + 1)
                self._series.append(line.series)
                self._scales.append(line.scale)
            position += len(fields)
        if not values and not self._odd:
            self._length = -1
            raise ReadError("parse", "none of the lines that are known")
        self._length = len(words)
        self._pick, self._pick_marks = picker(values), picker(marks)
        self._marks = self._pick_marks(words)


def _words(unit: str) -> list[bytes]:
    return [unit.encode()] if unit else []

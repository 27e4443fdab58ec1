"""What the collectors of GPUs that DRM shows have in common: finding, reading, losing them.

A maker's collector says which files are worth reading; this class reads them. Readings that change
are read on every tick, the rest (limits, links, error counts) every 30 seconds, and the processes
at an interval of their own.

A GPU that sleeps (Documentation/power/runtime_pm.rst) is left alone: reading most of what a driver
offers would wake it up. Only its state is read, and only its identity reported. One that is awake
stays awake, with drivers that count a reading as use, for as long as it is read more often than
its autosuspend delay.
"""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar

from pydantic import Field

from telemetryd import gpus
from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.drm.cards import Card, class_folder, find_cards, link_of, partition_nodes
from telemetryd.drm.clients import ClientWatch, Use
from telemetryd.drm.readings import Gpu, Reading
from telemetryd.duration import Seconds
from telemetryd.errors import ReadError, Unavailable
from telemetryd.gpu_owners import owner_on_gpu, owner_points
from telemetryd.host import Attribute, Host
from telemetryd.hwmon import Listing, listing
from telemetryd.metric import Metric, Point, Series
from telemetryd.owners import Owner

# A guess: what seldom changes may be this old.
REFRESH_NS = 30_000_000_000

# A driver's way to say that it does not offer this. 524: ENOTSUPP, which is the kernel's own.
_NOT_OFFERED = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENODATA, 524})
# It cannot be asked now: amdgpu answers EPERM while it resets the GPU, and since Linux 6.15 while
# the GPU sleeps.
_NOT_NOW = frozenset({errno.EPERM, errno.EBUSY, errno.EAGAIN})
_ASLEEP = frozenset({b"suspended", b"suspending"})
_DENIED = "run with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH to see who uses a GPU"

# What every GPU of DRM has, or may have.
METRICS = (
    gpus.INFO, gpus.DRIVER, gpus.LOST, gpus.BUSY, gpus.CLOCK, gpus.CLOCK_MAX, gpus.TEMPERATURE,
    gpus.POWER_LIMIT, gpus.PCIE_GENERATION, gpus.PCIE_GENERATION_MAX, gpus.PCIE_WIDTH,
    gpus.PCIE_WIDTH_MAX, gpus.PROCESSES, gpus.PROCESS_MEMORY, gpus.PROCESS_UTILIZATION,
    gpus.OWNER_PROCESSES, gpus.OWNER_MEMORY, gpus.OWNER_UTILIZATION,
)  # fmt: skip


class DrmConfig(CollectorConfig, Filters):
    """`include` and `exclude` are matched with PCI addresses."""

    include: tuple[str, ...] = Field(
        ("*",), description="shell patterns of the PCI addresses to read, such as 0000:c1:00.0"
    )
    exclude: tuple[str, ...] = Field(
        (), description="shell patterns of the PCI addresses to leave alone"
    )
    process_interval: Seconds = Field(
        10.0, ge=1, le=3600, description="time between two looks at the processes that use GPUs"
    )
    max_processes: int = Field(
        64,
        ge=0,
        le=10_000,
        description="processes of each GPU with series of their own; beyond it, those with the "
        "most memory have them, and the others are only counted",
    )


class DrmCollector(Collector):
    """The GPUs of one maker. Raises Unavailable where there is none.

    A GPU that was here and is gone, or of which nothing can be read, is lost until it is back.
    """

    Config = DrmConfig
    may_block = True
    vendor: ClassVar[str]
    drivers: ClassVar[frozenset[str]]
    # Families that a GPU of this maker may have; `doctor` tells which of them it has not.
    offers: ClassVar[tuple[Metric, ...]]

    def __init__(self, config: DrmConfig, host: Host) -> None:
        super().__init__(config, host)
        self._wants = config.wants
        self._process_ns = int(config.process_interval * 1e9)
        self._processes_due_ns = host.clock.mono_ns()
        self._watch = ClientWatch(
            host, config.process_interval, config.max_processes, self.counts_all
        )
        self._was_denied = False
        self._seen: Listing | None = None
        self._gpus: list[Gpu] = []
        self._gone: dict[str, Series] = {}
        self._partitions: tuple[str, ...] = ()
        self._drivers: list[Series] = []
        self._look(listing(class_folder(host)))
        if not self._gpus:
            raise self._nothing()

    @abstractmethod
    def identity(self, card: Card) -> tuple[str, str, str]:
        """What never changes of a GPU: its unique id, model and serial number, each "" if it is
        not known. Must not wake it up. Raises OSError if it cannot be asked now."""

    @abstractmethod
    def readings(self, gpu: Gpu) -> Iterator[Reading]:
        """The files to read on every tick, of those that are there."""

    @abstractmethod
    def slow_points(self, gpu: Gpu) -> Iterator[Point]:
        """What is read every 30 seconds."""

    def counts_all(self, pid: str) -> bool:  # noqa: ARG002  (for makers to override)
        """Whether the driver counts all the engine time of this process."""
        return True

    def busy(self, gpu: Gpu, use: Use) -> Iterator[Point]:  # noqa: ARG002  (the same)
        """How busy a GPU is, if that comes from its clients."""
        return iter(())

    def sample(self) -> Iterator[Point]:
        seen = listing(class_folder(self.host))
        if seen != self._seen:
            self._look(seen)
        for lost in self._gone.values():
            yield lost, 1
        if not self._gpus:
            raise self._nothing()
        for series in self._drivers:
            yield series, 1
        for gpu in self._gpus:
            yield gpu.info, 1
            gpu.is_asleep = self._sleeps(gpu)
            if gpu.is_asleep:
                gpu.is_lost = False
            else:
                yield from self._read(gpu)
        now_ns = self.host.clock.mono_ns()
        if now_ns >= self._processes_due_ns:
            self._processes_due_ns = now_ns + self._process_ns
            self._look_at_processes()
        for gpu in self._gpus:
            if not gpu.is_asleep and not gpu.is_lost:
                yield from gpu.use

    def remarks(self) -> Iterator[str]:
        for gpu in self._gpus:
            if gpu.is_asleep:
                yield f"{gpu.card.name}: sleeps; it is not woken up to be read"
                continue
            has = {reading.series.metric for reading, _ in gpu.readings}
            has |= {series.metric for series, _ in (*gpu.slow, *gpu.use)}
            missing = [metric.quantity for metric in self.offers if metric not in has]
            if missing:
                yield f"{gpu.card.name}: not offered or not known: {', '.join(missing)}"
        if self._watch.denied is not None:
            yield f"processes of other users: {_DENIED}"

    # --- which GPUs there are -----------------------------------------------------------------

    def _look(self, seen: Listing) -> None:
        """Find the GPUs again; those that are what they were stay open."""
        known = {gpu.card: gpu for gpu in self._gpus}
        cards = find_cards(self.host, seen, self.drivers, self._wants, self.fault)
        now_ns = self.host.clock.mono_ns()
        found: list[Gpu] = []
        is_all = True
        for place, card in enumerate(cards):
            gpu = known.pop(card, None)
            if gpu is None:
                try:
                    gpu = self._open(card, now_ns)
                except OSError as error:
                    self.fault(error, card.folder)
                    is_all = False
                    continue
                # Read at once, then spread over the period.
                gpu.due_ns = now_ns - REFRESH_NS * (len(cards) - 1 - place) // len(cards)
            found.append(gpu)
        self._gpus = found
        here = {gpu.labels[1] for gpu in found}
        for gpu in known.values():
            gpu.close()
            if gpu.labels[1] not in here and gpu.labels[1] not in self._gone:
                self._gone[gpu.labels[1]] = gpu.lost
                self.fault(ReadError("lost", "the GPU is not there any more"), gpu.card.folder)
        self._gone = {uuid: lost for uuid, lost in self._gone.items() if uuid not in here}
        self._drivers = self._versions({gpu.card.driver for gpu in found})
        self._partitions = tuple(partition_nodes(self.host, seen))
        # What could not be asked is tried again on the next tick.
        self._seen = seen if is_all else None

    def _open(self, card: Card, now_ns: int) -> Gpu:
        uuid, model, serial = self.identity(card)
        labels = card.name, uuid or card.pci
        node = self.text(card.path("numa_node"))
        numa_node = node if node.isdecimal() else ""
        facts = ("", self.vendor, model or card.pci_id, "", card.pci, serial, card.minor, numa_node)
        return Gpu(card, labels, gpus.INFO.at(*labels, *facts), now_ns)

    def _versions(self, drivers: set[str]) -> list[Series]:
        """A driver outside the kernel's tree has a version, one inside that of the kernel."""
        versions = {
            self.text(self.host.sys("module", driver, "version"))
            or self.text(self.host.proc("sys/kernel/osrelease"))
            for driver in drivers
        }
        return [gpus.DRIVER.at(self.vendor, version, "", "") for version in sorted(versions)]

    def _nothing(self) -> Unavailable:
        drivers = " or ".join(sorted(self.drivers))
        return Unavailable(
            f"no GPU with the driver {drivers} in {class_folder(self.host)}",
            f"load the driver (modprobe {min(self.drivers)}) and check include and exclude; "
            "GPUs of NVIDIA are read by gpu_nvidia",
        )

    # --- one GPU ------------------------------------------------------------------------------

    def _sleeps(self, gpu: Gpu) -> bool:
        try:
            return gpu.status.read().strip() in _ASLEEP
        except FileNotFoundError:
            return False  # a kernel without runtime power management
        except OSError as error:
            self.fault(error, gpu.status.path)
            return False

    def _read(self, gpu: Gpu) -> Iterator[Point]:
        now_ns = self.host.clock.mono_ns()
        is_due = now_ns >= gpu.due_ns
        if is_due:
            self._choose_readings(gpu)
        points, failures = self._quick_points(gpu)
        gpu.is_lost = points is None
        yield gpu.lost, int(gpu.is_lost)
        if points is None:
            first, path = failures[0]
            self.fault(ReadError("lost", f"the GPU does not answer: {first}"), path)
            gpu.slow, gpu.use, gpu.due_ns = [], [], now_ns
            return
        for error, path in failures:
            self.fault(error, path)
        yield from points
        if is_due:
            gpu.slow = list(self.slow_points(gpu))
            gpu.due_ns += REFRESH_NS * (1 + (now_ns - gpu.due_ns) // REFRESH_NS)
        yield from gpu.slow

    def _choose_readings(self, gpu: Gpu) -> None:
        """What a driver offers may come a moment after its card, or be registered anew."""
        known = {attribute.path: attribute for _, attribute in gpu.readings}
        gpu.readings = [
            (reading, known.pop(reading.path) if reading.path in known else Attribute(reading.path))
            for reading in self.readings(gpu)
        ]
        for attribute in known.values():
            attribute.close()

    def _quick_points(self, gpu: Gpu) -> tuple[list[Point] | None, list[tuple[Exception, str]]]:
        """The points of this tick, None if the GPU does not answer, and what went wrong."""
        points: list[Point] = []
        failures: list[tuple[Exception, str]] = []
        answered = failed = not_now = False
        for reading, attribute in gpu.readings:
            try:
                value = reading.convert(attribute.read())
            except OSError as error:
                if error.errno in _NOT_NOW:
                    not_now = True
                elif error.errno not in _NOT_OFFERED:
                    failed = failed or (reading.asks_gpu and error.errno != errno.EACCES)
                    failures.append((error, attribute.path))
            except (ValueError, ReadError) as error:
                answered = answered or reading.asks_gpu
                failures.append((error, attribute.path))
            else:
                answered = answered or reading.asks_gpu
                if value is not None:
                    points.append((reading.series, value))
        if not_now:
            why = ReadError("driver", "the driver cannot ask the GPU now: it is reset, or sleeps")
            failures.append((why, gpu.card.folder))
        return None if failed and not answered else points, failures

    def link_points(self, gpu: Gpu) -> Iterator[Point]:
        """The PCIe link between the GPU and its slot, as far as it is known."""
        try:
            link = link_of(self.host, gpu.card.folder)
        except OSError as error:
            self.fault(error, gpu.card.folder)
            return
        for metric, value in (
            (gpus.PCIE_GENERATION, link.generation),
            (gpus.PCIE_WIDTH, link.width),
            (gpus.PCIE_GENERATION_MAX, link.generation_max),
            (gpus.PCIE_WIDTH_MAX, link.width_max),
        ):
            if value is not None:
                yield metric.at(*gpu.labels), value

    def value(self, path: str, convert: Callable[[bytes], float | None]) -> float | None:
        """A file that is read every 30 seconds; None if it is not there, not offered or broken,
        which is reported."""
        try:
            return convert(self.host.read(path))
        except OSError as error:
            if error.errno not in {errno.ENOENT, *_NOT_OFFERED, *_NOT_NOW}:
                self.fault(error, path)
        except (ValueError, ReadError) as error:
            self.fault(error, path)
        return None

    def sensors(self, gpu: Gpu, chip: str) -> tuple[str, frozenset[str]]:
        """The folder and the files of the GPU's hwmon chip of this name; none if it has none."""
        place = gpu.card.path("hwmon")
        for entry in self.host.names(place):
            folder = os.path.join(place, entry)
            if self.text(os.path.join(folder, "name")) == chip:
                return folder, frozenset(self.host.names(folder))
        return place, frozenset()

    # --- who uses them ------------------------------------------------------------------------

    def _look_at_processes(self) -> None:
        awake = [gpu for gpu in self._gpus if not gpu.is_asleep and not gpu.is_lost]
        nodes: dict[str, str | None] = dict.fromkeys(self._partitions)
        nodes.update((node, gpu.card.pci) for gpu in awake for node, _ in gpu.card.entries)
        uses = self._watch.look(nodes, self.fault) if awake else {}
        for gpu in self._gpus:
            use = uses.get(gpu.card.pci)
            gpu.use = [] if use is None else [*self._use_points(gpu, use), *self.busy(gpu, use)]
        denied = self._watch.denied
        if denied is not None and not self._was_denied:
            self.fault(denied, f"processes of other users: {_DENIED}")
        self._was_denied = denied is not None

    def _use_points(self, gpu: Gpu, use: Use) -> Iterator[Point]:
        if use.processes is not None:
            yield gpus.PROCESSES.at(*gpu.labels), use.processes
        for one in use.shown:
            labels = (*gpu.labels, one.pid, one.command)
            if one.memory is not None:
                yield gpus.PROCESS_MEMORY.at(*labels), one.memory
            if one.utilization is not None:
                yield gpus.PROCESS_UTILIZATION.at(*labels), one.utilization
        yield from self._by_owner(gpu, use)

    def _by_owner(self, gpu: Gpu, use: Use) -> Iterator[Point]:
        """Number, memory and share of the processes of each owner, shown or not."""
        held: dict[Owner, list[int | None]] = {}
        shares: dict[Owner, float] = {}
        for one in use.all:
            owner = owner_on_gpu(self.host, int(one.pid))
            held.setdefault(owner, []).append(one.memory)
            if one.utilization is not None:
                shares[owner] = shares.get(owner, 0.0) + one.utilization
        yield from owner_points(gpu.labels, held)
        for owner, share in shares.items():
            yield gpus.OWNER_UTILIZATION.at(*gpu.labels, owner.kind, owner.name), share

    def close(self) -> None:
        for gpu in self._gpus:
            gpu.close()

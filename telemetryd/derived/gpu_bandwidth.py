"""Bandwidth of what connects a GPU: PCIe, NVLink, and its own memory.

PCIe and memory give only a rate, which stands for the interval that it ends: bytes are its
integral. Of NVLink older GPUs count the bytes, newer ones give a rate too; where there is a counter
it is used alone, as it stands.

**PCIe.** An idle GPU lowers the generation of its link and raises it when there is work, so that
the capacity is that of the highest generation that GPU and slot have in common, on the lanes in
use.

**NVLink.** Active links times the speed of one, in one direction. Most drivers state that speed (25
or 26.6 GB/s of a link that the data sheets call 50), some were seen to state both directions
together. Data sheets of all known models state the sum of both directions of all links; if the
active links together come nearer to that sum than to half of it, the driver meant both, and half
of what it says is taken. Without a data sheet the driver is believed. With fewer than about 3/4 of
the links active from the start, such a driver is not recognized, and the capacity is twice too
high until they are.

**Memory.** Its bandwidth is in the data sheet only, its use a share of that; a model that is not
known has neither.

MIG instances have the rates that the driver gives for them, and no capacity: they share the links
of their GPU. Compute instances of one GPU instance report the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from telemetryd import gpus
from telemetryd.batch import Batch, LatestTable
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.data_sheets import UNKNOWN, DataSheet, data_sheet
from telemetryd.derived.gpu_readings import ABSENT, Gpu, GpuDerivation, Places, Row
from telemetryd.derived.port import METRICS, Over, Port
from telemetryd.metric import Point
from telemetryd.pick import picker

_PCIE, _NVLINK, _MEMORY = "pcie", "nvlink", "gpu_memory"
_DIRECTIONS = ("receive", "transmit")
# Bytes a second and direction of one PCIe lane by generation: transfers a second, and what of
# them the encoding leaves (PCI Express Base Specification 6.0: 8b/10b, from 8 GT/s on 128b/130b,
# at 64 GT/s flits of 256 bytes with 236 of transaction and 6 of data link layer packets). Headers
# of packets are part of it: nobody reaches it with payload alone.
_LANE = {
    1: 2.5e9 * 8 / 10 / 8,
    2: 5e9 * 8 / 10 / 8,
    3: 8e9 * 128 / 130 / 8,
    4: 16e9 * 128 / 130 / 8,
    5: 32e9 * 128 / 130 / 8,
    6: 64e9 * 242 / 256 / 8,
}
# The active links state this many times the one direction of the data sheet: they mean both.
_MEANS_BOTH = 1.5

NewPort = Callable[[str, str], Port]


class GpuBandwidth(GpuDerivation):
    """Bytes, rate, capacity and utilization of `pcie`, `nvlink` (receive and transmit apart) and
    `gpu_memory` (both) of each GPU that has the readings.

    Bytes that are integrated start at 0 and leave out what lies between two readings more than
    GAP_INTERVALS apart. See Port for when there is a ratio.
    """

    identity = 1
    inputs = (
        gpus.PCIE_RATE,
        gpus.PCIE_GENERATION_MAX,
        gpus.PCIE_WIDTH,
        gpus.NVLINK_BYTES,
        gpus.NVLINK_RATE,
        gpus.NVLINK_SPEED,
        gpus.NVLINK_UP,
        gpus.DRAM_ACTIVE,
        gpus.INFO,
    )
    metrics = METRICS

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        # By link, for the GPUs of all collectors together, since the series has no other label;
        # the first collector with such a link carries it.
        self._over: dict[str, Over] = {}
        self._carriers: dict[str, str] = {}
        self._links: dict[str, dict[str, None]] = {}

    def new(self, collector: str, labels: tuple[str, str]) -> Gpu:
        gpu = labels[0]

        def port(link: str, direction: str) -> Port:
            over = self._over.setdefault(link, Over(link))
            self._links.setdefault(collector, {})[link] = None
            return Port(over, link, gpu, direction)

        return _Gpu(self.config, port)

    def forget(self, collector: str) -> None:
        super().forget(collector)
        self._links.pop(collector, None)
        self._carriers = {
            link: carrier for link, carrier in self._carriers.items() if carrier != collector
        }

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
        yield from super().update(batch, latest)
        for link in self._links.get(batch.collector, ()):
            if self._carriers.setdefault(link, batch.collector) == batch.collector:
                over = self._over[link]
                yield over.series, over.intervals


class _Line:
    """One direction of a link, from its rate or from its counter.

    `scale` turns the reading into bytes a second.
    """

    __slots__ = ("_bytes", "_counted", "bytes_at", "is_counted", "port", "rate_at", "scale")

    def __init__(self, port: Port) -> None:
        self.port = port
        self.rate_at = self.bytes_at = ABSENT
        self.scale = 1.0
        # A GPU that was ever seen with a counter has one: a reading of it that fails is no reason
        # to put an integral in its place.
        self.is_counted = False
        self._counted: float | None = None
        self._bytes = 0.0

    def points(self, values: Row, seconds: float, capacity: float | None) -> Iterator[Point]:
        if self.is_counted:
            before, total = self._counted, values[self.bytes_at]
            self._counted = total
            rate = None
            if before is not None and total is not None and total >= before and seconds > 0:
                rate = (total - before) / seconds
            return self.port.points(total, rate, capacity)
        reading = values[self.rate_at]
        if reading is None or reading < 0:
            return self.port.points(self._bytes, None, capacity)
        rate = reading * self.scale
        self._bytes += rate * seconds
        return self.port.points(self._bytes, rate, capacity)


class _Gpu(Gpu):
    def __init__(self, config: DerivedConfig, port: NewPort) -> None:
        super().__init__()
        self._config = config
        self._port = port
        self._lines: dict[tuple[str, str], _Line] = {}
        self._pcie: list[_Line] = []
        self._nvlink: list[_Line] = []
        self._memory: list[_Line] = []
        self._sheet = UNKNOWN
        self._states_both = False
        self._generation_at = self._width_at = self._speed_at = ABSENT
        self._up: Callable[[Sequence[float | None]], tuple[float, ...]] = picker(())

    def look(self, places: Places) -> None:
        if places.uuid != self._uuid:
            self._states_both = False
        super().look(places)
        self._sheet = _sheet(places, self._config)
        self._generation_at = places.of(gpus.PCIE_GENERATION_MAX)
        self._width_at = places.of(gpus.PCIE_WIDTH)
        self._speed_at = places.of(gpus.NVLINK_SPEED)
        self._up = picker(places.all(gpus.NVLINK_UP))
        for direction in _DIRECTIONS:
            self._place(_PCIE, direction, places.of(gpus.PCIE_RATE, direction))
            rate_at = places.of(gpus.NVLINK_RATE, direction)
            bytes_at = places.of(gpus.NVLINK_BYTES, direction)
            self._place(_NVLINK, direction, rate_at, bytes_at)
        most = self._sheet.memory_bytes_per_second
        memory_at = ABSENT if most is None else places.of(gpus.DRAM_ACTIVE)
        self._place(_MEMORY, "both", memory_at, scale=most or 0.0)
        self._pcie, self._nvlink, self._memory = (
            [line for (of, _), line in self._lines.items() if of == link]
            for link in (_PCIE, _NVLINK, _MEMORY)
        )

    def _place(
        self, link: str, direction: str, rate_at: int, bytes_at: int = ABSENT, scale: float = 1.0
    ) -> None:
        line = self._lines.get((link, direction))
        if line is None:
            if rate_at == bytes_at == ABSENT:
                return
            line = self._lines[link, direction] = _Line(self._port(link, direction))
        line.rate_at, line.bytes_at, line.scale = rate_at, bytes_at, scale
        line.is_counted = line.is_counted or bytes_at != ABSENT

    def figures(self, values: Row, batch: Batch) -> Iterator[Point]:
        seconds = self.seconds_since_last(batch)
        if self._pcie:
            capacity = self._pcie_capacity(values)
            for line in self._pcie:
                yield from line.points(values, seconds, capacity)
        if self._nvlink:
            capacity = self._nvlink_capacity(values)
            for line in self._nvlink:
                yield from line.points(values, seconds, capacity)
        for line in self._memory:
            yield from line.points(values, seconds, self._sheet.memory_bytes_per_second)

    def _pcie_capacity(self, values: Row) -> float | None:
        generation, width = values[self._generation_at], values[self._width_at]
        lane = None if generation is None else _LANE.get(int(generation))
        return lane * width if lane and width else None

    def _nvlink_capacity(self, values: Row) -> float | None:
        speed, active = values[self._speed_at], sum(self._up(values))
        if not speed or not active:
            return None
        stated = speed * active
        both = self._sheet.link_bytes_per_second
        if both is not None and stated > _MEANS_BOTH * both / 2:
            self._states_both = True
        return stated / 2 if self._states_both else stated


def _sheet(places: Places, config: DerivedConfig) -> DataSheet:
    model = places.label(gpus.INFO, "model")
    return data_sheet(model, config.gpu_peaks) if model else UNKNOWN

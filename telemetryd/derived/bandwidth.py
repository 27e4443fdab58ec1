"""Bandwidth utilization = actual / total: what a link carries of what it could.

Each kind of link is one row of LINKS: the counter of bytes its collector reads, the gauge that
says what the link can carry each way, and which of the devices are links of that kind.

The mean over any window needs no integral beside it, because bytes are counted by the link:
increase(bytes_total) / capacity / window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from telemetryd.batch import Batch, LatestTable
from telemetryd.collectors import network
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.derived.port import METRICS, Over, Port
from telemetryd.derived.steps import Counters
from telemetryd.metric import Metric, Point, Series


@dataclass(frozen=True, slots=True)
class Link:
    """Where the figures of one kind of link come from.

    `transferred` has the label `direction`. `device` names the labels, common to `transferred`
    and `capacity`, that tell one link from another; several are joined with a slash. A device
    counts only if the series of `only` (a metric, one of its labels) has "true" there.
    """

    name: str
    transferred: Metric
    capacity: Metric
    device: tuple[str, ...] = ("device",)
    only: tuple[Metric, str] | None = None

    def device_of(self, series: Series) -> str:
        labels = series.metric.labels
        return "/".join(series.labels[labels.index(label)] for label in self.device)

    def chosen(self, series: Sequence[Series]) -> frozenset[str] | None:
        """The devices that count; None: all."""
        if self.only is None:
            return None
        metric, label = self.only
        return frozenset(
            self.device_of(one)
            for one in series
            if one.metric is metric and one.labels[metric.labels.index(label)] == "true"
        )


LINKS = (Link("network", network.BYTES, network.SPEED, only=(network.INFO, "physical")),)


class _Port:
    """One direction of one link, and where its readings are."""

    __slots__ = ("bytes_at", "capacity_at", "increase_at", "port")

    def __init__(self, port: Port) -> None:
        self.port = port
        self.bytes_at = 0
        self.capacity_at: int | None = None
        self.increase_at = 0


class _Ports:
    """The links of one kind that one collector reads."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._counters = Counters(link.transferred)
        self._ports: dict[tuple[str, str], _Port] = {}
        self._over = Over(link.name)

    def figures(self, batch: Batch) -> Iterator[Point]:
        step = self._counters.advance(batch)
        if self._counters.changed:
            self._look_at_ports(batch.series)
        values = batch.values
        for one in self._ports.values():
            capacity = None if one.capacity_at is None else values[one.capacity_at]
            increase = None if step is None else step.increases[one.increase_at]
            if step is None or increase is None or increase < 0:
                rate = None
            else:
                rate = increase / step.seconds
            yield from one.port.points(values[one.bytes_at], rate, capacity)
        if self._ports:
            yield self._over.series, self._over.intervals

    def _look_at_ports(self, series: Sequence[Series]) -> None:
        """The collector's series have changed: find the ports and their readings again."""
        link, known = self._link, self._ports
        positions = {one: position for position, one in enumerate(series)}
        capacities = {
            link.device_of(one): position
            for one, position in positions.items()
            if one.metric is link.capacity
        }
        chosen = link.chosen(series)
        direction_at = link.transferred.labels.index("direction")
        self._ports = {}
        for increase_at, one in enumerate(self._counters.series):
            device, direction = link.device_of(one), one.labels[direction_at]
            if chosen is not None and device not in chosen:
                continue
            port = known.get((device, direction)) or _Port(
                Port(self._over, link.name, device, direction)
            )
            port.bytes_at = positions[one]
            port.capacity_at = capacities.get(device)
            port.increase_at = increase_at
            self._ports[device, direction] = port


class BandwidthUtilization(Derivation):
    """Bytes, rate, capacity and utilization of each link and direction, of the kinds in LINKS.

    A first reading, a gap, or a counter that fell gives neither rate nor ratio. Frames leave gaps
    on the wire that are not counted as bytes, so that a full link reads a little below 1, and
    readings above its capacity stay rare.
    """

    inputs = tuple(link.transferred for link in LINKS)
    metrics = METRICS

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        self._ports: dict[str, dict[str, _Ports]] = {}
        self._layouts: dict[str, tuple[Series, ...]] = {}

    def forget(self, collector: str) -> None:
        self._ports.pop(collector, None)
        self._layouts.pop(collector, None)

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:  # noqa: ARG002
        if self._layouts.get(batch.collector) is not batch.series:
            self._layouts[batch.collector] = batch.series
            known = self._ports.get(batch.collector, {})
            metrics = {one.metric for one in batch.series}
            self._ports[batch.collector] = {
                link.name: known.get(link.name) or _Ports(link)
                for link in LINKS
                if link.transferred in metrics
            }
        for ports in self._ports[batch.collector].values():
            yield from ports.figures(batch)

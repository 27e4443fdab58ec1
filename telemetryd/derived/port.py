"""What is published of one direction of one link, whatever kind of link it is."""

from __future__ import annotations

from collections.abc import Iterator

from telemetryd.metric import Kind, Metric, Point, Unit

_LABELS = ("link", "device", "direction")
_HERE = "derived"

BYTES = Metric(
    "bandwidth", "", Kind.COUNTER, Unit.BYTES,
    "Bytes that a link carried in one direction, as the link counts them; of links that give only "
    "a rate (the pcie, nvlink and gpu_memory of GPUs) its integral since the daemon started.",
    _HERE, _LABELS,
)  # fmt: skip
RATE = Metric(
    "bandwidth", "", Kind.GAUGE, Unit.BYTES_PER_SECOND,
    "Bytes a second that a link carried in one direction over the last interval.", _HERE, _LABELS,
)  # fmt: skip
CAPACITY = Metric(
    "bandwidth", "capacity", Kind.GAUGE, Unit.BYTES_PER_SECOND,
    "Bytes a second that a link can carry in one direction; absent when it is not known.",
    _HERE, _LABELS,
)  # fmt: skip
RATIO = Metric(
    "bandwidth", "utilization", Kind.GAUGE, Unit.RATIO,
    "Actual / total bandwidth of a link in one direction over the last interval, from 0 to 1; "
    "absent when it is not known. For the mean over a longer time divide the rate of "
    "telemetryd_bandwidth_bytes_total by the capacity.",
    _HERE, _LABELS,
)  # fmt: skip
OVER_CAPACITY = Metric(
    "bandwidth", "over_capacity_intervals", Kind.COUNTER, Unit.NONE,
    "Intervals of a link and direction without a utilization ratio because more bytes were counted "
    "in them than the link can carry.",
    _HERE, ("link",),
)  # fmt: skip

METRICS = (BYTES, RATE, CAPACITY, RATIO, OVER_CAPACITY)


class Over:
    """How often the ports of one kind of link carried more than they can."""

    __slots__ = ("intervals", "series")

    def __init__(self, link: str) -> None:
        self.series = OVER_CAPACITY.at(link)
        self.intervals = 0


class Port:
    """One direction of one link, and its last capacity.

    A ratio needs the same capacity at both ends of the interval: over one in which the link changed
    its speed, the total is not known. A rate above the capacity is no share of it (a reading that
    was late, a driver that updates its counters in steps): it stands as it is, the ratio is absent
    for that interval, and `over` counts it.
    """

    __slots__ = ("_capacity", "_over", "_series")

    def __init__(self, over: Over, link: str, device: str, direction: str) -> None:
        labels = (link, device, direction)
        self._series = BYTES.at(*labels), RATE.at(*labels), CAPACITY.at(*labels), RATIO.at(*labels)
        self._over = over
        self._capacity: float | None = None

    def points(
        self, total: float | None, actual: float | None, capacity: float | None
    ) -> Iterator[Point]:
        """The bytes so far, the bytes a second of this interval, and the most that they can be;
        None: not known."""
        bytes_, rate, most, ratio = self._series
        before, self._capacity = self._capacity, capacity
        if total is not None:
            yield bytes_, total
        if capacity is not None:
            yield most, capacity
        if actual is None:
            return
        yield rate, actual
        if capacity is None or capacity != before or capacity <= 0:
            return
        if actual <= capacity:
            yield ratio, actual / capacity
        else:
            self._over.intervals += 1

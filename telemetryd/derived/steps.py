"""From one batch to the next: the increase of counters, with the cases that yield none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import sub

from telemetryd.batch import Batch
from telemetryd.metric import Metric, Series
from telemetryd.pick import picker

# Readings further apart than this many intervals do not belong together: nobody was looking.
GAP_INTERVALS = 3


class Columns:
    """The values of some metrics in the batches of one collector.

    Positions are worked out when the collector's series change. `changed` tells that this batch
    was the first with the series it has.
    """

    def __init__(self, *metrics: Metric) -> None:
        self._metrics = frozenset(metrics)
        self._layout: tuple[Series, ...] | None = None
        self._pick = picker(())
        self.series: tuple[Series, ...] = ()
        self.changed = False

    def of(self, batch: Batch) -> Sequence[float]:
        self.changed = batch.series is not self._layout
        if self.changed:
            self._layout = batch.series
            chosen = [i for i, s in enumerate(batch.series) if s.metric in self._metrics]
            self.series = tuple(batch.series[i] for i in chosen)
            self._pick = picker(chosen)
        return self._pick(batch.values)


@dataclass(frozen=True, slots=True)
class Step:
    """Increases of counters over `seconds`. One that fell is negative: what that means is for
    its user to say; one that was not there before is None."""

    seconds: float
    increases: Sequence[float | None]


class Counters:
    """The increase of some counters of one collector from batch to batch.

    `advance` gives None for the first batch, after a gap, and when time did not move on.
    """

    def __init__(self, *metrics: Metric) -> None:
        self._columns = Columns(*metrics)
        self._values: Sequence[float] = ()
        self._mono_ns: int | None = None

    @property
    def series(self) -> tuple[Series, ...]:
        return self._columns.series

    @property
    def changed(self) -> bool:
        """Whether the batch last given was the first with the series it has."""
        return self._columns.changed

    def advance(self, batch: Batch) -> Step | None:
        series_before, before, since = self._columns.series, self._values, self._mono_ns
        now = self._columns.of(batch)
        self._values, self._mono_ns = now, batch.mono_ns
        if since is None:
            return None
        seconds = (batch.mono_ns - since) / 1e9
        if seconds <= 0 or seconds > GAP_INTERVALS * batch.interval:
            return None
        if not self._columns.changed:
            return Step(seconds, tuple(map(sub, now, before)))
        known = dict(zip(series_before, before, strict=True))
        increases = [
            value - known[one] if one in known else None
            for one, value in zip(self._columns.series, now, strict=True)
        ]
        return Step(seconds, increases)

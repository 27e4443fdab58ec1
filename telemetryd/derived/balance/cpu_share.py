"""The busy share of all CPUs, as it was published over the last minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from telemetryd.batch import Batch, LatestTable
from telemetryd.derived import utilization
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Series

_KEPT_NS = 120_000_000_000
# Readings that come on a grid are a moment more than their interval apart.
_SLACK = 1.5


@dataclass(frozen=True, slots=True)
class Busy:
    """The share of the CPUs that was busy for a time."""

    start_ns: int
    end_ns: int
    share: float
    holds_until_ns: int


class CpuShare:
    """Collects it from the batches, by the time that each reading is of: which of two collectors
    comes first at a moment is chance."""

    def __init__(self) -> None:
        self._series = utilization.RATIO.at("cpu", "all")
        self._layout: tuple[Series, ...] | None = None
        self._place = 0
        self._without: dict[str, tuple[Series, ...]] = {}
        self._readings: deque[Busy] = deque()

    def look(self, latest: LatestTable, mono_ns: int) -> None:
        """Take note of what was published last, if it is new."""
        batch = self._find(latest.live(mono_ns))
        readings = self._readings
        if batch is None or (readings and readings[-1].end_ns >= batch.mono_ns):
            return
        interval_ns = batch.interval * 1e9
        start_ns = int(batch.mono_ns - interval_ns)
        if readings and batch.mono_ns - readings[-1].end_ns <= _SLACK * interval_ns:
            start_ns = readings[-1].end_ns
        holds_until_ns = int(batch.mono_ns + GAP_INTERVALS * interval_ns)
        share = batch.values[self._place]
        readings.append(Busy(start_ns, batch.mono_ns, share, holds_until_ns))
        while readings[0].end_ns < batch.mono_ns - _KEPT_NS:
            readings.popleft()

    def between(self, start_ns: int, end_ns: int) -> Iterator[Busy]:
        """The readings that reach into that time, the newest first."""
        for one in reversed(self._readings):
            if one.end_ns <= start_ns:
                return
            if one.start_ns < end_ns:
                yield one

    def over(self, start_ns: int, end_ns: int) -> float | None:
        """The mean over that time; where nothing is told of it what was told last, as long as that
        holds; else None."""
        known_ns, sum_ns = 0, 0.0
        for one in self.between(start_ns, end_ns):
            inside_ns = min(one.end_ns, end_ns) - max(one.start_ns, start_ns)
            known_ns += inside_ns
            sum_ns += one.share * inside_ns
        if known_ns > 0:
            return sum_ns / known_ns
        before = (one for one in reversed(self._readings) if one.end_ns <= start_ns)
        last = next(before, None)
        return last.share if last is not None and end_ns <= last.holds_until_ns else None

    def _find(self, live: list[Batch]) -> Batch | None:
        """The batch that has it now; remembers where it was and where it was not."""
        for batch in live:
            if batch.series is self._layout:
                return batch
        for batch in live:
            if self._without.get(batch.collector) is batch.series:
                continue
            if self._series in batch.series:
                self._layout = batch.series
                self._place = batch.series.index(self._series)
                return batch
            self._without[batch.collector] = batch.series
        return None

"""The busy share of all CPUs, as it was last published."""

from __future__ import annotations

from telemetryd.batch import LatestTable
from telemetryd.derived import utilization
from telemetryd.metric import Series


class CpuShare:
    """Finds it among the batches, and remembers where it was and where it was not."""

    def __init__(self) -> None:
        self._series = utilization.RATIO.at("cpu", "all")
        self._layout: tuple[Series, ...] | None = None
        self._place = 0
        self._without: dict[str, tuple[Series, ...]] = {}

    def of(self, latest: LatestTable, mono_ns: int) -> float | None:
        """None where nobody tells."""
        live = latest.live(mono_ns)
        for batch in live:
            if batch.series is self._layout:
                return batch.values[self._place]
        for batch in live:
            if self._without.get(batch.collector) is batch.series:
                continue
            if self._series in batch.series:
                self._layout = batch.series
                self._place = batch.series.index(self._series)
                return batch.values[self._place]
            self._without[batch.collector] = batch.series
        return None

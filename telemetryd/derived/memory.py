"""Memory and swap utilization: the share that is not available, and the share of swap in use.

The kernel gives levels, not time in use, so that the integral is a mean sampled at the interval
of the collector: that of the two ends of each interval (trapezoid), exact for what changes evenly
between two readings.
"""

from __future__ import annotations

from collections.abc import Iterator

from telemetryd.batch import Batch, LatestTable
from telemetryd.collectors.memory import AVAILABLE, SWAP_FREE, SWAP_TOTAL, TOTAL
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.derived.level import Level
from telemetryd.derived.steps import Columns
from telemetryd.derived.utilization import METRICS, Account
from telemetryd.metric import Point


class MemoryUtilization(Derivation):
    """`memory` of `all`, 1 - MemAvailable / MemTotal, and `swap` of `all`, 1 - SwapFree /
    SwapTotal.

    A kernel without MemAvailable has no `memory`: MemFree counts every cache as used. A machine
    without swap has no `swap`. Each ratio is a level, known from the first reading on; the
    integral begins with the second, and leaves out what lies between two readings more than
    GAP_INTERVALS apart.
    """

    inputs = (TOTAL, AVAILABLE, SWAP_TOTAL, SWAP_FREE)
    metrics = METRICS

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        self._collector = ""
        self._columns = Columns(*self.inputs)
        self._levels: dict[str, Level] = {}

    def forget(self, collector: str) -> None:
        if collector == self._collector:
            self._levels.clear()

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:  # noqa: ARG002
        self._collector = batch.collector
        values = self._columns.of(batch)
        now = dict(zip([one.metric for one in self._columns.series], values, strict=True))
        yield from self._update("memory", now.get(TOTAL), now.get(AVAILABLE), batch)
        yield from self._update("swap", now.get(SWAP_TOTAL), now.get(SWAP_FREE), batch)

    def _update(
        self, resource: str, total: float | None, left: float | None, batch: Batch
    ) -> Iterator[Point]:
        if total == 0:
            self._levels.pop(resource, None)
            return
        ratio = _used_share(total, left)
        level = self._levels.get(resource)
        if level is None:
            if ratio is None:
                return
            peak_window = self.config.peak_window if resource == "memory" else None
            level = self._levels[resource] = Level(Account(resource, "all", peak_window))
        level.observe(ratio, batch)
        yield from level.points()


def _used_share(total: float | None, left: float | None) -> float | None:
    """None unless both were read and make sense together."""
    if total is None or left is None or not 0 <= left <= total:
        return None
    return (total - left) / total

"""CPU utilization: the busy share of each interval's time, everything but idle and iowait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from telemetryd.batch import Batch, LatestTable
from telemetryd.collectors.cpu import MODES, TIME
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.derived.steps import Counters, Step
from telemetryd.derived.utilization import METRICS, Account
from telemetryd.metric import Point

_WIDTH = len(MODES)
_IDLE = MODES.index("idle")
_IOWAIT = MODES.index("iowait")
# Above this many CPUs one series each is more than most want to pay for.
_MOST_CORES = 64


class CpuUtilization(Derivation):
    """`cpu` of `all`, and `cpu_core` of each CPU.

    iowait may fall (proc_stat(5)): it then counts as unchanged for that interval. Any other mode
    that falls is a CPU that went offline and came back: nothing is derived from it.
    """

    inputs = (TIME,)
    metrics = METRICS

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        self._counters = Counters(TIME)
        self._all = Account("cpu", "all", config.peak_window)
        self._cores: list[Account] = []
        self._known: dict[str, Account] = {}
        self._collector = ""

    def forget(self, collector: str) -> None:
        if collector == self._collector:
            self._counters = Counters(TIME)

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:  # noqa: ARG002
        self._collector = batch.collector
        step = self._counters.advance(batch)
        if self._counters.changed:
            self._look_at_cores()
        if step is None:
            self._all.observe(None, 0, batch.mono_ns)
            for core in self._cores:
                core.observe(None, 0, batch.mono_ns)
        else:
            self._account(step, batch.mono_ns)
        yield from self._all.points()
        for core in self._cores:
            yield from core.points()

    def _look_at_cores(self) -> None:
        names = [series.labels[0] for series in self._counters.series[::_WIDTH]]
        wanted = len(names) <= _MOST_CORES if self.config.cores is None else self.config.cores
        self._known = {
            name: self._known.get(name) or Account("cpu_core", name) for name in names if wanted
        }
        self._cores = list(self._known.values())

    def _account(self, step: Step, mono_ns: int) -> None:
        increases = step.increases
        if None in increases or min(cast("Sequence[float]", increases), default=0) < 0:
            rows = [_row(increases[i : i + _WIDTH]) for i in range(0, len(increases), _WIDTH)]
            counted: Sequence[float] = [one for row in rows if row is not None for one in row]
        else:
            counted = cast("Sequence[float]", increases)
            rows = (
                [counted[i : i + _WIDTH] for i in range(0, len(counted), _WIDTH)]
                if (self._cores)
                else []
            )
        self._all.observe(_busy(counted), step.seconds, mono_ns)
        for core, row in zip(self._cores, rows, strict=False):
            core.observe(None if row is None else _busy(row), step.seconds, mono_ns)


def _row(increases: Sequence[float | None]) -> Sequence[float] | None:
    """The increases of one CPU with a fallen iowait held, or None if there is nothing to derive."""
    row = [max(one, 0) if i == _IOWAIT and one else one for i, one in enumerate(increases)]
    if any(one is None or one < 0 for one in row):
        return None
    return cast("Sequence[float]", row)


def _busy(increases: Sequence[float]) -> float | None:
    """Busy share of rows of modes, one row behind the other; None if no time has passed."""
    total = sum(increases)
    if total <= 0:
        return None
    away = sum(increases[_IDLE::_WIDTH]) + sum(increases[_IOWAIT::_WIDTH])
    return max(total - away, 0.0) / total

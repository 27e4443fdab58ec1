"""What may be published: each series once, declared, and within its collector's limit.

Checks that depend on names alone are made when a collector's series change, not on every tick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker

Drop = Callable[[str, str, int, str], None]
_Header = tuple[Kind, Unit, str]
_NUMBERS = frozenset({int, float})


class _Layout:
    """The series of one collector as it last yielded them, and which of them may pass."""

    def __init__(self, offered: tuple[Series, ...]) -> None:
        self.offered = offered
        self.series = offered
        self.pick: Callable[[Sequence[float]], tuple[float, ...]] | None = None
        self.dropped: dict[str, list[Series]] = {}

    def keep(self, positions: list[int]) -> None:
        self.series = tuple(self.offered[i] for i in positions)
        if len(positions) == len(self.offered):
            return
        self.pick = picker(positions)


class Admission:
    """Decides for all collectors together, so that no series and no family header occurs twice."""

    def __init__(self, on_drop: Drop) -> None:
        self._on_drop = on_drop
        self._layouts: dict[str, _Layout] = {}
        self._owners: dict[Series, str] = {}
        self._names: dict[tuple[str, tuple[str, ...]], Series] = {}
        self._headers: dict[str, _Header] = {}

    def admit(
        self,
        collector: str,
        points: Sequence[Point],
        declared: frozenset[Metric] | None,
        limit: int,
    ) -> tuple[tuple[Series, ...], tuple[float, ...]]:
        """The series and values that may be published, the tuple of series being the same object
        as long as nothing changes. `declared` None lets any metric pass (site scripts' files)."""
        if not points:
            self.forget(collector)
            return (), ()
        offered, values = zip(*points, strict=True)
        layout = self._layouts.get(collector)
        if layout is None or layout.offered != offered:
            layout = self._check(collector, offered, declared, limit)
        for reason, dropped in layout.dropped.items():
            self._on_drop(collector, reason, len(dropped), repr(dropped[0]))
        if layout.pick is not None:
            values = layout.pick(values)
        # A sum is finite only if all its terms are: C loops instead of a check per value.
        if _NUMBERS.issuperset(map(type, values)) and math.isfinite(sum(values)):
            return layout.series, values
        return self._drop_odd_values(collector, layout.series, values)

    def forget(self, collector: str) -> None:
        """The collector has nothing to say any more: its names are free."""
        layout = self._layouts.pop(collector, None)
        if layout is not None:
            for series in layout.series:
                del self._owners[series]
                del self._names[series.metric.name, series.labels]
            # Headers are few, and a family may be shared: keep those still in use.
            used = {series.metric.family for series in self._owners}
            self._headers = {f: h for f, h in self._headers.items() if f in used}

    def _check(
        self,
        collector: str,
        offered: tuple[Series, ...],
        declared: frozenset[Metric] | None,
        limit: int,
    ) -> _Layout:
        self.forget(collector)
        layout = _Layout(offered)
        kept: list[int] = []
        for position, series in enumerate(offered):
            reason = self._objection(series, declared, len(kept) < limit)
            if reason is None:
                kept.append(position)
                self._owners[series] = collector
                self._names[series.metric.name, series.labels] = series
                self._headers.setdefault(series.metric.family, _header(series.metric))
            else:
                layout.dropped.setdefault(reason, []).append(series)
        layout.keep(kept)
        self._layouts[collector] = layout
        return layout

    def _objection(
        self, series: Series, declared: frozenset[Metric] | None, room: bool
    ) -> str | None:
        metric = series.metric
        if declared is not None and metric not in declared:
            return "undeclared"
        if series in self._owners or (metric.name, series.labels) in self._names:
            return "duplicate"
        header = self._headers.get(metric.family)
        if header is not None and header != _header(metric):
            return "conflict"
        return None if room else "limit"

    def _drop_odd_values(
        self, collector: str, series: tuple[Series, ...], values: tuple[float, ...]
    ) -> tuple[tuple[Series, ...], tuple[float, ...]]:
        good: list[Point] = []
        odd: list[Series] = []
        for one, value in zip(series, values, strict=True):
            # float() because a subclass (bool, numpy's) does not print as a number.
            if isinstance(value, int | float) and math.isfinite(value):
                good.append((one, float(value)))
            else:
                odd.append(one)
        if not odd:
            return series, tuple(value for _, value in good)
        self._on_drop(collector, "invalid", len(odd), repr(odd[0]))
        if not good:
            return (), ()
        kept, numbers = zip(*good, strict=True)
        return kept, numbers


def _header(metric: Metric) -> _Header:
    return metric.kind, metric.unit, metric.help

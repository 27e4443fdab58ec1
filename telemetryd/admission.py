"""What may be published: each series once, declared, and within its collector's limit.

Checks that depend on names alone are made when a collector's series change, not on every tick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker

Drop = Callable[[str, str, int, str], None]
_Header = tuple[Kind, Unit, str, tuple[str, ...]]
_NUMBERS = frozenset({int, float})
# What OpenMetrics appends to the name of a family for its samples; no other family may have such
# a name.
_SUFFIXES = {
    Kind.COUNTER: ("_total", "_created"),
    Kind.INFO: ("_info",),
    Kind.HISTOGRAM: ("_bucket", "_count", "_sum", "_created"),
    Kind.SUMMARY: ("_count", "_sum", "_created"),
}


class _Layout:
    """The series of one collector as it last yielded them, and which of them may pass."""

    def __init__(self, offered: tuple[Series, ...]) -> None:
        self.offered = offered
        self.series = offered
        self.pick: Callable[[Sequence[float]], tuple[float, ...]] | None = None
        self.dropped: dict[str, list[Series]] = {}
        self.finite: tuple[Series, ...] = ()

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
        self._families: dict[str, Metric] = {}
        self._taken: dict[str, str] = {}

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
        if _all_finite(values):
            return layout.series, values
        return self._drop_odd_values(collector, layout, values)

    def forget(self, collector: str) -> None:
        """The collector has nothing to say any more: its names are free."""
        layout = self._layouts.pop(collector, None)
        if layout is not None:
            for series in layout.series:
                del self._owners[series]
                del self._names[series.metric.name, series.labels]
            # Families are few, and one may be shared: keep those still in use.
            used = {series.metric.family for series in self._owners}
            self._families = {f: metric for f, metric in self._families.items() if f in used}
            self._taken = {name: f for name, f in self._taken.items() if f in used}

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
                self._take_names(series.metric)
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
        if self._is_in_conflict(metric):
            return "conflict"
        return None if room else "limit"

    def _is_in_conflict(self, metric: Metric) -> bool:
        """Whether a scrape could not carry it beside what is there: one header for a family, and
        no name that belongs to another."""
        known = self._families.get(metric.family)
        if known is None:
            return any(name in self._taken for name in _names(metric))
        return known is not metric and _header(known) != _header(metric)

    def _take_names(self, metric: Metric) -> None:
        if metric.family not in self._families:
            self._families[metric.family] = metric
            self._taken.update(dict.fromkeys(_names(metric), metric.family))

    def _drop_odd_values(
        self, collector: str, layout: _Layout, values: tuple[float, ...]
    ) -> tuple[tuple[Series, ...], tuple[float, ...]]:
        series = layout.series
        numbers = [_number(value) for value in values]
        odd = [one for one, number in zip(series, numbers, strict=True) if number is None]
        if odd:
            self._on_drop(collector, "invalid", len(odd), repr(odd[0]))
            kept = tuple(o for o, number in zip(series, numbers, strict=True) if number is not None)
            if kept != layout.finite:
                layout.finite = kept
            series = layout.finite
        return series, tuple(number for number in numbers if number is not None)


def _all_finite(values: Sequence[float]) -> bool:
    # A sum is finite only if all its terms are: C loops instead of a check per value.
    try:
        return _NUMBERS.issuperset(map(type, values)) and math.isfinite(sum(values))
    except OverflowError:  # a whole number that no float can hold
        return False


def _number(value: object) -> float | None:
    """`value` as a plain number that a float can hold; None if it is none."""
    if not isinstance(value, int | float):
        return None
    try:
        if not math.isfinite(value):
            return None
    except OverflowError:
        return None
    # A subclass (bool, numpy's) does not print as a number.
    return value if type(value) in _NUMBERS else float(value)


def _names(metric: Metric) -> tuple[str, ...]:
    """The names that the family of `metric` occupies in a scrape."""
    family = metric.family
    if metric.kind is Kind.COUNTER and metric.name == family:
        return (family,)  # a site script's counter that does not end in _total
    return (family, *(family + suffix for suffix in _SUFFIXES.get(metric.kind, ())))


def _header(metric: Metric) -> _Header:
    return metric.kind, metric.unit, metric.help, _names(metric)

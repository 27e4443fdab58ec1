"""What may be published: each series once, declared, and within its collector's limit.

Checks that depend on names alone are made when a collector's series change, not on every tick.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from telemetryd.metric import SUFFIXES, Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker

Drop = Callable[[str, str, int, str], None]
_Header = tuple[Kind, Unit, str]
_Identity = tuple[str, frozenset[tuple[str, str]]]
_NUMBERS = frozenset({int, float})
# OpenMetrics keeps the name of these families with `_created` for the time of their first sample.
_CREATED = frozenset({Kind.COUNTER, Kind.HISTOGRAM, Kind.SUMMARY})


class _Layout:
    """The series of one collector as it last yielded them, and which of them may pass."""

    def __init__(self, offered: tuple[Series, ...], releases: int) -> None:
        self.offered = offered
        self.releases = releases
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
        self._published: dict[Series, _Identity] = {}
        self._identities: set[_Identity] = set()
        self._families: dict[str, Metric] = {}
        self._taken: dict[str, str] = {}
        # How often names may have become free for those who were refused them.
        self._releases = 0

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
            self.forget(collector)
            layout = self._check(collector, offered, declared, limit)
        elif layout.dropped and layout.releases != self._releases:
            self._release(collector)
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
        if collector in self._layouts:
            self._release(collector)
            self._releases += 1

    def _release(self, collector: str) -> None:
        for series in self._layouts.pop(collector).series:
            self._identities.discard(self._published.pop(series))
        # Families are few, and one may be shared: keep those still in use.
        used = {series.metric.family for series in self._published}
        self._families = {f: metric for f, metric in self._families.items() if f in used}
        self._taken = {name: f for name, f in self._taken.items() if f in used}

    def _check(
        self,
        collector: str,
        offered: tuple[Series, ...],
        declared: frozenset[Metric] | None,
        limit: int,
    ) -> _Layout:
        layout = self._layouts[collector] = _Layout(offered, self._releases)
        kept: list[int] = []
        try:
            for position, series in enumerate(offered):
                if len(kept) == limit:
                    # Not even looked at: there may be very many, and all other lanes wait for us.
                    layout.dropped["limit"] = list(offered[position:])
                    break
                identity = _identity(series)
                reason = self._objection(series, identity, declared)
                if reason is None:
                    kept.append(position)
                    self._published[series] = identity
                    self._identities.add(identity)
                    self._take_names(series.metric)
                else:
                    layout.dropped.setdefault(reason, []).append(series)
        except Exception:  # something that is no series: what came before it is not taken
            layout.keep(kept)
            self._release(collector)
            raise
        layout.keep(kept)
        return layout

    def _objection(
        self, series: Series, identity: _Identity, declared: frozenset[Metric] | None
    ) -> str | None:
        metric = series.metric
        if declared is not None and metric not in declared:
            return "undeclared"
        if identity in self._identities:
            return "duplicate"
        return "conflict" if self._is_in_conflict(metric) else None

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
            kept = [i for i, number in enumerate(numbers) if number is not None]
            finite = picker(kept)(series)
            if finite != layout.finite:
                layout.finite = finite
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


def _identity(series: Series) -> _Identity:
    """What Prometheus tells series apart by: the order of labels does not count, and an empty
    label is none."""
    pairs = zip(series.metric.labels, series.labels, strict=True)
    return series.metric.name, frozenset(pair for pair in pairs if pair[1])


def _names(metric: Metric) -> tuple[str, ...]:
    """The names that no other family may have beside that of `metric`."""
    created = ("_created",) if metric.kind in _CREATED else ()
    suffixes = dict.fromkeys(("", *SUFFIXES.get(metric.kind, ()), *created))
    return tuple(metric.family + suffix for suffix in suffixes)


def _header(metric: Metric) -> _Header:
    return metric.kind, metric.unit, metric.help

"""One way through the house: readings -> derived figures -> latest table -> push exporters."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from telemetryd.admission import Admission
from telemetryd.batch import Batch, LatestTable
from telemetryd.collector import Collector
from telemetryd.derivation import Derivation
from telemetryd.instruments import Instruments
from telemetryd.metric import Point, Series

Sink = Callable[[Batch], None]

# Series of a batch that is worked out from several collectors: owners are the most of them.
_MOST_OVERALL = 20_000


class Pipeline:
    """Takes what lanes publish. Safe to call from several threads; nothing in it blocks."""

    def __init__(self, instruments: Instruments, derivations: Sequence[Derivation]) -> None:
        self.latest = LatestTable()
        self.sinks: list[Sink] = []
        self._instruments = instruments
        self._derivations = tuple(derivations)
        self._derived = frozenset(m for d in self._derivations for m in d.metrics)
        self._admission = Admission(instruments.points_dropped)
        self._lock = threading.Lock()
        self._routes: dict[str, _Route] = {}

    def publish(
        self, name: str, collector: Collector, wall_ns: int, mono_ns: int, points: Sequence[Point]
    ) -> None:
        """Publish what `collector` read at the given moments."""
        limit = collector.config.max_series
        declared = None if collector.open_ended else frozenset(collector.metrics)
        with self._lock:
            series, values = self._admission.admit(name, points, declared, limit)
            batch = Batch(name, wall_ns, mono_ns, collector.config.interval, series, values)
            route = self._routes.get(name)
            if route is None or route.series is not series:
                route = self._routes[name] = _Route(series, self._derivations)
                if not route.derivations:
                    self._admission.forget(_derived_name(name))
            bare = batch
            if route.derivations:
                batch = route.join(batch, *self._derive(batch, route.derivations, limit))
            self._put(batch)
            for derivation in route.overall:
                self._publish_overall(derivation, bare)

    def replace_derivations(self, derivations: Sequence[Derivation]) -> None:
        """Work out figures with these from now on; what they accumulate starts at 0 again, what
        was learned stays."""
        with self._lock:
            learned = {type(one): one.save() for one in self._derivations}
            for one in derivations:
                one.restore(learned.get(type(one), {}))
            self._derivations = tuple(derivations)
            self._derived = frozenset(m for d in derivations for m in d.metrics)
            self._routes.clear()

    def forget(self, name: str) -> None:
        """A collector is no longer there: its series go at once, and what was derived from it."""
        with self._lock:
            self.latest.drop(name)
            self._routes.pop(name, None)
            self._admission.forget(name)
            self._admission.forget(_derived_name(name))
            for derivation in self._derivations:
                derivation.forget(name)

    def refresh(self) -> None:
        """Let the derivations read their files."""
        for derivation in self._derivations:
            try:
                derivation.refresh()
            except Exception as error:  # noqa: BLE001  (the other derivations go on)
                self._instruments.warn("derivation", f'msg="refresh failed" error="{error!r}"')

    def save(self) -> dict[str, Mapping[str, object]]:
        """What the derivations have learned, by their names; those that learn nothing are left
        out."""
        with self._lock:
            saved = {type(one).__name__: one.save() for one in self._derivations}
        return {name: one for name, one in saved.items() if one}

    def restore(self, saved: Mapping[str, object]) -> None:
        """Go on from what `save` gave."""
        with self._lock:
            for derivation in self._derivations:
                learned = saved.get(type(derivation).__name__)
                if not isinstance(learned, dict):
                    continue
                try:
                    derivation.restore(learned)
                except Exception as error:  # noqa: BLE001  (it learns again)
                    what = f'msg="cannot restore what was learned" error="{error!r}"'
                    self._instruments.warn("derivation", what)

    def _put(self, batch: Batch) -> None:
        self.latest.put(batch)
        for sink in self.sinks:
            try:
                sink(batch)
            except Exception as error:  # noqa: BLE001  (an exporter's fault is no collector's)
                self._instruments.warn("sink", f'msg="push failed" error="{error!r}"')

    def _publish_overall(self, derivation: Derivation, batch: Batch) -> None:
        """Let a derivation look at a batch that its own batch is worked out from."""
        name = derivation.own_batch
        assert name is not None
        try:
            figures = tuple(derivation.update(batch, self.latest))
        except Exception as error:  # noqa: BLE001  (a fault in one figure costs that figure)
            what = f"{type(derivation).__name__}: {error!r}"
            self._instruments.reading_failed(batch.collector, "exception", what)
            return
        if figures:
            series, values = self._admission.admit(name, figures, self._derived, _MOST_OVERALL)
            interval = derivation.own_interval
            self._put(Batch(name, batch.wall_ns, batch.mono_ns, interval, series, values))

    def _derive(
        self, batch: Batch, derivations: Sequence[Derivation], limit: int
    ) -> tuple[tuple[Series, ...], tuple[float, ...]]:
        figures: list[Point] = []
        for derivation in derivations:
            try:
                figures.extend(derivation.update(batch, self.latest))
            except Exception as error:  # noqa: BLE001  (a fault in one figure costs that figure)
                what = f"{type(derivation).__name__}: {error!r}"
                self._instruments.reading_failed(batch.collector, "exception", what)
        return self._admission.admit(_derived_name(batch.collector), figures, self._derived, limit)


class _Route:
    """Which derivations want a layout, and the layout with theirs behind it."""

    def __init__(self, series: tuple[Series, ...], derivations: Sequence[Derivation]) -> None:
        self.series = series
        metrics = {one.metric for one in series}
        wanting = [d for d in derivations if not metrics.isdisjoint(d.inputs)]
        self.derivations = [d for d in wanting if d.own_batch is None]
        self.overall = [d for d in wanting if d.own_batch is not None]
        self._derived: tuple[Series, ...] = ()
        self._joined = series

    def join(self, batch: Batch, series: tuple[Series, ...], values: tuple[float, ...]) -> Batch:
        if series is not self._derived:
            self._derived = series
            self._joined = batch.series + series
        return Batch(
            batch.collector,
            batch.wall_ns,
            batch.mono_ns,
            batch.interval,
            self._joined,
            batch.values + values,
        )


def _derived_name(collector: str) -> str:
    return f"{collector}/derived"

"""The daemon's own counters: each event is logged and counted in one call.

They live in a prometheus-client registry and are made from Metric declarations like every other
metric; the `self` collector turns the registry into points, so that pushes carry them too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import prometheus_client as prom

from telemetryd.log import QuietLog
from telemetryd.metric import Kind, Metric, Point, Unit

_SOURCE = "the daemon itself"

COLLECTOR_ERRORS = Metric(
    "collector", "errors", Kind.COUNTER, Unit.NONE,
    "Readings that failed, by collector and reason.", _SOURCE, ("collector", "reason"),
)  # fmt: skip
SERIES_DROPPED = Metric(
    "series", "dropped", Kind.COUNTER, Unit.NONE,
    "Points that were read but not published: not finite, a duplicate, undeclared, in conflict "
    "with another collector's family, or over the collector's limit.",
    _SOURCE, ("collector", "reason"),
)  # fmt: skip
LANE_MISSED_TICKS = Metric(
    "lane", "missed_ticks", Kind.COUNTER, Unit.NONE,
    "Ticks of a sampling grid that were skipped because the one before was not over.",
    _SOURCE, ("lane",),
)  # fmt: skip
RELOAD_SUCCESSFUL = Metric(
    "config", "last_reload_successful", Kind.GAUGE, Unit.NONE,
    "1 if the configuration in force is the one last asked for, 0 if that one was refused.",
    _SOURCE,
)  # fmt: skip
RELOAD_TIMESTAMP = Metric(
    "config", "last_reload_success_timestamp", Kind.GAUGE, Unit.SECONDS,
    "When the configuration in force was loaded, in seconds since 1970.", _SOURCE,
)  # fmt: skip
WEB_REQUESTS = Metric(
    "web", "requests", Kind.COUNTER, Unit.NONE,
    "HTTP requests answered, by status code; 499: the client did not take the answer.",
    _SOURCE, ("code",),
)  # fmt: skip
PUSH_POINTS = Metric(
    "push", "points", Kind.COUNTER, Unit.NONE,
    "Points that a destination has acknowledged.", _SOURCE, ("destination",),
)  # fmt: skip
PUSH_DROPPED = Metric(
    "push", "dropped_points", Kind.COUNTER, Unit.NONE,
    "Points given up, by reason: queue_full, refused, too_large, too_old, invalid, duplicate, "
    "shutdown, exception.",
    _SOURCE, ("destination", "reason"),
)  # fmt: skip
PUSH_REQUESTS = Metric(
    "push", "requests", Kind.COUNTER, Unit.NONE,
    "Requests sent to a destination, by outcome: ok, retry, unauthorized, missing, too_large, "
    "refused, too_old.",
    _SOURCE, ("destination", "outcome"),
)  # fmt: skip
PUSH_QUEUE_BYTES = Metric(
    "push", "queue", Kind.GAUGE, Unit.BYTES,
    "Encoded points that wait for a destination.", _SOURCE, ("destination",),
)  # fmt: skip
PUSH_LAST_SUCCESS = Metric(
    "push", "last_success_timestamp", Kind.GAUGE, Unit.SECONDS,
    "When a destination last acknowledged points, in seconds since 1970; before the first time, "
    "when the daemon began to push to it.",
    _SOURCE, ("destination",),
)  # fmt: skip

METRICS = (
    COLLECTOR_ERRORS,
    SERIES_DROPPED,
    LANE_MISSED_TICKS,
    RELOAD_SUCCESSFUL,
    RELOAD_TIMESTAMP,
    WEB_REQUESTS,
    PUSH_POINTS,
    PUSH_DROPPED,
    PUSH_REQUESTS,
    PUSH_QUEUE_BYTES,
    PUSH_LAST_SUCCESS,
)


class Instruments:
    """One registry for one daemon; tests make as many as they like."""

    def __init__(self, quiet: QuietLog | None = None) -> None:
        prom.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = prom.CollectorRegistry()
        self._quiet = quiet or QuietLog(logging.getLogger("telemetryd"))
        self._counters = {m: self._counter(m) for m in METRICS if m.kind is Kind.COUNTER}
        self._gauges = {m: self._gauge(m) for m in METRICS if m.kind is Kind.GAUGE}
        self._by_name = {metric.name: metric for metric in METRICS}
        # prometheus-client starts a gauge without labels at 0: it is absent until it is set.
        self._known = set(self._counters)

    def _counter(self, metric: Metric) -> prom.Counter:
        return prom.Counter(metric.family, metric.help, metric.labels, registry=self._registry)

    def _gauge(self, metric: Metric) -> prom.Gauge:
        return prom.Gauge(metric.name, metric.help, metric.labels, registry=self._registry)

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        counter = self._counters[metric]
        (counter.labels(*labels) if labels else counter).inc(by)

    def set(self, metric: Metric, *labels: str, to: float) -> None:
        self._known.add(metric)
        gauge = self._gauges[metric]
        (gauge.labels(*labels) if labels else gauge).set(to)

    def reading_failed(self, collector: str, reason: str, what: str) -> None:
        self.count(COLLECTOR_ERRORS, collector, reason)
        # The cause is the path: what stands behind it may have another bad value each time.
        self._quiet.warning(
            f"{collector}/{reason}/{what.partition(': ')[0]}",
            f'msg="reading failed" collector={collector} reason={reason} error="{what}"',
        )

    def points_dropped(self, collector: str, reason: str, count: int, what: str) -> None:
        self.count(SERIES_DROPPED, collector, reason, by=count)
        self._quiet.warning(
            f"{collector}/{reason}",
            f'msg="points dropped" collector={collector} reason={reason} count={count} '
            f'first="{what}"',
        )

    def ticks_missed(self, lane: str, count: int) -> None:
        self.count(LANE_MISSED_TICKS, lane, by=count)
        self._quiet.warning(f"lane/{lane}", f'msg="ticks missed" lane={lane} count={count}')

    def warn(self, cause: str, message: str) -> None:
        """A warning that has its counter elsewhere; at most one line a minute for a cause."""
        self._quiet.warning(cause, message)

    def points(self) -> Iterator[Point]:
        """Every instrument that has a value."""
        for family in self._registry.collect():
            for sample in family.samples:
                metric = self._by_name.get(sample.name)
                if metric is not None and metric in self._known:
                    yield metric.at(*map(sample.labels.__getitem__, metric.labels)), sample.value

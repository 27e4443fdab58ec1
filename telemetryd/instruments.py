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
EXPORTER_POINTS = Metric(
    "exporter", "points", Kind.COUNTER, Unit.NONE,
    "Points that a destination has acknowledged.", _SOURCE, ("destination",),
)  # fmt: skip
EXPORTER_DROPPED = Metric(
    "exporter", "dropped_points", Kind.COUNTER, Unit.NONE,
    "Points given up, by reason. The destination will not have them: refused, too_large and stuck "
    "(these three are in quarantine), too_old. No room: queue_full, size, age, enospc. Damaged on "
    "disk: corrupt. Not to be told: invalid, duplicate, exception. Only in memory at the end: "
    "shutdown.",
    _SOURCE, ("destination", "reason"),
)  # fmt: skip
EXPORTER_REQUESTS = Metric(
    "exporter", "requests", Kind.COUNTER, Unit.NONE,
    "Requests sent to a destination, by outcome: ok, retry, unauthorized, missing, too_large, "
    "refused, too_old.",
    _SOURCE, ("destination", "outcome"),
)  # fmt: skip
EXPORTER_RETRIES = Metric(
    "exporter", "retries", Kind.COUNTER, Unit.NONE,
    "Requests that repeat one which did not succeed.", _SOURCE, ("destination",),
)  # fmt: skip
EXPORTER_REJECTIONS = Metric(
    "exporter", "rejections", Kind.COUNTER, Unit.NONE,
    "Answers other than 2xx, by HTTP status; 0 where no answer came.",
    _SOURCE, ("destination", "status"),
)  # fmt: skip
EXPORTER_BLOCKED = Metric(
    "exporter", "blocked", Kind.GAUGE, Unit.NONE,
    "1 while a destination takes nothing until an operator mends it: unauthorized (401, 403: the "
    "credentials), missing (404 and the like: the address).",
    _SOURCE, ("destination", "reason"),
)  # fmt: skip
EXPORTER_LAST_SUCCESS = Metric(
    "exporter", "last_success_timestamp", Kind.GAUGE, Unit.SECONDS,
    "When a destination last acknowledged points, in seconds since 1970; before the first time, "
    "when the daemon began to push to it.",
    _SOURCE, ("destination",),
)  # fmt: skip
EXPORTER_CLOCK_SKEW = Metric(
    "exporter", "clock_skew", Kind.GAUGE, Unit.SECONDS,
    "How far this machine's clock is ahead of the destination's, to a second, from the Date of "
    "its last answer. Points dated more than 5 minutes ahead of it are held back.",
    _SOURCE, ("destination",),
)  # fmt: skip
SPOOL_RECORDS = Metric(
    "spool", "records", Kind.GAUGE, Unit.NONE,
    "Request bodies that wait for a destination.", _SOURCE, ("destination",),
)  # fmt: skip
SPOOL_ASIDE = Metric(
    "spool", "set_aside_records", Kind.GAUGE, Unit.NONE,
    "Request bodies, of those that wait, which newer ones may pass: dated ahead of the "
    "destination's clock, or suspected to be what makes it fail.",
    _SOURCE, ("destination",),
)  # fmt: skip
SPOOL_SIZE = Metric(
    "spool", "size", Kind.GAUGE, Unit.BYTES,
    "What waits for a destination.", _SOURCE, ("destination",),
)  # fmt: skip
SPOOL_LIMIT = Metric(
    "spool", "limit", Kind.GAUGE, Unit.BYTES,
    "Most that may wait for a destination, as far as the free space of the disk allows it.",
    _SOURCE, ("destination",),
)  # fmt: skip
SPOOL_OLDEST = Metric(
    "spool", "oldest_age", Kind.GAUGE, Unit.SECONDS,
    "Time since the oldest points that wait were read; 0 if none wait.",
    _SOURCE, ("destination",),
)  # fmt: skip
SPOOL_DURABLE = Metric(
    "spool", "durable", Kind.GAUGE, Unit.NONE,
    "1 if what waits is on disk, 0 if some of it is in memory only and lost with the process.",
    _SOURCE, ("destination",),
)  # fmt: skip
SPOOL_DROPPED = Metric(
    "spool", "dropped_records", Kind.COUNTER, Unit.NONE,
    "Request bodies that the spool lost, by reason: size and age (its bounds), enospc (the disk "
    "is full), corrupt (damaged on disk).",
    _SOURCE, ("destination", "reason"),
)  # fmt: skip
SPOOL_ERRORS = Metric(
    "spool", "errors", Kind.COUNTER, Unit.NONE,
    "Files of the spool that could not be written, read or removed.", _SOURCE, ("destination",),
)  # fmt: skip
QUARANTINE_RECORDS = Metric(
    "spool", "quarantined_records", Kind.GAUGE, Unit.NONE,
    "Request bodies that a destination would not take, kept for `telemetryd spool quarantine`.",
    _SOURCE, ("destination",),
)  # fmt: skip
QUARANTINE_SIZE = Metric(
    "spool", "quarantined", Kind.GAUGE, Unit.BYTES,
    "The size of what is in quarantine.", _SOURCE, ("destination",),
)  # fmt: skip

METRICS = (
    COLLECTOR_ERRORS,
    SERIES_DROPPED,
    LANE_MISSED_TICKS,
    RELOAD_SUCCESSFUL,
    RELOAD_TIMESTAMP,
    WEB_REQUESTS,
    EXPORTER_POINTS,
    EXPORTER_DROPPED,
    EXPORTER_REQUESTS,
    EXPORTER_RETRIES,
    EXPORTER_REJECTIONS,
    EXPORTER_BLOCKED,
    EXPORTER_LAST_SUCCESS,
    EXPORTER_CLOCK_SKEW,
    SPOOL_RECORDS,
    SPOOL_ASIDE,
    SPOOL_SIZE,
    SPOOL_LIMIT,
    SPOOL_OLDEST,
    SPOOL_DURABLE,
    SPOOL_DROPPED,
    SPOOL_ERRORS,
    QUARANTINE_RECORDS,
    QUARANTINE_SIZE,
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
        self._shown: dict[Metric, set[tuple[str, ...]]] = {metric: set() for metric in self._gauges}
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
        self._shown[metric].add(labels)
        (gauge.labels(*labels) if labels else gauge).set(to)

    def value(self, metric: Metric, *labels: str) -> float | None:
        """What an instrument shows; None if it has no value."""
        series = metric.at(*labels)
        return next((value for one, value in self.points() if one is series), None)

    def forget(self, label: str, value: str) -> None:
        """What has this label is no more: its gauges go. Its counters stay, they have happened."""
        for metric, shown in self._shown.items():
            if label not in metric.labels:
                continue
            place = metric.labels.index(label)
            for labels in [one for one in shown if one[place] == value]:
                shown.remove(labels)
                self._gauges[metric].remove(*labels)

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

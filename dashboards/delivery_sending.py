"""Requests to the destinations, and what they would not take."""

from __future__ import annotations

from delivery_promql import NAME, increase, rate, series, since_success
from layout import Row
from panels import ACT, GOOD, Query, graph, timeline

SENDING = Row(
    "Sending",
    (
        graph(
            "Points sent",
            "Points a second that each destination acknowledged. After an outage it is several "
            "times as many for a while: what waited is caught up.",
            "cps",
            Query(rate("telemetryd_exporter_points_total"), NAME),
        ),
        graph(
            "Requests by outcome",
            "Requests a second. ok: taken. retry: no answer, 5xx or 429, sent again. "
            "unauthorized, missing: an operator has to mend it. too_large, refused: divided, to "
            "find the points to blame. too_old: those points are given up.",
            "reqps",
            Query(rate("telemetryd_exporter_requests_total"), NAME + " {{outcome}}"),
        ),
        graph(
            "Since the last success",
            "Time since each destination last acknowledged points. It grows to the flush interval "
            "and falls back.",
            "s",
            Query(since_success(), NAME),
        ),
        graph(
            "Requests again",
            "Requests a second that repeat one which did not succeed.",
            "reqps",
            Query(rate("telemetryd_exporter_retries_total"), NAME),
        ),
        graph(
            "Clock ahead of the destination",
            "How far the node's clock is ahead of the destination's, to a second. Points dated "
            "more than 5 minutes ahead are held back until their time has come.",
            "s",
            Query(series("telemetryd_exporter_clock_skew_seconds"), NAME),
            is_signed=True,
        ),
        timeline(
            "Blocked",
            "Red while a destination takes nothing until an operator mends it: unauthorized (the "
            "credentials) or missing (the address).",
            "none",
            Query(series("telemetryd_exporter_blocked"), NAME + " {{reason}}"),
            ((None, GOOD), (1, ACT)),
            width=8,
        ),
    ),
)

REFUSALS = Row(
    "Refused and lost",
    (
        graph(
            "Answers other than 2xx",
            "Answers that were no success, by HTTP status; 0: no answer came. A few of them now "
            "and then are normal.",
            "short",
            Query(increase("telemetryd_exporter_rejections_total"), NAME + " {{status}}"),
        ),
        graph(
            "Points lost",
            "Points given up a second. refused, too_large, stuck: in quarantine. too_old: the "
            "destination takes no points of that time. size, age, enospc, queue_full: no room for "
            "what waits. corrupt: damaged on disk. invalid, duplicate, exception: cannot be told.",
            "cps",
            Query(rate("telemetryd_exporter_dropped_points_total"), NAME + " {{reason}}"),
        ),
        graph(
            "In quarantine",
            "Request bodies that a destination would not take, kept with its words until somebody "
            "replays or drops them.",
            "none",
            Query(series("telemetryd_spool_quarantined_records"), NAME),
        ),
        graph(
            "Size of the quarantine",
            "Bytes of what is in quarantine. At spool.quarantine_bytes (64 MiB, unless "
            "configured) the oldest are deleted.",
            "bytes",
            Query(series("telemetryd_spool_quarantined_bytes"), NAME),
        ),
    ),
)

"""Delivery at a glance: all destinations together, then a line for each."""

from __future__ import annotations

from delivery_promql import filled, increase, rate, series, since_success, until_full
from panels import ACT, FILLING, GOOD, NEUTRAL, NONE_IS_GOOD, WATCH, Column, Query, grid, tile
from promql import NOW, SHOWN

_MINUTE, _HOUR = 60, 3600

TOP = (
    tile(
        "Points delivered",
        "Points a second that the destinations acknowledged, all together, the mean of the last "
        "5 minutes.",
        "cps",
        Query(f"sum({rate('telemetryd_exporter_points_total', NOW)})", "points"),
        NEUTRAL,
        width=4,
    ),
    tile(
        "Points lost",
        "Points that were given up in the time shown, for any reason. They reach the destination "
        "only if somebody takes them out of quarantine.",
        "short",
        Query(f"sum({increase('telemetryd_exporter_dropped_points_total', SHOWN)})", "lost"),
        NONE_IS_GOOD,
        width=4,
        decimals=0,
    ),
    tile(
        "Fullest spool",
        "The largest share of its limit that a spool has reached. At 100 % the oldest points are "
        "dropped.",
        "percentunit",
        Query(f"topk(1, {filled()})", "{{instance}} {{destination}}"),
        FILLING,
        width=4,
        decimals=1,
        is_named=True,
    ),
    tile(
        "Oldest that waits",
        "Time since the oldest points that wait were read. Some seconds are normal. At the "
        "spool's age (a day, unless configured) they are dropped.",
        "s",
        Query(
            f"topk(1, {series('telemetryd_spool_oldest_age_seconds')})",
            "{{instance}} {{destination}}",
        ),
        ((None, GOOD), (10 * _MINUTE, WATCH), (12 * _HOUR, ACT)),
        width=4,
        is_named=True,
    ),
    tile(
        "Blocked",
        "Destinations that take nothing until an operator mends the credentials or the address.",
        "none",
        Query(f"sum(max without (reason) ({series('telemetryd_exporter_blocked')}))", "blocked"),
        NONE_IS_GOOD,
        width=4,
    ),
    tile(
        "In quarantine",
        "Request bodies that a destination would not take. `telemetryd spool quarantine list` on "
        "the node shows them.",
        "none",
        Query(f"sum({series('telemetryd_spool_quarantined_records')})", "in quarantine"),
        NONE_IS_GOOD,
        width=4,
    ),
    grid(
        "Destinations",
        "Each destination of each node as it is now.",
        {"instance": "Node", "destination": "Destination"},
        [
            Column(rate("telemetryd_exporter_points_total", NOW), "Points delivered", "cps"),
            Column(
                since_success(),
                "Last success",
                "s",
                ((None, GOOD), (2 * _MINUTE, WATCH), (10 * _MINUTE, ACT)),
            ),
            Column(series("telemetryd_spool_size_bytes"), "Waiting", "bytes"),
            Column(filled(), "Of the limit", "percentunit", FILLING, is_bar=True),
            Column(
                until_full(),
                "Full in",
                "s",
                ((None, ACT), (6 * _HOUR, WATCH), (24 * _HOUR, GOOD)),
                beyond=(7 * 24 * _HOUR, "not soon"),
            ),
            Column(
                series("telemetryd_spool_oldest_age_seconds"),
                "Oldest",
                "s",
                ((None, GOOD), (10 * _MINUTE, WATCH), (12 * _HOUR, ACT)),
            ),
            Column(
                series("telemetryd_exporter_blocked"),
                "Blocked",
                "none",
                NONE_IS_GOOD,
                names={"0": "no", "1": "blocked"},
            ),
            Column(
                series("telemetryd_spool_quarantined_records"), "Quarantine", "none", NONE_IS_GOOD
            ),
            Column(
                series("telemetryd_exporter_clock_skew_seconds"),
                "Clock ahead",
                "s",
                ((None, WATCH), (-60, GOOD), (60, WATCH), (300, ACT)),
            ),
            Column(
                series("telemetryd_spool_durable"),
                "Kept",
                "none",
                ((None, ACT), (1, GOOD)),
                names={"0": "in memory", "1": "on disk"},
            ),
        ],
    ),
)

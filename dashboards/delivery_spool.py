"""What waits for the destinations, and how the spool on disk is doing."""

from __future__ import annotations

from delivery_promql import AHEAD_H, NAME, filled, forecast, increase, series, until_full
from layout import Row
from panels import ACT, GOOD, Query, graph, timeline

WAITING = Row(
    "Waiting",
    (
        graph(
            "Bytes that wait",
            "What waits for each destination, and the most that may (dashed): the configured "
            "bound, or less where the disk has no room for it.",
            "bytes",
            Query(series("telemetryd_spool_size_bytes"), NAME),
            Query(series("telemetryd_spool_limit_bytes"), NAME + " limit"),
            dashed="/limit$/",
            width=12,
        ),
        graph(
            "Share of the limit",
            f"How full each spool is, and how full it will be in {AHEAD_H} hours (dashed) if it "
            "goes on as in the last hour. Above 100 %: points will be lost by then.",
            "percentunit",
            Query(filled(), NAME),
            Query(forecast(), NAME + f" in {AHEAD_H} hours"),
            dashed="/hours$/",
            width=12,
        ),
        graph(
            "Time until it is full",
            "For each spool that grew in the last hour, how long its room lasts at that pace.",
            "s",
            Query(until_full(), NAME),
        ),
        graph(
            "Oldest that waits",
            "Time since the oldest points that wait were read. It grows as long as the destination "
            "takes nothing; at spool.age they are dropped.",
            "s",
            Query(series("telemetryd_spool_oldest_age_seconds"), NAME),
        ),
        graph(
            "Requests that wait",
            "Request bodies that wait for each destination.",
            "short",
            Query(series("telemetryd_spool_records"), NAME),
        ),
    ),
    is_open=True,
)

SPOOL = Row(
    "Spool",
    (
        timeline(
            "Where it waits",
            "Green: on disk, where it survives the daemon. Red: in memory, where it is lost with "
            "it; the daemon's log says why.",
            "none",
            Query(series("telemetryd_spool_durable"), NAME),
            ((None, ACT), (1, GOOD)),
            width=12,
        ),
        graph(
            "Set aside",
            "Request bodies, of those that wait, which newer ones may pass: dated ahead of the "
            "destination's clock, or suspected to be what makes it fail.",
            "none",
            Query(series("telemetryd_spool_set_aside_records"), NAME),
            width=12,
        ),
        graph(
            "Requests that the spool lost",
            "By reason. size and age: its bounds. enospc: the disk is full. corrupt: damaged on "
            "disk.",
            "none",
            Query(increase("telemetryd_spool_dropped_records_total"), NAME + " {{reason}}"),
            width=12,
        ),
        graph(
            "Errors of the spool",
            "Files that could not be written, read or removed. The daemon's log names them.",
            "none",
            Query(increase("telemetryd_spool_errors_total"), NAME),
            width=12,
        ),
    ),
)

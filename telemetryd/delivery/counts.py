"""What is counted and shown for one destination."""

from __future__ import annotations

from telemetryd.delivery.destination import Outcome
from telemetryd.delivery.memory_queue import FULL, SHUTDOWN
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import OnDrop, Queue
from telemetryd.instruments import (
    EXPORTER_BLOCKED,
    EXPORTER_DROPPED,
    EXPORTER_LAST_SUCCESS,
    EXPORTER_POINTS,
    EXPORTER_REJECTIONS,
    EXPORTER_REQUESTS,
    EXPORTER_RETRIES,
    QUARANTINE_RECORDS,
    QUARANTINE_SIZE,
    SPOOL_ASIDE,
    SPOOL_DROPPED,
    SPOOL_DURABLE,
    SPOOL_ERRORS,
    SPOOL_LIMIT,
    SPOOL_OLDEST,
    SPOOL_RECORDS,
    SPOOL_SIZE,
    Instruments,
)

FAULT = "exception"
STUCK = "stuck"
# What an operator has to mend before a destination takes anything.
BLOCKS = (Outcome.UNAUTHORIZED.value, Outcome.MISSING.value)
# The sender logs these itself, with the destination's answer.
_REFUSALS = (Outcome.REFUSED.value, Outcome.TOO_OLD.value, Outcome.TOO_LARGE.value, STUCK)
_SPOOL_REASONS = ("size", "age", "enospc", "corrupt")
# Reasons and statuses that are counted from the start, so that `increase()` sees the first one.
_REASONS = (FULL, *_REFUSALS, *_SPOOL_REASONS, "invalid", "duplicate", FAULT, SHUTDOWN)
_STATUSES = (0, 400, 401, 403, 404, 413, 422, 429, 500, 502, 503, 504)


def count_drops(name: str, instruments: Instruments) -> OnDrop:
    """What to do with points for the destination `name` that are given up: count and say so."""

    def on_drop(reason: str, points: int, records: int = 1) -> None:
        instruments.count(EXPORTER_DROPPED, name, reason, by=points)
        if reason in _SPOOL_REASONS:
            instruments.count(SPOOL_DROPPED, name, reason, by=records)
        if reason not in _REFUSALS:
            instruments.warn(
                f"{name}/dropped/{reason}",
                f'msg="points dropped" destination={name} reason={reason} points={points}',
            )

    return on_drop


def show_from_start(name: str, instruments: Instruments, wall_ns: int) -> None:
    """Every counter at 0, before the first event; the last success counts from now on."""
    for metric in (EXPORTER_POINTS, EXPORTER_RETRIES, SPOOL_ERRORS):
        instruments.count(metric, name, by=0)
    for outcome in Outcome:
        instruments.count(EXPORTER_REQUESTS, name, outcome.value, by=0)
    for reason in _REASONS:
        instruments.count(EXPORTER_DROPPED, name, reason, by=0)
    for reason in _SPOOL_REASONS:
        instruments.count(SPOOL_DROPPED, name, reason, by=0)
    for status in _STATUSES:
        instruments.count(EXPORTER_REJECTIONS, name, str(status), by=0)
    instruments.set(EXPORTER_LAST_SUCCESS, name, to=wall_ns / 1e9)
    show_block(name, instruments, None)


def show_block(name: str, instruments: Instruments, reason: str | None) -> None:
    """What an operator has to mend, None if it is nothing."""
    for one in BLOCKS:
        instruments.set(EXPORTER_BLOCKED, name, one, to=int(one == reason))


def show_waiting(
    name: str,
    instruments: Instruments,
    queue: Queue,
    quarantine: Quarantine | None,
    wall_ns: int,
) -> None:
    """What waits, and what is in quarantine, at `wall_ns`."""
    oldest_ns = queue.oldest_ns
    age = 0.0 if oldest_ns is None else (wall_ns - oldest_ns) / 1e9
    instruments.set(SPOOL_RECORDS, name, to=len(queue))
    instruments.set(SPOOL_ASIDE, name, to=len(queue.aside))
    instruments.set(SPOOL_SIZE, name, to=queue.size)
    instruments.set(SPOOL_LIMIT, name, to=queue.limit)
    instruments.set(SPOOL_OLDEST, name, to=age)
    instruments.set(SPOOL_DURABLE, name, to=int(queue.is_durable))
    if quarantine is not None:
        instruments.set(QUARANTINE_RECORDS, name, to=quarantine.records)
        instruments.set(QUARANTINE_SIZE, name, to=quarantine.size)

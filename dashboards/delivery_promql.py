"""Expressions over the destinations of the nodes that the dashboard's variables choose; see
promql.py."""

from __future__ import annotations

from promql import WINDOW, chosen

_DESTINATIONS = ('job="$job"', 'instance=~"$instance"', 'destination=~"$destination"')

# Legends.
NAME = "{{instance}} {{destination}}"
# How a spool grows is judged by the last hour: requests that end an outage make it jump.
TREND = "1h"
# The forecast looks so far ahead.
AHEAD_H = 6

_SIZE = "telemetryd_spool_size_bytes"
_LIMIT = "telemetryd_spool_limit_bytes"


def series(name: str, **labels: str) -> str:
    """The series of a metric on the destinations that are chosen. Raises ValueError as
    promql.series."""
    return chosen(_DESTINATIONS, name, **labels)


def rate(name: str, window: str = WINDOW, **labels: str) -> str:
    """The increase a second of a counter."""
    return f"rate({series(name, **labels)}[{window}])"


def increase(name: str, window: str = WINDOW, **labels: str) -> str:
    """The increase of a counter over the window."""
    return f"increase({series(name, **labels)}[{window}])"


def filled() -> str:
    """The share of its limit that each spool has reached."""
    return f"{series(_SIZE)} / {series(_LIMIT)}"


def forecast() -> str:
    """The share that it will have reached in some hours, if the last hour goes on."""
    later = f"predict_linear({series(_SIZE)}[{TREND}], {AHEAD_H} * 3600)"
    return f"clamp_min({later} / {series(_LIMIT)}, 0)"


def until_full() -> str:
    """Seconds until each spool that grows is full; nothing for one that does not."""
    growth = f"(deriv({series(_SIZE)}[{TREND}]) > 0)"
    return f"({series(_LIMIT)} - {series(_SIZE)}) / {growth}"


def since_success() -> str:
    """Seconds since each destination last acknowledged points."""
    return f"time() - {series('telemetryd_exporter_last_success_timestamp_seconds')}"

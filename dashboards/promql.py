"""Expressions over the metrics that exist: a name or label that the catalogue lacks raises here."""

from __future__ import annotations

import re
from collections.abc import Sequence

from telemetryd import catalogue

LABELS = {
    metric.name: frozenset(metric.labels)
    for _, metrics in catalogue.sections()
    for metric in metrics
}
# The node that the dashboard's variables choose.
_HERE = ('job="$job"', 'instance="$instance"')
_OPERATOR = re.compile(r"(=~|!=|!~)?(.*)", re.DOTALL)

# The window of a point in a graph: at least four scrapes, and no shorter than a pixel.
WINDOW = "$__rate_interval"
# All that is shown.
SHOWN = "$__range"
# What "now" means where a figure stands alone: short, and longer than two slow scrapes.
NOW = "5m"


def series(name: str, **labels: str) -> str:
    """The series of a metric on the chosen node: series("telemetryd_cpu_tasks", state="running").

    A value may begin with another operator: mode="!=idle", resource="=~memory|swap".
    Raises ValueError if there is no such metric, or if it has no such label.
    """
    return chosen(_HERE, name, **labels)


def chosen(choice: Sequence[str], name: str, **labels: str) -> str:
    """The series of a metric on what the matchers of `choice` choose; for the rest see `series`."""
    if name not in LABELS:
        raise ValueError(f"there is no metric {name}")
    if not LABELS[name] >= labels.keys():
        raise ValueError(f"{name} has the labels {set(LABELS[name])}, not {set(labels)}")
    matchers = [*choice, *(_matcher(label, value) for label, value in labels.items())]
    return f"{name}{{{', '.join(matchers)}}}"


def _matcher(label: str, value: str) -> str:
    match = _OPERATOR.match(value)
    assert match is not None
    return f'{label}{match[1] or "="}"{match[2]}"'


def rate(name: str, window: str = WINDOW, **labels: str) -> str:
    """The increase a second of a counter."""
    return f"rate({series(name, **labels)}[{window}])"


def increase(name: str, window: str = WINDOW, **labels: str) -> str:
    """The increase of a counter over the window."""
    return f"increase({series(name, **labels)}[{window}])"


def used(resource: str, window: str = WINDOW) -> str:
    """The mean utilization of a resource over the window: the integral by the time observed.

    The gauge beside them shows one interval in each scrape; this pair misses none.
    """
    integral = increase("telemetryd_utilization_seconds_total", window, resource=resource)
    observed = increase("telemetryd_utilization_observed_seconds_total", window, resource=resource)
    return f"{integral} / {observed}"


def link_used(window: str = WINDOW) -> str:
    """The mean share of each link's capacity over the window, each direction apart."""
    carried = rate("telemetryd_bandwidth_bytes_total", window)
    return f"{carried} / {series('telemetryd_bandwidth_capacity_bytes_per_second')}"

"""The labels of a series as Prometheus would have them after a scrape, encoded."""

from __future__ import annotations

import re
from collections.abc import Mapping

from telemetryd.exporters.remote_write_message import labels_message
from telemetryd.metric import Series

# Whom a scrape asked; a series that says so of somebody else keeps it under another name.
TARGET_LABELS = ("job", "instance")
_EXPORTED = "exported_"
_METRIC_NAME = b"__name__"
_NAME = re.compile(rb"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(rb"[a-zA-Z_][a-zA-Z0-9_]*\Z")


def encoded_labels(series: Series, common: Mapping[str, str]) -> bytes:
    """Name and labels of a series, sorted by name, with the `common` ones, of which its own come
    before all but `job` and `instance`. Empty if Prometheus does not allow one of the names:
    its receiver would take it, and nothing else might."""
    own = dict(zip(series.metric.labels, series.labels, strict=True))
    labels = {**common, **{label: value for label, value in own.items() if value}}
    for target in TARGET_LABELS:
        if target in common and own.get(target):
            labels[target] = common[target]
            name = _EXPORTED + target
            while name in labels:
                name = _EXPORTED + name
            labels[name] = own[target]
    pairs = [
        (label.encode("utf-8", "replace"), value.encode("utf-8", "backslashreplace"))
        for label, value in labels.items()
        if value
    ]
    metric = series.metric.name.encode("utf-8", "replace")
    if not _NAME.match(metric) or not all(_LABEL.match(label) for label, _ in pairs):
        return b""
    return labels_message(sorted([(_METRIC_NAME, metric), *pairs]))

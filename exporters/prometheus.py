"""The latest table as a Prometheus scrape: text format 0.0.4 or OpenMetrics 1.0.0.

What does not change from scrape to scrape (headers, names, labels, the order of the families) is
encoded once and kept until a collector's series change; a scrape then joins these pieces with the
printed values. Python prints floats with the fewest digits that read back to the same number, in
a form that both formats take.

Formats: https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from itertools import chain

from telemetryd.batch import Batch
from telemetryd.metric import Kind, Metric, Series, Unit
from telemetryd.pick import picker


class Format(enum.Enum):
    """The exposition formats, with the content type of each."""

    TEXT = "text/plain; version=0.0.4; charset=utf-8"
    OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


# Text 0.0.4 has no word for an info metric: it is a gauge of 1.
_TEXT_TYPES = {Kind.INFO: "gauge", Kind.UNKNOWN: "untyped"}


def _escape_label(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _header(metric: Metric, form: Format) -> str:
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if form is Format.OPENMETRICS:
        name, kind = metric.family, metric.kind.value
        text = text.replace('"', r"\"")
        unit = f"# UNIT {name} {metric.unit.value}\n" if metric.unit is not Unit.NONE else ""
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n{unit}"
    name = metric.name if metric.kind in {Kind.COUNTER, Kind.INFO} else metric.family
    kind = _TEXT_TYPES.get(metric.kind, metric.kind.value)
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def _sample(series: Series) -> str:
    """Name and labels of a series, up to the value."""
    metric = series.metric
    if not metric.labels:
        return f"{metric.name} "
    pairs = zip(metric.labels, map(_escape_label, series.labels), strict=True)
    return metric.name + "{" + ",".join([f'{label}="{value}"' for label, value in pairs]) + "} "


class _Plan:
    """How to turn the values of some batches, one behind the other, into a page."""

    def __init__(self, layouts: Sequence[tuple[Series, ...]], form: Format) -> None:
        self.layouts = layouts
        families: dict[str, list[int]] = {}
        everything = list(chain.from_iterable(layouts))
        for position, series in enumerate(everything):
            families.setdefault(series.metric.family, []).append(position)
        order = list(chain.from_iterable(families.values()))
        pieces: list[str] = []
        for positions in families.values():
            header = _header(everything[positions[0]].metric, form)
            for position in positions:
                # The line break ends the line before.
                pieces.append("\n" + header + _sample(everything[position]))
                header = ""
        if pieces:
            pieces[0] = pieces[0][1:]
        self._pieces = pieces
        self._pick = picker(order)

    def render(self, batches: Iterable[Batch]) -> str:
        values = list(chain.from_iterable(batch.values for batch in batches))
        printed = map(repr, self._pick(values))
        return "".join(chain.from_iterable(zip(self._pieces, printed, strict=True)))


class Renderer:
    """Renders batches; keeps one plan for each format."""

    def __init__(self) -> None:
        self._plans: dict[Format, _Plan] = {}

    def render(self, batches: Sequence[Batch], form: Format) -> bytes:
        """The page for these batches, in UTF-8. A family's lines stand together."""
        plan = self._plans.get(form)
        layouts = [batch.series for batch in batches]
        if plan is None or not _same(plan.layouts, layouts):
            plan = self._plans[form] = _Plan(layouts, form)
        page = plan.render(batches)
        if page:
            page += "\n"
        return (page + "# EOF\n" if form is Format.OPENMETRICS else page).encode()


def _same(some: Sequence[object], others: Sequence[object]) -> bool:
    return len(some) == len(others) and all(a is b for a, b in zip(some, others, strict=True))

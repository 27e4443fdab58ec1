"""Every name, unit and help text is declared once, as a Metric; a Series is one line of it.

A collector declares its metrics at module level, beside the code that reads them, and turns rows
of a kernel file into series with `METRIC.at(*labelvalues)`. Series are interned: the same labels
give the same object, so that the rest of the daemon compares and looks them up by identity, and
every exporter encodes their names once.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

PREFIX = "telemetryd"
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
# Prometheus sets these itself on what it scrapes, and renames those of others to exported_job and
# exported_instance.
_PROMETHEUS_LABELS = frozenset({"job", "instance"})


class Kind(enum.Enum):
    """What a value means. The last three occur only in files that site scripts write."""

    COUNTER = "counter"
    GAUGE = "gauge"
    INFO = "info"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"
    UNKNOWN = "unknown"


# What stands behind the name of a family on its sample lines; nothing, for the kinds not named.
SUFFIXES: dict[Kind, tuple[str, ...]] = {
    Kind.COUNTER: ("_total",),
    Kind.INFO: ("_info",),
    Kind.HISTOGRAM: ("_bucket", "_sum", "_count"),
    Kind.SUMMARY: ("", "_sum", "_count"),
}


class Unit(enum.Enum):
    """Base units only; a reading in another unit is converted where it is read."""

    NONE = ""
    SECONDS = "seconds"
    BYTES = "bytes"
    BYTES_PER_SECOND = "bytes_per_second"
    JOULES = "joules"
    WATTS = "watts"
    VOLTS = "volts"
    AMPERES = "amperes"
    CELSIUS = "celsius"
    HERTZ = "hertz"
    RATIO = "ratio"
    RPM = "rpm"
    GRAMS = "grams"


class Series:
    """One metric with its label values: `telemetryd_cpu_time_seconds_total{cpu="0",mode="user"}`.

    Made by `Metric.at`, compared by identity.
    """

    __slots__ = ("__weakref__", "labels", "metric")

    def __init__(self, metric: Metric, labels: tuple[str, ...]) -> None:
        self.metric = metric
        self.labels = labels

    def __repr__(self) -> str:
        pairs = ",".join(f'{k}="{v}"' for k, v in zip(self.metric.labels, self.labels, strict=True))
        return f"{self.metric.name}{{{pairs}}}"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A family of series: its name, type, unit and help, and where its values come from.

    `subsystem` is also the InfluxDB measurement. `name` is what stands on a sample line;
    `family` is the name of the whole in OpenMetrics (a counter's without `_total`).
    `per_process` marks a family with one series for each process: those come and go, and are
    pushed only by exporters that are told to.
    Raises ValueError for a name or a label that Prometheus would refuse or overwrite.
    """

    subsystem: str
    quantity: str
    kind: Kind
    unit: Unit
    help: str
    source: str
    labels: tuple[str, ...] = ()
    per_process: bool = False
    name: str = field(init=False)
    family: str = field(init=False)
    _interned: WeakValueDictionary[tuple[str, ...], Series] = field(
        init=False, repr=False, default_factory=WeakValueDictionary
    )

    def __post_init__(self) -> None:
        if self.kind is Kind.INFO and self.unit is not Unit.NONE:
            raise ValueError(f"{self.subsystem}_{self.quantity}: an info metric has no unit")
        object.__setattr__(self, "help", _as_utf8(self.help))
        family = "_".join(filter(None, (PREFIX, self.subsystem, self.quantity, self.unit.value)))
        suffix = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")
        self._name(family, family + suffix)
        if not _PROMETHEUS_LABELS.isdisjoint(self.labels):
            raise ValueError(f"{self.name}: the labels job and instance are Prometheus's own")

    @classmethod
    def foreign(
        cls,
        name: str,
        *,
        family: str,
        kind: Kind,
        help_text: str,
        labels: tuple[str, ...],
        source: str,
    ) -> Metric:
        """A metric whose name somebody else chose, such as a site script's.

        Raises ValueError for names that Prometheus would refuse, and for a name that has not the
        form which OpenMetrics asks of its kind (a counter ends in `_total`).
        """
        metric = object.__new__(cls)
        values = {
            "subsystem": "",
            "quantity": name,
            "kind": kind,
            "unit": Unit.NONE,
            "help": _as_utf8(help_text),
            "source": source,
            "labels": labels,
            "per_process": False,
            "_interned": WeakValueDictionary(),
        }
        for key, value in values.items():
            object.__setattr__(metric, key, value)
        if name not in [family + suffix for suffix in SUFFIXES.get(kind, ("",))]:
            raise ValueError(f"{name}: no sample of the {kind.value} {family} can have this name")
        metric._name(family, name)
        return metric

    def _name(self, family: str, name: str) -> None:
        if not _NAME.match(name) or not _NAME.match(family):
            raise ValueError(f"{name!r} is not a metric name: letters, digits, _ and : are allowed")
        for label in self.labels:
            if not _LABEL.match(label) or label.startswith("__"):
                raise ValueError(f"{name}: {label!r} cannot be a label name")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"{name}: a label is declared twice")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "family", family)

    def at(self, *labelvalues: str) -> Series:
        """The series with these label values, in the order of `labels`; always the same object.

        Names come from the kernel and from users: bytes that are not UTF-8 (surrogates, as
        os.fsdecode leaves them) become backslash escapes here, so that every exporter can encode
        what it is given. Raises ValueError if the number of values is wrong.
        """
        series = self._interned.get(labelvalues)
        if series is None:
            if len(labelvalues) != len(self.labels):
                raise ValueError(f"{self.name} has labels {self.labels}, not {labelvalues}")
            clean = tuple(map(_as_utf8, labelvalues))
            series = self._interned.setdefault(clean, Series(self, clean))
        return series


def _as_utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


Point = tuple[Series, float]

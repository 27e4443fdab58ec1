r"""Batches as InfluxDB line protocol: `telemetryd_disk,device=sda,host=n1 reads_total=5 1700...`

Measurement is `telemetryd_<subsystem>`; tags are the metric's labels, `host` and the configured
labels; a field is what follows the measurement in the metric's name; every value is a float;
time is the moment of the reading in nanoseconds. Series that differ in their metric alone share a
line. A metric whose name somebody else chose has its family as measurement, and as field what the
name adds to it (`sum`, `count`, `bucket`, `total`), or `value`.

What does not change from batch to batch is encoded once and kept until a collector's series
change; then the printed values are put between.

Receivers disagree about odd tag values, so these are changed to what all of them read alike
(tried with InfluxDB 1.6.7 and VictoriaMetrics 1.79; docs.influxdata.com, line protocol):

- A control character, which may be a line break and so the begin of another point, becomes a
  visible escape such as `\x0a`.
- A backslash at the end, or before another one, a comma, an equals sign or a space, may be read
  as an escape or not: it becomes `\x5c`. Any other backslash stays.
- An empty value is left out: it says the same as no tag, and strict receivers refuse it.
- A tag or a field called `time`, `_field` or `_measurement` gets a `_` behind its name.
"""

from __future__ import annotations

import math
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain

from telemetryd.batch import Batch
from telemetryd.delivery.queue import Body, OnDrop
from telemetryd.metric import PREFIX, Metric, Series
from telemetryd.pick import picker

# Stands for the time in a prepared line: escaped text has no control characters.
_TIME = "\0"
_RESERVED = frozenset({"time", "_field", "_measurement"})
# Control characters, and what some programs take for line breaks.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BACKSLASH = re.compile(r"\\(?=[\\,= ]|\Z)")
_SPECIAL = re.compile("[,= ]")
_NOT_A_NAME = re.compile("[^a-zA-Z0-9_:]")

_Tags = tuple[tuple[str, str], ...]


def tag_value(text: str) -> str:
    """`text` as a tag value that every receiver reads alike, not yet escaped for a line."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
    return _BACKSLASH.sub(r"\\x5c", text)


def shape_of(metric: Metric) -> tuple[str, str]:
    """The measurement and the field of a metric."""
    measurement = f"{PREFIX}_{metric.subsystem}" if metric.subsystem else metric.family
    field = metric.name.removeprefix(measurement).removeprefix("_")
    return measurement, f"{field}_" if field in _RESERVED else field or "value"


def _everything(_metric: Metric) -> bool:
    return True


def _ignore(reason: str, points: int, records: int = 1) -> None:
    pass


class Encoder:
    """Encodes batches; keeps one plan for each collector.

    `labels` are put on every point, and `host`, which is this machine's name unless they have
    one; a metric's own label of the same name comes first. `wants` chooses the metrics.
    A body has at most `most_points` points, more only if one line has more. `on_drop` hears of
    points that cannot be told: not finite, or a second one of the same field.
    """

    def __init__(
        self,
        labels: Mapping[str, str],
        wants: Callable[[Metric], bool] = _everything,
        most_points: int = sys.maxsize,
        on_drop: OnDrop = _ignore,
    ) -> None:
        given = {"host": socket.gethostname(), **labels}
        self._labels = {_NOT_A_NAME.sub("_", name): value for name, value in given.items() if name}
        self._wants = wants
        self._most_points = most_points
        self._on_drop = on_drop
        self._plans: dict[str, _Plan] = {}

    def encode(self, batches: Iterable[Batch]) -> list[Body]:
        """The points of all batches, those of several in one body where they fit."""
        return list(_joined(chain.from_iterable(map(self._bodies, batches)), self._most_points))

    def encode_all(self, batches: Iterable[Batch]) -> str:
        """The points of all batches as text."""
        return b"".join([body.data for body in self.encode(batches)]).decode()

    def _bodies(self, batch: Batch) -> Iterator[Body]:
        values: Sequence[float] = batch.values
        if _all_finite(values):
            plan = self._plans.get(batch.collector)
            if plan is None or plan.series is not batch.series:
                plan = self._plans[batch.collector] = self._plan(batch.series)
        else:
            finite = [(one, value) for one, value in batch.points if _all_finite((value,))]
            values = [value for _, value in finite]
            plan = self._plan(tuple(one for one, _ in finite))
            if len(values) < len(batch.values):
                self._on_drop("invalid", len(batch.values) - len(values))
        if plan.duplicates:
            self._on_drop("duplicate", plan.duplicates)
        return plan.bodies(values, batch.wall_ns)

    def _plan(self, series: tuple[Series, ...]) -> _Plan:
        return _Plan(series, self._labels, self._wants, self._most_points)


class _Chunk:
    """Some whole lines, prepared: the text before each value, and where the values are."""

    def __init__(self, lines: Sequence[tuple[str, Mapping[str, int]]]) -> None:
        self._pieces: list[str] = []
        positions: list[int] = []
        before = ""
        for key, fields in lines:
            before += key + " "
            for field, position in fields.items():
                self._pieces.append(f"{before}{field}=")
                positions.append(position)
                before = ","
            before = f" {_TIME}\n"
        self._pick = picker(positions)
        self._points = len(positions)

    def body(self, values: Sequence[float], wall_ns: int) -> Body:
        printed = map(repr, self._pick(values))
        text = "".join(chain.from_iterable(zip(self._pieces, printed, strict=True)))
        lines = f"{text} {_TIME}\n".replace(_TIME, str(wall_ns)).encode()
        return Body(lines, self._points, wall_ns)


class _Plan:
    """How to turn the values of a collector's batch into bodies."""

    def __init__(
        self,
        series: tuple[Series, ...],
        labels: Mapping[str, str],
        wants: Callable[[Metric], bool],
        most_points: int,
    ) -> None:
        self.series = series
        self.duplicates = 0
        wanted = {metric: wants(metric) for metric in {one.metric for one in series}}
        shapes = {metric: shape_of(metric) for metric in wanted}
        lines: dict[tuple[str, _Tags], dict[str, int]] = {}
        for position, one in enumerate(series):
            if not wanted[one.metric]:
                continue
            measurement, field = shapes[one.metric]
            fields = lines.setdefault((measurement, _tags(one, labels)), {})
            if fields.setdefault(field, position) != position:
                self.duplicates += 1
        self._chunks = [_Chunk(part) for part in _divide(lines, most_points)]

    def bodies(self, values: Sequence[float], wall_ns: int) -> Iterator[Body]:
        return (chunk.body(values, wall_ns) for chunk in self._chunks)


def _tags(series: Series, labels: Mapping[str, str]) -> _Tags:
    """Name and value of each tag, sorted as receivers like them."""
    given = {**labels, **dict(zip(series.metric.labels, series.labels, strict=True))}
    tags = {name: tag_value(value) for name, value in given.items() if value}
    for name in _RESERVED.intersection(tags):
        free = f"{name}_"
        while free in tags:
            free += "_"
        tags[free] = tags.pop(name)
    return tuple(sorted(tags.items()))


def _divide(
    lines: Mapping[tuple[str, _Tags], Mapping[str, int]], most_points: int
) -> Iterator[list[tuple[str, Mapping[str, int]]]]:
    """The lines, with measurement and tags as they are written, in portions."""
    portion: list[tuple[str, Mapping[str, int]]] = []
    points = 0
    for (measurement, tags), fields in lines.items():
        if portion and points + len(fields) > most_points:
            yield portion
            portion, points = [], 0
        escaped = (f",{name}=" + _SPECIAL.sub(r"\\\g<0>", value) for name, value in tags)
        portion.append((measurement + "".join(escaped), fields))
        points += len(fields)
    if portion:
        yield portion


def _joined(bodies: Iterable[Body], most_points: int) -> Iterator[Body]:
    """The same lines in fewer bodies."""
    parts: list[Body] = []
    points = 0
    for body in bodies:
        if parts and points + body.points > most_points:
            yield _join(parts, points)
            parts, points = [], 0
        parts.append(body)
        points += body.points
    if parts:
        yield _join(parts, points)


def _join(parts: Sequence[Body], points: int) -> Body:
    newest_ns = max(part.newest_ns for part in parts)
    return Body(b"".join([part.data for part in parts]), points, newest_ns)


def halve(body: Body) -> tuple[Body, ...]:
    """Two bodies with the points of this one, the fields of a single line being divided; none if
    there is only one point."""
    lines = body.data.splitlines(keepends=True)
    if len(lines) > 1:
        middle = len(lines) // 2
        return _part(lines[:middle]), _part(lines[middle:])
    # Field names and numbers hold neither spaces nor commas.
    key, fields, time = body.data.rsplit(b" ", 2)
    each = fields.split(b",")
    if len(each) == 1:
        return ()
    middle = len(each) // 2
    return tuple(
        Body(b" ".join((key, b",".join(part), time)), len(part), body.newest_ns)
        for part in (each[:middle], each[middle:])
    )


def _part(lines: Sequence[bytes]) -> Body:
    points = newest_ns = 0
    for line in lines:
        _, fields, time = line.rsplit(b" ", 2)
        points += fields.count(b"=")
        newest_ns = max(newest_ns, int(time))
    return Body(b"".join(lines), points, newest_ns)


def _all_finite(values: Sequence[float]) -> bool:
    """Whether all values are finite. Says no where the sum of finite ones overflows, too; an
    integer too large for a float is not finite."""
    try:
        return math.isfinite(sum(values))
    except OverflowError:
        return False

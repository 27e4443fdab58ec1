"""Reads the Prometheus text format 0.0.4, as site scripts write it.

The lines are parsed by prometheus-client, whose parser takes more than the format allows. What it
gives is checked here against what both formats that we write demand: OpenMetrics has stricter
rules for histograms, summaries and names, and a scrape that breaks one of them may be refused as a
whole. https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TextIO, cast

from telemetryd.errors import ReadError
from telemetryd.metric import SUFFIXES, Kind

if TYPE_CHECKING:
    from prometheus_client import Metric as ParsedFamily
    from prometheus_client.samples import Sample as ParsedSample

# The parser takes time that grows with the square of a line's length. No sane line is as long.
_LONGEST_LINE = 16384
_LONGEST_QUOTE = 120

_KINDS = {
    "counter": Kind.COUNTER,
    "gauge": Kind.GAUGE,
    "histogram": Kind.HISTOGRAM,
    "summary": Kind.SUMMARY,
    "untyped": Kind.UNKNOWN,
    "unknown": Kind.UNKNOWN,
}
# The label that tells apart the samples of one histogram or summary.
_DETAIL = {Kind.HISTOGRAM: "le", Kind.SUMMARY: "quantile"}

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: the labels are sorted by name, an empty one is left out as Prometheus does."""

    name: str
    labels: Labels
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one name with their type and help. `name` is that of OpenMetrics (a counter's
    without `_total`); `line` is where the file first speaks of it."""

    name: str
    kind: Kind
    help: str
    line: int
    samples: tuple[Sample, ...]

    @property
    def groups(self) -> dict[str, None]:
        """What it has values of, as text: series, or whole histograms and summaries, whose lines
        must stand together."""
        detail = _DETAIL.get(self.kind)
        if detail is None:
            return {_shown(sample.name, sample.labels): None for sample in self.samples}
        return {_shown(self.name, _without(detail, one.labels)): None for one in self.samples}

    @property
    def reserved(self) -> tuple[str, ...]:
        """The names that no other family may have beside this one."""
        suffixes = ("", *SUFFIXES[self.kind], "_created") if self.kind in SUFFIXES else ("",)
        return tuple(self.name + suffix for suffix in suffixes)


@dataclass(frozen=True, slots=True)
class Page:
    """What a file says, and what of it was left out because it cannot be published."""

    families: tuple[Family, ...]
    faults: tuple[ReadError, ...]


def read(path: str, status: os.stat_result, longest: int) -> tuple[bytes, os.stat_result]:
    """A file, with its status from before it was read; `status` is what lstat said of it.

    Raises OSError, and ReadError for what is longer, or is no regular file: a pipe or a device,
    even one that takes its place just now, is neither read nor waited for.
    """
    _check_type(status)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    try:
        status = os.fstat(fd)
        _check_type(status)
        parts: list[bytes] = []
        left = longest + 1
        while left > 0 and (part := os.read(fd, min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(fd)
    if left <= 0:
        raise ReadError("limit", f"longer than {longest} bytes (max_bytes)")
    return b"".join(parts), status


def _check_type(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ReadError("invalid", "not a regular file; put a file itself here")


def parse(data: bytes) -> Page:
    """The families of a file. Raises ReadError, with the line, for one not in the format.

    A counter whose name lacks `_total` has Kind.UNKNOWN, because OpenMetrics has no such counter.
    The gauge `x_created` that client libraries write beside a counter, summary or histogram `x` is
    left out: OpenMetrics reserves its name. A sample that is not finite is left out and is a
    fault; so is a family that OpenMetrics would refuse, one with timestamps, and one with a series
    that occurs twice.
    """
    from prometheus_client import parser  # noqa: PLC0415  (memory; most hosts have no files)

    lines = _Lines(_decoded(data))
    drafts = _Drafts()
    try:
        # It only iterates over what it takes for an open file.
        for family in parser.text_fd_to_metric_families(cast("TextIO", iter(lines))):
            drafts.take(family, lines)
    except (ValueError, IndexError) as error:
        said = str(error)[:_LONGEST_QUOTE] or "not in the text format"
        raise ReadError("parse", f"line {lines.number}: {said}") from error
    families: list[Family] = []
    faults: list[ReadError] = []
    for draft in drafts:
        try:
            families += draft.families(faults)
        except ReadError as error:
            faults.append(error)
    reserved = {name for family in families for name in family.reserved if name != family.name}
    kept = [f for f in families if not (_is_created(f) and f.name in reserved)]
    return Page(tuple(kept), tuple(faults))


def _is_created(family: Family) -> bool:
    return family.kind in {Kind.GAUGE, Kind.UNKNOWN} and family.name.endswith("_created")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ReadError("parse", f"line {line}: not UTF-8") from error


class _Lines:
    """Hands out the lines of a text, and remembers what the parser does not tell: which line it
    is at, where each name was declared, and which names were declared as they stand."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.number = 0
        self.typed: set[str] = set()
        self.declared: dict[str, int] = {}

    def __iter__(self) -> Iterator[str]:
        for line in self._text.split("\n"):
            self.number += 1
            if len(line) > _LONGEST_LINE:
                raise ReadError("limit", f"line {self.number}: longer than {_LONGEST_LINE}")
            if line.lstrip().startswith("#"):
                self._look_at_comment(line.split(None, 3))
            yield line

    def _look_at_comment(self, words: list[str]) -> None:
        if len(words) < 3 or words[1] not in {"HELP", "TYPE"}:
            return
        name = words[2].strip('"')
        self.declared.setdefault(name, self.number)
        if words[1] == "TYPE":
            kind = words[3].strip() if len(words) == 4 else ""
            if kind not in _KINDS:
                raise ReadError("parse", f"line {self.number}: {kind!r} is not a type")
            self.typed.add(name)


class _Drafts:
    """The families of a file while it is read. The parser gives the samples of one family in
    several parts when others stand between them, or when its declarations do."""

    def __init__(self) -> None:
        self._drafts: dict[str, _Draft] = {}
        self._owners: dict[str, _Draft] = {}

    def __iter__(self) -> Iterator[_Draft]:
        return iter(self._drafts.values())

    def take(self, part: ParsedFamily, lines: _Lines) -> None:
        name, samples, kind = part.name, part.samples, _KINDS[part.type]
        if kind is Kind.COUNTER:
            # The parser takes `_total` from the name of every counter and gives it to all samples.
            if f"{name}_total" in lines.typed:
                name = f"{name}_total"
            else:
                samples = [s._replace(name=s.name.removesuffix("_total")) for s in samples]
        draft = self._draft(name, lines)
        if kind is not Kind.UNKNOWN:
            if draft.samples or draft.kind is not Kind.UNKNOWN:
                raise ReadError(
                    "parse", f"line {lines.number}: the type of {name} comes twice or too late"
                )
            draft.kind = kind
            for sample_name in draft.sample_names():
                self._owners.setdefault(sample_name, draft)
        if part.documentation:
            draft.help = part.documentation
        draft.samples.extend(samples)

    def _draft(self, name: str, lines: _Lines) -> _Draft:
        draft = (self._drafts if name in lines.declared else self._owners).get(name)
        if draft is None:
            line = lines.declared.get(name, lines.number)
            draft = self._drafts[name] = _Draft(name, line)
            self._owners.setdefault(name, draft)
        return draft


class _Draft:
    """A family whose samples are not all read yet, under the name that the file gives it."""

    __slots__ = ("help", "kind", "line", "name", "samples")

    def __init__(self, name: str, line: int) -> None:
        self.name = name
        self.line = line
        self.kind = Kind.UNKNOWN
        self.help = ""
        self.samples: list[ParsedSample] = []

    def sample_names(self) -> list[str]:
        suffixes = SUFFIXES[self.kind] if self.kind in _DETAIL else ("",)
        return [self.name + suffix for suffix in suffixes]

    def families(self, faults: list[ReadError]) -> list[Family]:
        """The family, or nothing if no sample of it is left. Raises ReadError if it is refused."""
        samples = self._sound(faults)
        if not samples:
            return []
        if self.kind in _DETAIL:
            samples = self._grouped(samples)
        name, kind = self.name, self.kind
        if kind is Kind.COUNTER:
            if name.endswith("_total"):
                name = name.removesuffix("_total")
            else:
                kind = Kind.UNKNOWN
        return [Family(name, kind, self.help, self.line, tuple(samples))]

    def _sound(self, faults: list[ReadError]) -> list[Sample]:
        """The samples, without those whose value is impossible for their kind."""
        good: list[Sample] = []
        odd: list[Sample] = []
        seen: set[tuple[str, Labels]] = set()
        allowed = self.sample_names()
        for parsed in self.samples:
            if parsed.timestamp is not None:
                raise self._refusal("invalid", "has timestamps; leave them out")
            if parsed.name not in allowed:
                raise self._refusal("invalid", f"a {self.kind.value} has no {parsed.name}")
            labels = tuple(sorted((k, v) for k, v in parsed.labels.items() if v))
            if (parsed.name, labels) in seen:
                raise self._refusal("duplicate", f"has {_shown(parsed.name, labels)} twice")
            seen.add((parsed.name, labels))
            sample = Sample(parsed.name, labels, _float(parsed.value))
            (good if self._is_sound(sample) else odd).append(sample)
        if odd:
            what = f"{_shown(odd[0].name, odd[0].labels)} cannot be {odd[0].value}"
            if self.kind is Kind.HISTOGRAM:
                raise self._refusal("invalid", what)
            faults.append(self._refusal("invalid", f"{what} ({len(odd)} such samples)"))
        return good

    def _refusal(self, reason: str, what: str) -> ReadError:
        return ReadError(reason, f"line {self.line}: {self.name}: {what}")

    def _is_sound(self, sample: Sample) -> bool:
        if not math.isfinite(sample.value):
            return False
        if self.kind in {Kind.GAUGE, Kind.UNKNOWN}:
            return True
        suffix = sample.name.removeprefix(self.name)
        counts = self.kind in _DETAIL and suffix in {"_bucket", "_count"}
        return sample.value >= 0 and (not counts or sample.value.is_integer())

    def _grouped(self, samples: list[Sample]) -> list[Sample]:
        """The samples of each histogram or summary side by side, its buckets or quantiles first
        and in order. Raises ReadError for one that is not whole."""
        detail, plain = _DETAIL[self.kind], self.sample_names()[0]
        groups: dict[Labels, list[tuple[float, Sample]]] = {}
        for sample in samples:
            labels, bound = sample.labels, math.inf
            if sample.name == plain:
                bound = self._bound(sample, dict(labels).get(detail, ""))
                labels = _without(detail, labels)
            groups.setdefault(labels, []).append((bound, sample))
        ordered: list[Sample] = []
        for group in groups.values():
            group.sort(key=lambda one: (one[1].name != plain, one[0]))
            if self.kind is Kind.HISTOGRAM:
                self._check(group, plain)
            ordered += [sample for _, sample in group]
        return ordered

    def _bound(self, sample: Sample, text: str) -> float:
        try:
            bound = float(text)
        except ValueError:
            bound = math.nan
        if self.kind is Kind.SUMMARY:
            is_sound = 0 <= bound <= 1
        else:
            is_sound = math.isfinite(bound) or text == "+Inf"
        if not is_sound:
            shown, detail = _shown(sample.name, sample.labels), _DETAIL[self.kind]
            raise self._refusal("invalid", f"{shown} has no sound {detail}")
        return bound

    def _check(self, group: list[tuple[float, Sample]], plain: str) -> None:
        """Refuse a histogram whose buckets and count do not belong together."""
        buckets = [(bound, sample.value) for bound, sample in group if sample.name == plain]
        others = {sample.name: sample.value for _, sample in group if sample.name != plain}
        count, total = others.get(f"{self.name}_count"), others.get(f"{self.name}_sum")
        shown = _shown(self.name, group[-1][1].labels)
        if not buckets or buckets[-1][0] != math.inf:
            raise self._refusal("invalid", f'{shown} has no bucket le="+Inf"')
        if any(a[0] == b[0] or a[1] > b[1] for a, b in pairwise(buckets)):
            raise self._refusal("invalid", f"{shown} has buckets that do not grow")
        if (count is None) != (total is None) or (count is not None and count != buckets[-1][1]):
            raise self._refusal("invalid", f'{shown} has no sum, or a count unlike le="+Inf"')
        if total is not None and buckets[0][0] < 0:
            raise self._refusal("invalid", f"{shown} has a sum in spite of negative buckets")


def _float(value: float) -> float:
    """The parser gives whole numbers as int, of any size."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _without(label: str, labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != label)


def _shown(name: str, labels: Labels) -> str:
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in labels) + "}"

"""Batches as Prometheus remote write: which samples, with which labels, in which bodies, and when
a series has ended.

Several batches that a collector read of the same series become one time series message for each,
with a sample for each batch: labels are most of what is sent.

A series that ends gets a staleness marker, so that queries do not go on for five minutes with its
last value: when it is not in its collector's next batch, with the time of that batch; when its
collector is silent for two intervals, right behind its last sample, because a reading that took
that long may still come. At the end of the process, or of the exporter at a reload, there are none:
the next one goes on with the same series a moment later, and each of them would have a gap. What is
gone for good by then is seen for five minutes more.

One sample that comes too late makes Prometheus refuse all of a request. So what is not newer than
what was sent before (after the wall clock was set back) is kept in bodies apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from telemetryd.batch import STALE_AFTER_INTERVALS, Batch
from telemetryd.clock import Clock
from telemetryd.delivery.queue import Body, OnDrop
from telemetryd.exporters.remote_write_labels import encoded_labels
from telemetryd.exporters.remote_write_message import Packer, ends
from telemetryd.metric import Metric, Series
from telemetryd.pick import picker

# Samples in one message. What has more makes several, each counted as a series, so that bodies do
# not grow with the time between two flushes.
MOST_SAMPLES_PER_SERIES = 10
# When no collector says anything the daemon is about to stop, which takes it up to 10 s.
_STOPPING_NS = 30_000_000_000
_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some messages for a body; `apart` if they may be refused for their time, which is not newer
    than what was sent before, or lies ahead."""

    body: Body
    series: int
    apart: bool


class _Plan:
    """How to turn the values of a collector's batch into messages.

    `labels` has those of every series that is sent; `chunks` the positions of their values, no
    more of them than fit into one body.
    """

    def __init__(self, series: tuple[Series, ...]) -> None:
        self.series = series
        self.labels: dict[bytes, Series] = {}
        self.chunks: list[tuple[Callable[[Sequence[float]], tuple[float, ...]], Packer, int]] = []
        self.dropped: dict[str, int] = {}
        self.releases = 0


@dataclass(slots=True)
class _Track:
    """What was sent of a collector: its plan, None if all its series have ended, the newest
    timestamp, and the last batch's moment and period of the monotonic clock. `apart` once
    something of this flush is kept apart: what comes behind it has to stay behind it."""

    plan: _Plan | None = None
    last_ms: int = -1
    apart: bool = False
    mono_ns: int = 0
    period_ns: int = 0


@dataclass(slots=True)
class _Run:
    """Batches of one layout whose samples go into the same messages."""

    apart: bool = False
    stamps_ms: list[int] = field(default_factory=list)
    rows: list[Sequence[float]] = field(default_factory=list)

    def goes_on(self, ms: int, *, apart: bool) -> bool:
        """Whether a batch of the time `ms` can come behind the others."""
        return self.apart == apart and (not self.stamps_ms or ms > self.stamps_ms[-1])


class Encoder:
    """Encodes batches; keeps one plan for each collector.

    `labels` are put on every series: `job`, `instance`, and the configured ones. `wants` chooses
    the metrics. A body has at most `most_series` series. `resolution` is what the batches were
    thinned out to, in seconds. `on_drop` hears of points that cannot be told: no number, a name
    that Prometheus does not allow, labels that another series has.
    """

    def __init__(
        self,
        labels: Mapping[str, str],
        wants: Callable[[Metric], bool],
        most_series: int,
        on_drop: OnDrop,
        clock: Clock,
        resolution: float = 0.0,
    ) -> None:
        self._labels = labels
        self._wants = wants
        self._most_series = most_series
        self._on_drop = on_drop
        self._clock = clock
        self._resolution = resolution
        self._tracks: dict[str, _Track] = {}
        # Which collector has a series with these labels.
        self._owners: dict[bytes, str] = {}
        # How often labels have become free for those who were refused them.
        self._releases = 0
        self._newest_mono_ns = 0

    def encode(self, batches: Sequence[Batch]) -> list[Body]:
        """The samples of all batches, in the order in which they were read, and the staleness
        markers that are due."""
        collectors: dict[str, list[Batch]] = {}
        for batch in batches:
            collectors.setdefault(batch.collector, []).append(batch)
            self._newest_mono_ns = max(self._newest_mono_ns, batch.mono_ns)
        for track in self._tracks.values():
            track.apart = False
        pieces: list[_Piece] = []
        for name, own in collectors.items():
            track = self._tracks.setdefault(name, _Track())
            pieces += self._pieces(name, track, own)
        now_ns = max(self._newest_mono_ns, self._clock.mono_ns() - _STOPPING_NS)
        for track in self._tracks.values():
            silence_ns = now_ns - track.mono_ns
            if track.plan is not None and silence_ns > STALE_AFTER_INTERVALS * track.period_ns:
                pieces += self._end(track, track.plan.labels, track.last_ms + 1)
                track.plan = None
        together = [piece for piece in pieces if not piece.apart]
        apart = [piece for piece in pieces if piece.apart]
        return [*self._joined(together), *self._joined(apart)]

    def _pieces(self, name: str, track: _Track, batches: Iterable[Batch]) -> Iterator[_Piece]:
        run = _Run()
        for batch in batches:
            series, values = self._numbers(batch)
            ms = batch.wall_ns // _MS
            track.apart |= ms <= track.last_ms
            plan = track.plan
            if plan is None or not self._fits(plan, series):
                yield from self._packed(track, run)
                run = _Run(track.apart)
                plan = self._plan(name, series, plan)
                yield from self._replace(track, plan, ms)
            elif not run.goes_on(ms, apart=track.apart):
                yield from self._packed(track, run)
                run = _Run(track.apart)
            for reason, points in plan.dropped.items():
                self._on_drop(reason, points)
            run.stamps_ms.append(ms)
            run.rows.append(values)
            track.last_ms = max(track.last_ms, ms)
            track.mono_ns = batch.mono_ns
            track.period_ns = int(max(batch.interval, self._resolution) * 1e9)
        yield from self._packed(track, run)

    def _fits(self, plan: _Plan, series: tuple[Series, ...]) -> bool:
        if plan.series is not series:
            return False
        return "duplicate" not in plan.dropped or plan.releases == self._releases

    def _numbers(self, batch: Batch) -> tuple[tuple[Series, ...], Sequence[float]]:
        """The series and values of a batch without those that are not a number. Infinity is."""
        if _all_numbers(batch.values):
            return batch.series, batch.values
        sound = [(one, value) for one, value in batch.points if _all_numbers((value,))]
        if len(sound) == len(batch.values):  # infinities that cancel each other out
            return batch.series, batch.values
        self._on_drop("invalid", len(batch.values) - len(sound))
        return tuple(one for one, _ in sound), [value for _, value in sound]

    def _packed(self, track: _Track, run: _Run) -> Iterator[_Piece]:
        """The samples of a run, in messages of the plan that it was read by."""
        if track.plan is None or not run.rows:
            return
        for pick, packer, count in track.plan.chunks:
            for begin in range(0, len(run.rows), MOST_SAMPLES_PER_SERIES):
                part = slice(begin, begin + MOST_SAMPLES_PER_SERIES)
                stamps_ms = run.stamps_ms[part]
                data = packer.pack(stamps_ms, [pick(row) for row in run.rows[part]])
                body = Body(data, count * len(stamps_ms), stamps_ms[-1] * _MS)
                yield _Piece(body, count, run.apart)

    def _plan(self, name: str, series: tuple[Series, ...], before: _Plan | None) -> _Plan:
        """A plan for these series of the collector called `name`."""
        plan = _Plan(series)
        plan.releases = self._releases
        known = {} if before is None else {one: key for key, one in before.labels.items()}
        wanted = {metric: self._wants(metric) for metric in {one.metric for one in series}}
        positions: list[int] = []
        for position, one in enumerate(series):
            if not wanted[one.metric]:
                continue
            key = known.get(one) or encoded_labels(one, self._labels)
            if not key:
                plan.dropped["invalid"] = plan.dropped.get("invalid", 0) + 1
            elif key in plan.labels or self._owners.get(key, name) != name:
                plan.dropped["duplicate"] = plan.dropped.get("duplicate", 0) + 1
            else:
                plan.labels[key] = one
                positions.append(position)
        self._owners.update(dict.fromkeys(plan.labels, name))
        labels = list(plan.labels)
        for begin in range(0, len(positions), self._most_series):
            part = slice(begin, begin + self._most_series)
            count = len(positions[part])
            plan.chunks.append((picker(positions[part]), Packer(labels[part]), count))
        return plan

    def _replace(self, track: _Track, plan: _Plan, ms: int) -> Iterator[_Piece]:
        """Go on with `plan` at the time `ms`; the series that are not in it have ended."""
        if track.plan is not None:
            gone = [key for key in track.plan.labels if key not in plan.labels]
            yield from self._end(track, gone, max(ms, track.last_ms + 1))
        track.plan = plan

    def _end(self, track: _Track, labels: Iterable[bytes], ms: int) -> Iterator[_Piece]:
        """Markers for these series, at a time when none of them has a sample that is newer."""
        ending = list(labels)
        apart = track.apart or ms * _MS > self._clock.wall_ns()
        for begin in range(0, len(ending), self._most_series):
            part = ending[begin : begin + self._most_series]
            # Nobody has read a marker: it is no point.
            yield _Piece(Body(ends(part, ms), 0, ms * _MS), len(part), apart)
        for key in ending:
            del self._owners[key]
        if ending:
            self._releases += 1
            track.last_ms = max(track.last_ms, ms)

    def _joined(self, pieces: Iterable[_Piece]) -> Iterator[Body]:
        """The same messages in few bodies."""
        parts: list[Body] = []
        series = 0
        for piece in pieces:
            series += piece.series
            if parts and series > self._most_series:
                yield _join(parts)
                parts, series = [], piece.series
            parts.append(piece.body)
        if parts:
            yield _join(parts)


def _join(parts: Sequence[Body]) -> Body:
    if len(parts) == 1:
        return parts[0]
    return Body(
        b"".join([part.data for part in parts]),
        sum(part.points for part in parts),
        max(part.newest_ns for part in parts),
    )


def _all_numbers(values: Sequence[float]) -> bool:
    """Whether no value is a NaN or a whole number too large for a float. Says no where infinities
    cancel each other out, too."""
    try:
        return not math.isnan(float(sum(values)))
    except OverflowError:
        return False

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
from dataclasses import dataclass

from telemetryd.batch import STALE_AFTER_INTERVALS, Batch
from telemetryd.clock import Clock
from telemetryd.delivery.queue import Body, OnDrop
from telemetryd.exporters.remote_write_labels import encoded_labels
from telemetryd.exporters.remote_write_message import ends
from telemetryd.exporters.remote_write_run import Piece, Plan, Run
from telemetryd.metric import Metric, Series

# When no collector says anything the daemon is about to stop, which takes it up to 10 s.
_STOPPING_NS = 30_000_000_000
_MS = 1_000_000


@dataclass(slots=True)
class _Track:
    """What was sent of a collector: its plan, None if all its series have ended, the newest
    timestamp, and the last batch's moment and period of the monotonic clock. `apart` once
    something of this flush is kept apart: what comes behind it has to stay behind it."""

    plan: Plan | None = None
    last_ms: int = -1
    apart: bool = False
    mono_ns: int = 0
    period_ns: int = 0


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
        pieces: list[Piece] = []
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

    def _pieces(self, name: str, track: _Track, batches: Iterable[Batch]) -> Iterator[Piece]:
        run = Run()
        for batch in batches:
            series, values = self._numbers(batch)
            ms = batch.wall_ns // _MS
            track.apart |= ms <= track.last_ms
            if not run.goes_on(ms, apart=track.apart):
                yield from run.pieces(self._most_series)
                run = Run(track.apart)
            plan = track.plan
            if plan is None or not self._fits(plan, series):
                plan = self._plan(name, series, plan)
                run.change(list(self._replace(track, plan, ms)))
            for reason, points in plan.dropped.items():
                self._on_drop(reason, points)
            run.add(plan, ms, values)
            track.last_ms = max(track.last_ms, ms)
            track.mono_ns = batch.mono_ns
            track.period_ns = int(max(batch.interval, self._resolution) * 1e9)
        yield from run.pieces(self._most_series)

    def _fits(self, plan: Plan, series: tuple[Series, ...]) -> bool:
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

    def _plan(self, name: str, series: tuple[Series, ...], before: Plan | None) -> Plan:
        """A plan for these series of the collector called `name`."""
        plan = Plan(series, self._most_series)
        plan.releases = self._releases
        known = {} if before is None else before.known
        wanted = {metric: self._wants(metric) for metric in {one.metric for one in series}}
        for position, one in enumerate(series):
            if not wanted[one.metric]:
                continue
            key = known.get(one) or encoded_labels(one, self._labels)
            if not key:
                plan.dropped["invalid"] = plan.dropped.get("invalid", 0) + 1
            elif key in plan.labels or self._owners.get(key, name) != name:
                plan.dropped["duplicate"] = plan.dropped.get("duplicate", 0) + 1
            else:
                plan.labels[key] = position
        self._owners.update(dict.fromkeys(plan.labels, name))
        return plan

    def _replace(self, track: _Track, plan: Plan, ms: int) -> Iterator[Piece]:
        """Go on with `plan` at the time `ms`; the series that are not in it have ended."""
        if track.plan is not None:
            gone = [key for key in track.plan.labels if key not in plan.labels]
            yield from self._end(track, gone, max(ms, track.last_ms + 1))
        track.plan = plan

    def _end(self, track: _Track, labels: Iterable[bytes], ms: int) -> Iterator[Piece]:
        """Markers for these series, at a time when none of them has a sample that is newer."""
        ending = list(labels)
        apart = track.apart or ms * _MS > self._clock.wall_ns()
        for begin in range(0, len(ending), self._most_series):
            part = ending[begin : begin + self._most_series]
            # Nobody has read a marker: it is no point.
            yield Piece(Body(ends(part, ms), 0, ms * _MS), len(part), apart)
        for key in ending:
            del self._owners[key]
        if ending:
            self._releases += 1
            track.last_ms = max(track.last_ms, ms)

    def _joined(self, pieces: Iterable[Piece]) -> Iterator[Body]:
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

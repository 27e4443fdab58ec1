"""A Batch is what one collector read in one go; the latest table holds the last one of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from telemetryd.metric import Point, Series

# A series not renewed within this many of its intervals is gone.
STALE_AFTER_INTERVALS = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """The readings of one collector, with the moment they were taken.

    `series` and `values` run in parallel. As long as a collector reads the same series in the
    same order, `series` is the same tuple object from one batch to the next, so that whoever
    prepared something for it (positions, encoded names) only has to compare identities.
    `interval` is the collector's, in seconds.
    """

    collector: str
    wall_ns: int
    mono_ns: int
    interval: float
    series: tuple[Series, ...]
    values: tuple[float, ...]

    @property
    def points(self) -> Iterator[Point]:
        return zip(self.series, self.values, strict=True)

    def is_stale(self, mono_ns: int) -> bool:
        return mono_ns - self.mono_ns > STALE_AFTER_INTERVALS * self.interval * 1e9


class LatestTable:
    """The last batch of each collector. Written under the pipeline's lock, read without one:
    a reader sees whole batches, because each is replaced in one assignment."""

    def __init__(self) -> None:
        self._batches: dict[str, Batch] = {}

    def put(self, batch: Batch) -> None:
        self._batches[batch.collector] = batch

    def drop(self, collector: str) -> None:
        self._batches.pop(collector, None)

    def live(self, mono_ns: int) -> list[Batch]:
        """The batches that are not stale at `mono_ns`, in the order their collectors started."""
        return [batch for batch in list(self._batches.values()) if not batch.is_stale(mono_ns)]

"""Filesystem utilization: the used share of what a user may fill, as df shows it.

The kernel gives levels, not time in use: over the time between two readings the ratio counts as
the mean of both ends, which is exact for what changes evenly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from telemetryd.batch import Batch, LatestTable
from telemetryd.collectors.filesystem import AVAILABLE, DEVICE_ERROR, FREE, SIZE
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.derived.level import Level
from telemetryd.derived.steps import Columns
from telemetryd.derived.utilization import METRICS, Account
from telemetryd.metric import Metric, Point

_LEVELS = (SIZE, FREE, AVAILABLE)


class FilesystemUtilization(Derivation):
    """`filesystem` of each mount point: (size - free) / (size - free + available).

    A filesystem that does not answer has no ratio meanwhile, and nothing is integrated until it
    has answered twice again; one of size 0 has no utilization at all.
    """

    inputs = (*_LEVELS, DEVICE_ERROR)
    metrics = METRICS

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        self._collector = ""
        self._columns = Columns(*self.inputs)
        # By the labels of the filesystem: where its levels stand in a batch, none if they do not.
        self._positions: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._filesystems: dict[tuple[str, ...], Level] = {}

    def forget(self, collector: str) -> None:
        if collector == self._collector:
            self._filesystems.clear()

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:  # noqa: ARG002
        self._collector = batch.collector
        values = self._columns.of(batch)
        if self._columns.changed:
            self._look_at_filesystems()
        for labels, positions in self._positions.items():
            ratio = _used([values[i] for i in positions]) if positions else None
            known = self._filesystems.get(labels)
            if known is None:
                if ratio is None:
                    continue
                known = self._filesystems[labels] = Level(Account("filesystem", labels[0]))
            known.observe(ratio, batch)
            yield from known.points()

    def _look_at_filesystems(self) -> None:
        found: dict[tuple[str, ...], dict[Metric, int]] = {}
        for position, series in enumerate(self._columns.series):
            found.setdefault(series.labels, {})[series.metric] = position
        self._positions = {
            labels: tuple(at[metric] for metric in _LEVELS) if at.keys() >= set(_LEVELS) else ()
            for labels, at in found.items()
        }
        self._filesystems = {
            labels: known for labels, known in self._filesystems.items() if labels in found
        }


def _used(levels: Sequence[float]) -> float | None:
    """The ratio of a size, free and available space; None where they do not give one."""
    size, free, available = levels
    used = size - free
    if used < 0 or available < 0 or used + available <= 0:
        return None
    return used / (used + available)

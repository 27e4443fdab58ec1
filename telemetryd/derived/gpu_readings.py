"""Where the readings of each GPU stand in the batches of its collector, and how long a GPU that is
not there is remembered.

GPUs come and go while the daemon runs: one is lost and found again, a MIG instance is taken apart
and made anew. What is derived of a GPU is published as long as its readings are there, and what
was accumulated goes on where it was when they are there again. Only after FORGET_AFTER_S is it
forgotten, so that a machine which makes a new MIG instance for each job does not fill the memory;
a GPU that comes back later still starts at 0, which is an ordinary counter reset.

NVIDIA, AMD and Intel GPUs have a collector each, and a machine may have all three: everything is
kept by collector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from telemetryd.batch import Batch, LatestTable
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Metric, Point, Series

# An hour: longer than a reset of a GPU or a change of its MIG layout takes.
FORGET_AFTER_S = 3600

# The values of a batch with None behind them, so that a reading which is not there has a place too.
Row = tuple[float | None, ...]
ABSENT = -1


class Places:
    """Where the readings of one GPU stand in the batches, as long as their series stay the same."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self._at: dict[Metric, dict[tuple[str, ...], int]] = {}

    def put(self, series: Series, position: int) -> None:
        self._at.setdefault(series.metric, {})[series.labels[2:]] = position

    def of(self, metric: Metric, *labels: str) -> int:
        """The place of the reading with these labels behind `gpu` and `uuid`; ABSENT if there is
        none."""
        return self._at.get(metric, {}).get(labels, ABSENT)

    def all(self, metric: Metric) -> list[int]:
        """The places of every reading of a metric."""
        return list(self._at.get(metric, {}).values())

    def label(self, metric: Metric, name: str) -> str:
        """A label of a metric that a GPU has once, such as its model; empty if it has none."""
        at = metric.labels.index(name) - 2
        return next((labels[at] for labels in self._at.get(metric, {})), "")


class Gpu(ABC):
    """What is known of one GPU or MIG instance."""

    def __init__(self) -> None:
        self._uuid: str | None = None
        self._read_ns: int | None = None

    def look(self, places: Places) -> None:
        """The collector's series have changed: this is where the readings are now."""
        if places.uuid != self._uuid:
            # Another GPU of the same name: what it does is no continuation.
            self._read_ns = None
        self._uuid = places.uuid

    def seconds_since_last(self, batch: Batch) -> float:
        """Time since the GPU was in a batch before this; 0 the first time, and after a gap of more
        than GAP_INTERVALS. To be asked once for each batch."""
        before, self._read_ns = self._read_ns, batch.mono_ns
        if before is None:
            return 0.0
        seconds = (batch.mono_ns - before) / 1e9
        return seconds if 0 < seconds <= GAP_INTERVALS * batch.interval else 0.0

    @abstractmethod
    def figures(self, values: Row, batch: Batch) -> Iterable[Point]:
        """What is derived from the readings of this batch."""


class _Gpus:
    """The GPUs of one collector. `read_ns` is the time of the last batch with `present` in it."""

    def __init__(self) -> None:
        self.layout: tuple[Series, ...] | None = None
        self.known: dict[tuple[str, ...], Gpu] = {}
        self.present: dict[tuple[str, ...], Gpu] = {}
        self.last_seen_ns: dict[tuple[str, ...], int] = {}
        self.read_ns = 0


class GpuDerivation(Derivation):
    """A derivation whose figures of a GPU need only the readings of the same GPU.

    `identity` says how many of the labels `gpu` and `uuid` its series have: a figure with the name
    of the GPU alone continues when another GPU takes the name.
    """

    identity: ClassVar[int] = 2

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        self._collectors: dict[str, _Gpus] = {}

    @abstractmethod
    def new(self, collector: str, labels: tuple[str, str]) -> Gpu:
        """A GPU that is seen for the first time."""

    def forget(self, collector: str) -> None:
        self._collectors.pop(collector, None)

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:  # noqa: ARG002
        gpus = self._collectors.get(batch.collector)
        if gpus is None:
            gpus = self._collectors[batch.collector] = _Gpus()
        if gpus.layout is not batch.series:
            self._look(gpus, batch)
        gpus.read_ns = batch.mono_ns
        values = (*batch.values, None)
        for gpu in gpus.present.values():
            yield from gpu.figures(values, batch)

    def _look(self, gpus: _Gpus, batch: Batch) -> None:
        gpus.layout = batch.series
        gpus.last_seen_ns.update(dict.fromkeys(gpus.present, gpus.read_ns))
        oldest_ns = batch.mono_ns - FORGET_AFTER_S * 1_000_000_000
        for key, seen_ns in list(gpus.last_seen_ns.items()):
            if seen_ns < oldest_ns:
                del gpus.last_seen_ns[key], gpus.known[key]
        gpus.present = {}
        for labels, places in _places(batch.series, self.inputs).items():
            key = labels[: self.identity]
            gpu = gpus.known.get(key)
            if gpu is None:
                gpu = gpus.known[key] = self.new(batch.collector, labels)
            gpu.look(places)
            gpus.present[key] = gpu


def _places(series: Sequence[Series], metrics: Iterable[Metric]) -> dict[tuple[str, str], Places]:
    """Where each GPU has its readings of these metrics, by its labels."""
    wanted = frozenset(metrics)
    found: dict[tuple[str, str], Places] = {}
    for position, one in enumerate(series):
        if one.metric in wanted:
            gpu, uuid = one.labels[:2]
            places = found.get((gpu, uuid))
            if places is None:
                places = found[gpu, uuid] = Places(uuid)
            places.put(one, position)
    return found

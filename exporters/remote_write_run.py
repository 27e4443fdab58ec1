"""Batches of one collector as messages: a time series for each series, with a sample for each
batch.

From one batch to the next some series may come and others go, such as those of processes. What is
in all of the batches is put together all the same; only the rest is sent for each layout apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from telemetryd.delivery.queue import Body
from telemetryd.exporters.remote_write_message import Packer
from telemetryd.metric import Series
from telemetryd.pick import picker

# Samples in one message. What has more makes several, each counted as a series, so that bodies do
# not grow with the time between two flushes.
MOST_SAMPLES_PER_SERIES = 10
_MS = 1_000_000

_Pick = Callable[[Sequence[float]], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some messages for a body; `apart` if they may be refused for their time, which is not newer
    than what was sent before, or lies ahead."""

    body: Body
    series: int
    apart: bool


class Plan:
    """How to turn the values of a collector's batch into messages.

    `labels` has those of every series that is sent, with the position of its value; `dropped` the
    points that are not, by reason, and `releases` how often labels had become free by then.
    """

    def __init__(self, series: tuple[Series, ...], most_series: int) -> None:
        self.series = series
        self.labels: dict[bytes, int] = {}
        self.dropped: dict[str, int] = {}
        self.releases = 0
        self._most_series = most_series
        self._chunks: list[tuple[_Pick, Packer]] | None = None

    @property
    def known(self) -> dict[Series, bytes]:
        """The encoded labels of its series."""
        return {self.series[position]: key for key, position in self.labels.items()}

    @property
    def chunks(self) -> list[tuple[_Pick, Packer]]:
        """Which values to take, and what packs them: no more series in one than fit in a body."""
        if self._chunks is None:
            self._chunks = [
                (self.pick(keys), Packer(keys))
                for keys in portions(list(self.labels), self._most_series)
            ]
        return self._chunks

    def pick(self, keys: Sequence[bytes]) -> _Pick:
        """Takes the values of the series with these labels."""
        return picker([self.labels[key] for key in keys])


@dataclass(frozen=True, slots=True)
class _Row:
    plan: Plan
    ms: int
    values: Sequence[float]


@dataclass(slots=True)
class Run:
    """Batches, each later than the one before. `endings` are the staleness markers that belong
    before a batch, by its place."""

    apart: bool = False
    endings: dict[int, list[Piece]] = field(default_factory=dict)
    _rows: list[_Row] = field(default_factory=list)

    def goes_on(self, ms: int, *, apart: bool) -> bool:
        """Whether a batch of the time `ms` can come behind the others."""
        return self.apart == apart and (not self._rows or ms > self._rows[-1].ms)

    def change(self, endings: list[Piece]) -> None:
        """The next batch has another layout; these markers are for what is not in it."""
        self.endings.setdefault(len(self._rows), []).extend(endings)

    def add(self, plan: Plan, ms: int, values: Sequence[float]) -> None:
        self._rows.append(_Row(plan, ms, values))

    def pieces(self, most_series: int) -> Iterator[Piece]:
        """Its messages, those of each series in the order of time."""
        plans = list({id(row.plan): row.plan for row in self._rows}.values())
        yield from self.endings.get(0, ())
        if len(plans) == 1:
            for pick, packer in plans[0].chunks:
                yield from self._packed(packer, [(row, pick) for row in self._rows])
            return
        if not plans:
            return
        everywhere = [key for key in plans[0].labels if all(key in one.labels for one in plans)]
        for keys in portions(everywhere, most_series):
            picks = {id(plan): plan.pick(keys) for plan in plans}
            rows = [(row, picks[id(row.plan)]) for row in self._rows]
            yield from self._packed(Packer(keys), rows)
        yield from self._rest(set(everywhere), most_series)

    def _rest(self, done: set[bytes], most_series: int) -> Iterator[Piece]:
        """What is not in all of the batches, one layout after the other."""
        place = 0
        for _, group in groupby(self._rows, key=lambda row: id(row.plan)):
            rows = list(group)
            if place:
                yield from self.endings.get(place, ())
            plan = rows[0].plan
            for keys in portions([key for key in plan.labels if key not in done], most_series):
                pick = plan.pick(keys)
                yield from self._packed(Packer(keys), [(row, pick) for row in rows])
            place += len(rows)

    def _packed(self, packer: Packer, rows: list[tuple[_Row, _Pick]]) -> Iterator[Piece]:
        for begin in range(0, len(rows), MOST_SAMPLES_PER_SERIES):
            part = rows[begin : begin + MOST_SAMPLES_PER_SERIES]
            stamps_ms = [row.ms for row, _ in part]
            data = packer.pack(stamps_ms, [pick(row.values) for row, pick in part])
            body = Body(data, packer.count * len(part), stamps_ms[-1] * _MS)
            yield Piece(body, packer.count, self.apart)


def portions(keys: list[bytes], most: int) -> Iterator[list[bytes]]:
    """These, no more than so many at once."""
    for begin in range(0, len(keys), most):
        yield keys[begin : begin + most]

"""Batches for the encoder of remote write, and what it makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from support.clock import FakeClock
from support.remote_write_reader import Sent, samples
from telemetryd.batch import Batch
from telemetryd.delivery.queue import Body
from telemetryd.exporters.remote_write_encoder import Encoder
from telemetryd.metric import Kind, Metric, Point, Unit

VALUE = Metric("test", "value", Kind.GAUGE, Unit.NONE, "Help.", "test", ("row",))
OTHER = Metric("test", "other", Kind.GAUGE, Unit.NONE, "Help.", "test", ("row",))
TARGET = {"job": "telemetryd", "instance": "n1"}


def foreign(name: str, *labels: str) -> Metric:
    """A metric of a site script's."""
    return Metric.foreign(
        name, family=name, kind=Kind.UNKNOWN, help_text="", labels=labels, source="test"
    )


class Feed:
    """An encoder, a clock that the test moves, and collectors that read when they are told to."""

    def __init__(self, labels=TARGET, wants=lambda _metric: True, most=2000, resolution=0.0):
        self.clock = FakeClock()
        self.dropped: Counter[str] = Counter()
        self.encoder = Encoder(labels, wants, most, self._drop, self.clock, resolution)
        self._waiting: list[Batch] = []
        self._layouts: dict[str, tuple] = {}

    def _drop(self, reason: str, points: int, records: int = 1) -> None:
        self.dropped[reason] += points

    @property
    def ms(self) -> int:
        return self.clock.wall_ns() // 1_000_000

    def read(self, points: Sequence[Point], collector: str = "c", interval: float = 1.0) -> None:
        """A collector reads now; its series are the same object as long as they are the same."""
        series = tuple(one for one, _ in points)
        if self._layouts.get(collector) != series:
            self._layouts[collector] = series
        self._waiting.append(
            Batch(
                collector,
                self.clock.wall_ns(),
                self.clock.mono_ns(),
                interval,
                self._layouts[collector],
                tuple(value for _, value in points),
            )
        )

    def rows(self, *rows: int, collector: str = "c", interval: float = 1.0) -> None:
        """A collector reads these rows of VALUE, each with its number as value."""
        self.read([(VALUE.at(str(row)), float(row)) for row in rows], collector, interval)

    def flush(self) -> list[Body]:
        """The bodies of what was read since the last time."""
        waiting, self._waiting = self._waiting, []
        return self.encoder.encode(waiting)

    def sent(self) -> list[Sent]:
        """The samples of what was read since the last time."""
        return [sample for body in self.flush() for sample in samples(body.data)]

    def ended(self) -> list[tuple[str, int]]:
        """The row and the time of each staleness marker, of what was read since the last time."""
        return [(dict(one.labels)["row"], one.ms) for one in self.sent() if one.is_stale]

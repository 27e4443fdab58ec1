"""A push exporter whose destination is in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from support.delivery import Words
from support.delivery_lanes import by_second
from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.delivery.build import delivery_lane
from telemetryd.delivery.push_config import PushConfig
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.instruments import Instruments


class Push(PushExporter):
    """Pushes to `there`; a test makes a class of its own with a destination of its own."""

    Config: ClassVar[type[ExporterConfig]] = PushConfig
    there: ClassVar[Words]
    clock: ClassVar[Clock] = Clock()

    def __init__(
        self,
        name: str,
        config: ExporterConfig,
        labels: Mapping[str, str],
        instruments: Instruments,
        spool: SpoolConfig,
    ) -> None:
        super().__init__(name, config, labels, instruments, spool)
        self.lane = delivery_lane(self, "words", by_second, self.there, self.clock, lambda: 1.0)

    def start(self) -> None:
        self.lane.start()

    def offer(self, batch: Batch) -> None:
        self.lane.offer(batch)

    def stop(self, timeout: float) -> None:
        self.lane.stop(timeout)

    def check(self) -> None:
        pass


def shown(instruments: Instruments, destination: str) -> dict[str, float]:
    """What is shown of a destination that has no other label, by the name of the metric."""
    return {
        series.metric.name: value
        for series, value in instruments.points()
        if series.labels == (destination,)
    }

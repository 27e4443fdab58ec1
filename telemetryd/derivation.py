"""The interface of a derived quantity: readings go in, figures come out, no I/O in between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from telemetryd.batch import Batch, LatestTable
from telemetryd.duration import Seconds
from telemetryd.metric import Metric, Point


class DerivedConfig(BaseModel):
    """What the derived quantities can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peak_window: Seconds = Field(
        60.0, gt=0, le=86400, description="time over which a peak is the maximum"
    )
    cores: bool | None = Field(
        None,
        description="utilization of each CPU beside that of all; unset: up to 64 CPUs",
    )


class Derivation(ABC):
    """Works out figures from the batches that carry one of `inputs`.

    What `update` returns is published with the batch it was worked out from, and is gone when
    that collector's readings are.
    """

    inputs: ClassVar[tuple[Metric, ...]]
    metrics: ClassVar[tuple[Metric, ...]]

    def __init__(self, config: DerivedConfig) -> None:
        self.config = config

    @abstractmethod
    def update(self, batch: Batch, latest: LatestTable) -> Iterable[Point]:
        """Figures for this batch; `latest` is the table before it."""

    @abstractmethod
    def forget(self, collector: str) -> None:
        """Drop what is remembered of a collector that is no longer there."""

"""The interface that a destination implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from telemetryd.batch import Batch
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.instruments import Instruments


class ExporterConfig(BaseModel):
    """What every exporter can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    enabled: bool = Field(True, description="false leaves it out")
    type: str | None = Field(
        None,
        description="what kind of destination it is; unset: the name of the table. With it there "
        "can be several of a kind, each under a name of its own",
    )

    def kind(self, name: str) -> str:
        """What kind of destination the one called `name` is."""
        return self.type or name


class PushExporter(ABC):
    """A destination that series are sent to.

    `offer` is called from the lanes and must return at once; whatever waits for a network or a
    disk does so in a thread of the exporter's own. It may be called before `start`: a reload makes
    the new one, gives it the batches from then on, and starts it when the old one has let go of
    its files. The constructor raises Unavailable, with the remedy, when it cannot work at all; a
    destination that is merely down is not an error.
    """

    Config: ClassVar[type[ExporterConfig]] = ExporterConfig

    def __init__(
        self,
        name: str,
        config: ExporterConfig,
        labels: Mapping[str, str],
        instruments: Instruments,
        spool: SpoolConfig,
    ) -> None:
        self.name = name
        self.config = config
        self.labels = labels
        self.instruments = instruments
        self.spool = spool

    @abstractmethod
    def start(self) -> None:
        """Begin to deliver."""

    @abstractmethod
    def offer(self, batch: Batch) -> None:
        """Take a batch to deliver; never waits, never raises."""

    @abstractmethod
    def stop(self, timeout: float) -> None:
        """Send what is left, within `timeout` seconds, and end the thread."""

    @abstractmethod
    def check(self) -> None:
        """Reach the destination once, for `doctor`. Raises Unavailable with the remedy."""

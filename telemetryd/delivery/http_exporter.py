"""A push exporter whose destination is a server over HTTP: what it sends and how is all that is
left to each of them."""

from __future__ import annotations

import random as _random
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.delivery.build import delivery_lane
from telemetryd.delivery.counts import count_drops
from telemetryd.delivery.queue import OnDrop
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.delivery.writer import Encode
from telemetryd.errors import Unavailable
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.instruments import Instruments

if TYPE_CHECKING:
    from telemetryd.delivery.http import HttpDestination


class HttpExporter(PushExporter):
    """Raises Unavailable if a Python package is missing. A secret or a TLS file that cannot be used
    yet is waited for, like a server that is down.

    `kind` is what the bodies are, to those who find them on disk; `packages` are those of Python
    that it needs.
    """

    kind: ClassVar[str]
    packages: ClassVar[str]

    def __init__(
        self,
        name: str,
        config: ExporterConfig,
        labels: Mapping[str, str],
        instruments: Instruments,
        spool: SpoolConfig,
        *,
        clock: Clock | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        super().__init__(name, config, labels, instruments, spool)
        clock = clock or Clock()
        try:
            self._server = self._connect(clock)
        except ImportError as error:
            raise Unavailable(
                f"{self.packages} cannot be imported: {error}",
                f"install the Python packages {self.packages}, or set "
                f"exporters.{name}.enabled = false",
            ) from error
        encode = self._encoder(count_drops(name, instruments), clock)
        self._lane = delivery_lane(self, self.kind, encode, self._server, clock, random)

    @abstractmethod
    def _connect(self, clock: Clock) -> HttpDestination:
        """The server. Imports what costs memory; raises ImportError."""

    @abstractmethod
    def _encoder(self, on_drop: OnDrop, clock: Clock) -> Encode:
        """What makes bodies of batches."""

    def start(self) -> None:
        self._lane.start()

    def offer(self, batch: Batch) -> None:
        self._lane.offer(batch)

    def stop(self, timeout: float) -> None:
        if self._lane.stop(timeout):
            self._server.close()

    def check(self) -> None:
        self._server.check()

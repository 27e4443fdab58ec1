"""Push to InfluxDB's /api/v2/write: InfluxDB 1.8, 2 and 3, and VictoriaMetrics take it.

influxdb-client does the HTTP, TLS and authentication, and is imported only when this exporter is
made, because it costs 30 MiB of memory. What is sent, when, and what follows from an answer is
decided in telemetryd.delivery.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Mapping
from typing import ClassVar

from pydantic import Field, field_validator

from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.delivery.build import delivery_lane
from telemetryd.delivery.counts import count_drops
from telemetryd.delivery.http_config import HttpConfig, split_address
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.errors import Unavailable
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.exporters.line_protocol import Encoder
from telemetryd.instruments import Instruments

# What the bodies are, to those who find them on disk.
KIND = "influxdb"
WRITE_PATH = "/api/v2/write"


class InfluxDBConfig(HttpConfig):
    """[exporters.influxdb]"""

    url: str = Field(
        description='where the server listens, such as "https://influxdb:8086"; what stands before '
        f"{WRITE_PATH} in its address"
    )
    bucket: str = Field(
        min_length=1,
        description='the bucket to write to; "database/retention-policy" for InfluxDB 1.8',
    )
    org: str = Field(
        "", description="the organization that has the bucket; InfluxDB 1.8 and 3 ignore it"
    )
    token_file: str | None = Field(
        None,
        description="file with the token; read again when the server does not accept it any more",
    )
    gzip: bool = Field(True, description="compress what is sent")
    host: str | None = Field(
        None, min_length=1, description="the tag `host`; unset: the name of this machine"
    )

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        value = value.rstrip("/")
        parts = split_address(value, "http://localhost:8086", "a token_file")
        if parts.path.endswith(WRITE_PATH):
            raise ValueError(f"leave out {WRITE_PATH}, it is put behind what stands here")
        if parts.query or parts.fragment:
            raise ValueError("write nothing behind the path: org and bucket have their own keys")
        return value


class InfluxDB(PushExporter):
    """Raises Unavailable if a TLS file cannot be used. A token that cannot be read yet is waited
    for, like a server that is down."""

    Config: ClassVar[type[ExporterConfig]] = InfluxDBConfig

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
        assert isinstance(config, InfluxDBConfig)
        try:
            from telemetryd.exporters.influxdb_transport import Transport  # noqa: PLC0415
        except ImportError as error:
            raise Unavailable(
                f"influxdb-client cannot be imported: {error}",
                "install the Python package influxdb-client, or set "
                f"exporters.{name}.enabled = false",
            ) from error
        clock = clock or Clock()
        self._transport = Transport(name, config, clock)
        tags = {**labels, "host": config.host} if config.host is not None else labels
        on_drop = count_drops(name, instruments)
        encoder = Encoder(tags, config.chooser(), config.batch_size, on_drop)
        self._lane = delivery_lane(self, KIND, encoder.encode, self._transport, clock, random)

    def start(self) -> None:
        self._lane.start()

    def offer(self, batch: Batch) -> None:
        self._lane.offer(batch)

    def stop(self, timeout: float) -> None:
        if self._lane.stop(timeout):
            self._transport.close()

    def check(self) -> None:
        self._transport.check()

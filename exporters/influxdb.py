"""Push to InfluxDB's /api/v2/write: InfluxDB 1.8, 2 and 3, and VictoriaMetrics take it.

influxdb-client does the HTTP, TLS and authentication, and is imported only when this exporter is
made, because it costs 30 MiB of memory. What is sent, when, and what follows from an answer is
decided in telemetryd.delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from telemetryd.clock import Clock
from telemetryd.delivery.http_config import HttpConfig, split_address
from telemetryd.delivery.http_exporter import HttpExporter
from telemetryd.delivery.queue import OnDrop
from telemetryd.delivery.writer import Encode
from telemetryd.exporter import ExporterConfig
from telemetryd.exporters.line_protocol import Encoder

if TYPE_CHECKING:
    from telemetryd.delivery.http import HttpDestination

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


class InfluxDB(HttpExporter):
    Config: ClassVar[type[ExporterConfig]] = InfluxDBConfig
    kind = "influxdb"
    packages = "influxdb-client"
    config: InfluxDBConfig

    def _connect(self, clock: Clock) -> HttpDestination:
        from telemetryd.exporters.influxdb_transport import Transport  # noqa: PLC0415

        return Transport(self.name, self.config, clock)

    def _encoder(self, on_drop: OnDrop, _clock: Clock) -> Encode:
        config = self.config
        tags = {**self.labels, "host": config.host} if config.host is not None else self.labels
        return Encoder(tags, config.chooser(), config.batch_size, on_drop).encode

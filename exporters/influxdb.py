"""Push to InfluxDB's /api/v2/write: InfluxDB 1.8, 2 and 3, and VictoriaMetrics take it.

influxdb-client does the HTTP, TLS and authentication, and is imported only when this exporter is
made, because it costs 30 MiB of memory. What is sent, when, and what follows from an answer is
decided in telemetryd.delivery.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable, Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.collector import Filters
from telemetryd.delivery.backoff import Backoff
from telemetryd.delivery.gather import Gather
from telemetryd.delivery.lane import DeliveryLane, count_drops
from telemetryd.delivery.queue import MemoryQueue
from telemetryd.delivery.sender import Sender
from telemetryd.duration import Bytes, Seconds
from telemetryd.errors import Unavailable
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.exporters.line_protocol import Encoder
from telemetryd.instruments import Instruments
from telemetryd.metric import Metric

WRITE_PATH = "/api/v2/write"
# A point that waits as a reference: a number, its place in a tuple, its share of the rest.
_POINT_BYTES = 64
# The share of queue_bytes that may wait as references while the thread waits for an answer.
_UNENCODED_SHARE = 4


class InfluxDBConfig(ExporterConfig):
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
    ca_file: str | None = Field(
        None,
        description="PEM file of the authorities to trust for https; unset: those of the system",
    )
    verify: bool = Field(
        True, description="false accepts any certificate, and so any server that claims the name"
    )
    cert_file: str | None = Field(
        None, description="PEM file of the certificate to show to the server"
    )
    key_file: str | None = Field(
        None, description="PEM file of its key, without a password; unset: it is in cert_file"
    )
    gzip: bool = Field(True, description="compress what is sent")
    resolution: Seconds = Field(
        10.0,
        ge=0,
        le=3600,
        description="send the last value of every so many seconds; 0 sends every one",
    )
    flush_interval: Seconds = Field(
        10.0,
        ge=0.1,
        le=3600,
        description="gather points for so long before they are sent together",
    )
    batch_size: int = Field(
        5000,
        ge=1,
        le=1_000_000,
        description="most points in a request; so many are sent without waiting any longer",
    )
    queue_bytes: Bytes = Field(
        64 << 20,
        ge=1 << 20,
        description="most memory for points that the server has not taken yet; then the oldest "
        "are dropped",
    )
    timeout: Seconds = Field(10.0, gt=0, le=300, description="longest wait for an answer")
    include: tuple[str, ...] = Field(
        ("*",), description="shell patterns of the names of the metrics to send"
    )
    exclude: tuple[str, ...] = Field(
        (), description="shell patterns of the names of the metrics not to send"
    )
    per_process: bool = Field(
        False,
        description="send the families with one series for each process too; those series come "
        "and go with the processes",
    )
    host: str | None = Field(
        None, min_length=1, description="the tag `host`; unset: the name of this machine"
    )

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        value = value.rstrip("/")
        parts = urlsplit(value)
        if parts.path.endswith(WRITE_PATH):
            raise ValueError(f"leave out {WRITE_PATH}, it is put behind what stands here")
        if parts.username is not None or parts.password is not None:
            raise ValueError("write no name and password here, but a token_file")
        plain = value.isascii() and value.isprintable() and " " not in value
        if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
            raise ValueError('write http:// or https://, host and port, "http://localhost:8086"')
        if parts.query or parts.fragment:
            raise ValueError("write nothing behind the path: org and bucket have their own keys")
        if parts.port == 0:
            raise ValueError("port 0 is no port")
        return value

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> InfluxDBConfig:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file, the certificate that the key is for")
        return self


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
        *,
        clock: Clock | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        super().__init__(name, config, labels, instruments)
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
        on_drop = count_drops(name, instruments)
        queue = MemoryQueue(config.queue_bytes, on_drop)
        names = Filters(include=config.include, exclude=config.exclude)

        def wants(metric: Metric) -> bool:
            return (config.per_process or not metric.per_process) and names.wants(metric.name)

        tags = {**labels, "host": config.host} if config.host is not None else labels
        self._lane = DeliveryLane(
            name,
            Gather(config.resolution, config.queue_bytes // _UNENCODED_SHARE // _POINT_BYTES),
            Encoder(tags, wants, config.batch_size, on_drop).encode,
            queue,
            Sender(name, queue, self._transport, instruments, clock, Backoff(random)),
            flush_interval=config.flush_interval,
            batch_size=config.batch_size,
            clock=clock,
            instruments=instruments,
            on_drop=on_drop,
        )

    def start(self) -> None:
        self._lane.start()

    def offer(self, batch: Batch) -> None:
        self._lane.offer(batch)

    def stop(self, timeout: float) -> None:
        if self._lane.stop(timeout):
            self._transport.close()

    def check(self) -> None:
        self._transport.check()

"""Push by Prometheus remote write 1.0: Prometheus, VictoriaMetrics, Mimir, Thanos Receive and many
more take it.

urllib3 does the HTTP and cramjam the compression; both are imported only when this exporter is
made. What is sent, when, and what follows from an answer is decided in telemetryd.delivery.
"""

from __future__ import annotations

import random as _random
import socket
from collections.abc import Callable, Mapping
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.delivery.build import delivery_lane
from telemetryd.delivery.counts import count_drops
from telemetryd.delivery.headers import check_names, check_values
from telemetryd.delivery.http_config import HttpConfig, split_address
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.errors import Unavailable
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.exporters.remote_write_encoder import Encoder
from telemetryd.exporters.remote_write_run import MOST_SAMPLES_PER_SERIES
from telemetryd.instruments import Instruments

# What the bodies are, to those who find them on disk.
KIND = "remote_write"
_EXAMPLE = "http://prometheus:9090/api/v1/write"


class RemoteWriteConfig(HttpConfig):
    """[exporters.remote_write]"""

    url: str = Field(
        description=f'the whole address that takes writes: "{_EXAMPLE}" of Prometheus or '
        'VictoriaMetrics, "https://mimir/api/v1/push", "https://thanos/api/v1/receive"'
    )
    username: str | None = Field(
        None, min_length=1, description="for basic authentication, with password_file"
    )
    password_file: str | None = Field(
        None,
        description="file with the password; read again when the server does not accept it any "
        "more, like all files with secrets",
    )
    token_file: str | None = Field(
        None, description="file with a bearer token, instead of a name and a password"
    )
    headers: dict[str, str] = Field(
        default_factory=dict,
        description='headers of every request, such as { X-Scope-OrgID = "tenant" }',
    )
    header_files: dict[str, str] = Field(
        default_factory=dict,
        description="headers whose values are secret, each with the file that its value is in",
    )
    batch_size: int = Field(
        2000,
        ge=1,
        le=100_000,
        description="most series in a request, with up to "
        f"{MOST_SAMPLES_PER_SERIES} samples of each; more are sent in several",
    )
    job: str = Field(
        "telemetryd", min_length=1, description="the label `job`, as of a scrape with this name"
    )
    instance: str | None = Field(
        None, min_length=1, description="the label `instance`; unset: the name of this machine"
    )

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        parts = split_address(value, _EXAMPLE, "username and password_file")
        if parts.fragment:
            raise ValueError("write nothing behind a #")
        if parts.path in {"", "/"}:
            raise ValueError(f'write the whole address with its path, such as "{_EXAMPLE}"')
        return value

    @field_validator("headers", "header_files")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        check_names(value)
        return value

    @field_validator("headers")
    @classmethod
    def _values(cls, value: dict[str, str]) -> dict[str, str]:
        check_values(value)
        return value

    @model_validator(mode="after")
    def _one_way_to_be_known(self) -> RemoteWriteConfig:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file need each other")
        if self.username is not None and (":" in self.username or not self.username.isprintable()):
            raise ValueError("username cannot have a colon in it, nor what cannot be printed")
        files = {name.lower() for name in self.header_files}
        ways = [self.username is not None, self.token_file is not None, "authorization" in files]
        if sum(ways) > 1:
            raise ValueError(
                "choose one: username with password_file, token_file, or Authorization in "
                "header_files"
            )
        if twice := files & {name.lower() for name in self.headers}:
            raise ValueError(f"{min(twice)} is in headers and in header_files: leave one out")
        return self

    @property
    def flush_points(self) -> int:
        return self.batch_size * MOST_SAMPLES_PER_SERIES


class RemoteWrite(PushExporter):
    """Raises Unavailable if a TLS file cannot be used. A secret that cannot be read yet is waited
    for, like a server that is down."""

    Config: ClassVar[type[ExporterConfig]] = RemoteWriteConfig

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
        assert isinstance(config, RemoteWriteConfig)
        try:
            from telemetryd.exporters.remote_write_transport import Transport  # noqa: PLC0415
        except ImportError as error:
            raise Unavailable(
                f"urllib3 or cramjam cannot be imported: {error}",
                "install the Python packages urllib3 and cramjam, or set "
                f"exporters.{name}.enabled = false",
            ) from error
        clock = clock or Clock()
        self._transport = Transport(name, config, clock)
        encoder = Encoder(
            {**labels, "job": config.job, "instance": config.instance or socket.gethostname()},
            config.chooser(),
            config.batch_size,
            count_drops(name, instruments),
            clock,
            config.resolution,
        )
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

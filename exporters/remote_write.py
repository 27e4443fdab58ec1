"""Push by Prometheus remote write 1.0: Prometheus, VictoriaMetrics, Mimir, Thanos Receive and many
more take it.

urllib3 does the HTTP and cramjam the compression; both are imported only when this exporter is
made. What is sent, when, and what follows from an answer is decided in telemetryd.delivery.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator, model_validator

from telemetryd.clock import Clock
from telemetryd.delivery.headers import check_names, check_values
from telemetryd.delivery.http_config import HttpConfig, split_address
from telemetryd.delivery.http_exporter import HttpExporter
from telemetryd.delivery.queue import OnDrop
from telemetryd.delivery.writer import Encode
from telemetryd.exporter import ExporterConfig
from telemetryd.exporters.remote_write_encoder import Encoder
from telemetryd.exporters.remote_write_run import MOST_SAMPLES_PER_SERIES

if TYPE_CHECKING:
    from telemetryd.delivery.http import HttpDestination

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


class RemoteWrite(HttpExporter):
    Config: ClassVar[type[ExporterConfig]] = RemoteWriteConfig
    kind = "remote_write"
    packages = "urllib3 and cramjam"
    config: RemoteWriteConfig

    def _connect(self, clock: Clock) -> HttpDestination:
        from telemetryd.exporters.remote_write_transport import Transport  # noqa: PLC0415

        return Transport(self.name, self.config, clock)

    def _encoder(self, on_drop: OnDrop, clock: Clock) -> Encode:
        config = self.config
        return Encoder(
            {**self.labels, "job": config.job, "instance": config.instance or socket.gethostname()},
            config.chooser(),
            config.batch_size,
            on_drop,
            clock,
            config.resolution,
        ).encode

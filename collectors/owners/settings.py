"""What [collectors.owners] can be told."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from telemetryd.collector import CollectorConfig
from telemetryd.duration import Seconds


class OwnersConfig(CollectorConfig):
    """[collectors.owners]; who is an owner, [host] says for all collectors."""

    interval: Seconds = Field(
        5.0,
        ge=0.05,
        le=3600,
        description="time between two samples; energy goes by windows of 60 s",
    )
    max_owners: int = Field(
        500,
        ge=1,
        le=5000,
        description="owners with series of their own: those that hold a GPU, and those that used "
        'the most CPU time lately; the rest is summed in owner_kind="other". Three series each: '
        "above 1600, raise max_series too",
    )
    scontrol: bool = Field(
        False,
        description="ask scontrol once for each new Slurm job: its name, user, partition and GPUs",
    )
    scontrol_command: str = Field(
        "scontrol", min_length=1, description="the program, by name on the PATH or by its full path"
    )
    kubelet_url: str | None = Field(
        None,
        description="ask this kubelet for names and namespaces of pods, such as "
        '"https://127.0.0.1:10250", or "http://127.0.0.1:10255"',
    )
    kubelet_token_file: str | None = Field(
        None,
        pattern="^/",
        description="file with the token to show to the kubelet; only with https",
    )
    kubelet_ca_file: str | None = Field(
        None,
        pattern="^/",
        description="certificates to check the kubelet's with; unset: those of the system",
    )
    kubelet_verify: bool = Field(
        True,
        description="check the kubelet's certificate; false if it signed that itself, which is "
        "safe on the loopback address only",
    )

    @field_validator("kubelet_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            fits = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            fits = False
        if not fits or parts.path.strip("/") or parts.query or parts.username is not None:
            raise ValueError("write http:// or https://, host and port: https://127.0.0.1:10250")
        return url

    @model_validator(mode="after")
    def _shows_the_token_to_nobody_else(self) -> Self:
        if self.kubelet_token_file and not (self.kubelet_url or "").startswith("https://"):
            raise ValueError("kubelet_token_file: a token is only sent to an https:// kubelet_url")
        return self

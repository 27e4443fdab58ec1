"""What every destination over HTTP can be told besides what all destinations can."""

from __future__ import annotations

from typing import Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, model_validator

from telemetryd.delivery.push_config import PushConfig


class HttpConfig(PushConfig):
    """The address, and the keys of TLS."""

    url: str = Field(description="where the server listens")
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

    @model_validator(mode="after")
    def _key_has_a_certificate(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file, the certificate that the key is for")
        return self


def split_address(value: str, example: str, secrets: str) -> SplitResult:
    """The parts of an address. Raises ValueError for what cannot be meant; the message names
    `example`, and `secrets` as the place for what must not stand in an address."""
    parts = urlsplit(value)
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"write no name and password here, but {secrets}")
    plain = value.isascii() and value.isprintable() and " " not in value
    if parts.scheme not in {"http", "https"} or not parts.hostname or not plain:
        raise ValueError(f'write http:// or https://, host and port, such as "{example}"')
    if parts.port == 0:
        raise ValueError("port 0 is no port")
    return parts

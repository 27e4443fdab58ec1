"""[collectors.redfish]"""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from telemetryd.collector import CollectorConfig
from telemetryd.duration import Seconds


class RedfishConfig(CollectorConfig):
    """[collectors.redfish]: unset `url` leaves it alone."""

    interval: Seconds = Field(
        30.0,
        ge=5,
        le=3600,
        description="time between two samples; a BMC takes a second for each of several requests",
    )
    url: str | None = Field(
        None, description='where the BMC answers, such as "https://10.0.0.7"; unset: not asked'
    )
    username: str | None = Field(
        None,
        min_length=1,
        description="account to log in with; the role ReadOnly is enough; unset: no login",
    )
    password_file: str | None = Field(
        None, description="file with its password; read again at each login"
    )
    ca_file: str | None = Field(
        None,
        description="PEM file of the authority that signed the BMC's certificate, or of that "
        "certificate itself if it is self-signed; unset: those of the system",
    )
    verify: bool = Field(
        True, description="false accepts any certificate, and so whoever answers in its place"
    )
    timeout: Seconds = Field(10.0, ge=0.5, le=60, description="longest wait for one answer")
    chassis: tuple[str, ...] = Field(
        (),
        description="ids of the chassis that are this machine; unset: those that hold no part "
        "of it only, such as a GPU baseboard, and not other machines too",
    )

    @field_validator("url")
    @classmethod
    def _base(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            # Reading `port` checks it.
            is_base = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError as error:
            raise ValueError(f"write https://address or https://address:port: {error}") from error
        if parts.username is not None or parts.password is not None:
            raise ValueError("write the account in username and its password in password_file")
        if not is_base or parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError('write https://address or https://address:port, such as "https://bmc"')
        return value.rstrip("/")

    @model_validator(mode="after")
    def _both_or_none(self) -> RedfishConfig:
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together: write both or none")
        return self

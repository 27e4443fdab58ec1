"""What [collectors.ipmi] can say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from telemetryd.collector import CollectorConfig
from telemetryd.duration import Seconds
from telemetryd.lane import LONGEST_DEADLINE_S


class IpmiConfig(CollectorConfig):
    """[collectors.ipmi]: reads `file`, or asks `host`."""

    interval: Seconds = Field(
        30.0, ge=5, le=3600, description="time between two samples; many BMCs measure no faster"
    )
    file: str = Field(
        # Not in telemetryd's own runtime folder: root writes it, and must not be led astray by
        # what the daemon's user could put there.
        "/run/telemetryd-ipmi/power",
        pattern="^/",
        description="what telemetryd-ipmi.service wrote: the output of ipmitool or ipmi-dcmi",
    )
    max_age: Seconds = Field(
        90.0, ge=1, le=3600, description="a file that was written longer ago is not used"
    )
    host: str | None = Field(
        None,
        # FreeIPMI takes brackets and commas for several hosts.
        pattern=r"^[A-Za-z0-9:][A-Za-z0-9:._-]*\z",
        description="name or address of the BMC to ask over the network, instead of reading `file`",
    )
    port: int = Field(623, ge=1, le=65535, description="UDP port of the BMC")
    username: str | None = Field(
        None, pattern=r"^[ -~]{1,16}\z", description="user of the BMC: one that may only read"
    )
    password_file: str | None = Field(
        None, pattern="^/", description="file with the user's password on its only line"
    )
    command: Literal["ipmitool", "ipmi-dcmi"] = Field(
        "ipmitool", description="program that asks `host`; ipmi-dcmi is FreeIPMI's"
    )
    cipher_suite: int | None = Field(
        None,
        ge=1,
        le=17,
        description="IPMI 2.0 cipher suite, such as 17; unset: ipmitool takes the best that the "
        "BMC offers, ipmi-dcmi takes 3",
    )
    privilege: Literal["user", "operator", "administrator"] = Field(
        "user", description="privilege to ask the BMC for; reading needs no more than user"
    )
    timeout: Seconds = Field(
        4.0,
        ge=0.1,
        # A lane gives up a collector that takes longer.
        le=LONGEST_DEADLINE_S - 0.5,
        description="longest time to ask `host`; the program is killed then",
    )
    boundary: Literal["enclosing", "subcomponent"] = Field(
        "enclosing",
        description='"subcomponent" if the board leaves GPUs out: it is then not taken for the '
        "node's input",
    )

    @model_validator(mode="after")
    def _one_way(self) -> IpmiConfig:
        if self.host is None:
            if self.username is not None or self.password_file is not None:
                raise ValueError("username and password_file are for a host: name it, too")
        elif self.username is None or self.password_file is None:
            raise ValueError("a host needs username and password_file")
        elif "file" in self.model_fields_set:
            raise ValueError("name a file to read or a host to ask, not both")
        return self

"""Where points wait for their destinations, and how many may."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, field_validator

from telemetryd.duration import Bytes, Seconds

_STATE_DIRECTORY = "STATE_DIRECTORY"
_NAME = "spool"


class SpoolConfig(BaseModel):
    """[spool]: where points wait for their destinations. Each bound is for each destination."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    enabled: bool = Field(
        True, description="false keeps what waits in memory, where it is lost with the process"
    )
    directory: str | None = Field(
        None,
        description="where to keep it, one folder in it for each destination; unset: the folder "
        "`spool` in the one that systemd makes for the service, and memory where there is none",
    )
    bytes: Bytes = Field(
        2 << 30,
        ge=1 << 20,
        description="most bytes on disk for a destination, then the oldest are dropped; in a file "
        "system that lies in memory it is 128 MiB at most",
    )
    age: Seconds = Field(
        86400.0, ge=60, le=366 * 86400, description="what has waited for longer is dropped"
    )
    free: Bytes | None = Field(
        None,
        ge=0,
        description="free space of the disk that is left to others; unset: 5 % of it, 1 GiB at "
        "most",
    )
    quarantine_bytes: Bytes = Field(
        64 << 20,
        ge=0,
        description="most bytes of what a destination refused, kept for `telemetryd spool "
        "quarantine`; then the oldest are deleted",
    )

    @field_validator("directory")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not os.path.isabs(value):
            raise ValueError('write an absolute path, such as "/var/lib/telemetryd/spool"')
        return value

    def place(self, environ: Mapping[str, str]) -> str | None:
        """The directory to use; None where there is none to be had. systemd separates several
        state directories by colons, the first is ours."""
        if not self.enabled or self.directory is not None:
            return self.directory if self.enabled else None
        state = environ.get(_STATE_DIRECTORY, "").partition(":")[0]
        return os.path.join(state, _NAME) if state else None

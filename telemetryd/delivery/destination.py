"""Where bodies go: what a destination is asked, and what it may answer."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from telemetryd.delivery.queue import Body


class Outcome(enum.Enum):
    """What became of a request; the value is the label of telemetryd_exporter_requests_total."""

    OK = "ok"
    RETRY = "retry"
    UNAUTHORIZED = "unauthorized"
    MISSING = "missing"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    TOO_OLD = "too_old"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, and what is known of the answer.

    `detail`: its words, for the log and the quarantine. `retry_after`: the seconds of a
    Retry-After. `status`: of HTTP, 0 if no answer came. `server_ns`: its Date, in nanoseconds
    since 1970. `taken`: how many points the destination took although it refused the body. Where
    only an operator can help, `url` is where the request went, without what may be secret, and
    `remedy` what `doctor` says of it.
    """

    outcome: Outcome
    detail: str = ""
    retry_after: float | None = None
    status: int = 0
    server_ns: int | None = None
    taken: int | None = None
    url: str = ""
    remedy: str = ""

    @property
    def advice(self) -> str:
        """What a line of the log says of that; nothing where there is none."""
        remedy = self.remedy.replace('"', "'")
        return f' url={self.url} remedy="{remedy}"' if remedy else ""


class Destination(Protocol):
    """Where bodies go. Nothing here raises."""

    def send(self, body: Body, timeout: float | None = None) -> Verdict:
        """Send once. `timeout` in seconds shortens the usual one, never lengthens it."""

    def probe(self, timeout: float | None = None) -> Verdict:
        """A request that writes nothing, and that is answered wherever a body would be. OK: the
        destination is up, whatever it thinks of the request itself; with its Date, if it has
        one."""

    def halve(self, body: Body) -> Sequence[Body]:
        """Two bodies with the same points; none if there is only one."""

    def renew(self) -> bool:
        """Read the credentials again; True if they are different now."""

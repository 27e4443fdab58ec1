"""What an HTTP server answered to a body, and what follows from it.

Not imported before a destination over HTTP is made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus

from telemetryd.delivery.backoff import parse_retry_after
from telemetryd.delivery.destination import Outcome, Verdict

# Of an answer, in bytes: enough for an error message. The rest is not read.
LONGEST = 4096
# Of that, in characters, what is logged.
_LONGEST_DETAIL = 300

_OUTCOMES = {
    400: Outcome.REFUSED,
    401: Outcome.UNAUTHORIZED,
    403: Outcome.UNAUTHORIZED,
    408: Outcome.RETRY,
    # Thanos Receive: the series have these samples, or newer ones.
    409: Outcome.TOO_OLD,
    413: Outcome.TOO_LARGE,
    422: Outcome.REFUSED,
    425: Outcome.RETRY,
    429: Outcome.RETRY,
}
# Words that say that points come too late: no part of the body is any better. Of InfluxDB 1 and 2;
# Prometheus (storage/interface.go), Thanos, Cortex; Mimir (pkg/util/globalerror/user.go).
_TOO_OLD = re.compile(
    r"(?:beyond|outside) retention policy"
    r"|out of order|out of bounds|too old|duplicate sample"
    r"|err-mimir-sample-(?:out-of-order|timestamp-too-old|duplicate-timestamp)",
    re.IGNORECASE,
)
# Prometheus 2.42 and InfluxDB 2.0 answer 500 to some of these, and would do so for ever. Most that
# answer 500 have a fault that passes, so these are their very words.
_TOO_OLD_FOR_EVER = re.compile(
    r"too old sample|out of order sample|duplicate sample for timestamp"
    r"|partial write: points beyond retention policy"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """`text` is the error message, `headers` are found whatever the case of their names. Status 0:
    nothing came, and `error` says why."""

    status: int
    text: str
    headers: Mapping[str, str]
    error: Exception | None = None

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes) -> Answer:
        """The answer with this body, or as much of it as was read."""
        return cls(status, message(body), headers)

    @classmethod
    def none(cls, error: Exception) -> Answer:
        """No answer came."""
        return cls(0, str(error) or type(error).__name__, {}, error)

    @property
    def outcome(self) -> Outcome:
        if 200 <= self.status < 300:
            return Outcome.OK
        if self.status == HTTPStatus.INTERNAL_SERVER_ERROR and _TOO_OLD_FOR_EVER.search(self.text):
            return Outcome.TOO_OLD
        if self.status == 0 or self.status >= 500:
            return Outcome.RETRY
        outcome = _OUTCOMES.get(self.status, Outcome.MISSING)
        if outcome is Outcome.REFUSED and _TOO_OLD.search(self.text):
            return Outcome.TOO_OLD
        return outcome

    @property
    def server_ns(self) -> int | None:
        """What time it is there: the Date header, in nanoseconds since 1970."""
        try:
            date = parsedate_to_datetime(self.headers.get("Date", ""))
        except (ValueError, OverflowError):
            return None
        if date.tzinfo is None:  # "-0000": the time is UTC, the zone is not told
            date = date.replace(tzinfo=UTC)
        return int(date.timestamp()) * 1_000_000_000

    def verdict(self, wall_s: float, taken: int | None = None) -> Verdict:
        """What the sender is told; `wall_s` is the time here, in seconds since 1970."""
        return Verdict(
            self.outcome,
            str(self),
            parse_retry_after(self.headers.get("Retry-After"), wall_s),
            self.status,
            self.server_ns,
            taken,
        )

    def __str__(self) -> str:
        shown = f"{self.status} {self.text}" if self.status else self.text
        if 300 <= self.status < 400:
            shown = f"{self.status} redirects to {self.headers.get('Location', '?')}"
        return " ".join(shown[:_LONGEST_DETAIL].split())


def message(body: bytes) -> str:
    """The words of an error: of JSON its `message` or `error`, else the whole text."""
    text = body.decode("utf-8", "replace")
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(told, dict):
        for key in ("message", "error"):
            if isinstance(told.get(key), str) and told[key]:
                return str(told[key])
    return text

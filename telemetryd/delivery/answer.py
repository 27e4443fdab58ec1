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
# What a browser shows. Of a body without a type, only its begin tells.
_PAGE_TYPE = re.compile(r"\s*(?:text/html|application/xhtml\+xml)\b", re.IGNORECASE)
_PAGE = re.compile(r"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)


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
    def is_page(self) -> bool:
        """A success that no receiver of points has told: a page for people, such as that of a web
        server, of a proxy, or the login of a network. There is none in a 204."""
        if not self._is_success or self.status == HTTPStatus.NO_CONTENT:
            return False
        return bool(
            _PAGE_TYPE.match(self.headers.get("Content-Type", "")) or _PAGE.match(self.text)
        )

    @property
    def is_cut(self) -> bool:
        """A success without any header, which ended too early: every server sends some. A 204
        has nothing behind it that could change what it says."""
        return self._is_success and self.status != HTTPStatus.NO_CONTENT and not self.headers

    @property
    def _is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def outcome(self) -> Outcome:
        if self.is_cut:
            return Outcome.RETRY
        if self.is_page:
            return Outcome.MISSING
        if self._is_success:
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
        """What time it is there: the Date header, in nanoseconds since 1970. That of a page is not
        the receiver's."""
        if self.is_page:
            return None
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
        # Go's servers begin their text with the status.
        is_told = self.text.split(None, 1)[:1] == [str(self.status)] or not self.status
        shown = self.text if is_told else f"{self.status} {self.text}"
        if self.is_cut:
            shown = f"{self.status} without any header: the answer was cut off"
        elif self.is_page:
            shown = f"{self.status} with a web page: no receiver is there"
        elif 300 <= self.status < 400:
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

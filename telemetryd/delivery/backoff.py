"""How long to wait before trying again.

Exponential with full jitter: each wait is drawn evenly between nothing and a bound that doubles
from 0.5 s to 60 s, so that many nodes that lost the same server do not come back all at once.
"""

from __future__ import annotations

import random as _random
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime

FIRST_S = 0.5
LONGEST_S = 60.0
# A server that asks for more is asked again after this.
LONGEST_RETRY_AFTER_S = 300.0


class Backoff:
    """The waits after failures in a row; `random` gives numbers in [0, 1)."""

    def __init__(self, random: Callable[[], float] = _random.random) -> None:
        self._random = random
        self._bound = FIRST_S

    def after_failure(self, retry_after: float | None = None) -> float:
        """Seconds to wait now: at least what the server asked for with Retry-After. One that asks
        for 0 again and again is not taken at its word."""
        wait = self._random() * self._bound
        self._bound = min(2 * self._bound, LONGEST_S)
        return max(wait, min(retry_after or 0.0, LONGEST_RETRY_AFTER_S))

    def reset(self) -> None:
        """It worked: the next failure begins anew."""
        self._bound = FIRST_S


def parse_retry_after(header: str | None, wall_s: float) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date seen from `wall_s` (seconds
    since 1970). None if there is no header or it is neither (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        # Few digits are enough to be over the limit, and many would overflow a float.
        return float(text[:10])
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # "-0000": the time is UTC, the zone is not told
            date = date.replace(tzinfo=UTC)
        return max(date.timestamp() - wall_s, 0.0)
    except (ValueError, OverflowError):
        return None

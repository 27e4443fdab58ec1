"""Sends what a queue holds, one body after the other, and decides what each answer means.

ok            forget the body
retry         keep it, wait: exponential with full jitter, or what Retry-After asks for
unauthorized  keep it, read the credentials again; at once if they changed, else every 60 s
missing       keep it, try every 60 s: nothing takes points at that address, which is for the
              operator to mend
too_large     halve it
refused       halve it, down to the points that are refused, which are dropped; with at most 64
              requests for one body: as these run out, larger parts are dropped
too_old       drop it: no part of it is ever going to be taken

Head first, always: bodies arrive in the order in which their points were read.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from telemetryd.clock import Clock
from telemetryd.delivery.backoff import Backoff
from telemetryd.delivery.queue import Body, Queue
from telemetryd.instruments import PUSH_LAST_SUCCESS, PUSH_POINTS, PUSH_REQUESTS, Instruments

# For what only an operator can mend.
PATIENCE_S = 60.0
# Finding k bad points among n takes at most k * (2 * ceil(log2(n)) + 2) requests.
MOST_REQUESTS_PER_BODY = 64
# Characters of a dropped body that are logged.
_SHOWN = 200

_log = logging.getLogger("telemetryd.delivery")


class Outcome(enum.Enum):
    """What became of a request; the value is the label of telemetryd_push_requests_total."""

    OK = "ok"
    RETRY = "retry"
    UNAUTHORIZED = "unauthorized"
    MISSING = "missing"
    TOO_LARGE = "too_large"
    REFUSED = "refused"
    TOO_OLD = "too_old"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, what was answered (for the log), and the seconds of a Retry-After."""

    outcome: Outcome
    detail: str = ""
    retry_after: float | None = None


class Destination(Protocol):
    """Where bodies go. Nothing here raises."""

    def send(self, body: Body, timeout: float | None = None) -> Verdict:
        """Send once. `timeout` in seconds shortens the usual one, never lengthens it."""

    def halve(self, body: Body) -> Sequence[Body]:
        """Two bodies with the same points; none if there is only one."""

    def renew(self) -> bool:
        """Read the credentials again; True if they are different now."""


class Sender:
    """Works off `queue` towards `destination`; `name` is the label of its instruments."""

    def __init__(
        self,
        name: str,
        queue: Queue,
        destination: Destination,
        instruments: Instruments,
        clock: Clock,
        backoff: Backoff,
    ) -> None:
        self.due_ns = clock.mono_ns()
        self._name = name
        self._queue = queue
        self._destination = destination
        self._instruments = instruments
        self._clock = clock
        self._backoff = backoff
        self._renewed = False
        self._failing_since_ns: int | None = None
        self._requests_left = MOST_REQUESTS_PER_BODY

    @property
    def is_due(self) -> bool:
        """Whether there is something to send, and the wait before it is over."""
        return len(self._queue) > 0 and self._clock.mono_ns() >= self.due_ns

    def step(self, timeout: float | None = None) -> Outcome | None:
        """Send the head once, due or not, and act on the answer. None if the queue is empty."""
        body = self._queue.peek()
        if body is None:
            return None
        if not self._queue.parts:
            self._requests_left = MOST_REQUESTS_PER_BODY
        verdict = self._destination.send(body, timeout)
        self._instruments.count(PUSH_REQUESTS, self._name, verdict.outcome.value)
        self.due_ns = self._clock.mono_ns()
        match verdict.outcome:
            case Outcome.OK:
                self._delivered(body)
            case Outcome.RETRY:
                self._wait(self._backoff.after_failure(verdict.retry_after), verdict)
            case Outcome.UNAUTHORIZED:
                self._unauthorized(verdict)
            case Outcome.MISSING:
                self._wait(PATIENCE_S, verdict)
            case Outcome.TOO_LARGE:
                self._narrow(body, verdict, allowed=True)
            case Outcome.REFUSED:
                self._requests_left -= 1
                # Each part that is waiting has to be sent once, and the halves are one more.
                allowed = self._requests_left > (self._queue.parts or 1)
                self._narrow(body, verdict, allowed=allowed)
            case Outcome.TOO_OLD:
                self._drop(body, verdict)
        return verdict.outcome

    def _delivered(self, body: Body) -> None:
        self._queue.acknowledge()
        self._requests_left -= 1
        self._backoff.reset()
        self._renewed = False
        self._instruments.count(PUSH_POINTS, self._name, by=body.points)
        self._instruments.set(PUSH_LAST_SUCCESS, self._name, to=self._clock.wall_ns() / 1e9)
        if self._failing_since_ns is not None:
            seconds = (self._clock.mono_ns() - self._failing_since_ns) / 1e9
            self._failing_since_ns = None
            _log.info('msg="push works again" destination=%s after=%.0fs', self._name, seconds)

    def _unauthorized(self, verdict: Verdict) -> None:
        if self._destination.renew() and not self._renewed:
            self._renewed = True
            return
        self._renewed = False
        self._wait(PATIENCE_S, verdict)

    def _wait(self, seconds: float, verdict: Verdict) -> None:
        now_ns = self._clock.mono_ns()
        self.due_ns = now_ns + int(seconds * 1e9)
        if self._failing_since_ns is None:
            self._failing_since_ns = now_ns
        self._warn("push failed, points are kept", verdict, f" again_in={seconds:.1f}s")

    def _narrow(self, body: Body, verdict: Verdict, *, allowed: bool) -> None:
        """Find out which points are to blame, or drop the body if that is all of them."""
        halves = self._destination.halve(body) if allowed else ()
        if halves:
            self._queue.split(halves)
            return
        self._drop(body, verdict)

    def _drop(self, body: Body, verdict: Verdict) -> None:
        first = body.data[:_SHOWN].decode("utf-8", "replace")
        self._warn("points dropped", verdict, f" points={body.points} first={first!r}")
        self._queue.drop(verdict.outcome.value)

    def _warn(self, what: str, verdict: Verdict, more: str) -> None:
        self._instruments.warn(
            f"{self._name}/{what}/{verdict.outcome.value}",
            f'msg="{what}" destination={self._name} outcome={verdict.outcome.value} '
            f'answer="{verdict.detail}"{more}',
        )

"""Sends what a queue holds, one body after the other, and decides what each answer means.

ok            forget the body
retry         keep it, wait: exponential with full jitter, or as long as Retry-After asks for; one
              that gets nothing but 5xx while others are taken goes to quarantine (stuck.py)
unauthorized  keep it, read the credentials again; at once if they changed, else every 60 s
missing       the same: nothing takes points at that address, or not from us
too_large     halve it; a point that is too large alone goes to quarantine
refused       halve it, down to the points that are refused, which go to quarantine; with at most
              64 requests for one body: as these run out, larger parts go there (search.py)
too_old       drop it: no part of it is ever going to be taken

Head first: bodies arrive in the order in which their points were read, except those that are dated
ahead of the destination's clock (ahead.py), and those that make it fail.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from telemetryd.clock import Clock
from telemetryd.delivery.ahead import Ahead
from telemetryd.delivery.backoff import Backoff
from telemetryd.delivery.counts import BLOCKS, STUCK
from telemetryd.delivery.destination import Destination, Outcome, Verdict
from telemetryd.delivery.queue import Body, Queue
from telemetryd.delivery.refusals import Refusals
from telemetryd.delivery.search import Search
from telemetryd.delivery.server_clock import ServerClock
from telemetryd.delivery.stuck import Next, Stuck
from telemetryd.delivery.tally import Tally
from telemetryd.instruments import Instruments

# For what only an operator can mend, and for what only time can tell.
PATIENCE_S = 60.0
# There is nothing to do: whoever puts a body wakes the thread.
_IDLE_NS = 3600 * 10**9

_FAILURES = frozenset({Outcome.RETRY, Outcome.UNAUTHORIZED, Outcome.MISSING})

_log = logging.getLogger("telemetryd.delivery")


class Sender:
    """Works off `queue` towards `destination`; `name` is the label of its instruments.

    One thread calls `turn` and `finish`, another one may `abandon` it while the destination hangs.
    """

    def __init__(
        self,
        name: str,
        queue: Queue,
        destination: Destination,
        instruments: Instruments,
        clock: Clock,
        backoff: Backoff,
        server: ServerClock,
        refusals: Refusals,
    ) -> None:
        self._name = name
        self._queue = queue
        self._destination = destination
        self._clock = clock
        self._backoff = backoff
        self._server = server
        self._tally = Tally(name, instruments, clock, server)
        self._refusals = refusals
        self._ahead = Ahead(name, queue, server, instruments)
        self._stuck = Stuck(queue, clock)
        self._search = Search()
        self._search_of: int | None = None
        self._due_ns = clock.mono_ns()
        self._probe_due_ns = self._due_ns
        self._is_recalled = False
        self._is_introduced = False
        self._is_renewed = False
        # The body whose last request failed, other than with a 5xx.
        self._failed: int | None = None
        self._failing_since_ns: int | None = None
        # Held whenever the queue is used, not while the destination is asked.
        self._lock = threading.Lock()
        self._is_abandoned = False

    def turn(self, timeout: float | None = None) -> int:
        """Do one thing, if it is due; returns the monotonic moment at which something is due
        again. `timeout` in seconds shortens that of a request."""
        with self._lock:
            if self._is_abandoned:
                return self._now_ns() + _IDLE_NS
            self._tally.skew()
            if self._now_ns() < self._due_ns:
                return self._due_ns
            try:
                return self._do_next(timeout)
            except _AbandonedError:
                return self._now_ns() + _IDLE_NS

    def finish(self, deadline_ns: int) -> None:
        """Send what waits, until this monotonic moment or the first failure. What is safe on disk
        is left to the next start if the destination fails already."""
        with self._lock:
            is_failing = self._failing_since_ns is not None
            if self._is_abandoned or (is_failing and self._queue.is_durable):
                return
            self._due_ns = self._now_ns()
        while (left_ns := deadline_ns - self._now_ns()) > 0:
            if self.turn(left_ns / 1e9) > self._now_ns():
                return

    def abandon(self) -> None:
        """Use the queue no more from now on, even if an answer still comes."""
        with self._lock:
            self._is_abandoned = True

    def _now_ns(self) -> int:
        return self._clock.mono_ns()

    def _do_next(self, timeout: float | None) -> int:
        if not self._is_recalled:
            # Why they were set aside was known to the process that did it.
            for aside in reversed(self._queue.aside):
                self._queue.take_back(aside)
            self._is_recalled = True
        self._ahead.release()
        body, number = self._queue.peek(), self._queue.head
        if body is None or number is None:
            return self._rest(timeout)
        if self._is_introduced or self._introduce(number, timeout):
            if self._server.wait_ns(body.newest_ns) and self._is_ahead(body, timeout):
                self._ahead.hold(number, body.newest_ns)
            else:
                self._send(number, body, timeout)
        return self._due_ns

    def _rest(self, timeout: float | None) -> int:
        """Nothing can be sent now."""
        if self._stuck.is_passing:
            self._stuck.take_back()
            self._due_ns = self._now_ns() + int(PATIENCE_S * 1e9)
            return self._due_ns
        if not len(self._ahead):
            return self._now_ns() + _IDLE_NS
        if self._now_ns() >= self._probe_due_ns:
            self._probe(timeout)
            if self._ahead.release():
                return self._now_ns()
        return min(self._probe_due_ns, self._now_ns() + self._ahead.wait_ns())

    # What is asked

    def _send(self, number: int, body: Body, timeout: float | None) -> None:
        is_up = False
        if self._stuck.is_ripe(number) and not self._stuck.is_passing:
            is_up = self._probe(timeout).outcome is Outcome.OK
        if number == self._failed or number in self._stuck:
            self._tally.retry()
        verdict = self._ask(lambda: self._destination.send(body, timeout))
        self._tally.request(verdict)
        self._act(number, body, verdict, is_up=is_up)

    def _introduce(self, number: int, timeout: float | None) -> bool:
        """Learn the destination's time before it is told anything; False if it is not there."""
        verdict = self._probe(timeout)
        if verdict.status or verdict.outcome is Outcome.OK:
            self._is_introduced = True
            return True
        self._tally.request(verdict)
        self._put_off(number, verdict)
        return False

    def _is_ahead(self, body: Body, timeout: float | None) -> bool:
        """Whether the destination's time has not come to that of `body`. It is asked before the
        first one is held: the monotonic clock misses the time in which the machine is suspended."""
        if not len(self._ahead):
            self._probe(timeout)
        return self._server.wait_ns(body.newest_ns) > 0

    def _probe(self, timeout: float | None) -> Verdict:
        verdict = self._ask(lambda: self._destination.probe(timeout))
        self._probe_due_ns = self._now_ns() + int(PATIENCE_S * 1e9)
        self._tally.learn(verdict)
        return verdict

    def _ask(self, call: Callable[[], Verdict]) -> Verdict:
        """Let go of the lock while the destination takes its time."""
        self._lock.release()
        try:
            verdict = call()
        finally:
            self._lock.acquire()
        if self._is_abandoned:
            raise _AbandonedError
        return verdict

    # What was answered

    def _act(self, number: int, body: Body, verdict: Verdict, *, is_up: bool) -> None:
        self._due_ns = self._now_ns()
        self._failed = None
        if verdict.outcome not in _FAILURES:
            self._recovered()
        if number != self._search_of or not self._queue.parts:
            self._search, self._search_of = Search(), number
        match verdict.outcome:
            case Outcome.OK:
                self._delivered(number, body)
            case Outcome.RETRY if verdict.status >= 500:
                self._act_on_5xx(number, body, verdict, is_up=is_up)
            case Outcome.RETRY | Outcome.UNAUTHORIZED | Outcome.MISSING:
                self._stuck.interrupted()
                self._put_off(number, verdict)
            case Outcome.TOO_LARGE:
                self._narrow(number, body, verdict, allowed=True)
            case Outcome.REFUSED:
                self._narrow(number, body, verdict, allowed=self._search.refused())
            case Outcome.TOO_OLD:
                self._give_up(number, body, verdict, verdict.outcome.value)

    def _delivered(self, number: int, body: Body) -> None:
        self._queue.acknowledge()
        self._search.taken()
        self._stuck.answered(number, is_delivered=True)
        self._tally.delivered(body.points)

    def _recovered(self) -> None:
        """It is there, and has an opinion about what it is sent."""
        self._backoff.reset()
        self._is_renewed = False
        if self._failing_since_ns is not None:
            seconds = (self._now_ns() - self._failing_since_ns) / 1e9
            self._failing_since_ns = None
            _log.info('msg="push works again" destination=%s after=%.0fs', self._name, seconds)

    def _act_on_5xx(self, number: int, body: Body, verdict: Verdict, *, is_up: bool) -> None:
        match self._stuck.failed(number, is_up=is_up):
            case Next.WAIT:
                self._back_off(verdict)
            case Next.REST:
                self._wait(PATIENCE_S, verdict)
            case Next.QUARANTINE:
                self._give_up(number, body, verdict, STUCK)
            case Next.PASS:
                pass

    def _put_off(self, number: int, verdict: Verdict) -> None:
        self._failed = number
        if verdict.outcome.value in BLOCKS:
            self._blocked(verdict)
        else:
            self._back_off(verdict)

    def _back_off(self, verdict: Verdict) -> None:
        self._wait(self._backoff.after_failure(verdict.retry_after), verdict)

    def _blocked(self, verdict: Verdict) -> None:
        if self._destination.renew() and not self._is_renewed:
            self._is_renewed = True
            self._due_ns = self._now_ns()
            return
        self._is_renewed = False
        self._wait(PATIENCE_S, verdict)

    def _wait(self, seconds: float, verdict: Verdict) -> None:
        now_ns = self._now_ns()
        self._due_ns = now_ns + int(seconds * 1e9)
        if self._failing_since_ns is None:
            self._failing_since_ns = now_ns
        more = f" again_in={seconds:.1f}s{verdict.advice}"
        self._refusals.warn("push failed, points are kept", verdict, more)

    def _narrow(self, number: int, body: Body, verdict: Verdict, *, allowed: bool) -> None:
        """Find out which points are to blame, or give the body up if that is all of them."""
        halves = self._destination.halve(body) if allowed else ()
        if not halves:
            self._give_up(number, body, verdict, verdict.outcome.value)
            return
        self._queue.split(halves)
        self._search.halved()
        self._stuck.answered(number, is_delivered=False)

    def _give_up(self, number: int, body: Body, verdict: Verdict, reason: str) -> None:
        if taken := self._refusals.give_up(body, verdict, reason):
            self._tally.delivered(taken)
        self._search.done()
        self._stuck.answered(number, is_delivered=False)


class _AbandonedError(Exception):
    """The answer comes too late."""

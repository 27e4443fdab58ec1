"""Bodies that make the destination fail, so that nothing behind them would ever arrive.

A server that answers 500 may be in trouble, or it may be this one body that it cannot stomach
(Prometheus 2.42 answers 500 to a label that comes twice, for ever). From outside both look alike
until something else succeeds. So the head that has had nothing but 5xx in 10 tries and 10 minutes
becomes a suspect, if the destination is up otherwise:

1. It is set aside, and the next body is sent.
2. If that gets a 5xx too, it is another suspect; at 8 of them it is the server after all.
3. If it is delivered, the oldest suspect is sent once more, at once: had the server just come
   back, that would be delivered too, with no more than one body before it.
4. A suspect that fails again after 3 newer ones were delivered goes to quarantine.

In every other case the suspects are taken back, in order. As long as a server is down nothing is
delivered, and so nothing overtakes.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from telemetryd.clock import Clock
from telemetryd.delivery.queue import Queue

MOST_SUSPECTS = 8
TRIES = 10
PATIENCE_NS = 600 * 10**9
NEWER = 3


class Next(enum.Enum):
    """What to do about a body that got a 5xx."""

    WAIT = "wait, as after any failure"
    PASS = "send the next one: it was set aside"  # noqa: S105  (no password)
    QUARANTINE = "give it up"
    REST = "wait long: it is not this one, or there is too little to tell by"


@dataclass(slots=True)
class _Case:
    """So many answers, all 5xx, since a moment of the monotonic clock; so many newer bodies were
    delivered after it had become a suspect."""

    since_ns: int
    tries: int = 0
    passed: int = 0


class Stuck:
    """Suspects among what is in `queue`."""

    def __init__(self, queue: Queue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock
        self._cases: dict[int, _Case] = {}
        # Set aside; the oldest one may be the head just now, to be tried again.
        self._suspects: set[int] = set()

    def __contains__(self, number: int) -> bool:
        """Whether this body got a 5xx the last time."""
        return number in self._cases

    @property
    def is_passing(self) -> bool:
        """Whether newer ones are passing suspects."""
        return bool(self._suspects)

    def is_ripe(self, number: int) -> bool:
        """Whether this body has failed long enough to be a suspect."""
        case = self._cases.get(number)
        if case is None or case.tries < TRIES:
            return False
        return self._clock.mono_ns() - case.since_ns >= PATIENCE_NS

    def failed(self, number: int, *, is_up: bool) -> Next:
        """The head, which has this number, got a 5xx. `is_up`: the destination answered a request
        without points well, directly before."""
        case = self._cases.setdefault(number, _Case(self._clock.mono_ns()))
        case.tries += 1
        if not self.is_passing:
            if not (is_up and self.is_ripe(number)):
                return Next.WAIT
        elif number in self._suspects:
            if case.passed >= NEWER and self.is_ripe(number):
                return Next.QUARANTINE
        elif len(self._suspects) >= MOST_SUSPECTS:
            self.take_back()
            return Next.REST
        self._suspects.add(number)
        self._queue.set_aside()
        return Next.PASS

    def answered(self, number: int, *, is_delivered: bool) -> None:
        """The one that was the head, with this number, got an answer that was no 5xx, and it was
        acted on."""
        self._cases.pop(number, None)
        if number in self._suspects:
            self._suspects.discard(number)
            self.take_back()
            # What was delivered in the meantime says nothing about the rest a while later.
            for case in self._cases.values():
                case.passed = 0
        elif is_delivered:
            self._try_again(number)

    def interrupted(self) -> None:
        """The destination fails in another way: all begins anew."""
        self.take_back()
        self._cases.clear()

    def take_back(self) -> None:
        """Put the suspects back in line, in order."""
        if self._queue.head in self._suspects:
            self._queue.set_aside()
        for number in sorted(self._suspects, reverse=True):
            if not self._queue.take_back(number):
                self._cases.pop(number, None)
        self._suspects.clear()

    def _try_again(self, delivered: int) -> None:
        for number in sorted(self._suspects):
            self._cases[number].passed += number < delivered
        for number in sorted(self._suspects):
            if self._queue.take_back(number):
                return
            # It was dropped for room.
            self._suspects.discard(number)
            del self._cases[number]

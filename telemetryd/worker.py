"""Calls that may hang for good, made in a thread that may be given up.

statvfs on a dead disk or server sleeps in the kernel and cannot be cancelled. A Relay makes such
calls one after the other in a thread of its own, while its caller waits no longer than a deadline:

    caller --- keys ---> thread: call(a), call(b), call(c) ...
           <-- answers, or a ReadError for each key that gave none

When a call takes too long, its key is stuck and its thread is abandoned to it; a fresh thread goes
on with the rest. A stuck key is not called again before its call returns, so there are never more
threads than stuck keys and one. They are daemon threads: none keeps the process from exiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from queue import SimpleQueue
from typing import Generic, TypeVar

from telemetryd.clock import Clock
from telemetryd.errors import ReadError

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")

# A call may take this part of the deadline, so that a few can get stuck in one run and the rest
# are still answered.
PATIENCE = 1 / 8


class _Round(Generic[K, R]):
    """Keys handed to the thread at once. Written under the relay's lock, except `over`."""

    __slots__ = ("answers", "begun", "given_up", "keys", "over", "since_ns")

    def __init__(self, keys: list[K], now_ns: int) -> None:
        self.keys = keys
        self.answers: dict[K, R | Exception] = {}
        self.begun = 0
        self.since_ns = now_ns
        self.given_up = False
        self.over = threading.Event()


class Relay(Generic[K, R]):
    """Asks `call(key)` for many keys, and gives up those that do not answer.

    One run costs one handoff to the thread and back, however many keys there are. To be run by
    one caller at a time.
    """

    def __init__(
        self,
        call: Callable[[K], R],
        deadline_s: float,
        clock: Clock,
        name: str = "relay",
        patience: float = PATIENCE,
    ) -> None:
        self._call = call
        self._clock = clock
        self._name = name
        self._deadline_ns = int(deadline_s * 1e9)
        self._patience_ns = int(deadline_s * 1e9 * patience)
        self._lock = threading.Lock()
        self._stuck: set[K] = set()
        self._inbox: SimpleQueue[_Round[K, R] | None] | None = None

    @property
    def stuck(self) -> frozenset[K]:
        """The keys whose call has not returned yet."""
        with self._lock:
            return frozenset(self._stuck)

    def run(self, keys: Iterable[K]) -> dict[K, R | Exception]:
        """What `call` returned or raised for each key, within the deadline.

        A key without an answer has a ReadError of reason `timeout`: its call has not returned, or
        it was not reached because others took all the time.
        """
        end_ns = self._clock.mono_ns() + self._deadline_ns
        wanted = list(dict.fromkeys(keys))
        stuck = self.stuck
        rest = [key for key in wanted if key not in stuck]
        answers: dict[K, R | Exception] = {}
        while rest and (now_ns := self._clock.mono_ns()) < end_ns:
            part: _Round[K, R] = _Round(rest, now_ns)
            self._hand_over(part)
            self._wait(part, end_ns)
            answers.update(part.answers)
            rest = rest[part.begun :]
        if len(answers) < len(wanted):
            unasked = set(rest)
            for key in wanted:
                if key not in answers:
                    answers[key] = self._silence(key in unasked)
        return answers

    def close(self) -> None:
        """Let the thread end, as soon as it is not inside a call."""
        if self._inbox is not None:
            self._inbox.put(None)
            self._inbox = None

    def _hand_over(self, part: _Round[K, R]) -> None:
        if self._inbox is None:
            inbox: SimpleQueue[_Round[K, R] | None] = SimpleQueue()
            threading.Thread(target=self._work, args=(inbox,), name=self._name, daemon=True).start()
            self._inbox = inbox
        self._inbox.put(part)

    def _wait(self, part: _Round[K, R], end_ns: int) -> None:
        """Until all of it is answered, a call takes too long, or the time is up."""
        while not self._clock.wait_until(min(part.since_ns + self._patience_ns, end_ns), part.over):
            with self._lock:
                now_ns = self._clock.mono_ns()
                if now_ns < min(part.since_ns + self._patience_ns, end_ns):
                    continue
                part.given_up = True
                if part.begun > len(part.answers):
                    self._stuck.add(part.keys[part.begun - 1])
                    self._inbox = None
                return

    def _work(self, inbox: SimpleQueue[_Round[K, R] | None]) -> None:
        while (part := inbox.get()) is not None:
            for key in part.keys:
                with self._lock:
                    if part.given_up:
                        break
                    part.begun += 1
                    part.since_ns = self._clock.mono_ns()
                answer: R | Exception
                try:
                    answer = self._call(key)
                except Exception as error:  # noqa: BLE001  (whatever it is, the caller gets it)
                    answer = error
                with self._lock:
                    if part.given_up:
                        # What it returned is old by now. The key may be asked again.
                        self._stuck.discard(key)
                        return
                    part.answers[key] = answer
            part.over.set()

    def _silence(self, unasked: bool) -> ReadError:
        if unasked:
            return ReadError("timeout", "not asked: others took all the time")
        return ReadError(
            "timeout",
            f"no answer within {self._patience_ns / 1e9:g} s; not asked again before it returns",
        )

"""A destination of words, and a sender towards it, on a clock that only the test moves."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from support.clock import FakeClock
from telemetryd.delivery.backoff import Backoff
from telemetryd.delivery.destination import Outcome, Verdict
from telemetryd.delivery.memory_queue import MemoryQueue
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import Body, OnDrop, Queue
from telemetryd.delivery.refusals import Refusals
from telemetryd.delivery.sender import Sender
from telemetryd.delivery.server_clock import ServerClock
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog

OK = Verdict(Outcome.OK, status=204)
NO_ANSWER = Verdict(Outcome.RETRY, "connection refused")
BUSY = Verdict(Outcome.RETRY, "503 Service Unavailable", status=503)
BROKEN = Verdict(Outcome.RETRY, "500 Internal Server Error", status=500)

Answer = Callable[[Body], Verdict]


def text(*words: bytes, newest_ns: int = 0) -> Body:
    """A body of which each word is a point."""
    return Body(b" ".join(words), len(words), newest_ns)


def numbers(count: int) -> list[bytes]:
    """So many different words."""
    return [b"%d" % number for number in range(count)]


def in_turn(*verdicts: Verdict) -> Answer:
    """One after the other, the last one again and again."""
    left = list(verdicts)
    return lambda _body: left.pop(0) if len(left) > 1 else left[0]


def takes_all(_body: Body) -> Verdict:
    return OK


def refuse(*bad: bytes) -> Answer:
    """400 to every body that has one of these words."""
    refusal = Verdict(Outcome.REFUSED, "400 bad word", status=400)
    return lambda body: refusal if set(bad).intersection(body.data.split()) else OK


class Words:
    """Takes bodies of words; `answer` judges each, `probed` answers a probe, `fresh` tells for
    each `renew` whether the credentials are others now. `date` is its time, in its answers."""

    def __init__(self, answer: Answer = takes_all) -> None:
        self.answer = answer
        self.probed: Callable[[], Verdict] = lambda: OK
        self.date: Callable[[], int | None] = lambda: None
        self.sent: list[Body] = []
        self.stored: list[bytes] = []
        self.timeouts: list[float | None] = []
        self.probes = 0
        self.fresh: list[bool] = []

    def send(self, body: Body, timeout: float | None = None) -> Verdict:
        self.sent.append(body)
        self.timeouts.append(timeout)
        verdict = self.answer(body)
        if verdict.outcome is Outcome.OK:
            self.stored.append(body.data)
        return self._dated(verdict)

    def probe(self, timeout: float | None = None) -> Verdict:
        self.probes += 1
        self.timeouts.append(timeout)
        return self._dated(self.probed())

    def halve(self, body: Body) -> Sequence[Body]:
        words = body.data.split()
        middle = len(words) // 2
        newest_ns = body.newest_ns
        halves = (
            text(*words[:middle], newest_ns=newest_ns),
            text(*words[middle:], newest_ns=newest_ns),
        )
        return halves if middle else ()

    def renew(self) -> bool:
        return self.fresh.pop(0) if self.fresh else False

    def _dated(self, verdict: Verdict) -> Verdict:
        return replace(verdict, server_ns=self.date()) if verdict.status else verdict


class Ledger:
    """Counts what is dropped, by reason: points."""

    def __init__(self) -> None:
        self.drops: Counter[str] = Counter()

    def __call__(self, reason: str, points: int, records: int = 1) -> None:
        self.drops[reason] += points


class SenderBench:
    """A sender with all that it needs, and what it counts. After a failure it waits `jitter` times
    the longest it may. With a folder there is a quarantine in it."""

    def __init__(
        self,
        answer: Answer = takes_all,
        jitter: float = 1.0,
        folder: Path | None = None,
        open_queue: Callable[[OnDrop], Queue] = lambda on_drop: MemoryQueue(1 << 24, on_drop),
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.ledger = Ledger()
        self.drops = self.ledger.drops
        self.instruments = Instruments(
            QuietLog(logging.getLogger("test"), lambda: self.clock.mono_ns() / 1e9)
        )
        self.there = Words(answer)
        self.words: list[bytes] = []
        self.queue = open_queue(self.ledger)
        self.quarantine = Quarantine(str(folder), 1 << 26) if folder is not None else None
        self.server = ServerClock(self.clock)
        self.sender = Sender(
            "there", self.queue, self.there, self.instruments, self.clock,
            Backoff(lambda: jitter), self.server,
            Refusals("there", "words", self.queue, self.quarantine, self.instruments, self.clock),
        )  # fmt: skip

    def put(self, *words: bytes) -> None:
        """A body that is dated now."""
        self.queue.put(text(*words, newest_ns=self.clock.wall_ns()))

    def read(self) -> None:
        """A body of one more word, which is a number; all of them are in `words`."""
        self.words.append(b"%d" % len(self.words))
        self.put(self.words[-1])

    def work(self) -> float:
        """Do all that is due; the seconds until something is due again."""
        for _ in range(100_000):
            wait_ns = self.sender.turn() - self.clock.mono_ns()
            if wait_ns > 0:
                return wait_ns / 1e9
        raise AssertionError("it never rests")

    def work_for(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """Let time pass: every ten seconds `each` is called, and the sender works as it likes."""
        end_ns = self.clock.mono_ns() + int(seconds * 1e9)
        while self.clock.mono_ns() < end_ns:
            each()
            tick_ns = min(self.clock.mono_ns() + 10 * 10**9, end_ns)
            while self.clock.mono_ns() < tick_ns:
                left = (tick_ns - self.clock.mono_ns()) / 1e9
                self.clock.tick(min(max(self.work(), 0.001), left))
        self.work()

    def counted(self, name: str) -> dict[str, float]:
        """An instrument of exporters by the value of its last label."""
        points = self.instruments.points()
        return {
            series.labels[-1]: value
            for series, value in points
            if series.metric.name == f"telemetryd_exporter_{name}"
        }

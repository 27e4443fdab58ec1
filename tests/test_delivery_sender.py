"""What a sender does with each answer, on a clock that stands still."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock

from telemetryd.delivery.backoff import Backoff
from telemetryd.delivery.queue import Body, MemoryQueue
from telemetryd.delivery.sender import MOST_REQUESTS_PER_BODY, Outcome, Sender, Verdict
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog

OK = Verdict(Outcome.OK)


class Words:
    """A destination that takes bodies of words; `answer` judges each, `fresh` tells for each
    `renew` whether the credentials are others now."""

    def __init__(self, answer: Callable[[Body], Verdict]) -> None:
        self.answer = answer
        self.sent: list[Body] = []
        self.fresh: list[bool] = []

    def send(self, body: Body, timeout: float | None = None) -> Verdict:
        self.sent.append(body)
        return self.answer(body)

    def halve(self, body: Body) -> Sequence[Body]:
        words = body.data.split()
        middle = len(words) // 2
        return [text(*words[:middle]), text(*words[middle:])] if middle else ()

    def renew(self) -> bool:
        return self.fresh.pop(0)


def text(*words: bytes) -> Body:
    return Body(b" ".join(words), len(words))


class Bench:
    """A sender with all that it needs, and what it counts."""

    def __init__(self, answer: Callable[[Body], Verdict], random: float = 1.0) -> None:
        self.clock = FakeClock()
        self.drops: Counter[str] = Counter()
        self.instruments = Instruments(
            QuietLog(logging.getLogger("test"), lambda: self.clock.mono_ns() / 1e9)
        )
        self.destination = Words(answer)
        self.queue = MemoryQueue(1 << 20, self._drop)
        self.sender = Sender(
            "there", self.queue, self.destination, self.instruments, self.clock,
            Backoff(lambda: random),
        )  # fmt: skip

    def _drop(self, reason: str, points: int) -> None:
        self.drops[reason] += points

    def work(self) -> None:
        """Step until nothing is due."""
        while self.sender.is_due:
            self.sender.step()

    def waits(self) -> float:
        """Seconds until the sender is due."""
        return (self.sender.due_ns - self.clock.mono_ns()) / 1e9

    def counted(self, name: str) -> dict[str, float]:
        """An instrument by the value of its last label."""
        points = self.instruments.points()
        return {
            series.labels[-1]: value
            for series, value in points
            if series.metric.name == f"telemetryd_push_{name}"
        }


def in_turn(*verdicts: Verdict) -> Callable[[Body], Verdict]:
    left = list(verdicts)
    return lambda _body: left.pop(0) if len(left) > 1 else left[0]


def test_what_is_taken_is_acknowledged_counted_and_dated() -> None:
    bench = Bench(in_turn(OK))
    bench.queue.put(text(b"a", b"b"))
    bench.queue.put(text(b"c"))
    bench.work()
    assert bench.queue.peek() is None
    assert bench.counted("points_total") == {"there": 3}
    assert bench.counted("requests_total") == {"ok": 2}
    assert bench.counted("last_success_timestamp_seconds") == {"there": bench.clock.wall_ns() / 1e9}
    assert bench.sender.step() is None


def test_failures_wait_longer_and_longer_and_lose_nothing() -> None:
    bench = Bench(in_turn(*[Verdict(Outcome.RETRY, "503")] * 3, OK))
    bench.queue.put(text(b"a"))
    waits = []
    for _ in range(3):
        assert bench.sender.is_due
        bench.work()
        waits.append(bench.waits())
        bench.clock.tick(waits[-1])
    bench.work()
    assert waits == [0.5, 1.0, 2.0]
    assert bench.counted("points_total") == {"there": 1}
    assert not bench.drops


def test_retry_after_is_kept_to_the_second() -> None:
    bench = Bench(in_turn(Verdict(Outcome.RETRY, "429", retry_after=120.0), OK))
    bench.queue.put(text(b"a"))
    bench.work()
    bench.clock.tick(119.9)
    bench.work()
    assert len(bench.destination.sent) == 1
    bench.clock.tick(0.1)
    bench.work()
    assert bench.counted("points_total") == {"there": 1}


def test_new_credentials_are_tried_at_once_and_then_every_minute() -> None:
    bench = Bench(in_turn(Verdict(Outcome.UNAUTHORIZED, "401")))
    bench.destination.fresh = [True, True, False, True, False]
    bench.queue.put(text(b"a"))
    bench.work()
    assert len(bench.destination.sent) == 2
    assert bench.waits() == 60
    bench.clock.tick(60)
    bench.work()
    assert len(bench.destination.sent) == 3
    bench.clock.tick(60)
    bench.work()
    assert len(bench.destination.sent) == 5
    assert len(bench.queue) == 1
    assert bench.counted("requests_total") == {"unauthorized": 5}


def test_what_nobody_takes_there_is_kept_and_tried_every_minute() -> None:
    bench = Bench(in_turn(Verdict(Outcome.MISSING, "404"), OK))
    bench.queue.put(text(b"a"))
    bench.work()
    assert bench.waits() == 60
    bench.clock.tick(60)
    bench.work()
    assert bench.counted("points_total") == {"there": 1}


def test_what_is_too_large_is_halved_until_it_passes() -> None:
    bench = Bench(
        lambda body: OK if len(body.data) <= 3 else Verdict(Outcome.TOO_LARGE, "413"),
    )
    bench.queue.put(text(*[b"%d" % (i % 10) for i in range(300)], b"long-one"))
    bench.work()
    assert bench.counted("points_total") == {"there": 300}
    assert bench.drops == {"too_large": 1}


def test_points_that_are_too_old_are_dropped_without_looking_for_the_guilty() -> None:
    bench = Bench(in_turn(Verdict(Outcome.TOO_OLD, "beyond retention policy")))
    bench.queue.put(text(b"a", b"b", b"c"))
    bench.work()
    assert bench.drops == {"too_old": 3}
    assert len(bench.destination.sent) == 1


def refuse(*bad: bytes) -> Callable[[Body], Verdict]:
    return lambda body: (
        Verdict(Outcome.REFUSED, "400") if set(bad).intersection(body.data.split()) else OK
    )


@given(size=st.integers(1, 600), data=st.data())
def test_the_points_that_are_refused_are_found_and_nothing_else_is_lost(
    size: int, data: st.DataObject
) -> None:
    words = [b"%d" % i for i in range(size)]
    bad = data.draw(st.lists(st.sampled_from(words), max_size=3, unique=True))
    bench = Bench(refuse(*bad))
    bench.queue.put(text(*words))
    bench.work()
    assert bench.drops.total() == len(bad)
    assert bench.counted("points_total").get("there", 0) == size - len(bad)
    most = max(len(bad) * (2 * math.ceil(math.log2(size)) + 2), 1)
    assert len(bench.destination.sent) <= min(most, MOST_REQUESTS_PER_BODY)


@given(size=st.integers(1, 600), data=st.data())
def test_however_many_are_refused_the_requests_for_a_body_are_bounded(
    size: int, data: st.DataObject
) -> None:
    words = [b"%d" % i for i in range(size)]
    bad = data.draw(st.sets(st.sampled_from(words)))
    bench = Bench(refuse(*bad))
    bench.queue.put(text(*words))
    bench.work()
    assert len(bench.destination.sent) <= MOST_REQUESTS_PER_BODY
    assert bench.drops.total() >= len(bad)
    delivered = bench.counted("points_total").get("there", 0)
    assert delivered + bench.drops.total() == size


def test_the_next_body_has_all_its_requests_again() -> None:
    bench = Bench(refuse(*[b"%d" % i for i in range(500)]))
    for _ in range(2):
        bench.queue.put(text(*[b"%d" % i for i in range(500)]))
    bench.queue.put(text(b"499", b"good", b"good", b"good"))
    bench.work()
    assert bench.counted("points_total") == {"there": 3}
    assert bench.drops == {"refused": 1001}


def test_a_failure_in_the_middle_of_the_search_uses_up_none_of_its_requests() -> None:
    down = [Verdict(Outcome.RETRY, "503")] * 200
    judge = refuse(b"3")

    def answer(body: Body) -> Verdict:
        if len(bench.destination.sent) > 2 and down:
            return down.pop()
        return judge(body)

    bench = Bench(answer, random=0.0)
    bench.queue.put(text(*[b"%d" % i for i in range(64)]))
    bench.work()
    assert bench.drops == {"refused": 1}
    assert bench.counted("points_total") == {"there": 63}


def test_a_destination_that_is_down_for_an_hour_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(in_turn(*[Verdict(Outcome.RETRY, "connection refused")] * 3600, OK), random=0.0)
    bench.queue.put(text(b"a"))
    with caplog.at_level(logging.INFO):
        for _ in range(3600):
            bench.sender.step()
            bench.clock.tick(1)
        bench.sender.step()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 61
    assert lines[0].startswith('msg="push failed, points are kept" destination=there')
    assert lines[-2].endswith("repeated=59")
    assert lines[-1] == 'msg="push works again" destination=there after=3600s'

"""The thread of a push exporter: when it encodes and sends, and how it ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from support.clock import FakeClock
from support.servers import eventually

from telemetryd.batch import Batch
from telemetryd.delivery.backoff import Backoff
from telemetryd.delivery.gather import Gather
from telemetryd.delivery.lane import DeliveryLane, count_drops
from telemetryd.delivery.queue import Body, MemoryQueue
from telemetryd.delivery.sender import Outcome, Sender, Verdict
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog
from telemetryd.metric import Kind, Metric, Unit

SERIES = (Metric("a", "b", Kind.GAUGE, Unit.NONE, "", "").at(),)
OK = Verdict(Outcome.OK)
DOWN = Verdict(Outcome.RETRY, "connection refused")


class There:
    """A destination that keeps what it takes."""

    def __init__(self) -> None:
        self.answer: Callable[[], Verdict] = lambda: OK
        self.sent: list[bytes] = []
        self.timeouts: list[float | None] = []

    def send(self, body: Body, timeout: float | None = None) -> Verdict:
        verdict = self.answer()
        self.timeouts.append(timeout)
        if verdict is OK:
            self.sent.append(body.data)
        return verdict

    def halve(self, body: Body) -> Sequence[Body]:
        return ()

    def renew(self) -> bool:
        return False


def by_second(batches: Sequence[Batch]) -> list[Body]:
    """One body for all: the seconds at which they were read."""
    text = b" ".join(b"%d" % (batch.mono_ns // 10**9) for batch in batches)
    return [Body(text, sum(len(batch.values) for batch in batches))] if batches else []


class Bench:
    """A delivery lane with all that it needs; the clock stands at second 1000."""

    def __init__(
        self,
        resolution: float = 0,
        encode: Callable[[Sequence[Batch]], Sequence[Body]] = by_second,
        batch_size: int = 100,
    ) -> None:
        self.clock = FakeClock()
        self.instruments = Instruments(QuietLog(logging.getLogger("test")))
        self.there = There()
        on_drop = count_drops("there", self.instruments)
        queue = MemoryQueue(1 << 20, on_drop)
        self.lane = DeliveryLane(
            "there", Gather(resolution, 150), encode, queue,
            Sender("there", queue, self.there, self.instruments, self.clock, Backoff(lambda: 1.0)),
            flush_interval=10, batch_size=batch_size, clock=self.clock,
            instruments=self.instruments, on_drop=on_drop,
        )  # fmt: skip

    def read(self, points: int = 1) -> None:
        """A second passes, and a collector reads."""
        self.clock.tick(1)
        now = self.clock.mono_ns()
        self.lane.offer(Batch("c", 0, now, 1.0, SERIES * points, (1.0,) * points))

    def counted(self) -> dict[str, float]:
        return {repr(series): value for series, value in self.instruments.points()}

    def dropped(self, reason: str) -> float:
        labels = f'{{destination="there",reason="{reason}"}}'
        return self.counted()[f"telemetryd_push_dropped_points_total{labels}"]


def test_points_are_gathered_until_the_flush_interval_is_over() -> None:
    bench = Bench()
    for _ in range(9):
        bench.read()
        assert bench.lane.turn() == 1010 * 10**9
    assert bench.there.sent == []
    bench.read()
    bench.lane.turn()
    assert bench.there.sent == [b"1001 1002 1003 1004 1005 1006 1007 1008 1009 1010"]
    assert bench.lane.turn() == 1020 * 10**9


def test_a_full_batch_is_not_kept_waiting() -> None:
    bench = Bench(batch_size=4)
    for _ in range(4):
        bench.read(2)
        bench.lane.turn()
    assert bench.there.sent == [b"1001 1002", b"1003 1004"]


def test_at_a_resolution_the_last_value_of_each_window_goes_out_as_it_closes() -> None:
    bench = Bench(resolution=5)
    for _ in range(21):
        bench.read()
        bench.lane.turn()
    assert bench.there.sent == [b"1004 1009", b"1014 1019"]


def test_while_the_destination_is_down_bodies_queue_up_and_go_out_in_order() -> None:
    bench = Bench()
    bench.there.answer = lambda: DOWN
    for _ in range(30):
        bench.read()
        bench.lane.turn()
    # Three times ten seconds of four digits each, and the spaces between.
    assert bench.counted()['telemetryd_push_queue_bytes{destination="there"}'] == 3 * (40 + 9)
    bench.there.answer = lambda: OK
    bench.clock.tick(60)
    for _ in range(3):
        bench.lane.turn()
    assert [sent.split()[0] for sent in bench.there.sent] == [b"1001", b"1011", b"1021"]
    assert bench.counted()['telemetryd_push_queue_bytes{destination="there"}'] == 0


def test_what_cannot_be_encoded_is_counted_and_does_not_hold_up_the_rest() -> None:
    def encode(batches: Sequence[Batch]) -> Sequence[Body]:
        if batches[0].mono_ns < 1010 * 10**9:
            raise ZeroDivisionError
        return by_second(batches)

    bench = Bench(encode=encode)
    for _ in range(20):
        bench.read()
        bench.lane.turn()
    assert bench.dropped("exception") == 10
    assert len(bench.there.sent) == 1


def test_counters_exist_before_the_first_event() -> None:
    bench = Bench()
    bench.lane.start()
    assert bench.lane.stop(5)
    counted = bench.counted()
    assert bench.dropped("queue_full") == 0
    assert bench.dropped("refused") == 0
    assert counted['telemetryd_push_points_total{destination="there"}'] == 0
    assert counted['telemetryd_push_requests_total{destination="there",outcome="retry"}'] == 0
    assert counted['telemetryd_push_last_success_timestamp_seconds{destination="there"}'] > 0


def test_the_thread_works_on_its_own_and_is_named_after_the_destination() -> None:
    bench = Bench(batch_size=4)
    bench.lane.start()
    assert any(thread.name == "push-there" for thread in threading.enumerate())
    for _ in range(4):
        bench.read()
    eventually(lambda: bench.there.sent == [b"1001 1002 1003 1004"])
    bench.clock.tick(10)
    bench.read()
    bench.clock.tick(10)
    eventually(lambda: len(bench.there.sent) == 2)
    assert bench.lane.stop(5)
    assert not any(thread.name == "push-there" for thread in threading.enumerate())


def test_an_error_that_nobody_expected_does_not_end_the_thread() -> None:
    bench = Bench(batch_size=1)
    answers: list[Callable[[], Verdict]] = [lambda: 1 / 0, lambda: OK]  # type: ignore[list-item, return-value]
    bench.there.answer = lambda: answers.pop(0)() if len(answers) > 1 else answers[0]()
    bench.lane.start()
    bench.read()
    eventually(lambda: len(answers) == 1)
    bench.clock.tick(60)
    eventually(lambda: bench.there.sent == [b"1001"])
    assert bench.lane.stop(5)


def test_at_the_end_everything_is_sent_open_windows_too() -> None:
    bench = Bench(resolution=5)
    bench.lane.start()
    for _ in range(3):
        bench.read()
    assert bench.lane.stop(5)
    assert bench.there.sent == [b"1003"]
    assert bench.there.timeouts == [5]
    bench.read()
    assert bench.lane.stop(5)
    assert bench.there.sent == [b"1003"]


def test_at_the_end_a_destination_that_is_down_is_tried_once_and_the_rest_is_counted() -> None:
    bench = Bench()
    asked: list[int] = []

    def down() -> Verdict:
        asked.append(1)
        return DOWN

    bench.there.answer = down
    bench.lane.start()
    for _ in range(3):
        bench.read(2)
    assert bench.lane.stop(5)
    assert len(asked) == 1
    assert bench.dropped("shutdown") == 6


def test_a_stuck_destination_holds_up_neither_the_lanes_nor_the_end() -> None:
    bench = Bench(batch_size=10)
    stuck, free = threading.Event(), threading.Event()

    def hang() -> Verdict:
        stuck.set()
        free.wait(30)
        return OK

    bench.there.answer = hang
    bench.lane.start()
    bench.read(10)
    assert stuck.wait(30)
    for _ in range(50):
        bench.read(10)
    # 150 points may wait as they are.
    assert bench.dropped("queue_full") == 350
    assert not bench.lane.stop(0.01)
    free.set()
    eventually(lambda: not any(t.name == "push-there" for t in threading.enumerate()))
    assert bench.there.sent[0] == b"1001"

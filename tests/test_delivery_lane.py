"""The two threads of a push exporter: how they work side by side, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.delivery import NO_ANSWER, OK, in_turn
from support.delivery_lanes import LaneBench
from support.servers import eventually

from telemetryd.delivery.destination import Verdict
from telemetryd.delivery.queue import Body


def threads(bench: LaneBench) -> set[str]:
    names = {thread.name for thread in threading.enumerate()}
    return names & {f"push-{bench.name}", f"spool-{bench.name}"}


class Hang:
    """Answers when it is let go."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self, _body: Body) -> Verdict:
        self.begun.set()
        assert self.gate.wait(30)
        return OK


@contextmanager
def hanging(bench: LaneBench) -> Iterator[Hang]:
    """The destination does not answer the first body until the end."""
    bench.there.answer = hang = Hang()
    bench.lane.start()
    bench.read()
    bench.clock.tick(10)
    assert hang.begun.wait(30)
    try:
        yield hang
    finally:
        hang.gate.set()
        bench.lane.stop(5)
        eventually(lambda: not threads(bench))


def test_the_threads_work_on_their_own_and_are_named_after_the_destination() -> None:
    bench = LaneBench(batch_size=4)
    bench.lane.start()
    assert threads(bench) == {"push-there", "spool-there"}
    for _ in range(4):
        bench.read()
    eventually(lambda: bench.there.stored == [b"1001 1002 1003 1004"])
    bench.clock.tick(10)
    bench.read()
    bench.clock.tick(10)
    eventually(lambda: len(bench.there.stored) == 2)
    assert bench.lane.stop(5)
    assert not threads(bench)


def test_counters_exist_before_the_first_event() -> None:
    bench = LaneBench()
    bench.lane.start()
    assert bench.lane.stop(5)
    for reason in ("queue_full", "refused", "too_old", "stuck", "size", "age", "shutdown"):
        assert bench.dropped(reason) == 0
    assert bench.counted("exporter_points_total") == 0
    assert bench.counted("exporter_retries_total") == 0
    assert bench.counted('exporter_requests_total,outcome="retry"') == 0
    assert bench.counted('exporter_rejections_total,status="503"') == 0
    assert bench.counted('exporter_blocked,reason="unauthorized"') == 0
    assert bench.counted("exporter_last_success_timestamp_seconds") > 0
    assert bench.counted('spool_dropped_records_total,reason="corrupt"') == 0
    assert bench.counted("spool_errors_total") == 0
    assert bench.counted("spool_records") == bench.counted("spool_size_bytes") == 0
    assert bench.counted("spool_oldest_age_seconds") == bench.counted("spool_durable") == 0


def test_points_offered_before_the_start_are_not_lost() -> None:
    bench = LaneBench()
    for _ in range(3):
        bench.read()
    bench.lane.start()
    assert bench.lane.stop(5)
    assert bench.there.stored == [b"1001 1002 1003"]


def test_a_destination_that_hangs_does_not_keep_points_from_the_queue() -> None:
    bench = LaneBench()
    with hanging(bench):
        for waiting in range(2, 7):
            bench.read()
            bench.clock.tick(10)
            eventually(lambda waiting=waiting: len(bench.queue) == waiting)
        assert bench.counted("spool_records") == 6
        assert bench.dropped("queue_full") == 0


def test_a_destination_that_hangs_holds_up_no_other() -> None:
    stuck, free = LaneBench(name="stuck"), LaneBench(name="free")
    with hanging(stuck):
        free.lane.start()
        for sent in range(1, 4):
            free.read()
            free.clock.tick(10)
            eventually(lambda sent=sent: len(free.there.stored) == sent)
        assert free.lane.stop(5)
        assert stuck.there.stored == []


def test_at_the_end_of_the_time_a_destination_that_hangs_is_left_behind() -> None:
    bench = LaneBench()
    with hanging(bench) as hang:
        bench.read()
        assert not bench.lane.stop(0.05)
        # All of it was put, and then dropped with the queue, which is in memory.
        assert bench.dropped("shutdown") == 2
        assert len(bench.queue) == 0
        hang.gate.set()
        eventually(lambda: not threads(bench))
        assert bench.counted("exporter_points_total") == 0, "it came too late"
        assert bench.lane.stop(5)


def test_at_the_end_everything_is_sent() -> None:
    bench = LaneBench()
    bench.lane.start()
    for _ in range(3):
        bench.read()
    assert bench.lane.stop(5)
    assert bench.there.stored == [b"1001 1002 1003"]
    assert all(timeout is not None and timeout <= 5 for timeout in bench.there.timeouts)


def test_what_is_offered_after_the_end_counts_as_dropped() -> None:
    bench = LaneBench()
    bench.lane.start()
    assert bench.lane.stop(5)
    bench.read(2)
    assert bench.dropped("shutdown") == 2
    assert bench.lane.stop(5)
    assert bench.there.stored == []


def test_what_a_lane_took_that_was_never_started_counts_as_dropped() -> None:
    bench = LaneBench()
    bench.read(3)
    assert bench.lane.stop(5)
    assert bench.dropped("shutdown") == 3


def test_at_the_end_a_destination_that_is_down_is_tried_once_and_the_rest_is_counted() -> None:
    bench = LaneBench()
    bench.there.answer = in_turn(NO_ANSWER)
    bench.lane.start()
    for _ in range(3):
        bench.read(2)
    assert bench.lane.stop(5)
    assert len(bench.there.sent) == 1
    assert bench.dropped("shutdown") == 6


def test_at_the_end_nobody_is_said_to_be_wanted_any_more() -> None:
    bench = LaneBench()
    bench.there.answer = in_turn(Verdict(OK.outcome.UNAUTHORIZED, "401", status=401))
    bench.lane.start()
    bench.read()
    bench.clock.tick(10)
    eventually(lambda: bench.counted('exporter_blocked,reason="unauthorized"') == 1)
    assert bench.lane.stop(5)
    assert bench.counted('exporter_blocked,reason="unauthorized"') == 0


@pytest.mark.parametrize("part", ["sender", "writer"])
def test_an_error_that_nobody_expected_does_not_end_a_thread(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = LaneBench(batch_size=1)
    failed = threading.Event()
    works = bench.open_works()
    subject = getattr(works, part)
    turn = subject.turn

    def fail() -> int:
        monkeypatch.setattr(subject, "turn", turn)
        failed.set()
        raise RuntimeError("?")

    monkeypatch.setattr(subject, "turn", fail)
    bench.open_works = lambda: works
    bench.lane.start()
    assert failed.wait(30)
    bench.read()
    bench.clock.tick(60)
    eventually(lambda: bench.there.stored == [b"1001"])
    assert bench.lane.stop(5)


def test_a_disk_that_hangs_costs_what_is_gathered_and_no_more_than_the_time_to_stop() -> None:
    bench = LaneBench(batch_size=10)
    begun, gate, closed = threading.Event(), threading.Event(), threading.Event()
    works = bench.open_works()
    works.queue.close = closed.set  # type: ignore[method-assign]

    def sync() -> None:
        begun.set()
        assert gate.wait(30)

    works.queue.sync = sync  # type: ignore[method-assign]
    bench.open_works = lambda: works
    bench.lane.start()
    bench.read(10)
    assert begun.wait(30)
    for _ in range(50):
        bench.read(10)
    # 150 points may wait as they are.
    assert bench.dropped("queue_full") == 350
    assert not bench.lane.stop(0.05)
    assert not closed.is_set()
    gate.set()
    eventually(lambda: not threads(bench))
    assert closed.wait(30), "and then it lets go of what it has open"

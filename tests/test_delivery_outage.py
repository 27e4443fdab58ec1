"""Outages of hours and restarts, with the spool on a real disk, on a clock that only the test
moves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.delivery import (
    BROKEN,
    BUSY,
    NO_ANSWER,
    OK,
    SenderBench,
    in_turn,
    numbers,
    refuse,
)
from support.delivery_lanes import LaneBench
from support.servers import eventually

from telemetryd.delivery.destination import Outcome, Verdict
from telemetryd.delivery.queue import Body, OnDrop, Queue
from telemetryd.delivery.spool import open_spool
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog

MINUTE = 60
HOUR = 3600
DAY = 24 * HOUR


def spool_in(folder: Path, clock: FakeClock) -> Callable[[OnDrop], Queue]:
    """Opens the spool in `folder`."""
    instruments = Instruments(QuietLog(logging.getLogger("test")))
    config = SpoolConfig(free=0)

    def make(on_drop: OnDrop) -> Queue:
        return open_spool(str(folder), "words", config, on_drop, instruments, "there", clock)

    return make


class Disk(SenderBench):
    """A sender with a spool; its destination tells the time rightly."""

    def __init__(self, spool: Path, clock: FakeClock, **more: object) -> None:
        super().__init__(clock=clock, open_queue=spool_in(spool, clock), **more)  # type: ignore[arg-type]
        mono_ns, wall_ns = clock.mono_ns(), clock.wall_ns()
        self.there.date = lambda: wall_ns + clock.mono_ns() - mono_ns


def test_after_an_outage_of_hours_everything_is_delivered_in_order(tmp_path: Path) -> None:
    clock = FakeClock()
    bench = Disk(tmp_path, clock)
    down = in_turn(NO_ANSWER)
    bench.there.answer, bench.there.probed = down, lambda: NO_ANSWER
    bench.work_for(3 * HOUR, bench.read)
    assert bench.there.stored == []
    assert len(bench.queue) == len(bench.words) == 3 * HOUR / 10
    bench.there.answer, bench.there.probed = in_turn(OK), lambda: OK
    bench.work_for(2 * MINUTE, bench.read)
    assert bench.there.stored == bench.words
    assert not bench.drops
    assert bench.counted("points_total") == {"there": len(bench.words)}
    bench.queue.close()


def test_a_restart_in_the_middle_of_an_outage_loses_and_repeats_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    first = Disk(tmp_path, clock)
    first.work_for(5 * MINUTE, first.read)
    first.there.answer = in_turn(BUSY)
    first.work_for(HOUR, first.read)
    first.queue.close()
    second = Disk(tmp_path, clock)
    second.words = first.words
    second.work_for(5 * MINUTE, second.read)
    assert first.there.stored + second.there.stored == second.words
    assert not first.drops
    assert not second.drops
    second.queue.close()


def test_what_was_held_back_is_looked_at_again_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    first = Disk(tmp_path, clock)
    clock.step_wall(DAY)
    first.read()
    first.read()
    first.work()
    assert len(first.queue.aside) == 2
    first.queue.close()
    clock.step_wall(-DAY)
    second = Disk(tmp_path, clock)
    second.words = first.words
    second.read()
    second.work()
    assert second.there.stored == [b"2"]
    assert len(second.queue.aside) == 2
    second.work_for(DAY)
    assert second.there.stored == [b"2", b"0", b"1"]
    second.queue.close()


def test_a_suspect_is_the_head_again_after_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    first = Disk(tmp_path, clock, answer=lambda body: BROKEN if body.data == b"0" else OK)
    first.read()
    first.work_for(20 * MINUTE)
    for _ in range(2):
        first.read()
    while first.there.stored != [b"1"]:
        clock.tick(1)
        first.sender.turn()
    # Between two tries: it is aside, or the head, and a crash would find it so.
    first.queue.close()
    second = Disk(tmp_path, clock)
    second.work()
    assert second.there.stored == [b"0", b"2"]
    second.queue.close()


def test_refused_points_are_found_in_what_waits_on_disk(tmp_path: Path) -> None:
    clock = FakeClock()
    bench = Disk(tmp_path, clock, answer=refuse(b"3", b"77"), folder=tmp_path)
    bench.put(*numbers(100))
    bench.put(b"next")
    bench.work()
    assert bench.drops == {"refused": 2}
    assert bench.counted("points_total") == {"there": 99}
    assert bench.quarantine is not None
    assert bench.quarantine.records == 2
    assert len(bench.queue) == 0
    bench.queue.close()


def test_of_a_partial_write_on_disk_only_the_rest_counts_as_dropped(tmp_path: Path) -> None:
    clock = FakeClock()
    partial = Verdict(Outcome.TOO_OLD, "partial write", status=400, taken=3)
    bench = Disk(tmp_path, clock, answer=in_turn(partial, OK))
    bench.put(*numbers(5))
    bench.put(b"next")
    bench.work()
    assert bench.drops == {"too_old": 2}
    assert bench.counted("points_total") == {"there": 4}
    bench.queue.close()
    again = Disk(tmp_path, clock)
    again.work()
    assert again.there.sent == []
    again.queue.close()


def test_a_backlog_does_not_expire_because_of_a_step_of_the_wall_clock(tmp_path: Path) -> None:
    """A day too far, for a minute."""
    clock = FakeClock()
    bench = LaneBench(open_queue=spool_in(tmp_path, clock), clock=clock)
    bench.open_works()
    wall_ns, mono_ns = clock.wall_ns(), clock.mono_ns()
    bench.there.date = lambda: wall_ns + clock.mono_ns() - mono_ns
    bench.there.answer = in_turn(BUSY)
    for _ in range(3):
        bench.read()
        clock.tick(10)
        bench.writer.turn()
        bench.sender.turn()
    clock.step_wall(25 * HOUR)
    clock.tick(10)
    bench.writer.turn()
    clock.step_wall(-25 * HOUR)
    assert bench.counted("spool_records") == 3
    bench.queue.close()


def test_a_receiver_that_hangs_keeps_nothing_from_the_disk_nor_the_end_in_time(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    begun, gate = threading.Event(), threading.Event()

    def hang(_body: Body) -> Verdict:
        begun.set()
        assert gate.wait(30)
        return OK

    bench = LaneBench(open_queue=spool_in(tmp_path, clock), clock=clock)
    bench.there.answer = hang
    bench.lane.start()
    bench.read()
    clock.tick(10)
    assert begun.wait(30)
    for waiting in range(2, 5):
        bench.read()
        clock.tick(10)
        eventually(lambda waiting=waiting: len(bench.queue) == waiting)
    bench.read()  # which is only gathered as it ends
    assert not bench.lane.stop(0.05)
    assert bench.dropped("shutdown") == 0
    # The next process finds all of it, while the old thread still hangs.
    after = Disk(tmp_path, clock)
    after.work()
    assert after.there.stored == [b"1001", b"1012", b"1023", b"1034", b"1045"]
    gate.set()
    eventually(lambda: not any(one.name == "push-there" for one in threading.enumerate()))
    assert bench.counted("exporter_points_total") == 0, "the next process counts them"
    after.queue.close()


@pytest.mark.parametrize("is_down", [False, True])
def test_at_the_end_what_is_on_disk_is_sent_only_if_the_destination_works(
    tmp_path: Path, is_down: bool
) -> None:
    clock = FakeClock()
    bench = LaneBench(open_queue=spool_in(tmp_path, clock), clock=clock)
    bench.there.answer = in_turn(NO_ANSWER if is_down else OK)
    bench.lane.start()
    bench.read()
    clock.tick(10)
    eventually(lambda: len(bench.there.sent) == 1)
    bench.read()
    assert bench.lane.stop(5)
    assert len(bench.there.sent) == (1 if is_down else 2)
    assert bench.dropped("shutdown") == 0
    after = Disk(tmp_path, clock)
    after.work()
    assert after.there.stored == ([b"1001", b"1012"] if is_down else [])
    after.queue.close()

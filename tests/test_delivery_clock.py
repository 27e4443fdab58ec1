"""Clocks that differ: what is dated ahead of the destination's is held back, and only that."""

from __future__ import annotations

import logging

import pytest
from support.clock import FakeClock
from support.delivery import BUSY, NO_ANSWER, OK, SenderBench, in_turn, text

from telemetryd.delivery.destination import Outcome, Verdict
from telemetryd.delivery.server_clock import ServerClock

MINUTE = 60
HOUR = 3600
DAY = 24 * HOUR


class Dated(SenderBench):
    """The destination's clock is right, to a second; ours is `ahead` of it by so many seconds."""

    def __init__(self, ahead: float = 0.0, **more: object) -> None:
        clock = FakeClock()
        super().__init__(clock=clock, **more)  # type: ignore[arg-type]
        mono_ns, wall_ns = clock.mono_ns(), clock.wall_ns()
        self.slept = 0.0
        self.there.date = lambda: (
            (wall_ns + clock.mono_ns() - mono_ns + int(self.slept * 1e9)) // 10**9 * 10**9
        )
        clock.step_wall(ahead)

    def suspend(self, seconds: float) -> None:
        """Sleep: the monotonic clock stands still."""
        self.slept += seconds
        self.clock.step_wall(seconds)


def test_the_time_there_goes_on_with_the_monotonic_clock_and_knows_of_no_step_here() -> None:
    clock = FakeClock()
    server = ServerClock(clock)
    assert (server.now_ns(), server.skew(), server.wait_ns(2**62)) == (None, None, 0)
    server.learn(clock.wall_ns() - 7 * 10**9)
    clock.tick(5)
    assert server.skew() == 7
    clock.step_wall(HOUR)
    assert server.skew() == 7 + HOUR
    clock.tick(DAY)
    assert server.skew() == 7 + HOUR
    server.learn(clock.wall_ns())
    assert server.skew() == 0


@pytest.mark.parametrize(
    ("ahead", "seconds"), [(0, 0), (300, 0), (301, 1), (-DAY, 0), (DAY, DAY - 300)]
)
def test_five_minutes_ahead_is_let_through(ahead: float, seconds: float) -> None:
    clock = FakeClock()
    server = ServerClock(clock)
    server.learn(clock.wall_ns())
    assert server.wait_ns(clock.wall_ns() + int(ahead * 1e9)) == seconds * 1e9


@pytest.mark.parametrize("step", [DAY, -DAY])
def test_what_is_too_old_is_judged_by_the_earlier_of_two_clocks(step: float) -> None:
    clock = FakeClock()
    server = ServerClock(clock)
    before_ns = clock.wall_ns()
    assert server.sound_ns() == before_ns
    server.learn(before_ns)
    clock.step_wall(step)
    assert server.sound_ns() == min(before_ns, clock.wall_ns())


def test_a_clock_a_day_ahead_is_held_back_and_delivered_when_its_time_has_come() -> None:
    bench = Dated(ahead=DAY)
    for _ in range(3):
        bench.read()
        bench.clock.tick(10)
    bench.work_for(DAY - 10 * MINUTE)
    assert bench.there.stored == []
    assert len(bench.queue.aside) == 3
    assert bench.counted("clock_skew_seconds") == {"there": DAY}
    bench.work_for(10 * MINUTE)
    assert bench.there.stored == bench.words
    assert not bench.drops
    assert bench.counted("points_total") == {"there": 3}


def test_newer_ones_pass_once_the_clock_is_right() -> None:
    bench = Dated(ahead=DAY)
    bench.read()
    bench.work()
    bench.clock.step_wall(-DAY)
    bench.read()
    bench.read()
    bench.work()
    assert bench.there.stored == [b"1", b"2"]
    assert bench.counted("clock_skew_seconds") == {"there": 0}
    bench.work_for(DAY)
    assert bench.there.stored == [b"1", b"2", b"0"]


def test_a_step_between_two_requests_is_seen_without_asking() -> None:
    bench = Dated()
    bench.read()
    bench.work()
    bench.clock.step_wall(HOUR)
    bench.there.date = lambda: None
    bench.there.probed = lambda: NO_ANSWER
    bench.read()
    bench.work()
    assert bench.there.stored == [b"0"]
    assert bench.counted("clock_skew_seconds")["there"] == pytest.approx(HOUR, abs=1)


def test_the_time_there_is_asked_for_before_anything_is_sent() -> None:
    bench = Dated(ahead=DAY)
    bench.there.answer = in_turn(Verdict(Outcome.OK))  # with no Date in it
    bench.read()
    bench.work()
    assert (bench.there.probes, bench.there.sent) == (2, []), "and once more before it is held"


def test_nothing_is_sent_to_one_whose_time_is_not_known_because_it_is_down() -> None:
    bench = Dated(ahead=DAY)
    bench.there.probed = lambda: NO_ANSWER
    bench.read()
    bench.work_for(HOUR)
    assert bench.there.sent == []
    assert bench.counted("requests_total")["retry"] == bench.there.probes
    bench.there.probed = lambda: OK
    bench.work_for(MINUTE)
    assert bench.there.sent == []
    assert len(bench.queue.aside) == 1


def test_one_that_tells_no_time_is_sent_everything() -> None:
    bench = Dated(ahead=DAY)
    bench.there.date = lambda: None
    bench.read()
    bench.work()
    assert bench.there.stored == bench.words
    assert bench.counted("clock_skew_seconds") == {}


def test_a_probe_that_is_refused_tells_the_time_as_well() -> None:
    bench = Dated()
    bench.there.probed = lambda: BUSY
    bench.read()
    bench.work()
    assert bench.there.stored == bench.words


def test_after_a_suspend_nothing_is_held_back() -> None:
    bench = Dated()
    bench.read()
    bench.work()
    bench.suspend(8 * HOUR)
    bench.read()
    bench.work()
    assert bench.there.stored == bench.words
    assert bench.there.probes == 2


def test_after_a_suspend_without_a_network_it_is_asked_every_minute() -> None:
    bench = Dated()
    bench.read()
    bench.work()
    bench.suspend(8 * HOUR)
    bench.there.probed = lambda: NO_ANSWER
    bench.read()
    bench.read()
    bench.work_for(HOUR)
    assert bench.there.stored == [b"0"]
    assert bench.there.probes == pytest.approx(HOUR / MINUTE, abs=3)
    bench.there.probed = lambda: OK
    bench.work_for(MINUTE)
    assert bench.there.stored == bench.words


def test_a_date_that_was_wrong_once_does_not_hold_back_for_long() -> None:
    """A proxy with an answer of yesterday."""
    bench = Dated()
    right = bench.there.date
    bench.there.date = lambda: (right() or 0) - DAY * 10**9
    bench.read()
    bench.work()
    assert bench.there.sent == []
    bench.there.date = right
    bench.work_for(MINUTE)
    assert bench.there.stored == bench.words


def test_those_that_are_held_come_back_in_the_order_of_their_dates() -> None:
    bench = Dated()
    for hours in (5, 1, 3):
        date_ns = bench.clock.wall_ns() + hours * HOUR * 10**9
        bench.queue.put(text(b"%d" % hours, newest_ns=date_ns))
    bench.work_for(6 * HOUR)
    assert bench.there.stored == [b"1", b"3", b"5"]


def test_one_that_is_dropped_for_room_while_it_is_held_is_not_missed() -> None:
    bench = Dated(ahead=HOUR)
    bench.read()
    bench.read()
    bench.work()
    assert bench.queue.take_back(1)
    bench.queue.drop("size")
    bench.work_for(HOUR)
    assert bench.there.stored == [b"1"]
    assert len(bench.queue) == 0


def test_what_an_earlier_process_set_aside_is_looked_at_again() -> None:
    bench = Dated()
    for _ in range(3):
        bench.read()
    bench.queue.set_aside()
    bench.queue.set_aside()
    bench.work()
    assert bench.there.stored == [b"0", b"1", b"2"]


def test_holding_back_is_said_once_a_minute_and_how_to_mend_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Dated(ahead=HOUR)
    with caplog.at_level(logging.WARNING):
        bench.work_for(5 * MINUTE, bench.read)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 5
    assert all("held back; set the clock" in line for line in lines)
    assert "clock_skew=3600s" in lines[0]

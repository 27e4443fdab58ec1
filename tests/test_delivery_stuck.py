"""Bodies that make a destination fail for ever, and outages that only look like it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.delivery import BROKEN, BUSY, NO_ANSWER, OK, SenderBench, in_turn

from telemetryd.delivery.destination import Verdict
from telemetryd.delivery.queue import Body
from telemetryd.delivery.stuck import MOST_SUSPECTS, NEWER, TRIES, Next, Stuck

MINUTE = 60
HOUR = 60 * MINUTE


def breaks_at(*poison: bytes) -> SenderBench:
    return SenderBench(lambda body: BROKEN if set(poison) & set(body.data.split()) else OK)


def test_a_body_that_is_stuck_goes_to_quarantine_and_the_others_arrive(tmp_path: Path) -> None:
    bench = SenderBench(lambda body: BROKEN if body.data == b"5" else OK, folder=tmp_path)
    bench.work_for(20 * MINUTE, bench.read)
    assert bench.there.stored == [word for word in bench.words if word != b"5"]
    assert bench.drops == {"stuck": 1}
    assert bench.quarantine is not None
    (kept,) = bench.quarantine.list()
    assert (kept.reason, kept.status, kept.answer) == ("stuck", 500, BROKEN.detail)
    assert len(bench.queue) == 0


def test_nothing_passes_a_body_before_it_failed_for_ten_minutes_and_ten_times() -> None:
    bench = breaks_at(b"poison")
    judge = bench.there.answer
    passed_ns: list[int] = []

    def answer(body: Body) -> Verdict:
        if body.data == b"0":
            passed_ns.append(bench.clock.mono_ns())
        return judge(body)

    bench.there.answer = answer
    bench.put(b"poison")
    for number in range(20):
        bench.put(b"%d" % number)
    started_ns = bench.clock.mono_ns()
    bench.work_for(20 * MINUTE)
    # It is tried once a minute by then.
    assert 10 * MINUTE <= (passed_ns[0] - started_ns) / 1e9 <= 11 * MINUTE
    assert len(bench.there.sent) > 10
    assert bench.drops == {"stuck": 1}
    # Each of the three newer ones that prove it is followed by one more try.
    order = [body.data for body in bench.there.sent]
    first = order.index(b"0")
    assert order[first - 1 : first + 8] == [
        b"poison", b"0", b"poison", b"1", b"poison", b"2", b"poison", b"3", b"4",
    ]  # fmt: skip


def test_few_tries_are_not_enough_however_long_they_take() -> None:
    slow = Verdict(BROKEN.outcome, BROKEN.detail, retry_after=300, status=500)
    bench = SenderBench(lambda body: slow if body.data == b"poison" else OK)
    bench.put(b"poison")
    bench.put(b"other")
    bench.work_for(40 * MINUTE)
    assert len(bench.there.sent) < 10
    assert bench.there.stored == []


@pytest.mark.parametrize("is_up", [False, True])
def test_in_a_plain_outage_of_hours_nothing_overtakes(is_up: bool) -> None:
    """Whether the server answers 503 to everything, or only to what is to be written."""
    bench = SenderBench(in_turn(BUSY))
    bench.there.probed = lambda: OK if is_up else BUSY
    bench.work_for(3 * HOUR, bench.read)
    assert bench.there.stored == []
    bench.there.answer = in_turn(OK)
    bench.work_for(5 * MINUTE, bench.read)
    assert bench.there.stored == bench.words
    assert not bench.drops


@settings(max_examples=30, deadline=None)
@given(after=st.integers(0, 40))
def test_a_server_that_comes_back_while_suspects_are_passed_loses_nothing(after: int) -> None:
    bench = SenderBench(in_turn(BUSY))
    for number in range(40):
        bench.put(b"%d" % number)
    for _ in range(30 * MINUTE):
        bench.clock.tick(1)
        bench.sender.turn()
        if bench.there.probes == 2:  # one at the begin, one to find out whether to pass
            break
    assert len(bench.queue.aside) == 1
    bench.there.answer = in_turn(*[BUSY] * after, OK)
    bench.work_for(10 * MINUTE)
    assert sorted(bench.there.stored, key=int) == [b"%d" % number for number in range(40)]
    assert not bench.drops
    # One body at most came before those that are older.
    pairs = pairwise(map(int, bench.there.stored))
    early = [first for first, second in pairs if first > second]
    assert len(early) <= 1


def test_one_that_answers_otherwise_meanwhile_begins_anew() -> None:
    """Twenty minutes of 500, but every fifth time there is no answer at all."""
    answers = in_turn(*([BROKEN] * 4 + [NO_ANSWER]) * 40)
    bench = SenderBench(lambda body: answers(body) if body.data == b"odd" else OK)
    bench.put(b"odd")
    bench.put(b"other")
    bench.work_for(20 * MINUTE)
    assert bench.there.stored == []


def test_while_there_is_nothing_newer_it_is_kept_and_what_comes_counts() -> None:
    """A body every 150 s: the three newer ones that prove it do not come at once."""
    bench = breaks_at(b"poison")
    bench.put(b"poison")
    bench.work_for(15 * MINUTE)
    for number in range(2):
        bench.put(b"%d" % number)
        bench.work_for(150)
        assert not bench.drops
        assert bench.there.stored[-1] == b"%d" % number, "it is passed meanwhile"
    bench.put(b"2")
    bench.work_for(150)
    assert bench.drops == {"stuck": 1}


def test_two_bodies_that_are_stuck_are_both_found(tmp_path: Path) -> None:
    bench = SenderBench(lambda body: BROKEN if body.data in {b"3", b"4"} else OK, folder=tmp_path)
    bench.work_for(40 * MINUTE, bench.read)
    assert sorted(bench.there.stored, key=int) == [w for w in bench.words if w not in {b"3", b"4"}]
    assert bench.drops == {"stuck": 2}
    # What was delivered while the first one was found says nothing about the second one.
    order = [body.data for body in bench.there.sent]
    last = [place for place, word in enumerate(order) if word == b"4"][-4:]
    assert [second - first for first, second in pairwise(last)] == [2, 2, 2]


def test_more_suspects_than_there_may_be_are_all_taken_back_in_order() -> None:
    bench = SenderBench(in_turn(BROKEN))
    bench.work_for(11 * MINUTE, bench.read)
    order = [int(body.data) for body in bench.there.sent]
    assert max(order) == MOST_SUSPECTS, "the ninth shows that it is the server"
    assert len(bench.queue.aside) == 0
    head = bench.queue.peek()
    assert head is not None
    assert head.data == b"0"


def test_a_suspect_that_is_dropped_for_room_is_forgotten() -> None:
    bench = breaks_at(b"poison")
    bench.put(b"poison")
    for number in range(3):
        bench.put(b"%d" % number)

    judge = bench.there.answer

    def answer(body: Body) -> Verdict:
        if body.data == b"0":  # the suspect is aside now
            assert bench.queue.take_back(1)
            bench.queue.drop("size")
        return judge(body)

    bench.there.answer = answer
    waits = [bench.work()]
    while not bench.drops:
        bench.clock.tick(waits[-1])
        waits.append(bench.work())
    assert bench.there.stored == [b"0", b"1", b"2"]
    assert bench.drops == {"size": 1}
    assert waits[-1] > MINUTE, "there is nothing to wait for"
    bench.put(b"3")
    bench.work()
    assert bench.there.stored[-1] == b"3"


def test_a_suspect_that_is_all_there_is_is_tried_again_and_again() -> None:
    bench = SenderBench(in_turn(BROKEN))
    bench.put(b"only")
    bench.work_for(HOUR)
    assert len(bench.there.sent) > 50
    bench.there.answer = in_turn(OK)
    bench.work_for(MINUTE)
    assert bench.there.stored == [b"only"]


def test_suspects_are_taken_back_in_order_when_the_destination_goes_down() -> None:
    down: list[bool] = []

    def answer(body: Body) -> Verdict:
        if body.data == b"2":
            down.append(True)
            return OK
        if down:
            return NO_ANSWER if len(down) == 1 else OK
        return BROKEN

    bench = SenderBench(answer)
    for _ in range(5):
        bench.read()
    while not down:
        bench.clock.tick(min(bench.work(), 60))
    assert len(bench.queue.aside) == 0
    down.append(True)
    bench.work_for(MINUTE)
    assert bench.there.stored == [b"2", b"0", b"1", b"3", b"4"]


def test_one_that_became_a_suspect_late_is_not_given_up_early() -> None:
    """It came back from among those that were held back, and is older than the first one."""
    bench = SenderBench()
    for _ in range(9):
        bench.read()
    queue, stuck = bench.queue, Stuck(bench.queue, bench.clock)
    queue.set_aside()
    for _ in range(TRIES):
        assert stuck.failed(2, is_up=True) is Next.WAIT
        bench.clock.tick(MINUTE)
    assert stuck.failed(2, is_up=True) is Next.PASS
    assert queue.take_back(1)
    for number in range(3, 3 + NEWER + 1):
        assert queue.head == 1
        assert stuck.failed(1, is_up=False) is Next.PASS
        assert queue.head == number
        queue.acknowledge()
        stuck.answered(number, is_delivered=True)

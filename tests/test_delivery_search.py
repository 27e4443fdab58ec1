"""Bodies that are refused: the points to blame are found, the others count as stored."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.delivery import BUSY, OK, SenderBench, in_turn, numbers, refuse

from telemetryd.delivery import quarantine as quarantines
from telemetryd.delivery.destination import Outcome, Verdict
from telemetryd.delivery.queue import Body
from telemetryd.delivery.search import MOST_REQUESTS


@given(size=st.integers(1, 600), data=st.data())
def test_the_points_that_are_refused_are_found_and_nothing_else_is_lost(
    size: int, data: st.DataObject
) -> None:
    words = numbers(size)
    bad = data.draw(st.lists(st.sampled_from(words), max_size=3, unique=True))
    bench = SenderBench(refuse(*bad))
    bench.put(*words)
    bench.work()
    assert bench.drops.total() == len(bad)
    assert sorted(b" ".join(bench.there.stored).split()) == sorted(set(words) - set(bad))
    assert bench.counted("points_total").get("there", 0) == size - len(bad)
    most = max(len(bad) * (2 * math.ceil(math.log2(size)) + 2), 1)
    assert len(bench.there.sent) <= min(most, MOST_REQUESTS)


@given(size=st.integers(1, 600), data=st.data())
def test_however_many_are_refused_the_requests_for_a_body_are_bounded(
    size: int, data: st.DataObject
) -> None:
    words = numbers(size)
    bad = data.draw(st.sets(st.sampled_from(words)))
    bench = SenderBench(refuse(*bad))
    bench.put(*words)
    bench.work()
    assert len(bench.there.sent) <= MOST_REQUESTS
    assert bench.drops.total() >= len(bad)
    delivered = bench.counted("points_total").get("there", 0)
    assert delivered + bench.drops.total() == size


def test_the_next_body_has_all_its_requests_again() -> None:
    bench = SenderBench(refuse(*numbers(500)))
    for _ in range(2):
        bench.put(*numbers(500))
    bench.put(b"499", b"good", b"good", b"good")
    bench.work()
    assert bench.counted("points_total") == {"there": 3}
    assert bench.drops == {"refused": 1001}
    # As many as there are, but one: of halves, the whole, and so on there is an odd number. And for
    # the third one as many as it takes.
    assert len(bench.there.sent) == 2 * (MOST_REQUESTS - 1) + 5


def test_a_search_that_is_broken_off_takes_nothing_from_the_next_body() -> None:
    bench = SenderBench(refuse(b"3"))
    for _ in range(70):
        bench.put(*numbers(8))
        bench.sender.turn()
        assert bench.queue.parts == 2
        bench.queue.set_aside()
    bench.put(*numbers(8))
    bench.work()
    assert bench.drops == {"refused": 1}


def test_parts_that_were_only_too_large_use_up_no_requests_of_a_search() -> None:
    judge = refuse(b"799")
    too_large = Verdict(Outcome.TOO_LARGE, "413", status=413)
    bench = SenderBench(lambda body: too_large if body.points > 5 else judge(body))
    bench.put(*numbers(800))
    bench.work()
    assert bench.drops == {"refused": 1}


def test_a_failure_in_the_middle_of_the_search_uses_up_none_of_its_requests() -> None:
    down = [BUSY] * 200
    judge = refuse(b"3")

    def answer(body: Body) -> Verdict:
        if len(bench.there.sent) > 2 and down:
            return down.pop()
        return judge(body)

    bench = SenderBench(answer, jitter=0.0)
    # An hour at most: this is not about bodies that are stuck.
    bench.put(*numbers(64))
    bench.work()
    assert bench.drops == {"refused": 1}
    assert bench.counted("points_total") == {"there": 63}


def test_what_is_refused_is_in_quarantine_with_the_words_of_the_server(tmp_path: Path) -> None:
    bench = SenderBench(refuse(b"3", b"77"), folder=tmp_path)
    bench.put(*numbers(100))
    bench.work()
    assert bench.quarantine is not None
    kept = bench.quarantine.list()
    assert [(one.kind, one.reason, one.status, one.answer, one.points) for one in kept] == [
        ("words", "refused", 400, "400 bad word", 1)
    ] * 2
    assert [bench.quarantine.read(one.id)[1].data for one in kept] == [b"3", b"77"]
    assert kept[0].when_ns == kept[0].newest_ns == bench.clock.wall_ns()


def test_a_quarantine_that_cannot_be_written_costs_no_more_than_what_was_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / quarantines.FOLDER).write_text("a file where the folder should be")
    bench = SenderBench(refuse(b"3"), folder=tmp_path)
    bench.put(*numbers(10))
    with caplog.at_level(logging.WARNING):
        bench.work()
    assert bench.drops == {"refused": 1}
    assert bench.counted("points_total") == {"there": 9}
    assert "cannot keep in quarantine" in caplog.text


def test_what_is_dropped_is_logged_with_the_place_where_it_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    see = ' see="telemetryd spool quarantine list"'
    for folder, more in ((tmp_path, see), (None, "")):
        caplog.clear()
        bench = SenderBench(refuse(b"3"), folder=folder)
        bench.put(*numbers(10))
        bench.work()
        (line,) = caplog.messages
        assert line == (
            'msg="points dropped" destination=there outcome=refused answer="400 bad word" '
            f"reason=refused points=1 first='3'{more}"
        )


def test_a_quarantine_that_may_keep_nothing_is_not_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = SenderBench(refuse(b"3"), folder=tmp_path)
    assert bench.quarantine is not None
    bench.quarantine._limit = 0
    bench.put(b"3")
    bench.work()
    assert caplog.messages[0].endswith("first='3'")


def test_what_is_too_old_to_keep_is_said_to_be_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = SenderBench(in_turn(Verdict(Outcome.TOO_OLD, "400", status=400)), folder=tmp_path)
    bench.put(b"a")
    bench.work()
    assert caplog.messages[0].endswith("first='a'")


def half(outcome: Outcome, taken: int | None) -> Callable[[Body], Verdict]:
    return in_turn(Verdict(outcome, "partial write: 2 dropped", status=400, taken=taken), OK)


@pytest.mark.parametrize(
    ("taken", "delivered", "dropped"), [(None, 0, 5), (3, 3, 2), (0, 0, 5), (9, 5, 0), (-1, 0, 5)]
)
def test_of_a_partial_write_only_the_rest_counts_as_dropped(
    tmp_path: Path, taken: int | None, delivered: int, dropped: int
) -> None:
    bench = SenderBench(half(Outcome.TOO_OLD, taken), folder=tmp_path)
    bench.put(*numbers(5))
    bench.put(b"next")
    bench.work()
    assert bench.counted("points_total") == {"there": delivered + 1}
    assert bench.drops.total() == dropped
    assert bench.there.stored == [b"next"]
    assert len(bench.queue) == bench.queue.size == 0


def test_one_that_is_refused_and_taken_all_the_same_is_neither_dropped_nor_kept(
    tmp_path: Path,
) -> None:
    bench = SenderBench(half(Outcome.REFUSED, 1), folder=tmp_path)
    bench.put(b"a")
    bench.work()
    assert bench.counted("points_total") == {"there": 1}
    assert not bench.drops
    assert bench.quarantine is not None
    assert bench.quarantine.list() == []


def test_a_body_without_points_that_is_refused_is_kept_like_any_other(tmp_path: Path) -> None:
    """One that only says that something has ended, say."""
    bench = SenderBench(in_turn(Verdict(Outcome.REFUSED, "400", status=400)), folder=tmp_path)
    bench.queue.put(Body(b"ended", 0))
    bench.work()
    assert bench.drops == {"refused": 0}
    assert bench.quarantine is not None
    assert [one.size for one in bench.quarantine.list()] == [len(b"ended")]


def test_at_a_partial_write_with_no_requests_left_the_rest_is_in_quarantine(tmp_path: Path) -> None:
    """All of its bytes are: which points were taken is not known."""

    def answer(body: Body) -> Verdict:
        return Verdict(Outcome.REFUSED, "partial write", status=400, taken=body.points // 2)

    bench = SenderBench(answer, folder=tmp_path)
    bench.put(*numbers(1000))
    bench.work()
    assert bench.quarantine is not None
    kept = bench.quarantine.list()
    stored = bench.counted("points_total")["there"]
    assert stored + bench.drops["refused"] == 1000
    assert stored > 300
    assert sum(one.points for one in kept) == bench.drops["refused"]
    bodies = [bench.quarantine.read(one.id)[1].data for one in kept]
    assert b" ".join(bodies).split() == numbers(1000)

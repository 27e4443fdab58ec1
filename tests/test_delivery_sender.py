"""What a sender does with each answer, on a clock that stands still."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from support.delivery import BUSY, NO_ANSWER, OK, SenderBench, in_turn, numbers, text

from telemetryd.delivery.destination import Outcome, Verdict

UNAUTHORIZED = Verdict(Outcome.UNAUTHORIZED, "401", status=401)
MISSING = Verdict(Outcome.MISSING, "404", status=404)


def test_what_is_taken_is_acknowledged_counted_and_dated() -> None:
    bench = SenderBench()
    bench.put(b"a", b"b")
    bench.put(b"c")
    bench.work()
    assert bench.queue.peek() is None
    assert bench.there.stored == [b"a b", b"c"]
    assert bench.counted("points_total") == {"there": 3}
    assert bench.counted("requests_total") == {"ok": 2}
    assert bench.counted("last_success_timestamp_seconds") == {"there": bench.clock.wall_ns() / 1e9}
    assert bench.counted("rejections_total") == {}


def test_failures_wait_longer_and_longer_and_lose_nothing() -> None:
    bench = SenderBench(in_turn(*[BUSY] * 3, OK))
    bench.put(b"a")
    waits = []
    for _ in range(3):
        waits.append(bench.work())
        assert bench.sender.turn() > bench.clock.mono_ns(), "not a moment earlier"
        bench.clock.tick(waits[-1])
    bench.work()
    assert waits == [0.5, 1.0, 2.0]
    assert bench.counted("points_total") == {"there": 1}
    assert bench.counted("retries_total") == {"there": 3}
    assert bench.counted("rejections_total") == {"503": 3}
    assert not bench.drops


def test_a_success_makes_the_next_failure_the_first_one() -> None:
    bench = SenderBench(in_turn(BUSY, BUSY, OK, BUSY))
    bench.put(b"a")
    bench.put(b"b")
    for wait in (0.5, 1.0, 0.5):
        assert bench.work() == wait
        bench.clock.tick(wait)


def test_retry_after_is_kept_to_the_second_and_capped() -> None:
    asks = [Verdict(Outcome.RETRY, "429", retry_after=after, status=429) for after in (120.0, 1e6)]
    bench = SenderBench(in_turn(*asks, OK))
    bench.put(b"a")
    assert bench.work() == 120
    bench.clock.tick(119.9)
    bench.work()
    assert len(bench.there.sent) == 1
    bench.clock.tick(0.1)
    assert bench.work() == 300
    bench.clock.tick(300)
    bench.work()
    assert bench.counted("points_total") == {"there": 1}


def test_new_credentials_are_tried_at_once_and_then_every_minute() -> None:
    bench = SenderBench(in_turn(UNAUTHORIZED))
    bench.there.fresh = [True, True, False, True, False]
    bench.put(b"a")
    assert bench.work() == 60
    assert len(bench.there.sent) == 2
    bench.clock.tick(60)
    bench.work()
    assert len(bench.there.sent) == 3
    bench.clock.tick(60)
    bench.work()
    assert len(bench.there.sent) == 5
    assert len(bench.queue) == 1
    assert bench.counted("requests_total") == {"unauthorized": 5}


def test_a_token_that_is_mended_lets_everything_through_that_waited() -> None:
    bench = SenderBench(lambda _body: UNAUTHORIZED if not bench.there.fresh else OK)
    bench.put(b"a")
    bench.put(b"b")
    bench.work_for(300)
    assert bench.counted("blocked") == {"unauthorized": 1, "missing": 0}
    bench.there.fresh = [True]
    bench.work_for(60)
    assert bench.there.stored == [b"a", b"b"]
    assert bench.counted("blocked") == {"unauthorized": 0, "missing": 0}
    assert not bench.drops


def test_where_nobody_takes_points_other_credentials_may_help() -> None:
    bench = SenderBench(in_turn(MISSING, OK))
    bench.there.fresh = [True]
    bench.put(b"a")
    bench.work()
    assert bench.there.stored == [b"a"]


def test_what_nobody_takes_there_is_kept_and_tried_every_minute() -> None:
    bench = SenderBench(in_turn(MISSING, NO_ANSWER, OK))
    bench.put(b"a")
    assert bench.work() == 60
    assert bench.counted("blocked") == {"unauthorized": 0, "missing": 1}
    bench.clock.tick(60)
    assert bench.work() == 0.5
    assert bench.counted("blocked")["missing"] == 1, "no answer says nothing of it"
    bench.clock.tick(0.5)
    bench.work()
    assert bench.counted("points_total") == {"there": 1}
    assert bench.counted("blocked")["missing"] == 0
    assert bench.counted("rejections_total") == {"404": 1, "0": 1}


def test_what_is_too_large_is_halved_until_it_passes(tmp_path: Path) -> None:
    too_large = Verdict(Outcome.TOO_LARGE, "413 Payload Too Large", status=413)
    bench = SenderBench(
        lambda body: OK if len(body.data) <= 3 else too_large,
        folder=tmp_path,
    )
    bench.put(*[b"%d" % (i % 10) for i in range(300)], b"long-one")
    bench.work()
    assert bench.counted("points_total") == {"there": 300}
    assert bench.drops == {"too_large": 1}
    assert bench.quarantine is not None
    (kept,) = bench.quarantine.list()
    assert (kept.reason, kept.status, kept.points) == ("too_large", 413, 1)


def test_points_that_are_too_old_are_dropped_without_looking_for_the_guilty(tmp_path: Path) -> None:
    bench = SenderBench(
        in_turn(Verdict(Outcome.TOO_OLD, "out of order", status=400)), folder=tmp_path
    )
    bench.put(*numbers(500))
    bench.work()
    assert bench.drops == {"too_old": 500}
    assert len(bench.there.sent) == 1
    assert bench.quarantine is not None
    assert bench.quarantine.list() == []


def test_a_destination_that_is_down_for_an_hour_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = SenderBench(in_turn(*[NO_ANSWER] * 3600, OK), jitter=0.0)
    bench.put(b"a")
    with caplog.at_level(logging.INFO):
        for _ in range(3600):
            bench.sender.turn()
            bench.clock.tick(1)
        bench.sender.turn()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 61
    assert lines[0].startswith('msg="push failed, points are kept" destination=there')
    assert lines[-2].endswith("repeated=59")
    assert lines[-1] == 'msg="push works again" destination=there after=3600s'


@pytest.mark.parametrize("verdict", [UNAUTHORIZED, MISSING])
def test_what_only_an_operator_can_mend_is_logged_with_the_address_and_the_remedy(
    verdict: Verdict, caplog: pytest.LogCaptureFixture
) -> None:
    told = replace(verdict, url="http://there/write", remedy='set headers to { X = "tenant" }')
    bench = SenderBench(in_turn(told, OK))
    bench.put(b"a")
    bench.work()
    (line,) = caplog.messages
    assert line == (
        'msg="push failed, points are kept" destination=there '
        f'outcome={verdict.outcome.value} answer="{verdict.status}" again_in=60.0s '
        "url=http://there/write remedy=\"set headers to { X = 'tenant' }\""
    )
    bench.clock.tick(60)
    bench.work()
    assert bench.counted("points_total") == {"there": 1}


def test_where_there_is_no_advice_the_log_has_none(caplog: pytest.LogCaptureFixture) -> None:
    bench = SenderBench(in_turn(MISSING))
    bench.put(b"a")
    bench.work()
    assert caplog.messages[0].endswith("again_in=60.0s")


def test_the_timeout_that_is_left_is_passed_on() -> None:
    bench = SenderBench()
    bench.put(b"a")
    bench.sender.turn(2.5)
    assert bench.there.timeouts == [2.5, 2.5], "of the probe, and of the body"


def test_at_the_end_what_waits_is_sent_whatever_it_waited_for() -> None:
    bench = SenderBench(in_turn(BUSY, OK, OK, NO_ANSWER))
    for word in (b"a", b"b", b"c", b"d"):
        bench.put(word)
    bench.work()
    bench.sender.finish(bench.clock.mono_ns() + 10**9)
    assert bench.there.stored == [b"a", b"b"]
    assert len(bench.there.sent) == 4, "and it ends with the first failure"


def test_at_the_end_nothing_is_sent_once_the_time_is_over() -> None:
    bench = SenderBench(lambda _body: bench.clock.tick(2) or OK)
    for word in (b"a", b"b", b"c"):
        bench.put(word)
    bench.sender.finish(bench.clock.mono_ns() + 3 * 10**9)
    assert bench.there.stored == [b"a", b"b"]


def test_a_sender_that_was_abandoned_does_not_touch_the_queue_any_more() -> None:
    bench = SenderBench(lambda _body: bench.sender.abandon() or OK)
    bench.put(b"a")
    bench.work()
    assert len(bench.queue) == 1
    bench.put(b"b")
    bench.sender.finish(bench.clock.mono_ns() + 10**9)
    assert len(bench.there.sent) == 1
    assert bench.queue.peek() is not None
    assert text(b"a").data == bench.there.stored[0]

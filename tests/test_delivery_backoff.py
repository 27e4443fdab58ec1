"""How long a sender waits before it tries again."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from telemetryd.delivery.backoff import Backoff, parse_retry_after

WALL_S = 1_700_000_000.0


def test_the_bound_doubles_from_half_a_second_to_a_minute_and_stays_there() -> None:
    backoff = Backoff(random=lambda: 1.0)
    waits = [backoff.after_failure() for _ in range(10)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_wait_is_drawn_from_the_whole_range() -> None:
    draws = iter([0.0, 0.5, 0.25])
    backoff = Backoff(random=lambda: next(draws))
    assert [backoff.after_failure() for _ in range(3)] == [0.0, 0.5, 0.5]


def test_after_a_success_it_begins_anew() -> None:
    backoff = Backoff(random=lambda: 1.0)
    for _ in range(5):
        backoff.after_failure()
    backoff.reset()
    assert backoff.after_failure() == 0.5


def test_retry_after_comes_first_and_is_capped() -> None:
    backoff = Backoff(random=lambda: 1.0)
    assert backoff.after_failure(7.0) == 7.0
    assert backoff.after_failure(3600.0) == 300.0
    assert backoff.after_failure() == 2.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 0 ", 0.0),
        ("9" * 400, 9999999999.0),
        (formatdate(WALL_S + 90, usegmt=True), 90.0),
        (formatdate(WALL_S - 90, usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0662", None),
        ("Mon, 99 Foo 2025 00:00:00 GMT", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header, WALL_S) == seconds


def test_a_date_of_unknown_zone_is_utc_whatever_the_zone_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_retry_after("Tue, 14 Nov 2023 22:14:20 -0000", WALL_S) == 60.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_server_that_asks_for_no_wait_at_all_is_not_hammered() -> None:
    backoff = Backoff(random=lambda: 1.0)
    assert [backoff.after_failure(0.0) for _ in range(3)] == [0.5, 1.0, 2.0]

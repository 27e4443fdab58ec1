"""Warnings that come every tick: one line a minute for each cause."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from telemetryd.errors import ReadError
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog, printable


class Watch:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def quiet(watch: Watch) -> QuietLog:
    return QuietLog(logging.getLogger("telemetryd"), watch)


def test_a_cause_is_written_once_a_minute_with_the_number_of_lines_left_out(
    quiet: QuietLog, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(150):
        quiet.warning("disk/io", "reading failed")
        watch.now += 1.0
    assert caplog.messages == [
        "reading failed",
        "reading failed repeated=59",
        "reading failed repeated=59",
    ]


def test_a_cause_that_comes_back_much_later_is_a_line_without_a_count(
    quiet: QuietLog, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    quiet.warning("disk/io", "reading failed")
    watch.now += 3600.0
    quiet.warning("disk/io", "reading failed")
    assert caplog.messages == ["reading failed"] * 2


def test_just_under_a_minute_is_silent(
    quiet: QuietLog, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    quiet.warning("a", "m")
    watch.now += 59.999
    quiet.warning("a", "m")
    assert caplog.messages == ["m"]
    watch.now += 0.001
    quiet.warning("a", "m")
    assert caplog.messages == ["m", "m repeated=1"]


def test_causes_do_not_silence_each_other(
    quiet: QuietLog, caplog: pytest.LogCaptureFixture
) -> None:
    for cause in ("a", "b", "a", "b", "c"):
        quiet.warning(cause, f"about {cause}")
    assert caplog.messages == ["about a", "about b", "about c"]


def test_the_line_has_the_words_of_the_last_event(
    quiet: QuietLog, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    for value in (1, 2, 3):
        quiet.warning("a", f"value {value}")
        watch.now += 30.0
    assert caplog.messages == ["value 1", "value 3 repeated=1"]


def test_beyond_a_thousand_causes_in_a_minute_the_rest_count_as_one(
    quiet: QuietLog, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(2):
        for number in range(5000):
            quiet.warning(f"cause {number}", f"second {second} of {number}")
        watch.now += 1.0
    assert len(caplog.messages) == 1001, "a thousand, and one for all the others"
    caplog.clear()
    watch.now += 60.0
    quiet.warning("cause 4000", "again")
    assert caplog.messages == ["again"], "the oldest is forgotten for it"


def test_a_line_has_an_end_however_much_an_error_quotes(
    quiet: QuietLog, caplog: pytest.LogCaptureFixture
) -> None:
    quiet.warning("a", "x" * 1_000_000)
    assert len(caplog.messages[0]) == 1000


def test_lanes_that_warn_at_once_take_turns(caplog: pytest.LogCaptureFixture) -> None:
    inside: list[int] = []
    most: list[int] = []

    def monotonic() -> float:
        inside.append(1)
        time.sleep(0.001)  # gives the other threads the chance to come in too
        most.append(len(inside))
        inside.pop()
        return 0.0

    quiet = QuietLog(logging.getLogger("telemetryd"), monotonic)
    threads = [threading.Thread(target=quiet.warning, args=("a", "m")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    assert caplog.messages == ["m"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("naïve ☃", "naïve ☃"),
        ("two\nlines", "two\\nlines"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("caf\udce9", "caf\\udce9"),
        ("a\u2028b", "a\\u2028b"),
    ],
)
def test_a_message_stays_on_one_printable_line(
    quiet: QuietLog, caplog: pytest.LogCaptureFixture, text: str, line: str
) -> None:
    assert printable(text) == line
    quiet.warning("a", text)
    assert caplog.messages == [line]


def test_a_reading_that_fails_every_tick_is_logged_once_a_minute_and_counted_every_time(
    watch: Watch, quiet: QuietLog, caplog: pytest.LogCaptureFixture
) -> None:
    instruments = Instruments(quiet)
    for _ in range(120):
        instruments.reading_failed("disk", ReadError("io", "").reason, "/proc/diskstats: sick\n")
        watch.now += 1.0
    assert len(caplog.messages) == 2
    assert caplog.messages[1].endswith('error="/proc/diskstats: sick\\n" repeated=59')
    counted = {repr(series): value for series, value in instruments.points()}
    assert counted['telemetryd_collector_errors_total{collector="disk",reason="io"}'] == 120

"""Remote write: when a series has ended, the receiver hears of it, once and in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from support.remote_write_feed import OTHER, VALUE, Feed, foreign
from support.remote_write_reader import samples, series


def test_a_series_that_is_not_in_the_next_batch_ends_at_its_time() -> None:
    feed = Feed()
    feed.rows(1, 2)
    assert feed.ended() == []
    feed.clock.tick(1)
    feed.rows(2)
    assert feed.ended() == [("1", feed.ms)]
    feed.clock.tick(1)
    feed.rows(2)
    assert feed.ended() == []


def test_a_series_that_ends_and_comes_back_within_a_flush_arrives_in_order() -> None:
    feed = Feed()
    for rows in ((1, 2), (2,), (1, 2)):
        feed.clock.tick(1)
        feed.rows(*rows)
    mine = [one for one in feed.sent() if dict(one.labels)["row"] == "1"]
    assert [(one.is_stale, one.ms) for one in mine] == [
        (False, feed.ms - 2000),
        (True, feed.ms - 1000),
        (False, feed.ms),
    ]


def test_a_collector_that_reads_nothing_any_more_ends_all_its_series() -> None:
    feed = Feed()
    feed.rows(1, 2)
    feed.flush()
    feed.clock.tick(1)
    feed.read([])
    assert feed.ended() == [("1", feed.ms), ("2", feed.ms)]


def test_a_collector_that_is_silent_for_two_intervals_ends_right_behind_its_last_sample() -> None:
    feed = Feed()
    feed.rows(1)
    feed.rows(5, collector="d")
    feed.flush()
    last = feed.ms
    for seconds in (1, 2):
        feed.clock.tick(1)
        feed.rows(5, collector="d")
        assert feed.ended() == [], seconds
    feed.clock.tick(1)
    feed.rows(5, collector="d")
    assert feed.ended() == [("1", last + 1)]
    feed.clock.tick(100)
    feed.rows(5, collector="d")
    assert feed.ended() == []


def test_a_batch_that_comes_after_all_is_newer_than_the_end() -> None:
    feed = Feed()
    feed.rows(1)
    feed.flush()
    feed.clock.tick(1)
    feed.rows(1)  # a reading that began now and ends later
    late = feed._waiting.pop()
    for _ in range(3):
        feed.clock.tick(1)
        feed.rows(5, collector="d")
    ((_, ended),) = feed.ended()
    feed._waiting.append(late)
    # It is over at once: its next one should have come long ago, too.
    sent, again = feed.sent()
    assert ended < sent.ms == late.wall_ns // 1_000_000
    assert (again.is_stale, again.ms) == (True, sent.ms + 1)


def test_silence_is_measured_by_what_batches_are_thinned_out_to() -> None:
    feed = Feed(resolution=10)
    feed.rows(1)
    feed.rows(5, collector="d")
    feed.flush()
    feed.clock.tick(20)
    feed.rows(5, collector="d")
    assert feed.ended() == []
    feed.clock.tick(1)
    feed.rows(5, collector="d")
    assert [row for row, _ in feed.ended()] == ["1"]


def test_when_all_are_silent_the_daemon_may_be_stopping_and_nothing_ends_yet() -> None:
    feed = Feed()
    feed.rows(1)
    feed.flush()
    feed.clock.tick(12)
    assert feed.flush() == []
    feed.clock.tick(21)
    assert [row for row, _ in feed.ended()] == ["1"]
    feed.clock.tick(100)
    assert feed.flush() == []


def test_an_end_is_never_older_than_the_last_sample_even_if_the_clock_is() -> None:
    feed = Feed()
    feed.rows(1, 2)
    feed.flush()
    last = feed.ms
    feed.clock.tick(1)
    feed.clock.step_wall(-3600)
    feed.rows(2)
    (body,) = feed.flush()
    stale, again = samples(body.data)
    assert (stale.is_stale, stale.ms) == (True, last + 1)
    assert again.ms == feed.ms < last


def test_what_is_dated_ahead_of_the_clock_does_not_hold_up_the_others() -> None:
    feed = Feed()
    feed.rows(1)
    feed.rows(5, collector="d")
    feed.flush()
    feed.clock.step_wall(-3600)
    for _ in range(3):
        feed.clock.tick(1)
        feed.read([(OTHER.at("x"), 1.0)], collector="e")
    together, apart = feed.flush()
    assert not any(one.is_stale for one in samples(together.data))
    assert [one.is_stale for one in samples(apart.data)] == [True, True]


def test_a_value_that_is_no_number_ends_its_series() -> None:
    feed = Feed()
    feed.rows(1, 2)
    feed.flush()
    feed.clock.tick(1)
    feed.read([(VALUE.at("1"), float("nan")), (VALUE.at("2"), 2.0)])
    assert feed.ended() == [("1", feed.ms)]


def test_a_series_that_is_not_sent_does_not_end() -> None:
    feed = Feed(wants=lambda metric: metric is VALUE)
    feed.read([(OTHER.at("a"), 1.0)])
    feed.flush()
    feed.clock.tick(1)
    feed.read([])
    assert feed.flush() == []


def test_a_series_with_the_same_labels_goes_on_though_it_is_another_object() -> None:
    feed = Feed()
    for _ in range(2):
        feed.clock.tick(1)
        feed.read([(foreign("backup_age", "what").at("a"), 1.0)])
    assert [one.is_stale for one in feed.sent()] == [False, False]


def test_markers_are_no_points_and_no_more_than_fit_into_a_body() -> None:
    feed = Feed(most=100)
    feed.rows(*range(250))
    feed.flush()
    feed.clock.tick(1)
    feed.read([])
    bodies = feed.flush()
    assert [len(series(body.data)) for body in bodies] == [100, 100, 50]
    assert {body.points for body in bodies} == {0}


_STEPS = st.lists(
    st.tuples(
        st.sampled_from("cd"),
        st.sets(st.integers(0, 3)),
        st.sampled_from([1, 1, 1, 1, 5, 50]),
        st.sampled_from([0, 0, 0, -2, 3]),
        st.booleans(),
    ),
    max_size=30,
)


@given(_STEPS, st.integers(1, 5))
def test_each_end_is_newer_than_what_came_before_and_comes_once(steps, most: int) -> None:
    feed = Feed(most=most)
    # By row: the newest sample, and whether the series has ended since.
    newest: dict[str, int] = {}
    over: dict[str, bool] = {}

    def flush() -> None:
        for one in feed.sent():
            row = dict(one.labels)["row"]
            if one.is_stale:
                assert over[row] is False
                assert one.ms > newest[row]
            newest[row] = max(newest.get(row, 0), one.ms)
            over[row] = one.is_stale

    for collector, rows, seconds, jump, flushes in steps:
        feed.clock.tick(seconds)
        feed.clock.step_wall(jump)
        feed.rows(*(row + 10 * (collector == "d") for row in sorted(rows)), collector=collector)
        if flushes:
            flush()
    flush()
    feed.clock.tick(1000)
    flush()
    assert all(over.values())

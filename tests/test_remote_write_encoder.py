"""Remote write: what is encoded is what an independent reader finds in it, down to the last bit."""

from __future__ import annotations

import math
import struct
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.remote_write_feed import OTHER, TARGET, VALUE, Feed, foreign
from support.remote_write_reader import Sent, series

from telemetryd.delivery.queue import Body
from telemetryd.metric import Metric, Series


def labels_of(*points, labels=TARGET) -> dict[str, str]:
    feed = Feed(labels)
    feed.read(points)
    (sent,) = feed.sent()
    return dict(sent.labels)


# By example


def test_a_sample_has_its_labels_sorted_and_the_moment_of_its_reading() -> None:
    feed = Feed({**TARGET, "Rack": "r7", "cluster": "c1"})
    feed.read([(VALUE.at("a"), 2.5)])
    (sent,) = feed.sent()
    assert sent.labels == (
        ("Rack", "r7"),
        ("__name__", "telemetryd_test_value"),
        ("cluster", "c1"),
        ("instance", "n1"),
        ("job", "telemetryd"),
        ("row", "a"),
    )
    assert (sent.value, sent.ms) == (2.5, feed.ms)


def test_empty_labels_are_left_out() -> None:
    assert "row" not in labels_of((VALUE.at(""), 1.0))
    assert "rack" not in labels_of((VALUE.at("a"), 1.0), labels={**TARGET, "rack": ""})
    assert labels_of((VALUE.at(""), 1.0), labels={**TARGET, "row": "configured"})["row"] == (
        "configured"
    )


def test_a_label_of_the_metric_comes_before_a_configured_one() -> None:
    assert labels_of((VALUE.at("own"), 1.0), labels={**TARGET, "row": "configured"})["row"] == "own"


def test_job_and_instance_of_a_site_script_are_exported_ones_as_in_a_scrape() -> None:
    metric = foreign("backup_age", "job", "instance", "exported_job")
    assert labels_of((metric.at("nightly", "", "x"), 1.0)) == {
        "__name__": "backup_age",
        "job": "telemetryd",
        "instance": "n1",
        "exported_job": "x",
        "exported_exported_job": "nightly",
    }


def test_odd_label_values_arrive_as_they_are() -> None:
    odd = 'größe "漢"\n\\ \x00\u2028'
    assert labels_of((VALUE.at(odd), 1.0))["row"] == odd


@pytest.mark.parametrize("value", [0, -0.0, 5, math.inf, -math.inf, 5e-324, 1.7976931348623157e308])
def test_each_number_arrives_to_the_last_bit(value: float) -> None:
    feed = Feed()
    feed.read([(VALUE.at("a"), value), (VALUE.at("b"), -value)])
    assert [struct.pack("<d", one.value) for one in feed.sent()] == [
        struct.pack("<d", value),
        struct.pack("<d", -value),
    ]


def test_what_is_no_number_is_left_out_and_counted() -> None:
    feed = Feed()
    values = (math.nan, 10**400, math.inf, -math.inf, 2.5)
    feed.read([(VALUE.at(str(row)), value) for row, value in enumerate(values)])
    assert [one.value for one in feed.sent()] == [math.inf, -math.inf, 2.5]
    assert feed.dropped == {"invalid": 2}


def test_a_name_that_prometheus_does_not_allow_is_never_sent() -> None:
    feed = Feed()
    bad_name, bad_label = foreign("fine_a", "row"), foreign("fine_b", "row")
    object.__setattr__(bad_name, "name", "not-fine")
    object.__setattr__(bad_label, "labels", ("not-fine",))
    points = [(bad_name.at("a"), 1.0), (bad_label.at("a"), 1.0), (VALUE.at("a"), 1.0)]
    for _ in range(2):
        feed.clock.tick(1)
        feed.read(points)
    assert {one.name for one in feed.sent()} == {"telemetryd_test_value"}
    assert feed.dropped == {"invalid": 4}


def test_a_series_whose_labels_another_one_has_is_dropped_and_counted() -> None:
    feed = Feed({**TARGET, "row": "1"})
    feed.read([(VALUE.at("1"), 1.0), (VALUE.at(""), 2.0)])
    feed.read([(VALUE.at("1"), 3.0), (OTHER.at("1"), 4.0)], collector="d")
    assert [one.value for one in feed.sent()] == [1.0, 4.0]
    assert feed.dropped == {"duplicate": 2}


def test_labels_that_became_free_can_be_taken_by_another_collector() -> None:
    feed = Feed()
    feed.rows(1)
    feed.rows(1, collector="d")
    assert len(feed.sent()) == 1
    feed.clock.tick(1)
    feed.rows(2)
    feed.flush()
    feed.clock.tick(1)
    feed.rows(2)
    feed.rows(1, collector="d")
    assert sorted(one.value for one in feed.sent()) == [1.0, 2.0]


def test_metrics_that_are_not_wanted_are_left_out() -> None:
    feed = Feed(wants=lambda metric: metric is VALUE)
    feed.read([(OTHER.at("a"), 1.0), (VALUE.at("a"), 2.0), (OTHER.at("b"), 3.0)])
    assert [one.value for one in feed.sent()] == [2.0]


def test_batches_of_the_same_series_become_one_message_for_each_series() -> None:
    feed = Feed()
    times = []
    for reading in range(3):
        feed.clock.tick(1)
        times.append(feed.ms)
        feed.read([(VALUE.at("a"), reading), (VALUE.at("b"), 10.0 + reading)])
    (body,) = feed.flush()
    assert [[(one.value, one.ms) for one in each] for each in series(body.data)] == [
        list(zip((0.0, 1.0, 2.0), times, strict=True)),
        list(zip((10.0, 11.0, 12.0), times, strict=True)),
    ]
    assert body.points == 6
    assert body.newest_ns // 1_000_000 == feed.ms


def test_what_is_not_sent_may_come_and_go_between_the_batches_of_one_message() -> None:
    """Such as the series of single processes."""
    feed = Feed(wants=lambda metric: metric is VALUE)
    for reading, others in enumerate(("", "pq", "q", "")):
        feed.clock.tick(1)
        noise = [(OTHER.at(one), -1.0) for one in others]
        feed.read([*noise, (VALUE.at("a"), reading), (VALUE.at("b"), 10.0 + reading)])
    (body,) = feed.flush()
    assert [[one.value for one in each] for each in series(body.data)] == [
        [0.0, 1.0, 2.0, 3.0],
        [10.0, 11.0, 12.0, 13.0],
    ]


def test_series_that_come_and_go_divide_no_message_but_their_own() -> None:
    feed = Feed()
    for reading, others in enumerate(("", "p", "pq", "q", "p", "")):
        feed.clock.tick(1)
        feed.read([(VALUE.at(one), float(reading)) for one in (*others, "a", "b")])
    messages: dict[str, list[list[float | str]]] = {}
    for body in feed.flush():
        for each in series(body.data):
            values = ["end" if one.is_stale else one.value for one in each]
            messages.setdefault(dict(each[0].labels)["row"], []).append(values)
    assert messages == {
        "a": [[0, 1, 2, 3, 4, 5]],
        "b": [[0, 1, 2, 3, 4, 5]],
        "p": [[1], [2], ["end"], [4], ["end"]],
        "q": [[2], [3], ["end"]],
    }


def test_a_layout_is_used_again_with_other_numbers_of_batches() -> None:
    feed = Feed()
    for count in (1, 3, 1, 2, 3):
        for _ in range(count):
            feed.clock.tick(1)
            feed.rows(1, 2)
        (body,) = feed.flush()
        assert [len(one) for one in series(body.data)] == [count, count]


def test_bodies_hold_no_more_series_than_they_may() -> None:
    feed = Feed(most=100)
    feed.rows(*range(250))
    feed.read([(OTHER.at(str(row)), 0.0) for row in range(60)], collector="d")
    bodies = feed.flush()
    assert [len(series(body.data)) for body in bodies] == [100, 100, 50, 60]
    assert [body.points for body in bodies] == [100, 100, 50, 60]


def test_small_collectors_share_a_body() -> None:
    feed = Feed()
    for collector in range(5):
        feed.read([(VALUE.at(f"{collector}-{row}"), 0.0) for row in range(3)], str(collector))
    (body,) = feed.flush()
    assert body.points == 15


def test_many_batches_make_more_messages_not_longer_ones() -> None:
    feed = Feed(most=2)
    for _ in range(25):
        feed.clock.tick(1)
        feed.rows(1, 2)
    bodies = feed.flush()
    lengths = [[len(one) for one in series(body.data)] for body in bodies]
    assert lengths == [[10, 10], [10, 10], [5, 5]]


def test_what_is_not_newer_than_before_is_kept_in_a_body_apart() -> None:
    feed = Feed()
    feed.rows(1)
    feed.clock.tick(1)
    feed.clock.step_wall(-3600)
    feed.rows(1)
    feed.clock.tick(1)
    feed.rows(1)
    feed.read([(OTHER.at("a"), 5.0)], collector="d")
    together, apart = feed.flush()
    assert [[one.value for one in each] for each in series(together.data)] == [[1.0], [5.0]]
    ((first, second),) = series(apart.data)
    assert (first.ms, second.ms) == (feed.ms - 1000, feed.ms)


def test_two_readings_in_one_millisecond_are_never_in_one_message() -> None:
    feed = Feed()
    feed.rows(1)
    feed.rows(1)
    assert [len(series(body.data)) for body in feed.flush()] == [1, 1]


def test_batches_without_series_make_no_body() -> None:
    feed = Feed()
    feed.read([])
    assert feed.flush() == []
    assert feed.flush() == []


# By law

_TEXT = st.text(max_size=12)
_NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
_LABEL_NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: not name.startswith("__")
)
_NUMBERS = st.floats() | st.integers()


@st.composite
def _collections(draw):
    """Some collectors, each with what it read in each flush of some batches."""
    metrics: list[Metric] = []
    for name in draw(st.lists(_NAMES, min_size=1, max_size=4, unique=True)):
        labels = draw(st.lists(_LABEL_NAMES, max_size=3, unique=True))
        metrics.append(foreign(name, *labels))
    flushes = []
    for _ in range(draw(st.integers(1, 3))):
        batches = []
        for _ in range(draw(st.integers(0, 4))):
            points = {}
            for _ in range(draw(st.integers(0, 5))):
                metric = draw(st.sampled_from(metrics))
                one = metric.at(*(draw(_TEXT) for _ in metric.labels))
                points[one] = draw(_NUMBERS)
            batches.append((draw(st.sampled_from("ab")), list(points.items())))
        flushes.append(batches)
    return flushes


@given(_collections(), st.integers(1, 6))
def test_whatever_is_read_is_what_arrives(flushes, most: int) -> None:
    feed = Feed(most=most)
    for batches in flushes:
        # By name, labels and time: bits of the values that may have been read.
        read: dict[tuple[str, frozenset[tuple[str, str]], int], set[int]] = {}
        before, offered = feed.dropped.total(), 0
        for collector, points in batches:
            feed.clock.tick(1)
            feed.read(points, collector)
            offered += len(points)
            for one, value in points:
                key = (one.metric.name, _labels_after_a_scrape(one), feed.ms)
                read.setdefault(key, set()).add(_bits(value))
        bodies = feed.flush()
        for sample in chain.from_iterable(_checked(body, most) for body in bodies):
            labels = frozenset(pair for pair in sample.labels if pair[0] != "__name__")
            assert sample.bits in read[sample.name, labels, sample.ms]
            offered -= 1
        assert offered == feed.dropped.total() - before


def _checked(body: Body, most: int) -> list[Sent]:
    """The samples of a body but for the markers, when it is as it has to be."""
    each = series(body.data)
    assert len(each) <= most
    for one in each:
        names = [name.encode() for name, _ in one[0].labels]
        assert names == sorted(set(names))
        times = [sample.ms for sample in one]
        assert times == sorted(set(times))
    found = [sample for one in each for sample in one if not sample.is_stale]
    assert body.points == len(found)
    return found


def _labels_after_a_scrape(one: Series) -> frozenset[tuple[str, str]]:
    own = dict(zip(one.metric.labels, one.labels, strict=True))
    labels = {**TARGET, **{name: v for name, v in own.items() if v and name not in TARGET}}
    for name in TARGET:
        exported = f"exported_{name}"
        while exported in labels:
            exported = f"exported_{exported}"
        if own.get(name):
            labels[exported] = own[name]
    return frozenset(labels.items())


def _bits(value: float) -> int:
    try:
        return struct.unpack("<Q", struct.pack("<d", value))[0]
    except OverflowError:
        return -1

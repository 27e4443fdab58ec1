"""Bodies of remote write cut in two: the halves hold the same samples, in the same order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.remote_write_feed import VALUE, Feed
from support.remote_write_reader import samples, series

from telemetryd.delivery.queue import Body
from telemetryd.exporters.remote_write_message import Packer, ends, halve, labels_message, varint


def body_of(lengths: list[int], markers: int, long: int = 0) -> Body:
    """A body with series of so many samples, and so many markers behind them."""
    parts, number = [], 0
    for row, length in enumerate(lengths):
        labels = labels_message([(b"__name__", b"m"), (b"row", str(row).encode() + b"x" * long)])
        values = [[float(number + place)] for place in range(length)]
        number += length
        parts.append(Packer([labels]).pack(range(1, length + 1), values))
    gone = [labels_message([(b"gone", str(row).encode())]) for row in range(markers)]
    parts.append(ends(gone, 10**12))
    return Body(b"".join(parts), number, 5)


def test_a_body_is_halved_by_its_series() -> None:
    first, second = halve(body_of([1, 1, 1], 0))
    assert [len(series(one.data)) for one in (first, second)] == [1, 2]
    assert [one.points for one in (first, second)] == [1, 2]


def test_a_single_series_is_halved_by_its_samples() -> None:
    first, second = halve(body_of([5], 0))
    assert [[one.value for one in samples(half.data)] for half in (first, second)] == [
        [0.0, 1.0],
        [2.0, 3.0, 4.0],
    ]
    assert {one.labels for half in (first, second) for one in samples(half.data)} == {
        (("__name__", "m"), ("row", "0"))
    }


@pytest.mark.parametrize("body", [body_of([1], 0), body_of([], 1), Body(b"", 0)])
def test_a_single_sample_cannot_be_halved(body: Body) -> None:
    assert halve(body) == ()


def test_markers_are_no_points() -> None:
    first, second = halve(body_of([1], 1))
    assert (first.points, second.points) == (1, 0)


@given(st.lists(st.integers(1, 30), max_size=6), st.integers(0, 4), st.sampled_from([0, 200]))
def test_the_halves_hold_the_same_samples_down_to_the_last_one(
    lengths: list[int], markers: int, long: int
) -> None:
    body = body_of(lengths, markers, long)

    def leaves(one: Body) -> list[Body]:
        halves = halve(one)
        if not halves:
            return [one]
        left, right = halves
        assert samples(left.data) + samples(right.data) == samples(one.data)
        assert left.points + right.points == one.points
        assert left.newest_ns == right.newest_ns == one.newest_ns
        return leaves(left) + leaves(right)

    found = leaves(body)
    if samples(body.data):
        assert [len(samples(one.data)) for one in found] == [1] * (sum(lengths) + markers)
    assert sum(one.points for one in found) == sum(lengths)


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (0, b"\0"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (1 << 63, b"\x80" * 9 + b"\1"),
    ],
)
def test_numbers_are_written_in_groups_of_seven_bits(number: int, data: bytes) -> None:
    assert varint(number) == data


@pytest.mark.parametrize("ms", [0, 1, 127, 128, (1 << 35) - 1, 1 << 35, 1_700_000_000_000, 1 << 42])
def test_timestamps_of_every_length_arrive(ms: int) -> None:
    packed = Packer([labels_message([(b"a", b"b")])] * 2).pack([ms, ms + 1], [(1.0, 2.0)] * 2)
    assert [[one.ms for one in each] for each in series(packed)] == [[ms, ms + 1]] * 2


def test_a_body_of_two_thousand_series_is_halved_to_one_in_eleven_steps() -> None:
    feed = Feed()
    feed.read([(VALUE.at(str(row)), float(row)) for row in range(2000)])
    (body,) = feed.flush()
    steps = 0
    while halves := halve(body):
        body = halves[1]
        steps += 1
    assert steps == 11
    assert [one.value for one in samples(body.data)] == [1999.0]

"""Request bodies as an operator reads them."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetryd.delivery.body_text import as_text, moment, printable

NOON_MS = 1772366400_000


def field(number: int, content: bytes) -> bytes:
    """A field with a length. Nothing here is longer than 127 bytes."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def varint(number: int) -> bytes:
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes(group | 0x80 for group in groups[:-1]) + bytes(groups[-1:])


def label(name: str, value: str) -> bytes:
    return field(1, field(1, name.encode()) + field(2, value.encode()))


def sample(value: float | bytes, ms: int) -> bytes:
    number = value if isinstance(value, bytes) else struct.pack("<d", value)
    return field(2, b"\x09" + number + b"\x10" + varint(ms & (1 << 64) - 1))


def test_remote_write_is_a_line_for_each_sample_with_labels_value_and_time() -> None:
    cpu = field(
        1,
        label("__name__", "telemetryd_cpu_load")
        + label("cpu", 'a "b"\n \\')
        + sample(0.25, NOON_MS)
        + sample(1e300, NOON_MS + 10_500),
    )
    up = field(1, label("__name__", "up") + sample(float("inf"), NOON_MS))
    assert as_text("remote_write", cpu + up).splitlines() == [
        r'telemetryd_cpu_load{cpu="a \"b\"\n \\"} 0.25 2026-03-01T12:00:00.000Z',
        r'telemetryd_cpu_load{cpu="a \"b\"\n \\"} 1e+300 2026-03-01T12:00:10.500Z',
        "up{} inf 2026-03-01T12:00:00.000Z",
    ]


def test_a_staleness_marker_is_told_from_other_values_that_are_no_number() -> None:
    stale = struct.pack("<Q", 0x7FF0000000000002)
    body = field(1, label("__name__", "a") + sample(stale, 0) + sample(float("nan"), -1))
    assert as_text("remote_write", body).splitlines() == [
        "a{} stale 1970-01-01T00:00:00.000Z",
        "a{} nan 1969-12-31T23:59:59.999Z",
    ]


def test_a_value_and_a_time_that_are_left_out_are_zero() -> None:
    body = field(1, label("__name__", "a") + field(2, b""))
    assert as_text("remote_write", body) == "a{} 0.0 1970-01-01T00:00:00.000Z\n"


def test_fields_that_are_not_known_are_passed_over() -> None:
    metadata = field(3, b"whatever")
    body = metadata + field(1, label("__name__", "a") + b"\x18\x07" + sample(1, 0)) + b"\x30\x01"
    assert as_text("remote_write", body) == "a{} 1.0 1970-01-01T00:00:00.000Z\n"


@given(st.binary(max_size=80))
def test_whatever_stands_there_is_text_that_can_be_printed_or_no_remote_write(data: bytes) -> None:
    for kind in ("influxdb", "of another package"):
        assert all(one.isprintable() or one == "\n" for one in as_text(kind, data))
    with suppress(ValueError):
        assert all(one.isprintable() or one == "\n" for one in as_text("remote_write", data))


def test_every_beginning_of_a_body_is_told_or_shown() -> None:
    body = field(1, label("__name__", "a") + sample(1.5, NOON_MS))
    shown = as_text("remote_write", body * 2)
    for end in range(len(body) * 2):
        if end % len(body):
            with pytest.raises(ValueError, match="no remote write"):
                as_text("remote_write", (body * 2)[:end])
        else:
            assert shown.startswith(as_text("remote_write", (body * 2)[:end]))


def test_line_protocol_stands_as_it_is_but_for_what_moves_the_cursor() -> None:
    assert as_text("influxdb", b"a,b=\xc3\xa4 c=1 2\n") == "a,b=ä c=1 2\n"
    assert as_text("influxdb", b"a\x1b[31m\xff\r\n") == "a\\x1b[31m\\xff\\r\n"
    assert printable("\u202e") == "\\u202e"


@pytest.mark.parametrize("ns", [10**30, -(10**30)])
def test_a_time_beyond_the_calendar_is_shown_as_a_number(ns: int) -> None:
    assert moment(ns) == f"{ns} ns"

"""Request bodies as text that is safe to print: what a receiver says, and what a name or a label
holds, must not tell a terminal what to do."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime

# Numbers of fields of a WriteRequest and of what is in it.
_SERIES = 1
_LABEL, _SAMPLE = 1, 2
_NAME, _TEXT = 1, 2
_VALUE, _TIMESTAMP = 1, 2
# How a field is encoded (https://protobuf.dev/programming-guides/encoding/).
_VARINT, _EIGHT_BYTES, _LENGTH = 0, 1, 2
# As Prometheus writes values of labels.
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
_STALE = struct.pack("<Q", 0x7FF0000000000002)


def printable(text: str) -> str:
    """`text` with everything that is neither printable nor the end of a line as an escape."""
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def moment(ns: int) -> str:
    """A time in nanoseconds since 1970, in UTC, to a millisecond."""
    seconds, rest = divmod(ns, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 10**6:03d}Z"
    except (ValueError, OverflowError, OSError):
        return f"{ns} ns"


def as_text(kind: str, data: bytes) -> str:
    """A body to read: remote write a line for each sample, everything else as it stands. Raises
    ValueError for remote write that is none."""
    if kind == "remote_write":
        return "".join(f"{printable(line)}\n" for line in _samples(data))
    return printable(data.decode("utf-8", "backslashreplace"))


def first_line(kind: str, data: bytes, most: int) -> str:
    """The first line of that, up to so many characters; of a body that is none of its kind, what
    stands at its begin."""
    if kind == "remote_write":
        try:
            return printable(next(_samples(data), ""))[:most]
        except ValueError:
            return as_text("", data[:most])[:most]
    return as_text(kind, data.partition(b"\n")[0])[:most]


def _samples(data: bytes) -> Iterator[str]:
    """Labels, value, time."""
    try:
        for number, series in _fields(data):
            if number == _SERIES:
                yield from _of_series(_bytes(series))
    except (IndexError, KeyError, struct.error) as error:
        raise ValueError(f"no remote write: {error!r}") from error


def _of_series(series: bytes) -> Iterator[str]:
    labels: list[tuple[str, str]] = []
    for number, content in _fields(series):
        if number not in {_LABEL, _SAMPLE}:
            continue
        parts = dict(_fields(_bytes(content)))
        if number == _LABEL:
            labels.append((_text(parts[_NAME]), _text(parts[_TEXT])))
        else:
            value = _bytes(parts.get(_VALUE, bytes(8)))
            when = moment(_signed(parts.get(_TIMESTAMP, 0)) * 10**6)
            yield f"{_shown(labels)} {_number(value)} {when}"


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a message: number, and content: bytes, or a whole number."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        if tag & 7 == _VARINT:
            number, place = _varint(message, place)
            yield tag >> 3, number
            continue
        if tag & 7 == _LENGTH:
            length, place = _varint(message, place)
        elif tag & 7 == _EIGHT_BYTES:
            length = 8
        else:
            raise ValueError(f"no remote write: wire type {tag & 7}")
        if place + length > len(message):
            raise ValueError("no remote write: it is cut off")
        yield tag >> 3, message[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place`, and where what follows begins."""
    number = shift = 0
    while True:
        number |= (data[place] & 0x7F) << shift
        shift += 7
        place += 1
        if data[place - 1] < 0x80:
            return number, place


def _bytes(content: bytes | int) -> bytes:
    if isinstance(content, int):
        raise ValueError("no remote write: a whole number where none may be")  # noqa: TRY004
    return content


def _signed(content: bytes | int) -> int:
    if not isinstance(content, int):
        raise ValueError("no remote write: bytes where a number should be")  # noqa: TRY004
    return content - (1 << 64) if content >= 1 << 63 else content


def _text(content: bytes | int) -> str:
    return _bytes(content).decode("utf-8", "backslashreplace")


def _number(value: bytes) -> str:
    return "stale" if value == _STALE else repr(struct.unpack("<d", value)[0])


def _shown(labels: list[tuple[str, str]]) -> str:
    """The series as Prometheus writes it."""
    name = "".join(value for label, value in labels if label == "__name__")
    rest = (
        f'{label}="{value.translate(_ESCAPES)}"' for label, value in labels if label != "__name__"
    )
    return f"{name}{{{','.join(rest)}}}"

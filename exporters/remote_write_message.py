"""Prometheus remote write 1.0 as bytes: time series, packed by the hundred, and cut in two.

A body is what `prometheus.WriteRequest` has as its field 1, one after the other, not compressed:

    WriteRequest { repeated TimeSeries timeseries = 1; }
    TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2; }
    Label        { string name = 1; string value = 2; }
    Sample       { double value = 1; int64 timestamp = 2; }     timestamp in ms since 1970

Protocol buffers put bodies behind each other into one, and so do we; to halve one, it is enough to
walk over the lengths. https://prometheus.io/docs/specs/prw/remote_write_spec/
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from telemetryd.delivery.queue import Body

# A NaN that says that a series has ended (prometheus/model/value/value.go), as it stands in a body.
STALE = struct.pack("<Q", 0x7FF0000000000002)

# Tags: the number of a field and how it is encoded.
_SERIES = _LABELS = _NAME = b"\x0a"
_SAMPLES = _LABEL_VALUE = b"\x12"
_VALUE = b"\x09"
_TIMESTAMP = b"\x10"
_SAMPLES_TAG = _SAMPLES[0]
# For how many different lengths and numbers of timestamps a layout stays prepared.
_MOST_PREPARED = 2


def varint(number: int) -> bytes:
    """A whole number, not negative, in groups of seven bits."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def labels_message(labels: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Names and values, in this order, as they stand at the begin of a TimeSeries."""
    parts: list[bytes] = []
    for name, value in labels:
        pair = b"".join((_NAME, varint(len(name)), name, _LABEL_VALUE, varint(len(value)), value))
        parts += (_LABELS, varint(len(pair)), pair)
    return b"".join(parts)


def ends(labels: Iterable[bytes], ms: int) -> bytes:
    """The series with these encoded labels, each with a staleness marker."""
    stamp = _TIMESTAMP + varint(ms)
    sample = b"".join((_SAMPLES, varint(len(STALE) + 1 + len(stamp)), _VALUE, STALE, stamp))
    return b"".join(
        part for one in labels for part in (_SERIES, varint(len(one) + len(sample)), one, sample)
    )


class Packer:
    """Packs values of series that have these encoded labels.

    What does not change stays in a list of what one large `struct` packs, in which only values
    and timestamps are exchanged: a join of as many pieces takes eight times as long.
    """

    def __init__(self, labels: Sequence[bytes]) -> None:
        self._labels = labels
        self.count = len(labels)
        self._prepared: dict[tuple[int, ...], tuple[struct.Struct, list[object]]] = {}

    def pack(self, stamps_ms: Sequence[int], rows: Sequence[Sequence[float]]) -> bytes:
        """One TimeSeries for each series, with a sample for each timestamp, whose values are a
        row. Raises OverflowError or struct.error for a number that no double can hold."""
        stamps = [_TIMESTAMP + varint(ms) for ms in stamps_ms]
        lengths = tuple(map(len, stamps))
        frame, items = self._prepared.get(lengths) or self._prepare(lengths)
        step, count = 1 + 2 * len(rows), len(self._labels)
        # What stands between two values: a timestamp, and the begin of the next sample.
        nexts = [*(_sample_begin(length) for length in lengths[1:]), b""]
        for place, (row, stamp, following) in enumerate(zip(rows, stamps, nexts, strict=True)):
            items[1 + 2 * place :: step] = row
            items[2 + 2 * place :: step] = [stamp + following] * count
        return frame.pack(*items)

    def _prepare(self, lengths: tuple[int, ...]) -> tuple[struct.Struct, list[object]]:
        begins = [_sample_begin(length) for length in lengths]
        size = sum(map(len, begins)) + sum(lengths) + 8 * len(lengths)
        between = [
            length + len(begin) for length, begin in zip(lengths, [*begins[1:], b""], strict=True)
        ]
        tail = "".join(f"d{one}s" for one in between)
        heads = [
            b"".join((_SERIES, varint(len(one) + size), one, begins[0])) for one in self._labels
        ]
        frame = struct.Struct("<" + "".join(f"{len(head)}s{tail}" for head in heads))
        step = 1 + 2 * len(lengths)
        items: list[object] = [None] * (step * len(heads))
        items[::step] = heads
        while len(self._prepared) >= _MOST_PREPARED:
            del self._prepared[next(iter(self._prepared))]
        self._prepared[lengths] = frame, items
        return frame, items


def _sample_begin(length: int) -> bytes:
    """What stands before the value of a sample whose timestamp takes `length` bytes."""
    return b"".join((_SAMPLES, varint(9 + length), _VALUE))


@dataclass(frozen=True, slots=True)
class _Span:
    """A TimeSeries in a body: where it begins and ends, and each of its samples."""

    begin: int
    end: int
    samples: Sequence[tuple[int, int]]


def halve(body: Body) -> tuple[Body, ...]:
    """Two bodies with the samples of this one, in their order; those of a single series are
    divided. None if there is only one sample."""
    data = body.data
    spans = list(_spans(data))
    if len(spans) > 1:
        middle = len(spans) // 2
        cut = spans[middle].begin
        return _part(body, data[:cut], spans[:middle]), _part(body, data[cut:], spans[middle:])
    if not spans or len(spans[0].samples) < 2:
        return ()
    samples = spans[0].samples
    middle = len(samples) // 2
    begin = _read_varint(data, 1)[1]
    labels = data[begin : samples[0][0]]
    return tuple(_series(body, labels, part) for part in (samples[:middle], samples[middle:]))


def _series(body: Body, labels: bytes, samples: Sequence[tuple[int, int]]) -> Body:
    content = labels + body.data[samples[0][0] : samples[-1][1]]
    points = sum(not _is_marker(body.data, sample) for sample in samples)
    return replace(body, data=_SERIES + varint(len(content)) + content, points=points)


def _part(body: Body, data: bytes, spans: Iterable[_Span]) -> Body:
    samples = chain.from_iterable(span.samples for span in spans)
    return replace(body, data=data, points=sum(not _is_marker(body.data, one) for one in samples))


def _is_marker(data: bytes, sample: tuple[int, int]) -> bool:
    """Whether a sample is a staleness marker, which nobody has read and so is no point. The length
    of a sample takes one byte, and its value comes first."""
    return data[sample[0] + 3 : sample[0] + 11] == STALE


def _spans(data: bytes) -> Iterator[_Span]:
    place = 0
    while place < len(data):
        begin = place
        length, place = _read_varint(data, begin + 1)
        end = place + length
        samples = []
        while place < end:
            field = place
            is_sample = data[field] == _SAMPLES_TAG
            length, place = _read_varint(data, field + 1)
            place += length
            if is_sample:
                samples.append((field, place))
        yield _Span(begin, end, samples)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at `place`, and where what follows begins."""
    number = shift = 0
    while data[place] > 0x7F:
        number |= (data[place] & 0x7F) << shift
        shift += 7
        place += 1
    return number | data[place] << shift, place + 1

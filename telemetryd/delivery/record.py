"""One record of a spool's segment: a body with a header in front of it.

    magic 4 | length u32 | sequence u64 | newest_ns i64 | points u32
    | records before u64 | points before u64 | CRC of the body u32 | CRC of the header u32 | body

Little endian; CRCs are those of zlib. The header has a CRC of its own, so that its length can be
trusted; where it cannot, the next magic with a sound header behind it is where reading goes on. The
sums say how many records and points were ever written before this one: what is missing between two
records is their difference, exactly, however little is left of it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from telemetryd.delivery.queue import Body

MAGIC = b"\xf7\xd1TR"
_FIELDS = struct.Struct("<4sIQqIQQI")
_CRC = struct.Struct("<I")
HEADER_SIZE = _FIELDS.size + _CRC.size
# Read at once in search of a magic.
_CHUNK = 1 << 18


class Mark(NamedTuple):
    """A place in the row of records: before the one numbered `sequence`, with so many records and
    points written before it."""

    sequence: int
    records: int
    points: int


START = Mark(1, 0, 0)


class Header(NamedTuple):
    """What stands before a body. `length` is that of the body in bytes."""

    length: int
    sequence: int
    newest_ns: int
    points: int
    records_before: int
    points_before: int
    crc: int

    @property
    def size(self) -> int:
        """Bytes of the record."""
        return HEADER_SIZE + self.length

    @property
    def before(self) -> Mark:
        return Mark(self.sequence, self.records_before, self.points_before)

    @property
    def after(self) -> Mark:
        return Mark(self.sequence + 1, self.records_before + 1, self.points_before + self.points)


def header_of(body: Body, before: Mark) -> Header:
    """The header of `body`, which gets the number and stands behind the sums of `before`."""
    crc = zlib.crc32(body.data)
    return Header(len(body.data), before[0], body.newest_ns, body.points, *before[1:], crc)


def encode_header(header: Header) -> bytes:
    fields = _FIELDS.pack(MAGIC, *header)
    return fields + _CRC.pack(zlib.crc32(fields))


def read_header(descriptor: int, offset: int, end: int) -> Header | None:
    """The header at `offset`; None if none is there, it is damaged, or its body goes beyond `end`.
    Raises OSError."""
    if end - offset < HEADER_SIZE:
        return None
    data = os.pread(descriptor, HEADER_SIZE, offset)
    if len(data) < HEADER_SIZE or not data.startswith(MAGIC):
        return None
    if zlib.crc32(data[: _FIELDS.size]) != _CRC.unpack_from(data, _FIELDS.size)[0]:
        return None
    header = Header(*_FIELDS.unpack_from(data)[1:])
    return header if offset + header.size <= end else None


def read_body(descriptor: int, offset: int, header: Header) -> Body | None:
    """The body behind the `header` at `offset`; None if it is damaged. Raises OSError."""
    data = os.pread(descriptor, header.length, offset + HEADER_SIZE)
    if len(data) != header.length or zlib.crc32(data) != header.crc:
        return None
    return Body(data, header.points, header.newest_ns)


def find_record(descriptor: int, offset: int, end: int) -> tuple[int, Header] | None:
    """The first record at or behind `offset` whose header is sound, and where it is; None if there
    is none before `end`. Raises OSError."""
    header = read_header(descriptor, offset, end)
    if header is not None:
        return offset, header
    while end - offset >= HEADER_SIZE:
        chunk = os.pread(descriptor, min(_CHUNK, end - offset), offset)
        at = chunk.find(MAGIC)
        while at >= 0:
            header = read_header(descriptor, offset + at, end)
            if header is not None:
                return offset + at, header
            at = chunk.find(MAGIC, at + 1)
        # A magic may lie across the end of what was read.
        step = len(chunk) - len(MAGIC) + 1
        if step <= 0:
            break
        offset += step
    return None


def walk(descriptor: int, offset: int, end: int) -> Iterator[tuple[int, Header]]:
    """Every record with a sound header from `offset` to `end`, and where it is. Raises OSError."""
    while (found := find_record(descriptor, offset, end)) is not None:
        yield found
        offset = found[0] + found[1].size

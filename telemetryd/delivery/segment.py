"""One file of a spool: a preamble, which says whose records these are, and the records.

    magic 8 | format u16 | kind 16 | sequence u64 | records before u64 | points before u64 | CRC u32

The name of the file is the number of its first record, in 20 digits, so that the names sort.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

from telemetryd.delivery.record import Header, Mark

FORMAT = 1
_MAGIC = b"tlmspool"
_FIELDS = struct.Struct("<8sH16sQQQ")
_CRC = struct.Struct("<I")
PREAMBLE_SIZE = _FIELDS.size + _CRC.size
_NAME = re.compile(r"(\d{20})\.seg\Z")


class Preamble(NamedTuple):
    """What a segment says of itself; `start` is where its first record stands in the row."""

    version: int
    kind: str
    start: Mark


@dataclass(slots=True, eq=False)
class Segment:
    """What is known of one file without reading it again.

    `size` is where its records end, in bytes. `records`, `points` and `waiting` (bytes of bodies)
    are the sums over those in it that wait in line, behind the head; `offset` is where to look for
    the first of them. `held` counts those that are no longer in line but not done either.
    `newest_ns` is when the newest point in it was read, 0 if nothing in it says so. `end` is the
    place in the row behind its last record.
    """

    path: str
    size: int
    end: Mark
    offset: int = PREAMBLE_SIZE
    records: int = 0
    points: int = 0
    waiting: int = 0
    held: int = 0
    newest_ns: int = 0

    def add(self, header: Header) -> None:
        """One more record of it waits in line."""
        self.records += 1
        self.points += header.points
        self.waiting += header.length

    def take(self, header: Header) -> None:
        """One fewer."""
        self.records -= 1
        self.points -= header.points
        self.waiting -= header.length

    @property
    def is_done(self) -> bool:
        """Whether nothing in it waits."""
        return not self.records and not self.held


def segment_name(sequence: int) -> str:
    return f"{sequence:020d}.seg"


def first_sequence(name: str) -> int | None:
    """The number in the name of a segment; None if it is not the name of one."""
    match = _NAME.match(name)
    return int(match[1]) if match is not None else None


def encode_preamble(kind: str, start: Mark) -> bytes:
    fields = _FIELDS.pack(_MAGIC, FORMAT, kind.encode("ascii"), *start)
    return fields + _CRC.pack(zlib.crc32(fields))


def read_preamble(descriptor: int) -> Preamble | None:
    """None if there is none or it is damaged. Raises OSError."""
    data = os.pread(descriptor, PREAMBLE_SIZE, 0)
    if len(data) < PREAMBLE_SIZE or not data.startswith(_MAGIC):
        return None
    if zlib.crc32(data[: _FIELDS.size]) != _CRC.unpack_from(data, _FIELDS.size)[0]:
        return None
    _, version, kind, *start = _FIELDS.unpack_from(data)
    return Preamble(version, kind.rstrip(b"\0").decode("ascii", "replace"), Mark(*start))

"""How far a spool has been delivered: a small text file beside its segments.

One line: the CRC of what follows, in hex, and JSON. `next` is the place in the row before which
everything is done, but for the numbers in `front` (the head, and what comes right behind it) and
`aside` (set aside). Those are ranges: first and last number, how many records of these there are,
and their points. `end` is the place behind the last record known to be on the disk.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from telemetryd.delivery.record import Mark

NAME = "cursor"
_FORMAT = 1


class Range(NamedTuple):
    """Numbers from `first` to `last`, which `records` records with `points` points have."""

    first: int
    last: int
    records: int
    points: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """What the file says."""

    next: Mark
    end: Mark
    front: tuple[Range, ...] = ()
    aside: tuple[Range, ...] = ()


def ranges(records: Iterable[tuple[int, int]]) -> tuple[Range, ...]:
    """Numbers and points of single records as ranges, in the same order."""
    found: list[Range] = []
    for number, points in records:
        if found and number == found[-1].last + 1:
            first, _, count, total = found[-1]
            found[-1] = Range(first, number, count + 1, total + points)
        else:
            found.append(Range(number, number, 1, points))
    return tuple(found)


def encode(cursor: Cursor) -> bytes:
    fields = {
        "format": _FORMAT,
        "next": cursor.next,
        "end": cursor.end,
        "front": cursor.front,
        "aside": cursor.aside,
    }
    text = json.dumps(fields).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(data: bytes) -> Cursor:
    """Raises ValueError with what is wrong."""
    crc, _, text = data.removesuffix(b"\n").partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        raise ValueError("its CRC does not fit")
    try:
        fields: dict[str, Any] = json.loads(text)
        if fields["format"] != _FORMAT:
            raise ValueError(f"format {fields['format']} is not known, only {_FORMAT}")
        return Cursor(
            Mark(*map(int, fields["next"])),
            Mark(*map(int, fields["end"])),
            tuple(Range(*map(int, one)) for one in fields["front"]),
            tuple(Range(*map(int, one)) for one in fields["aside"]),
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is not one of ours: {error!r}") from error

"""What lies in the folder of a spool, found out by reading its cursor and the headers of its
records. Nothing is changed here, and nothing that lies there is too broken for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain

from telemetryd.delivery import cursor as cursors
from telemetryd.delivery.cursor import Cursor, Range
from telemetryd.delivery.record import START, Header, Mark, walk
from telemetryd.delivery.segment import (
    FORMAT,
    PREAMBLE_SIZE,
    Preamble,
    Segment,
    first_sequence,
    read_preamble,
)
from telemetryd.delivery.spool_files import open_regular, read_regular

# These say nothing about the file.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


@dataclass(slots=True)
class Place:
    """Where a record that is not in line stands."""

    segment: Segment
    offset: int
    header: Header


@dataclass(slots=True)
class Found:
    """All that is there. `segments` have something that waits, oldest first; `finished` are files
    with nothing of use in them, `unusable` those that cannot be read, with the reason. `places` are
    those of the records that `front` and `aside` name, by number."""

    segments: list[Segment] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    front: tuple[Range, ...] = ()
    aside: tuple[Range, ...] = ()
    next: Mark = START
    end: Mark = START


def scan(directory: str, kind: str | None) -> Found:
    """Look through the spool in `directory`; segments of another kind than `kind` are unusable,
    unless that is None.
    Raises OSError if the folder cannot be listed, or there are too many open files."""
    found = Found()
    names = sorted(name for name in os.listdir(directory) if first_sequence(name) is not None)
    cursor = _read_cursor(os.path.join(directory, cursors.NAME), found)
    looking = _Looking(found, kind, cursor)
    for name in names:
        looking.read(os.path.join(directory, name))
    found.next = looking.next or found.next
    found.end = max(found.next, looking.end)
    return found


def missing(wanted: Iterable[Range], places: dict[int, Place]) -> tuple[int, int]:
    """Points and records that `wanted` names and `places` has not."""
    points = records = 0
    for one in wanted:
        there = [places[number] for number in range(one.first, one.last + 1) if number in places]
        records += one.records - len(there)
        points += one.points - sum(place.header.points for place in there)
    return points, records


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _read_cursor(path: str, found: Found) -> Cursor | None:
    try:
        cursor = cursors.decode(read_regular(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        found.unusable[path] = _why(error)
        return None
    found.front, found.aside = cursor.front, cursor.aside
    return cursor


class _Looking:
    """Looks at one segment after the other."""

    def __init__(self, found: Found, kind: str | None, cursor: Cursor | None) -> None:
        self._found = found
        self._kind = kind
        self.next = cursor.next if cursor is not None else None
        self.end = cursor.end if cursor is not None else START
        # Behind the last record that was seen: numbers only rise.
        self._least = 0
        self._held = {
            number
            for one in chain(found.front, found.aside)
            for number in range(one.first, one.last + 1)
        }

    def read(self, path: str) -> None:
        try:
            descriptor = open_regular(path)
            try:
                why = self._read(path, descriptor)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            if getattr(error, "errno", None) in _OURS:
                raise
            why = _why(error)
        if why is not None:
            self._found.unusable[path] = why

    def _read(self, path: str, descriptor: int) -> str | None:
        size = os.fstat(descriptor).st_size
        preamble = read_preamble(descriptor)
        if preamble is not None and (why := self._unfit(preamble)) is not None:
            return why
        if preamble is not None and self.next is None:
            self.next = preamble.start
        segment = Segment(path, size, START)
        is_ours = preamble is not None or not size
        # Without its preamble a file may still have all its records.
        for offset, header in walk(descriptor, PREAMBLE_SIZE if preamble else 0, size):
            is_ours = True
            if header.sequence >= self._least:
                self._meet(segment, offset, header)
        if not is_ours:
            return "neither a preamble nor a record of ours is in it"
        if segment.is_done:
            self._found.finished.append(path)
        else:
            self._found.segments.append(segment)
        return None

    def _unfit(self, preamble: Preamble) -> str | None:
        if preamble.version != FORMAT:
            return f"format {preamble.version} is not known, only {FORMAT}: another version made it"
        if self._kind is not None and preamble.kind != self._kind:
            return f"holds bodies for {preamble.kind}, not {self._kind}"
        return None

    def _meet(self, segment: Segment, offset: int, header: Header) -> None:
        self._least = header.sequence + 1
        segment.end = header.after
        self.end = max(self.end, header.after)
        if self.next is None:
            self.next = header.before
        if header.sequence >= self.next.sequence:
            if not segment.records:
                segment.offset = offset
            segment.add(header)
        elif header.sequence in self._held:
            segment.held += 1
            self._found.places[header.sequence] = Place(segment, offset, header)
        else:
            return
        segment.newest_ns = max(segment.newest_ns, header.newest_ns)

"""What is in the folder of a destination, for an operator: nothing is changed, locked or kept open.

A daemon may be at work in it meanwhile: a file that vanishes while this looks counts as gone, and
what was acknowledged in the last second may still be counted, because the cursor is written once a
second.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field

from telemetryd.delivery import spool_unusable
from telemetryd.delivery.quarantine import REPLAY, Quarantine
from telemetryd.delivery.record import read_header
from telemetryd.delivery.segment import Segment, read_preamble
from telemetryd.delivery.spool_files import open_regular
from telemetryd.delivery.spool_scan import Found, scan


@dataclass(slots=True)
class Contents:
    """What waits in one folder. Times are nanoseconds since 1970, of the newest point in a request
    body; None if nothing waits. `kind` is empty if no file says it. `size` and `quarantined_bytes`
    count bytes, `to_replay` and `unusable` files; `remarks` are what an operator ought to know."""

    name: str
    path: str
    kind: str = ""
    records: int = 0
    points: int = 0
    size: int = 0
    oldest_ns: int | None = None
    newest_ns: int | None = None
    set_aside: int = 0
    quarantined: int = 0
    quarantined_bytes: int = 0
    to_replay: int = 0
    unusable: int = 0
    remarks: list[str] = field(default_factory=list)


def folders(directory: str) -> list[str]:
    """The names of the destinations that the spool in `directory` has folders for. Raises
    OSError."""
    with os.scandir(directory) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
        )


def look(directory: str, name: str) -> Contents:
    """Look at the folder of the destination `name`. Raises OSError if it cannot be listed."""
    contents = Contents(name, os.path.join(directory, name))
    found = scan(contents.path, None)
    _count_waiting(contents, found)
    kinds: dict[str, None] = {}
    for path in sorted([*(segment.path for segment in found.segments), *found.finished]):
        if kind := _kind(path):
            kinds[kind] = None
    contents.kind = " and ".join(kinds)
    quarantine = Quarantine(contents.path, 0)
    contents.quarantined, contents.quarantined_bytes = quarantine.records, quarantine.size
    contents.to_replay = _count(os.path.join(contents.path, REPLAY))
    kept = os.path.join(contents.path, spool_unusable.FOLDER)
    contents.unusable = _count(kept) + len(found.unusable)
    for path, why in found.unusable.items():
        contents.remarks.append(f"{path}: {why}; the daemon sets it aside when it starts")
    if _count(kept):
        contents.remarks.append(
            f"{kept} has files that could not be used; nothing reads them: delete them when you "
            "like"
        )
    return contents


def _count_waiting(contents: Contents, found: Found) -> None:
    """Those in line, and those that the cursor names apart."""
    apart = [place.header for place in found.places.values()]
    contents.records = sum(one.records for one in found.segments) + len(apart)
    contents.points = sum(one.points for one in found.segments)
    contents.points += sum(one.points for one in apart)
    contents.size = sum(one.waiting for one in found.segments) + sum(one.length for one in apart)
    contents.set_aside = sum(
        number in found.places for one in found.aside for number in range(one.first, one.last + 1)
    )
    if contents.records:
        firsts = [_first_ns(one) for one in found.segments if one.records][:1]
        known = filter(None, [*firsts, *(one.newest_ns for one in apart)])
        contents.oldest_ns = min(known, default=None)
        contents.newest_ns = max(one.newest_ns for one in found.segments) or None


def _first_ns(segment: Segment) -> int:
    """When the newest point of the first record in line was read; 0 if it is gone."""
    with suppress(FileNotFoundError):
        descriptor = open_regular(segment.path)
        try:
            header = read_header(descriptor, segment.offset, segment.size)
        finally:
            os.close(descriptor)
        return header.newest_ns if header is not None else 0
    return 0


def _kind(path: str) -> str:
    """What kind of bodies a segment has; empty if it does not say or is gone."""
    with suppress(FileNotFoundError):
        descriptor = open_regular(path)
        try:
            preamble = read_preamble(descriptor)
        finally:
            os.close(descriptor)
        return preamble.kind if preamble is not None else ""
    return ""


def _count(folder: str) -> int:
    """Files in a folder that need not be there."""
    try:
        return sum(not name.startswith(".") for name in os.listdir(folder))
    except FileNotFoundError:
        return 0

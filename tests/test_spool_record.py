"""Records, ranges and the search for the next sound header."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.spools import Kept, body, tree

from telemetryd.delivery import cursor_keeper, spool_scan
from telemetryd.delivery.cursor import Cursor, Range, decode, encode, ranges
from telemetryd.delivery.queue import Body
from telemetryd.delivery.record import (
    MAGIC,
    Mark,
    encode_header,
    find_record,
    header_of,
    read_body,
    walk,
)
from telemetryd.errors import Unavailable

CHUNK = 1 << 18


def record(data: bytes, number: int = 1) -> bytes:
    body = Body(data, 5, -1)
    return encode_header(header_of(body, Mark(number, 10, 100))) + data


def opened(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def test_a_record_is_found_behind_junk_of_any_length(tmp_path: Path) -> None:
    for before in (0, 1, *range(CHUNK - 60, CHUNK + 3), 3 * CHUNK + 1):
        data = b"\0" * before + record(b"body")
        descriptor = opened(tmp_path / "file", data)
        found = find_record(descriptor, 0, len(data))
        assert found is not None, before
        offset, header = found
        assert offset == before
        assert header.before == Mark(1, 10, 100)
        assert header.after == Mark(2, 11, 105)
        read = read_body(descriptor, offset, header)
        assert read is not None
        assert (read.data, read.points, read.newest_ns) == (b"body", 5, -1)
        os.close(descriptor)


def test_a_magic_without_a_header_is_passed_over(tmp_path: Path) -> None:
    data = MAGIC * 1000 + record(b"body") + MAGIC + record(MAGIC * 3, 2) + MAGIC * 100
    descriptor = opened(tmp_path / "file", data)
    assert [header.sequence for _, header in walk(descriptor, 0, len(data))] == [1, 2]
    os.close(descriptor)


def test_a_record_inside_the_body_of_another_is_not_one(tmp_path: Path) -> None:
    data = record(record(b"inner", 7), 1) + record(b"next", 2)
    descriptor = opened(tmp_path / "file", data)
    assert [header.sequence for _, header in walk(descriptor, 0, len(data))] == [1, 2]
    os.close(descriptor)


def test_a_body_that_is_not_all_there_is_no_record(tmp_path: Path) -> None:
    data = record(b"body")
    descriptor = opened(tmp_path / "file", data)
    assert find_record(descriptor, 0, len(data) - 1) is None
    assert find_record(descriptor, 0, len(data)) is not None
    os.close(descriptor)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9)), unique_by=lambda one: one[0]))
def test_ranges_name_the_same_numbers_in_the_same_order(records: list[tuple[int, int]]) -> None:
    found = ranges(records)
    named = [number for one in found for number in range(one.first, one.last + 1)]
    assert named == [number for number, _ in records]
    assert sum(one.records for one in found) == len(records)
    assert sum(one.points for one in found) == sum(points for _, points in records)


def test_a_cursor_says_what_it_was_told() -> None:
    cursor = Cursor(
        Mark(7, 5, 50),
        Mark(9, 7, 70),
        (Range(6, 6, 1, 10),),
        (Range(1, 2, 2, 20), Range(4, 4, 1, 3)),
    )
    assert decode(encode(cursor)) == cursor
    assert len(encode(cursor).splitlines()) == 1


def test_an_older_cursor_never_takes_the_place_of_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "far")
    keeper = kept.spool._backlog.keeper
    kept.spool.put(body(1))
    kept.spool.put(body(2))
    kept.spool.close()
    keeper.version += 1
    kept.spool._backlog.line.next = Mark(1, 0, 0)
    write_beside = cursor_keeper.write_beside

    def overtaken(path: str, data: bytes, suffix: str, *, sync: bool) -> str:
        """While this is written, what is dropped makes a newer one necessary."""
        unfinished = write_beside(path, data, suffix, sync=sync)
        if sync:
            kept.spool._backlog.line.next = Mark(2, 1, 1)
            keeper.save_now()
        return unfinished

    monkeypatch.setattr(cursor_keeper, "write_beside", overtaken)
    assert keeper._save()
    assert decode((tmp_path / "far" / "cursor").read_bytes()).next == Mark(2, 1, 1)


def test_a_segment_is_deleted_only_when_the_cursor_on_disk_says_that_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "far")
    kept.spool.put(body(1))
    kept.spool.close()
    kept = Kept(tmp_path / "far")
    write_beside = cursor_keeper.write_beside

    def overtaken(path: str, data: bytes, suffix: str, *, sync: bool) -> str:
        unfinished = write_beside(path, data, suffix, sync=sync)
        kept.drain()
        return unfinished

    monkeypatch.setattr(cursor_keeper, "write_beside", overtaken)
    keeper = kept.spool._backlog.keeper
    # Its thread would write a newer one at once.
    keeper._stop.set()
    keeper.version += 1
    assert keeper._save()
    monkeypatch.undo()
    again = Kept(kept.crash(tmp_path / "left"))
    assert [one.points for one in again.drain()] == [1]
    assert again.drops.records.total() == 0
    again.spool.close()
    kept.spool.close()
    assert set(tree(tmp_path / "far")) == {"cursor"}


def test_a_lack_of_descriptors_sets_no_file_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "far")
    kept.spool.put(body(1))
    kept.spool.close()

    def fail(path: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(spool_scan, "open_regular", fail)
        with pytest.raises(Unavailable, match="Too many open files"):
            Kept(tmp_path / "far")
    again = Kept(tmp_path / "far")
    assert [one.points for one in again.drain()] == [1]
    again.spool.close()

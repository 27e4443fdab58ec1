"""The bounds of a spool: bytes, age, the free space of the disk. What goes is counted exactly."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from support.clock import START_WALL_NS
from support.spools import Kept, body, tree

from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.delivery.spool_room import Room, file_system

LIMIT = 1 << 20
# Ten of them make a spool of a mebibyte full; each has a segment of its own then.
BIG = 100 << 10
HOUR_NS = 3600 * 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "far"


def on_disk(folder: Path) -> int:
    return sum(len(data) for name, data in tree(folder).items() if name.endswith(".seg"))


def test_the_oldest_make_room_and_are_counted_exactly(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    for number in range(1, 31):
        kept.spool.put(body(number, BIG))
        assert on_disk(folder) <= LIMIT
    left = [one.points for one in kept.drain()]
    assert left == list(range(21, 31))
    assert kept.drops.records == {"size": 20}
    assert kept.drops.points == {"size": sum(range(1, 21))}
    assert kept.spool.limit <= LIMIT
    kept.spool.close()


def test_the_space_of_what_was_dropped_is_free_at_once(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    for number in range(1, 5):
        kept.spool.put(body(number, 4 * BIG))
        kept.spool.peek()
    assert kept.drops.points == {"size": 2}
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(str(descriptor.readlink()))
    assert any(str(folder) in path for path in opened)
    assert not [path for path in opened if str(folder) in path and "(deleted)" in path]
    kept.spool.close()


def test_many_small_bodies_go_with_their_segment(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    for number in range(3000):
        kept.spool.put(body(number, 1000, points=1))
    assert on_disk(folder) <= LIMIT
    left = len(kept.spool)
    assert 0 < left < 1000
    assert kept.drops.records == kept.drops.points == {"size": 3000 - left}
    assert len(kept.drain()) == left
    kept.spool.close()


def test_the_same_is_counted_of_a_backlog_that_an_earlier_process_left(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    for number in range(1, 11):
        kept.spool.put(body(number, BIG))
    kept.spool.close()
    again = Kept(folder, bytes=LIMIT)
    for number in range(11, 16):
        again.spool.put(body(number, BIG))
    assert again.drops.points == {"size": sum(range(1, 6))}
    assert [one.points for one in again.drain()] == list(range(6, 16))
    again.spool.close()


def test_damage_in_a_segment_that_is_dropped_is_counted_apart(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    for number in (1, 2, 3):
        kept.spool.put(body(number, 10_000))
    kept.spool.close()
    path = folder / "00000000000000000001.seg"
    data = bytearray(path.read_bytes())
    data[data.index(b"\xf7\xd1TR", 1000) + 5] ^= 1
    path.write_bytes(data)
    again = Kept(folder, bytes=LIMIT)
    for number in range(11, 21):
        again.spool.put(body(number, BIG))
    assert again.drops.points == {"size": 1 + 3, "corrupt": 2}
    again.spool.close()


def test_a_head_on_its_way_is_kept_when_its_segment_goes(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    kept.spool.put(body(1, BIG))
    kept.spool.peek()
    for number in range(2, 15):
        kept.spool.put(body(number, BIG))
    head = kept.spool.peek()
    assert head is not None
    assert head.points == 1
    assert kept.drops.points == {"size": 2 + 3 + 4}
    kept.spool.acknowledge()
    assert [one.points for one in kept.drain()] == list(range(5, 15))
    kept.spool.close()


def test_a_head_that_comes_behind_one_taken_back_may_be_dropped_again(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    for number in range(1, 5):
        kept.spool.put(body(number, BIG))
        kept.spool.peek()
        kept.spool.set_aside()
    for number in (4, 2, 1):
        kept.spool.peek()
        kept.spool.take_back(number)
    for number in range(5, 16):
        kept.spool.put(body(number, BIG))
    assert kept.drops.points == {"size": 1 + 2 + 3 + 4 + 5}
    assert [one.points for one in kept.drain()] == list(range(6, 16))
    kept.spool.close()


def test_those_set_aside_go_with_their_segment(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    for number in (1, 2):
        kept.spool.put(body(number, BIG))
    kept.spool.peek()
    kept.spool.set_aside()
    for number in range(3, 12):
        kept.spool.put(body(number, BIG))
    assert kept.spool.aside == ()
    assert kept.drops.points == {"size": 1}
    assert [one.points for one in kept.drain()] == list(range(2, 12))
    kept.spool.close()


def test_a_body_that_never_fits_is_dropped_and_the_others_stay(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    kept.spool.put(body(1, 10))
    kept.spool.put(body(2, LIMIT))
    assert kept.drops.points == {"size": 2}
    assert [one.points for one in kept.drain()] == [1]
    kept.spool.close()


def test_a_body_larger_than_a_segment_gets_one_of_its_own(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT)
    for number, size in ((1, 10), (2, LIMIT // 2), (3, 10)):
        kept.spool.put(body(number, size))
    assert [one.points for one in kept.drain()] == [1, 2, 3]
    kept.spool.close()


def test_what_is_too_old_is_dropped_segment_by_segment_and_then_one_by_one(folder: Path) -> None:
    kept = Kept(folder, bytes=LIMIT, age="1h")
    for number in range(1, 4):
        kept.spool.put(body(number, BIG, age=7200))
    for number in range(4, 8):
        kept.spool.put(body(number, 100, age=3700 - 60 * number))
    kept.spool.expire(START_WALL_NS)
    assert kept.drops.points == {"age": 1 + 2 + 3}
    kept.spool.expire(START_WALL_NS + 2 * 60 * 10**9 + 30 * 10**9)
    assert kept.drops.points == {"age": 1 + 2 + 3 + 4}
    assert [one.points for one in kept.drain()] == [5, 6, 7]
    kept.spool.close()


def test_age_spares_the_head_on_its_way_and_takes_those_set_aside(folder: Path) -> None:
    kept = Kept(folder, age="1h")
    for number in (1, 2, 3):
        kept.spool.put(body(number, age=7200))
    kept.spool.put(body(4))
    kept.spool.peek()
    kept.spool.set_aside()
    kept.spool.peek()
    kept.spool.expire(START_WALL_NS)
    assert kept.drops.points == {"age": 1}
    kept.spool.acknowledge()
    kept.spool.expire(START_WALL_NS)
    assert kept.drops.points == {"age": 1 + 3}
    assert [one.points for one in kept.drain()] == [4]
    kept.spool.close()


def test_a_body_that_does_not_say_when_it_was_read_never_gets_too_old(folder: Path) -> None:
    kept = Kept(folder, age="1h")
    kept.spool.put(body(1, age=START_WALL_NS / 1e9))
    kept.spool.expire(START_WALL_NS + 100 * HOUR_NS)
    assert [one.points for one in kept.drain()] == [1]
    kept.spool.close()


def test_free_space_is_left_to_others(folder: Path) -> None:
    kept = Kept(folder)
    for number in (1, 2, 3):
        kept.spool.put(body(number))
    kept.spool.close()
    status = os.statvfs(folder)
    whole = status.f_blocks * status.f_frsize
    again = Kept(folder, free=whole)
    assert again.spool.limit == 0
    again.spool.expire(START_WALL_NS)
    assert again.drops.records == {"enospc": 3}
    assert on_disk(folder) == 0
    # What is new waits in memory, and is sent from there.
    again.spool.put(body(4))
    assert [one.points for one in again.drain()] == [4]
    assert again.drops.records == {"enospc": 3}
    again.spool.close()


def test_without_a_setting_5_percent_are_left_and_1_gib_at_most(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    left = min(status.f_blocks * status.f_frsize // 20, 1 << 30)
    free = status.f_bavail * status.f_frsize
    huge = SpoolConfig(bytes=1 << 60)
    limit = Room(str(tmp_path), huge).limit(0)
    # Others write to this disk too.
    assert abs(limit - (free - left)) < 64 << 20


@pytest.mark.skipif(file_system("/dev/shm") != "tmpfs", reason="/dev/shm is no tmpfs here")
def test_in_memory_the_bound_is_128_mib() -> None:
    assert Room("/dev/shm", SpoolConfig()).most == 128 << 20
    assert Room("/dev/shm", SpoolConfig(bytes=1 << 20)).most == 1 << 20
    assert Room("/proc", SpoolConfig(bytes=1 << 40)).most == 1 << 40

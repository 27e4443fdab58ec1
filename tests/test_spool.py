"""A spool: order, what a restart finds, what is in memory, and the time of the oldest."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
from support.clock import START_WALL_NS, FakeClock
from support.lanes import PATIENCE_S
from support.spools import KIND, Kept, body, drain, same, tree

from telemetryd.delivery.cursor import decode
from telemetryd.delivery.record import Header
from telemetryd.delivery.spool_held import Held
from telemetryd.errors import Unavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "far"


def filled(folder: Path, count: int, *, size: int = 100, **config: object) -> Kept:
    kept = Kept(folder, **config)
    for number in range(1, count + 1):
        kept.spool.put(body(number, size))
    return kept


def test_bodies_leave_in_the_order_in_which_they_came_and_nothing_is_left(folder: Path) -> None:
    kept = filled(folder, 5)
    assert (len(kept.spool), kept.spool.size) == (5, 500)
    assert same(kept.drain()) == same([body(number) for number in range(1, 6)])
    assert (len(kept.spool), kept.spool.size, kept.spool.head) == (0, 0, None)
    kept.spool.close()
    assert set(tree(folder)) == {"cursor"}


def test_a_spool_is_for_its_owner_alone(folder: Path) -> None:
    filled(folder, 1).spool.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_what_waits_at_a_clean_end_comes_again_and_what_was_acknowledged_does_not(
    folder: Path,
) -> None:
    kept = filled(folder, 5)
    for _ in range(2):
        kept.spool.peek()
        kept.spool.acknowledge()
    kept.spool.peek()
    kept.spool.close()
    again = Kept(folder)
    assert (len(again.spool), again.spool.size, again.spool.head) == (3, 300, 3)
    assert [one.points for one in again.drain()] == [3, 4, 5]
    again.spool.close()
    assert again.drops.records.total() == 0


def test_every_start_begins_a_new_segment_and_the_numbers_go_on(folder: Path) -> None:
    filled(folder, 2).spool.close()
    kept = Kept(folder)
    kept.spool.put(body(9))
    assert sorted(name for name in tree(folder) if name.endswith(".seg")) == [
        "00000000000000000001.seg",
        "00000000000000000003.seg",
    ]
    assert [one.points for one in kept.drain()] == [1, 2, 9]
    kept.spool.close()


def test_numbers_go_on_although_no_segment_is_left(folder: Path) -> None:
    kept = filled(folder, 2)
    kept.drain()
    kept.spool.close()
    again = filled(folder, 1)
    again.spool.peek()
    assert again.spool.head == 3
    again.spool.close()


def test_what_a_killed_process_wrote_is_there_and_its_numbers_are_not_given_again(
    folder: Path, tmp_path: Path
) -> None:
    kept = filled(folder, 3)
    kept.spool.sync()
    left = kept.crash(tmp_path / "left")
    (left / "cursor").unlink(missing_ok=True)
    kept.spool.close()
    again = Kept(left)
    again.spool.put(body(4))
    again.spool.close()
    once_more = Kept(left)
    heads = []
    for one in drain(once_more.spool):
        heads.append((once_more.spool.head, one.points))
    assert heads == [(1, 1), (2, 2), (3, 3), (4, 4)]
    once_more.spool.close()


def test_those_set_aside_and_those_taken_back_are_the_same_after_a_restart(folder: Path) -> None:
    kept = filled(folder, 6)
    for _ in range(4):
        kept.spool.peek()
        kept.spool.set_aside()
    kept.spool.take_back(3)
    kept.spool.take_back(2)
    kept.spool.close()
    again = Kept(folder)
    assert (again.spool.aside, len(again.spool), again.spool.size) == ((1, 4), 6, 600)
    assert [one.points for one in again.drain()] == [2, 3, 5, 6]
    assert again.spool.take_back(4)
    assert again.spool.take_back(1)
    assert not again.spool.take_back(2)
    assert [one.points for one in again.drain()] == [1, 4]
    again.spool.close()
    assert set(tree(folder)) == {"cursor"}


def test_those_set_aside_are_named_oldest_first_and_not_kept_in_memory(folder: Path) -> None:
    kept = filled(folder, 3)
    for _ in range(2):
        kept.spool.peek()
        kept.spool.set_aside()
    kept.spool.take_back(1)
    kept.spool.peek()
    kept.spool.set_aside()
    assert kept.spool.aside == (1, 2)
    assert all(held.body is None for held in kept.spool._backlog.hands.aside.values())
    kept.spool.close()


def test_a_segment_stays_for_what_is_set_aside_in_it(folder: Path) -> None:
    kept = filled(folder, 2)
    kept.spool.peek()
    kept.spool.set_aside()
    kept.drain()
    kept.spool.close()
    again = Kept(folder)
    assert again.spool.head is None
    assert again.spool.take_back(1)
    assert [one.points for one in again.drain()] == [1]
    again.spool.close()


def test_parts_are_forgotten_by_a_restart_which_repeats_the_whole_body(folder: Path) -> None:
    kept = filled(folder, 2)
    kept.spool.split([body(10, 40), body(20, 60)])
    assert (kept.spool.parts, len(kept.spool), kept.spool.size) == (2, 3, 200)
    kept.spool.peek()
    kept.spool.acknowledge()
    assert (kept.spool.parts, len(kept.spool), kept.spool.size) == (1, 2, 160)
    kept.spool.close()
    again = Kept(folder)
    assert same(again.drain()) == same([body(1), body(2)])
    again.spool.close()


def test_the_oldest_is_the_head_or_what_is_set_aside(folder: Path) -> None:
    kept = Kept(folder)
    assert kept.spool.oldest_ns is None
    for number, age in enumerate((30, 20, 10), 1):
        kept.spool.put(body(number, age=age))
    assert kept.spool.oldest_ns == START_WALL_NS - 30 * 10**9
    kept.spool.peek()
    kept.spool.acknowledge()
    assert kept.spool.oldest_ns == START_WALL_NS - 20 * 10**9
    kept.spool.peek()
    kept.spool.set_aside()
    assert kept.spool.oldest_ns == START_WALL_NS - 20 * 10**9
    kept.spool.close()


def test_a_second_process_is_locked_out_until_the_first_lets_go(folder: Path) -> None:
    kept = Kept(folder)
    with pytest.raises(Unavailable, match="in use by another process; end the other telemetryd"):
        Kept(folder)
    kept.spool.close()
    Kept(folder).spool.close()


def test_a_folder_that_cannot_be_made_makes_the_spool_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable, match=r"cannot keep a spool in .*: Not a directory; make it"):
        Kept(tmp_path / "file" / "far")


def test_a_request_that_ends_after_the_close_changes_nothing(folder: Path) -> None:
    kept = filled(folder, 2)
    kept.spool.peek()
    kept.spool.close()
    kept.spool.close()
    kept.spool.acknowledge()
    kept.spool.drop("refused")
    kept.spool.set_aside()
    kept.spool.sync()
    kept.spool.expire(START_WALL_NS + 10**18)
    kept.spool.put(body(7))
    assert (kept.spool.peek(), kept.spool.head, kept.spool.take_back(1)) == (None, None, False)
    assert kept.drops.points == {"shutdown": 7}
    again = Kept(folder)
    assert [one.points for one in again.drain()] == [1, 2]
    again.spool.close()


def test_the_cursor_is_written_at_once_and_then_once_a_second(folder: Path) -> None:
    clock = FakeClock()
    kept = filled(folder, 5, clock=clock)
    renamed = threading.Event()
    keeper = kept.spool._backlog.keeper
    put = keeper._put

    def tell(unfinished: str, version: int) -> None:
        put(unfinished, version)
        renamed.set()

    keeper._put = tell  # type: ignore[method-assign]
    kept.spool.peek()
    kept.spool.acknowledge()
    assert renamed.wait(PATIENCE_S)
    renamed.clear()
    for _ in range(2):
        kept.spool.peek()
        kept.spool.acknowledge()
    clock.tick(0.9)
    assert not renamed.wait(0.05)
    assert decode((folder / "cursor").read_bytes()).next.sequence == 2
    clock.tick(0.2)
    assert renamed.wait(PATIENCE_S)
    assert decode((folder / "cursor").read_bytes()).next.sequence == 4
    kept.spool.close()


def test_a_backlog_of_thousands_costs_memory_for_its_segments_not_its_records(
    folder: Path,
) -> None:
    kept = filled(folder, 3000, size=1000, bytes="8MiB")
    kept.spool.close()
    segments = sum(name.endswith(".seg") for name in tree(folder))
    assert segments > 3
    again = Kept(folder, bytes="8MiB")
    assert len(again.spool) == 3000
    again.spool.peek()
    gc.collect()
    ours = [one for one in gc.get_objects() if isinstance(one, Held | Header)]
    assert len(ours) < 10
    again.spool.close()


def test_a_kind_of_another_destination_is_not_sent(folder: Path) -> None:
    filled(folder, 3).spool.close()
    other = Kept(folder, kind="remote_write")
    assert len(other.spool) == 0
    assert other.errors == 1
    other.drain()
    assert other.drops.points == {"corrupt": 6}
    other.spool.close()
    assert "unusable/00000000000000000001.seg" in tree(folder)
    assert KIND.encode() in tree(folder)["unusable/00000000000000000001.seg"]

"""What a spool asks of the disk, in which order, and what it promises when the disk fails at it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from support.spools import Kept, body, failing

from telemetryd.delivery.cursor import decode


class Disk:
    """Writes down what is synced, in order; the names in `broken` cannot be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: list[str] = []
        self.broken: set[str] = set()
        self._calls = {"fdatasync": os.fdatasync, "fsync": os.fsync}
        for name in self._calls:
            monkeypatch.setattr(
                os, name, lambda descriptor, name=name: self._sync(name, descriptor)
            )

    def _sync(self, call: str, descriptor: int) -> None:
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            name += "/"
        if name in self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._calls[call](descriptor)
        self.synced.append(name)

    def take(self) -> list[str]:
        """What was synced since the last time, but for cursors, which are written by a thread."""
        taken = [name for name in self.synced if not name.startswith(".cursor")]
        self.synced.clear()
        return taken


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


FIRST, SECOND = (f"{number:020d}.seg" for number in (1, 2))


def test_a_sync_waits_for_the_records_and_then_for_the_name_of_a_new_file(
    tmp_path: Path, disk: Disk
) -> None:
    kept = Kept(tmp_path / "far")
    disk.take()
    kept.spool.put(body(1))
    assert disk.take() == []
    kept.spool.sync()
    assert disk.take() == [FIRST, "far/"]
    kept.spool.sync()
    assert disk.take() == [], "nothing is new"
    kept.spool.put(body(2))
    kept.spool.sync()
    assert disk.take() == [FIRST]
    kept.spool.close()


def test_a_sync_waits_for_segments_that_are_full(tmp_path: Path, disk: Disk) -> None:
    kept = Kept(tmp_path / "far", bytes="1MiB")
    disk.take()
    for number in (1, 2):
        kept.spool.put(body(number, 100_000))
    kept.spool.sync()
    assert disk.take() == [FIRST, SECOND, "far/"]
    kept.spool.close()


def test_the_end_waits_for_what_was_put_last(tmp_path: Path, disk: Disk) -> None:
    kept = Kept(tmp_path / "far")
    kept.spool.put(body(1))
    disk.take()
    kept.spool.close()
    assert disk.take() == [FIRST, "far/"]


def test_a_cursor_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "far")
    kept.spool.put(body(1))
    rename = os.rename

    def note(source: str, target: str, **more: int) -> None:
        disk.synced.append(f"{Path(source).name} -> {Path(target).name}")
        rename(source, target, **more)

    monkeypatch.setattr(os, "rename", note)
    kept.spool.close()
    places = [disk.synced.index(one) for one in (".cursor.new", ".cursor.new -> cursor")]
    assert places == sorted(places)


def test_a_disk_that_fails_to_sync_one_file_syncs_the_others_and_is_not_trusted(
    tmp_path: Path, disk: Disk
) -> None:
    kept = Kept(tmp_path / "far", bytes="1MiB")
    disk.broken = {FIRST}
    for number in (1, 2):
        kept.spool.put(body(number, 100_000))
    disk.take()
    kept.spool.sync()
    assert disk.take() == [SECOND, "far/"]
    assert kept.errors == 1
    assert not kept.spool.is_durable
    kept.spool.put(body(3))
    kept.spool.sync()
    assert kept.spool.is_durable
    assert [one.points for one in kept.drain()] == [1, 2, 3]
    kept.spool.close()


def test_nothing_is_appended_to_a_file_that_could_not_be_synced(tmp_path: Path, disk: Disk) -> None:
    kept = Kept(tmp_path / "far")
    disk.broken = {FIRST}
    kept.spool.put(body(1))
    kept.spool.sync()
    kept.spool.put(body(2))
    kept.spool.sync()
    assert (tmp_path / "far" / SECOND).exists()
    kept.spool.close()


def test_a_record_that_only_memory_has_is_not_in_the_cursor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart would look for it, and count it as lost a second time."""
    kept = Kept(tmp_path / "far")
    for number in (1, 2):
        kept.spool.put(body(number))
    with failing(monkeypatch, errno.EIO):
        for number in (3, 4):
            kept.spool.put(body(number))
        for _ in range(2):
            kept.spool.peek()
            kept.spool.acknowledge()
        kept.spool.peek()
        kept.spool.set_aside()
        kept.spool.peek()
        kept.spool._backlog.keeper.save_now()
        cursor = decode((tmp_path / "far" / "cursor").read_bytes())
        assert (cursor.front, cursor.aside) == ((), ())
        kept.spool.close()
        assert kept.drops.points == {"shutdown": 3 + 4}
    again = Kept(tmp_path / "far")
    assert (len(again.spool), again.drops.points) == (0, {})
    again.spool.close()


@pytest.mark.parametrize("is_aside", [False, True])
def test_a_record_that_is_written_late_is_there_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_aside: bool
) -> None:
    """The cursor on disk is beyond it since it was the head, while only memory had it."""
    kept = Kept(tmp_path / "far")
    keeper = kept.spool._backlog.keeper
    keeper._stop.set()  # no thread: it might be too slow as well
    with failing(monkeypatch, errno.EIO):
        kept.spool.put(body(1))
        kept.spool.peek()
        if is_aside:
            kept.spool.set_aside()
        keeper.save_now()
    assert decode((tmp_path / "far" / "cursor").read_bytes()).next.sequence == 2
    kept.spool.sync()
    again = Kept(kept.crash(tmp_path / "left"))
    assert again.spool.aside == ((1,) if is_aside else ())
    again.spool.take_back(1)
    assert [one.points for one in again.drain()] == [1]
    again.spool.close()
    kept.spool.close()

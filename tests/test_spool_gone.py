"""Somebody deletes, moves or replaces the files of a spool under a running daemon: what was in them
is counted as lost, what comes is not lost with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.spools import Kept, body, tree

from telemetryd.errors import Unavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "far"


def delete_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def delete_everything(folder: Path) -> None:
    shutil.rmtree(folder.parent)


def delete_files(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def move(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")


@pytest.mark.parametrize("act", [delete_folder, delete_everything, delete_files, move])
def test_what_comes_after_it_was_deleted_is_on_disk_again(
    folder: Path, tmp_path: Path, act: Callable[[Path], None]
) -> None:
    kept = Kept(folder)
    for number in (1, 2):
        kept.spool.put(body(number))
    act(folder)
    for number in (3, 4):
        kept.spool.put(body(number))
    kept.spool.sync()
    assert kept.spool.is_durable
    again = Kept(kept.crash(tmp_path / "left"))
    assert [one.points for one in again.drain()] == [3, 4]
    again.spool.close()
    assert [one.points for one in kept.drain()] == [3, 4]
    assert kept.drops.points == {"corrupt": 1 + 2}
    with pytest.raises(Unavailable, match="in use by another process"):
        Kept(folder)
    kept.spool.close()
    assert set(tree(folder)) == {"cursor"}


def test_a_segment_that_is_deleted_takes_nothing_along_that_comes_later(folder: Path) -> None:
    kept = Kept(folder)
    kept.spool.put(body(1))
    (folder / "00000000000000000001.seg").unlink()
    kept.spool.put(body(2))
    assert [one.points for one in kept.drain()] == [2]
    assert kept.drops.points == {"corrupt": 1}
    kept.spool.close()


def test_a_folder_that_another_process_has_made_meanwhile_is_left_to_it(folder: Path) -> None:
    kept = Kept(folder)
    kept.spool.put(body(1))
    delete_folder(folder)
    other = Kept(folder)
    other.spool.put(body(11))
    before = tree(folder)
    kept.spool.put(body(2))
    kept.spool.sync()
    kept.spool.expire(10**19)
    assert not kept.spool.is_durable
    assert tree(folder) == before
    kept.spool.close()
    assert tree(folder) == before
    assert [one.points for one in other.drain()] == [11]
    other.spool.close()


def test_a_folder_that_comes_into_its_place_is_not_touched(folder: Path, tmp_path: Path) -> None:
    """A file system that is mounted late, with the spool that an earlier boot left on it."""
    earlier = Kept(folder)
    for number in (11, 12):
        earlier.spool.put(body(number))
    earlier.spool.close()
    folder.rename(tmp_path / "earlier")
    kept = Kept(folder)
    folder.rename(tmp_path / "later")
    (tmp_path / "earlier").rename(folder)
    before = tree(folder)
    kept.spool.put(body(1))
    kept.spool.sync()
    assert [one.points for one in kept.drain()] == [1], "from memory"
    kept.spool.close()
    assert tree(folder) == before

"""A disk that fails, and works again: nothing is lost that memory can hold, and the order stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.spools import Kept, body, failing, tree

from telemetryd.delivery import spool_line


def test_what_could_not_be_written_waits_behind_a_segment_that_cannot_be_opened_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "far")
    kept.spool.put(body(1))
    with failing(monkeypatch, errno.EIO):
        kept.spool.put(body(2))

    def fail(path: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(spool_line, "open_regular", fail)
        assert (kept.spool.peek(), len(kept.spool)) == (None, 2)
    assert [one.points for one in kept.drain()] == [1, 2]
    assert kept.drops.records.total() == 0
    kept.spool.close()


def test_a_disk_that_fails_and_works_again_keeps_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "far")
    kept.spool.put(body(1))
    kept.spool._backlog.log.roll()
    with failing(monkeypatch, errno.EIO):
        for number in (2, 3, 4):
            kept.spool.put(body(number))
        assert kept.errors >= 3
        kept.spool.sync()
        assert not kept.spool.is_durable, "what is only in memory does not survive"
    heads = []
    for _ in range(2):
        head = kept.spool.peek()
        assert head is not None
        heads.append(head.points)
        kept.spool.acknowledge()
    assert heads == [1, 2]
    kept.spool.peek()
    kept.spool.set_aside()
    kept.spool.put(body(5))
    assert sum(name.endswith(".seg") for name in tree(tmp_path / "far")) == 1
    kept.spool.close()
    again = Kept(tmp_path / "far")
    assert again.spool.aside == (3,)
    again.spool.take_back(3)
    assert [one.points for one in again.drain()] == [3, 4, 5]
    assert kept.drops.records.total() + again.drops.records.total() == 0
    again.spool.close()


def test_a_disk_that_shows_freed_space_only_later_does_not_cost_all_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As btrfs does: what is deleted is free when its next transaction is written."""
    kept = Kept(tmp_path / "far", bytes="4MiB")
    for number in range(1, 31):
        kept.spool.put(body(number, 100_000))
    with failing(monkeypatch, errno.ENOSPC):
        kept.spool.put(body(31, 100_000))
        gone = kept.drops.records["enospc"]
        assert 0 < gone < 15
        assert not kept.spool.is_durable
    kept.spool.sync()
    assert kept.spool.is_durable
    assert [one.points for one in kept.drain()] == list(range(1 + gone, 32))
    kept.spool.close()


def test_free_space_that_shows_only_later_does_not_cost_all_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "far", bytes="4MiB", free=1 << 20)
    for number in range(1, 31):
        kept.spool.put(body(number, 100_000))
    blocks = (1 << 30) // 4096
    full = os.statvfs_result((4096, 4096, blocks, 200, 200, 0, 0, 0, 0, 255))
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: full)
        kept.spool.expire(0)
    assert 0 < kept.drops.records["enospc"] < 15
    kept.spool.close()


def test_a_segment_that_cannot_be_deleted_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path / "far", bytes="1MiB")

    def fail(path: str) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        for number in range(1, 31):
            kept.spool.put(body(number, 100_000))
    assert kept.drops.records == {"size": 20}
    assert kept.errors >= 20
    for number in range(31, 34):
        kept.spool.put(body(number, 100_000))
    on_disk = sum(len(data) for name, data in tree(tmp_path / "far").items())
    assert on_disk <= 1 << 20
    assert kept.drops.records == {"size": 23}
    assert [one.points for one in kept.drain()] == list(range(24, 34))
    kept.spool.close()

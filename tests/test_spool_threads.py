"""One thread puts while another one sends, on a spool that is small enough to drop."""

from __future__ import annotations

import threading
from pathlib import Path

from support.lanes import PATIENCE_S
from support.spools import Kept, body

from telemetryd.clock import Clock

COUNT = 600


def send(kept: Kept, ended: threading.Event, sent: list[int]) -> None:
    while True:
        was_over = ended.is_set()
        head = kept.spool.peek()
        if head is not None:
            sent.append(head.points)
            kept.spool.acknowledge()
        elif was_over:
            return


def test_two_threads_lose_nothing_and_keep_the_order(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "far", bytes="1MiB", clock=Clock())
    ended, sent = threading.Event(), list[int]()
    sender = threading.Thread(target=send, args=(kept, ended, sent))
    sender.start()
    for number in range(1, COUNT + 1):
        kept.spool.put(body(number, 20_000))
        if number % 5 == 0:
            kept.spool.sync()
            kept.spool.expire(0)
    ended.set()
    sender.join(PATIENCE_S)
    assert not sender.is_alive()
    assert sent == sorted(sent)
    assert sum(sent) + kept.drops.points.total() == sum(range(1, COUNT + 1))
    assert set(kept.drops.points) <= {"size"}
    assert (len(kept.spool), kept.spool.size, kept.errors) == (0, 0, 0)
    kept.spool.close()


def test_a_disk_that_hangs_in_a_sync_does_not_hold_up_the_sender(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "far")
    hanging, over = threading.Event(), threading.Event()
    spool = kept.spool

    class Hanging:
        end = spool._backlog.log.end

        def sync(self) -> None:
            hanging.set()
            over.wait(PATIENCE_S)

    spool.put(body(1))
    spool._backlog.log.unsynced = Hanging  # type: ignore[method-assign, assignment]
    writer = threading.Thread(target=spool.sync)
    writer.start()
    assert hanging.wait(PATIENCE_S)
    assert [one.points for one in kept.drain()] == [1]
    assert writer.is_alive()
    over.set()
    writer.join(PATIENCE_S)
    del spool._backlog.log.unsynced
    spool.close()

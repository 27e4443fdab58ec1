"""When batches are encoded and reach the queue, and what an operator sends once more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.delivery_lanes import LaneBench, by_second

from telemetryd.batch import Batch
from telemetryd.delivery.memory_queue import MemoryQueue
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import Body


class Disk(MemoryQueue):
    """Says that it is durable, and counts what is asked of a disk."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(1 << 20, *arguments)  # type: ignore[arg-type]
        self.synced: list[int] = []
        self.expired: list[int] = []

        self.works = True

    @property
    def is_durable(self) -> bool:
        return self.works

    def sync(self) -> None:
        self.synced.append(len(self))

    def expire(self, wall_ns: int) -> None:
        self.expired.append(wall_ns)


def bodies(bench: LaneBench) -> list[bytes]:
    """What is in the queue; it is taken out."""
    found = []
    while (body := bench.queue.peek()) is not None:
        found.append(body.data)
        bench.queue.acknowledge()
    return found


def opened(**options: object) -> LaneBench:
    bench = LaneBench(**options)  # type: ignore[arg-type]
    bench.open_works()
    return bench


def test_points_are_gathered_until_the_flush_interval_is_over() -> None:
    bench = opened()
    for _ in range(9):
        bench.read()
        assert bench.writer.turn() == 1010 * 10**9
    assert bodies(bench) == []
    bench.read()
    assert bench.writer.turn() == 1020 * 10**9
    assert bodies(bench) == [b"1001 1002 1003 1004 1005 1006 1007 1008 1009 1010"]


def test_a_full_batch_is_not_kept_waiting() -> None:
    bench = opened(batch_size=4)
    for _ in range(4):
        bench.read(2)
        bench.writer.turn()
    assert bodies(bench) == [b"1001 1002", b"1003 1004"]


def test_at_a_resolution_the_last_value_of_each_window_goes_out_as_it_closes() -> None:
    bench = opened(resolution=5)
    for _ in range(21):
        bench.read()
        bench.writer.turn()
    assert bodies(bench) == [b"1004 1009", b"1014 1019"]


def test_at_the_end_open_windows_are_written_too() -> None:
    bench = opened(resolution=5, open_queue=Disk)
    for _ in range(3):
        bench.read()
    bench.writer.finish()
    assert isinstance(bench.queue, Disk)
    assert bench.queue.synced == [1]
    assert bodies(bench) == [b"1003"]


def test_it_encodes_at_every_flush_even_without_batches() -> None:
    asked: list[int] = []

    def encode(batches: Sequence[Batch]) -> list[Body]:
        asked.append(len(batches))
        return [Body(b"it has ended", 1)] if not batches else by_second(batches)

    bench = opened(encode=encode)
    bench.read()
    for _ in range(2):
        bench.clock.tick(10)
        bench.writer.turn()
    assert asked == [1, 0]
    assert bodies(bench) == [b"1001", b"it has ended"]


def test_everything_of_a_flush_is_on_disk_before_it_ends_and_what_is_too_old_goes() -> None:
    bench = opened(open_queue=Disk, encode=lambda batches: by_second(batches) * 3)
    bench.read()
    bench.clock.tick(10)
    bench.writer.turn()
    assert isinstance(bench.queue, Disk)
    assert bench.queue.synced == [3]
    assert bench.queue.expired == [bench.clock.wall_ns()]


def test_what_cannot_be_encoded_is_counted_and_does_not_hold_up_the_rest() -> None:
    def encode(batches: Sequence[Batch]) -> list[Body]:
        if batches[0].mono_ns < 1010 * 10**9:
            raise ZeroDivisionError
        return by_second(batches)

    bench = opened(encode=encode)
    for _ in range(20):
        bench.read()
        bench.writer.turn()
    assert bench.dropped("exception") == 10
    assert len(bodies(bench)) == 1


def test_a_queue_that_fails_at_one_body_gets_the_next() -> None:
    class Picky(MemoryQueue):
        def put(self, body: Body) -> None:
            if body.data == b"1005":
                raise RuntimeError("not this one")
            super().put(body)

    bench = opened(
        open_queue=lambda on_drop: Picky(1 << 20, on_drop),
        encode=lambda batches: [body for batch in batches for body in by_second([batch])],
    )
    for _ in range(10):
        bench.read(3)
        bench.writer.turn()
    assert bench.dropped("exception") == 3
    assert len(bodies(bench)) == 9


def test_the_figures_of_what_waits_are_new_at_every_flush() -> None:
    bench = opened(open_queue=Disk)
    bench.read()
    bench.clock.tick(9)
    bench.writer.turn()
    bench.queue.set_aside()
    bench.clock.tick(10)
    bench.writer.turn()
    assert bench.counted("spool_records") == bench.counted("spool_set_aside_records") == 1
    assert bench.counted("spool_size_bytes") == len(b"1001")
    assert bench.counted("spool_limit_bytes") == 1 << 20
    assert bench.counted("spool_oldest_age_seconds") == 19
    assert bench.counted("spool_durable") == 1


@pytest.fixture
def quarantine(tmp_path: Path) -> Quarantine:
    """One body is in it, refused a month ago, and was asked for once more."""
    made = Quarantine(str(tmp_path), 1 << 20)
    made.add(Body(b"again", 2, 1), "words", "refused", 400, "why", 10**18)
    made.replay(made.list()[0].id)
    return made


def test_what_an_operator_asks_for_once_more_is_put_on_disk_and_then_removed(
    quarantine: Quarantine,
) -> None:
    bench = opened(open_queue=Disk, quarantine=quarantine)
    bench.clock.tick(10)
    bench.writer.turn()
    body = bench.queue.peek()
    assert body is not None
    assert (body.data, body.points) == (b"again", 2)
    assert body.newest_ns == bench.clock.wall_ns(), "it is not to be dropped for its age"
    assert isinstance(bench.queue, Disk)
    assert bench.queue.synced[-1] == 1
    assert list(quarantine.take_replayed("words")) == []
    bench.clock.tick(10)
    bench.writer.turn()
    assert len(bench.queue) == 1


def test_a_queue_in_memory_takes_nothing_that_is_on_disk(quarantine: Quarantine) -> None:
    bench = opened(quarantine=quarantine)
    bench.clock.tick(10)
    bench.writer.turn()
    assert len(bench.queue) == 0
    assert len(list(quarantine.take_replayed("words"))) == 1


def test_on_a_disk_that_fails_it_is_removed_only_when_the_disk_has_it(
    quarantine: Quarantine,
) -> None:
    class Failing(Disk):
        def put(self, body: Body) -> None:
            super().put(body)
            self.works = False

    bench = opened(open_queue=Failing, quarantine=quarantine)
    assert isinstance(bench.queue, Failing)
    for works in (True, False, False):
        bench.queue.works = works
        bench.clock.tick(10)
        bench.writer.turn()
        assert len(list(quarantine.take_replayed("words"))) == 1
    bench.queue.works = True
    bench.clock.tick(10)
    bench.writer.turn()
    assert list(quarantine.take_replayed("words")) == []
    assert len(bench.queue) == 1, "it is put only once"


def test_what_was_made_for_another_kind_stays_where_it_is_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quarantine = Quarantine(str(tmp_path), 1 << 20)
    quarantine.add(Body(b"lines", 2, 1), "influxdb", "refused", 400, "why", 10**18)
    quarantine.replay(quarantine.list()[0].id)
    bench = opened(open_queue=Disk, quarantine=quarantine)
    with caplog.at_level(logging.WARNING):
        bench.clock.tick(10)
        bench.writer.turn()
    assert len(bench.queue) == 0
    assert "kind=influxdb" in caplog.text
    assert str(tmp_path) in caplog.text


def test_a_quarantine_that_cannot_be_read_is_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "replay").write_text("a file where the folder should be")
    bench = opened(open_queue=Disk, quarantine=Quarantine(str(tmp_path), 1 << 20))
    with caplog.at_level(logging.WARNING):
        bench.read()
        bench.clock.tick(10)
        bench.writer.turn()
    assert bench.counted("spool_errors_total") == 1
    assert "cannot send again" in caplog.text
    assert bodies(bench) == [b"1001"]

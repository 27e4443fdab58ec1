"""What a push exporter is given: a spool where there is a place for it, memory where not."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.delivery import OK, Words, in_turn, refuse, takes_all
from support.delivery_lanes import SERIES
from support.push import Push, shown
from support.servers import eventually
from support.spools import Kept

from telemetryd.batch import Batch
from telemetryd.delivery.destination import Verdict
from telemetryd.delivery.push_config import PushConfig
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.instruments import Instruments

UNAUTHORIZED = Verdict(OK.outcome.UNAUTHORIZED, "401", status=401)


def push(spool: SpoolConfig, there: Words | None = None) -> Push:
    """An exporter called "there" on a clock that stands still."""
    own = {"there": there or Words(), "clock": FakeClock()}
    kind = type("There", (Push,), own)
    made = kind("there", PushConfig(resolution=0), {}, Instruments(), spool)
    assert isinstance(made, Push)
    return made


def read(exporter: Push) -> None:
    clock = exporter.clock
    assert isinstance(clock, FakeClock)
    clock.tick(10)
    exporter.offer(Batch("c", clock.wall_ns(), clock.mono_ns(), 1.0, SERIES, (1.0,)))


def is_durable(exporter: Push) -> float:
    return shown(exporter.instruments, "there")["telemetryd_spool_durable"]


def waiting(exporter: Push) -> float:
    return shown(exporter.instruments, "there")["telemetryd_spool_records"]


def test_what_waits_is_on_disk_in_a_folder_named_after_the_destination(tmp_path: Path) -> None:
    exporter = push(SpoolConfig(directory=str(tmp_path)), Words(in_turn(UNAUTHORIZED)))
    assert list(tmp_path.iterdir()) == [], "nothing is opened before the start"
    exporter.start()
    assert is_durable(exporter) == 1
    read(exporter)
    exporter.stop(5)
    again = push(SpoolConfig(directory=str(tmp_path)))
    again.start()
    eventually(lambda: again.there.stored == [b"1010"])
    again.stop(5)
    assert (tmp_path / "there").is_dir()


def test_the_place_is_the_one_that_systemd_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    exporter = push(SpoolConfig())
    exporter.start()
    assert (tmp_path / "spool" / "there").is_dir()
    assert is_durable(exporter) == 1
    exporter.stop(5)


@pytest.mark.parametrize(
    ("config", "warning"),
    [
        ({}, "points wait in memory, where a crash loses them: set spool.directory"),
        # That was asked for.
        ({"enabled": False, "directory": "/somewhere"}, ""),
    ],
)
def test_without_a_place_it_waits_in_memory(
    config: dict[str, object],
    warning: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    exporter = push(SpoolConfig.model_validate(config))
    with caplog.at_level(logging.WARNING):
        exporter.start()
    assert is_durable(exporter) == 0
    assert (warning in caplog.text) if warning else (caplog.text == "")
    read(exporter)
    exporter.stop(5)
    assert exporter.there.stored == [b"1010"]


def test_where_the_spool_cannot_be_had_it_waits_in_memory_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = push(SpoolConfig(directory=str(tmp_path)))
    first.start()
    second = push(SpoolConfig(directory=str(tmp_path)))
    with caplog.at_level(logging.WARNING):
        second.start()
    assert is_durable(second) == 0
    (line,) = [r.getMessage() for r in caplog.records if "wait in memory" in r.getMessage()]
    assert "destination=there" in line
    assert str(tmp_path) in line
    read(second)
    second.stop(5)
    assert second.there.stored == [b"1010"]
    first.stop(5)


def test_what_is_refused_is_in_quarantine_as_far_as_the_configuration_has_room(
    tmp_path: Path,
) -> None:
    for limit, kept in ((1 << 20, 1), (0, 0)):
        spool = SpoolConfig(directory=str(tmp_path / str(limit)), quarantine_bytes=limit)
        exporter = push(spool, Words(refuse(b"1010")))
        exporter.start()
        read(exporter)
        exporter.stop(5)
        figures = shown(exporter.instruments, "there")
        assert figures["telemetryd_spool_quarantined_records"] == kept
        assert (figures["telemetryd_spool_quarantined_bytes"] > 0) == bool(kept)


def test_what_had_to_wait_in_memory_goes_to_disk_in_order_when_that_can_be_had(
    tmp_path: Path,
) -> None:
    """It was mounted late, say, or the process before was slow to let go of it."""
    before = Kept(tmp_path / "there", kind="words")
    there = Words(in_turn(UNAUTHORIZED))
    exporter = push(SpoolConfig(directory=str(tmp_path)), there)
    exporter.start()
    for count in range(1, 6):
        read(exporter)
        eventually(lambda count=count: waiting(exporter) == count)
    before.spool.close()
    read(exporter)
    eventually(lambda: is_durable(exporter) == 1)
    # As after a kill -9.
    left = Kept(before.crash(tmp_path / "left"), kind="words")
    seconds = b" ".join(one.data for one in left.drain())
    assert [int(second) for second in seconds.split()] == list(range(1010, 1070, 10))
    left.spool.close()
    there.answer = takes_all
    for _ in range(6):
        read(exporter)
    eventually(lambda: waiting(exporter) == 0)
    exporter.stop(5)
    assert b" ".join(there.stored).split() == [b"%d" % at for at in range(1010, 1130, 10)]
    figures = shown(exporter.instruments, "there")
    assert figures["telemetryd_exporter_points_total"] == 12


def test_the_disk_is_looked_for_once_a_minute(tmp_path: Path) -> None:
    before = Kept(tmp_path / "there", kind="words")
    exporter = push(SpoolConfig(directory=str(tmp_path)), Words(in_turn(UNAUTHORIZED)))
    exporter.start()
    before.spool.close()
    for count in range(1, 6):
        read(exporter)
        eventually(lambda count=count: waiting(exporter) == count)
        assert is_durable(exporter) == 0
    read(exporter)
    eventually(lambda: is_durable(exporter) == 1)
    exporter.stop(5)

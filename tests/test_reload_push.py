"""Reloads of a configuration whose destinations have points on disk: none is lost."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.delivery import NO_ANSWER, OK, Words, in_turn
from support.delivery_lanes import SERIES
from support.push import Push, shown
from support.servers import eventually

from telemetryd import plugins
from telemetryd.batch import Batch
from telemetryd.config import Config, load
from telemetryd.delivery.push_config import PushConfig
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.service import Service


class Outlet(Push):
    """A batch is read while the old one is stopped, and while each new one is started."""

    subject: ClassVar[Service]
    read: ClassVar[list[int]]

    def start(self) -> None:
        self.one_more()
        super().start()

    def stop(self, timeout: float) -> None:
        self.one_more()
        super().stop(timeout)

    @classmethod
    def one_more(cls) -> None:
        """A collector reads, in the seconds after one another."""
        cls.read.append(len(cls.read) + 1)
        batch = Batch("c", 0, cls.read[-1] * 10**9, 1.0, SERIES, (1.0,))
        for sink in cls.subject._pipeline.sinks:
            sink(batch)


@pytest.fixture
def outlet(monkeypatch: pytest.MonkeyPatch) -> type[Outlet]:
    own: dict[str, Any] = {
        "there": Words(),
        "read": [],
        "subject": Service(lambda: load([], {})),
    }
    kind = type("OneOutlet", (Outlet,), own)
    monkeypatch.setattr(plugins, "push_exporter_class", lambda _kind: kind)
    return kind


def _change(subject: Service, config: Config) -> None:
    before, subject._config = subject._config, config
    asyncio.run(subject._change_exporters(before, config))


def _with_a_spool(config: Config, directory: Path) -> Config:
    return dataclasses.replace(
        config,
        spool=SpoolConfig(directory=str(directory)),
        exporters={"there": PushConfig(resolution=0, flush_interval=0.1)},
    )


def _seconds(there: Words) -> list[int]:
    return [int(second) for stored in there.stored for second in stored.split()]


@pytest.mark.parametrize("is_down", [False, True])
def test_what_is_read_while_a_destination_is_replaced_arrives_in_order(
    outlet: type[Outlet], tmp_path: Path, is_down: bool, caplog: pytest.LogCaptureFixture
) -> None:
    there, subject = outlet.there, outlet.subject
    there.answer = in_turn(NO_ANSWER if is_down else OK)
    base = dataclasses.replace(subject._config, spool=SpoolConfig(directory=str(tmp_path)))
    with caplog.at_level(logging.WARNING, "telemetryd.delivery"):
        for number in range(4):
            own = PushConfig(resolution=0, flush_interval=0.1, timeout=number + 1)
            _change(subject, dataclasses.replace(base, exporters={"there": own}))
            outlet.one_more()
        there.answer = in_turn(OK)
        _change(subject, dataclasses.replace(base, exporters={"there": PushConfig(resolution=0)}))
        _change(subject, dataclasses.replace(base, exporters={}))
    # The first start is before anything is there; the last stop is behind everything.
    assert _seconds(there) == outlet.read[:-1]
    assert "wait in memory" not in caplog.text, "the files of the old one were free for the new one"


def test_a_reload_of_the_labels_sends_what_waits_with_the_old_ones_first(
    outlet: type[Outlet], tmp_path: Path
) -> None:
    there, subject = outlet.there, outlet.subject
    there.answer = in_turn(NO_ANSWER)
    config = _with_a_spool(subject._config, tmp_path)
    _change(subject, config)
    outlet.one_more()
    figures = subject._instruments
    eventually(lambda: shown(figures, "there")["telemetryd_spool_records"] > 0)
    there.answer = in_turn(OK)
    _change(subject, dataclasses.replace(config, labels={"rack": "7"}))
    eventually(lambda: _seconds(there) == outlet.read)
    _change(subject, dataclasses.replace(config, exporters={}))


def test_a_destination_that_is_left_out_keeps_its_points_for_when_it_is_back(
    outlet: type[Outlet], tmp_path: Path
) -> None:
    there, subject = outlet.there, outlet.subject
    there.answer = in_turn(NO_ANSWER)
    config = _with_a_spool(subject._config, tmp_path)
    _change(subject, config)
    outlet.one_more()
    _change(subject, dataclasses.replace(config, exporters={}))
    there.answer = in_turn(OK)
    waiting = list(outlet.read[:-1])
    _change(subject, config)
    eventually(lambda: _seconds(there)[: len(waiting)] == waiting)
    _change(subject, dataclasses.replace(config, exporters={}))

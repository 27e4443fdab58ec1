"""Reloads: as many as there are, one at a time, and only what they change is touched."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import eventually, free_port, running

from telemetryd import plugins, service
from telemetryd.batch import Batch
from telemetryd.config import Config, load
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.instruments import SPOOL_RECORDS
from telemetryd.service import Service

SUCCESSFUL = "telemetryd_config_last_reload_successful"


def _service() -> Service:
    return Service(lambda: load([], {}))


def test_a_hundred_hangups_in_a_second_are_lived_through(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        threads = daemon.values()["telemetryd_process_threads"]
        for number in range(100):
            daemon.write(f'[collectors.cpu]\ninterval = "{900 + number}ms"\n')
            daemon.signal(signal.SIGHUP)
            time.sleep(0.01)
        eventually(lambda: daemon.log.count('"reloaded"') > 0 and daemon.answers(), "a reload")
        eventually(lambda: daemon.value(SUCCESSFUL) == 1, "it succeeded")
        # The event loop keeps a few threads for calls that wait.
        assert daemon.values()["telemetryd_process_threads"] < threads + 10
        assert "Traceback" not in daemon.log
        assert daemon.stop() == 0


def test_reloads_do_not_overlap_and_those_asked_for_meanwhile_are_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = _service()
    running_now: list[int] = []
    most: list[int] = []

    async def reload() -> None:
        running_now.append(1)
        most.append(len(running_now))
        await asyncio.sleep(0.01)
        running_now.pop()

    monkeypatch.setattr(subject, "_reload", reload)

    async def storm() -> None:
        task = asyncio.create_task(subject._reload_when_asked())
        for _ in range(50):
            subject._reload_asked.set()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(storm())
    assert 1 < len(most) < 20
    assert set(most) == {1}


def test_a_reload_can_open_the_endpoint_to_all_addresses_and_back(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        for address in ("0.0.0.0", "127.0.0.1"):
            done = daemon.log.count('"reloaded"')
            daemon.file.write_text(f'web.listen = "{address}:{daemon.port}"\n')
            daemon.signal(signal.SIGHUP)
            eventually(lambda done=done: daemon.log.count('"reloaded"') > done, "a reload")
            eventually(daemon.answers, f"it answers on {address}")


@pytest.mark.parametrize("same_port", [False, True])
def test_a_reload_to_an_address_that_cannot_be_had_stays_where_it_was(
    tmp_path: Path, same_port: bool
) -> None:
    with running(tmp_path) as daemon:
        # 192.0.2.1 is for documentation (RFC 5737): no machine has it.
        port = daemon.port if same_port else free_port()
        daemon.file.write_text(f'web.listen = "192.0.2.1:{port}"\n')
        daemon.signal(signal.SIGHUP)
        eventually(lambda: "reload refused" in daemon.log, "the refusal")
        eventually(lambda: daemon.value(SUCCESSFUL) == 0, "it shows")
        assert "192.0.2.1" in daemon.log


def test_a_configuration_that_is_deleted_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.file.unlink()
        daemon.signal(signal.SIGHUP)
        eventually(lambda: daemon.value(SUCCESSFUL) == 0, "refused")
        assert "telemetryd.toml: cannot be read" in daemon.log


def test_a_reload_that_fails_in_an_unexpected_way_is_not_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = _service()
    failures: list[Exception | None] = [OSError("?"), None]

    def reload() -> Config:
        error = failures.pop(0)
        if error is not None:
            raise error
        return subject._config

    monkeypatch.setattr(subject, "_load", reload)
    results: list[bool] = []
    monkeypatch.setattr(subject, "_note_reload", lambda *, successful: results.append(successful))

    async def twice() -> None:
        task = asyncio.create_task(subject._reload_when_asked())
        for done in (1, 2):
            subject._reload_asked.set()
            while len(results) < done:
                await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(twice())
    assert results == [False, True]
    subject._sampling.stop(1.0)


class Outlet(PushExporter):
    """Notes what it is told. `hangs` in stop until the end of the test."""

    made: list[Outlet]
    gate: threading.Event
    hangs = False

    def start(self) -> None:
        self.stopped: list[float] = []
        self.made.append(self)

    def offer(self, batch: Batch) -> None:
        pass

    def stop(self, timeout: float) -> None:
        self.stopped.append(timeout)
        if self.hangs:
            self.gate.wait(10)

    def check(self) -> None:
        pass


class Broken(Outlet):
    def start(self) -> None:
        raise RuntimeError("no")


@pytest.fixture
def outlets(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Outlet]]:
    """Those that were started. `broken` raises; `hangs` hangs when it is stopped."""
    made: list[Outlet] = []
    gate = threading.Event()
    own = {"made": made, "gate": gate}
    kinds = {
        "broken": type("Broken", (Broken,), own),
        "hangs": type("Hangs", (Outlet,), {**own, "hangs": True}),
    }
    fine = type("Fine", (Outlet,), own)
    monkeypatch.setattr(plugins, "push_exporter_class", lambda name: kinds.get(name, fine))
    yield made
    gate.set()


def _with(config: Config, **exporters: ExporterConfig) -> Config:
    return dataclasses.replace(config, exporters=exporters)


class Slow(ExporterConfig):
    seconds: int = 1


def _change(subject: Service, config: Config) -> None:
    before, subject._config = subject._config, config
    asyncio.run(subject._change_exporters(before, config))


def test_a_reload_leaves_exporters_alone_that_it_does_not_change(outlets: list[Outlet]) -> None:
    subject = _service()
    _change(subject, _with(subject._config, a=Slow(), b=Slow()))
    a, b = outlets
    _change(subject, _with(subject._config, a=Slow(), b=Slow(seconds=2), c=Slow()))
    assert (a.stopped == [], len(b.stopped)) == (True, 1)
    _, _, new_b, c = outlets
    assert subject._pipeline.sinks == [a.offer, new_b.offer, c.offer]
    _change(subject, dataclasses.replace(subject._config, labels={"rack": "7"}))
    assert len(a.stopped) == 1, "its points have other labels from now on"
    _change(subject, _with(subject._config))
    assert subject._pipeline.sinks == []
    assert all(len(outlet.stopped) == 1 for outlet in outlets)


def test_a_destination_that_a_reload_removes_has_no_gauges_any_more_and_its_backlog_is_named(
    outlets: list[Outlet], caplog: pytest.LogCaptureFixture
) -> None:
    subject = _service()
    _change(subject, _with(subject._config, a=Slow(), b=Slow()))
    for name in ("a", "b"):
        subject._instruments.set(SPOOL_RECORDS, name, to=5)
    _change(subject, _with(subject._config, a=Slow(seconds=2)))
    assert "destination=b records=5" in caplog.text
    assert "destination=a" not in caplog.text
    shown = {repr(series) for series, _ in subject._instruments.points()}
    assert 'telemetryd_spool_records{destination="a"}' in shown
    assert 'telemetryd_spool_records{destination="b"}' not in shown


def test_what_stays_is_settled_a_minute_after_the_start_and_after_each_reload(
    outlets: list[Outlet], monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[int] = []
    monkeypatch.setattr(service, "settle", lambda: settled.append(1))
    subject = _service()
    for _ in range(3):
        subject._each_minute()
    assert len(settled) == 1
    asyncio.run(subject._apply(subject._config))
    for _ in range(3):
        subject._each_minute()
    assert len(settled) == 2
    subject._sampling.stop(1.0)


def test_an_exporter_that_raises_when_it_is_started_costs_only_itself(
    outlets: list[Outlet], caplog: pytest.LogCaptureFixture
) -> None:
    subject = _service()
    _change(subject, _with(subject._config, broken=Slow(), fine=Slow()))
    assert [outlet.name for outlet in outlets] == ["fine"]
    assert "exporter not available" in caplog.text


def test_an_exporter_that_hangs_when_it_is_stopped_takes_no_time_from_the_others(
    outlets: list[Outlet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_STOP_EXPORTERS_S", 0.5)
    subject = _service()
    _change(subject, _with(subject._config, hangs=Slow(), fine=Slow()))
    _change(subject, _with(subject._config))
    hanging, fine = outlets
    assert hanging.stopped == fine.stopped == [0.5]

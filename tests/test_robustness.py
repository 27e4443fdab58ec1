"""What a daemon lives through: plugins that do anything, storms of signals, odd surroundings."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from support.daemon import ROOT, eventually, free_port, running
from support.lanes import Room
from support.plugin import install_plugin

from telemetryd import plugins, service
from telemetryd.batch import Batch
from telemetryd.config import Config, load
from telemetryd.errors import ConfigError
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.runner import State
from telemetryd.service import Service

BEGIN = """
import os, sys, time
from telemetryd.collector import Collector
from telemetryd.metric import Kind, Metric, Unit

VALUE = Metric("site", "value", Kind.GAUGE, Unit.NONE, "A value.", "a test")

def hang():
    while not os.path.exists(os.environ["SITE_RELEASE"]):
        time.sleep(0.05)

class Site(Collector):
    metrics = (VALUE,)
    def sample(self):
        yield VALUE.at(), 1
"""
HANGS_OPENING = BEGIN + "    def __init__(self, config, host):\n        hang()\n"
HANGS_CLOSING = BEGIN + "    def close(self):\n        hang()\n"


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Installs the collector `site`; the environment in which it is found."""

    def install(text: str) -> dict[str, str]:
        folder = tmp_path / "packages"
        folder.mkdir()
        install_plugin(folder, {"site_plugin": text}, {"site": "site_plugin:Site"})
        return {"PYTHONPATH": str(folder), "SITE_RELEASE": str(tmp_path / "release")}

    return install


# Plugins


@pytest.mark.parametrize("text", ["import no_such_module", "raise SystemExit(3)", "Site = 5"])
def test_a_plugin_that_cannot_be_imported_is_down_and_the_daemon_runs(
    tmp_path: Path, plugin: Callable[[str], dict[str, str]], text: str
) -> None:
    env = plugin(text)
    with running(tmp_path, '[collectors.site]\nport = "/dev/ttyS0"\n', env) as daemon:
        values = daemon.values()
        assert values['telemetryd_collector_up{collector="site"}'] == 0
        assert values['telemetryd_collector_up{collector="cpu"}'] == 1
        error = 'telemetryd_collector_errors_total{collector="site",reason="exception"}'
        assert values[error] == 1
        assert "repair" not in daemon.log
        daemon.signal(signal.SIGHUP)
        eventually(lambda: '"reloaded"' in daemon.log, "a reload")
        assert daemon.stop() == 0


def test_check_config_names_a_plugin_that_cannot_be_imported_unless_it_is_switched_off(
    tmp_path: Path, plugin: Callable[[str], dict[str, str]]
) -> None:
    env = plugin("import no_such_module")
    file = tmp_path / "t.toml"

    def check(text: str) -> subprocess.CompletedProcess[str]:
        file.write_text(text)
        return subprocess.run(
            [sys.executable, "-m", "telemetryd", "check-config", str(file)],
            cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    refused = check("[collectors.site]\n")
    assert refused.returncode == 2
    assert f"{file}: collectors.site" in refused.stderr
    assert "no_such_module" in refused.stderr
    assert check("[collectors.site]\nenabled = false\n").returncode == 0


def test_what_all_collectors_can_be_told_is_checked_even_if_one_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Callable[[str], dict[str, str]]
) -> None:
    monkeypatch.syspath_prepend(plugin("import no_such_module")["PYTHONPATH"])
    file = tmp_path / "t.toml"
    file.write_text("[collectors.site]\ninterval = 0\n")
    with pytest.raises(ConfigError, match=r"collectors\.site\.interval = 0"):
        load([str(file)], {})


@pytest.mark.parametrize("text", [HANGS_OPENING, HANGS_CLOSING], ids=["opening", "closing"])
def test_sigterm_ends_the_daemon_even_if_a_collector_hangs_when_it_is_opened_or_closed(
    tmp_path: Path, plugin: Callable[[str], dict[str, str]], text: str
) -> None:
    with running(tmp_path, "[collectors.site]\n", plugin(text)) as daemon:
        assert daemon.stop(patience=10) == 0
        assert "stuck_threads=yes" in daemon.log


def test_sigterm_ends_a_daemon_that_is_not_yet_started(
    tmp_path: Path, plugin: Callable[[str], dict[str, str]]
) -> None:
    env = plugin(HANGS_OPENING)
    with running(tmp_path, "", env) as daemon:
        daemon.write("[collectors.site]\n")
        daemon.signal(signal.SIGHUP)
        time.sleep(0.5)  # somewhere in the middle of the reload
        started = time.monotonic()
        assert daemon.stop(patience=10) == 0
        assert time.monotonic() - started < 4, "it does not wait for the collector"


@pytest.fixture
def lane() -> Iterator[Room]:
    room = Room("bad", "fine")
    yield room
    room.end()


def test_a_collector_that_never_ends_yielding_is_cut_off_and_counted(lane: Room) -> None:
    yielded = itertools.count()
    lane.begin()
    series = lane.batches[0].series[0]
    lane.probes["bad"].extra = ((series, 1) for _ in yielded)  # type: ignore[assignment]
    lane.tick(bad=2, fine=2)
    assert next(yielded) < 200_000
    assert lane.runners["bad"].state is State.FAILING
    errors = 'telemetryd_collector_errors_total{collector="bad",reason="limit"}'
    assert lane.counted(errors) == 1


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("nothing to say")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MuteError()], ids=repr)
def test_an_error_that_is_no_ordinary_one_ends_the_sample_and_not_the_lane(
    lane: Room, error: BaseException
) -> None:
    lane.begin()
    lane.probes["bad"].error = error  # type: ignore[assignment]
    lane.tick(bad=2, fine=2)
    assert lane.runners["bad"].state is State.FAILING
    lane.probes["bad"].error = None
    lane.tick(bad=3, fine=3)
    assert lane.runners["bad"].up is True
    assert len({thread for probe in lane.probes.values() for thread in probe.threads}) == 1


def test_a_push_exporter_that_raises_does_not_take_collectors_down(lane: Room) -> None:
    def refuse(_: Batch) -> None:
        raise RuntimeError("never raises, they said")

    lane.pipeline.sinks.insert(0, refuse)
    lane.begin()
    lane.tick(bad=2, fine=2)
    assert lane.runners["fine"].up is True


# Reloads


def test_a_hundred_hangups_in_a_second_are_lived_through(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        threads = daemon.values()["telemetryd_process_threads"]
        for number in range(100):
            daemon.write(f'[collectors.cpu]\ninterval = "{900 + number}ms"\n')
            daemon.signal(signal.SIGHUP)
            time.sleep(0.01)
        eventually(lambda: daemon.log.count('"reloaded"') > 0 and daemon.answers(), "a reload")
        eventually(
            lambda: daemon.value("telemetryd_config_last_reload_successful") == 1, "it succeeded"
        )
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
        assert daemon.value("telemetryd_config_last_reload_successful") == 0
        assert "192.0.2.1" in daemon.log


def test_a_configuration_that_is_deleted_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.file.unlink()
        daemon.signal(signal.SIGHUP)
        eventually(lambda: daemon.value("telemetryd_config_last_reload_successful") == 0, "refused")
        assert "telemetryd.toml: file: cannot be read" in daemon.log


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


# Exporters


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


def _service() -> Service:
    return Service(lambda: load([], {}))


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


# Surroundings


def test_the_daemon_runs_without_a_standard_error(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    port = free_port()
    file.write_text(f'web.listen = "127.0.0.1:{port}"\n')
    command = f"exec {sys.executable} -m telemetryd run --config {file} 2>&-"
    process = subprocess.Popen(command, shell=True, cwd=ROOT)
    try:
        eventually(lambda: _answers(port), "it answers")
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return answer.read() == b"ready\n"
    except (urllib.error.URLError, ConnectionError):
        return False


def test_hardware_is_looked_for_within_a_minute_after_the_clock_was_set_back() -> None:
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.start(paused=True)
    try:
        job = scheduler.add_job(print, "interval", seconds=service.LOOK_AGAIN_S)
        due = job.next_run_time
        service._keep_time(job)
        assert job.next_run_time == due, "nothing to mend"
        # As it is when the clock has been set back by an hour since.
        job.modify(next_run_time=due + timedelta(hours=1))
        service._keep_time(job)
        wait = job.next_run_time - datetime.now(UTC)
        assert wait <= timedelta(seconds=service.LOOK_AGAIN_S)
    finally:
        scheduler.shutdown(wait=False)


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("9" * 5000, "a number"),
        ("[" * 20000, "a number"),
        ("1\nfoo = 2", "a number"),
        ("", "a number"),
        ("\udcff", "a number"),
    ],
    ids=["too-long", "too-deep", "two-keys", "empty", "not-utf8"],
)
def test_a_variable_with_an_odd_value_is_a_text_like_any_other(value: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load([], {"TELEMETRYD_COLLECTORS__CPU__INTERVAL": value})
    (problem,) = refused.value.problems
    assert problem.key == "collectors.cpu.interval"
    assert allowed in problem.allowed


@pytest.mark.parametrize("text", [f"x = {'[' * 20000}", f"x = {'9' * 5000}"])
def test_a_file_that_the_parser_chokes_on_is_refused_like_any_other(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "t.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="is not TOML"):
        load([str(file)], {})

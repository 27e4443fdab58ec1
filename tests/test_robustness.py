"""What a daemon lives through: plugins that do anything, storms of signals, odd surroundings."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from support.daemon import ROOT, eventually, free_port, running
from support.lanes import Room
from support.plugin import install_plugin

from telemetryd import config, service
from telemetryd.batch import Batch
from telemetryd.config import load
from telemetryd.errors import ConfigError
from telemetryd.runner import State

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
        up = 'telemetryd_collector_up{collector="site"}'
        eventually(lambda: daemon.value(up) == 0, "the plugin is down")
        error = 'telemetryd_collector_errors_total{collector="site",reason="exception"}'
        assert daemon.value(error) == 1
        assert daemon.value('telemetryd_collector_up{collector="cpu"}') == 1
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


HANGS_STOPPING = """
import asyncio, os, signal, time
from telemetryd import service
from telemetryd.config import load

async def hang(self):
    time.sleep(60)

service._LAST_RESORT_S = 1.0
service.Service._shut_down = hang
daemon = service.Service(lambda: load([], {"TELEMETRYD_WEB__LISTEN": "127.0.0.1:0"}))
signal.setitimer(signal.ITIMER_REAL, 2.0)
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
daemon.run()
"""


def test_a_daemon_that_hangs_while_it_stops_says_where_and_is_gone_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS_STOPPING],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=40,
    )  # fmt: skip
    assert done.returncode == 1
    assert "in hang" in done.stderr


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


def test_files_in_conf_d_count_without_a_main_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", str(tmp_path / "telemetryd.toml"))
    assert config.config_files(None) == []
    (tmp_path / "conf.d").mkdir()
    extra = tmp_path / "conf.d" / "site.toml"
    extra.write_text("[labels]\nrack = '7'\n")
    assert config.load(config.config_files(None), {}).labels == {"rack": "7"}

"""The real daemon: starts, answers, reloads, survives a stuck collector, stops in order."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, eventually, free_port, running
from support.plugin import install_plugin

# Blocks in an uninterruptible way as far as Python is concerned: a read of a FIFO nobody writes.
STUCK = """
import json
import os
from telemetryd.collector import Collector
from telemetryd.metric import Kind, Metric, Unit

VALUE = Metric("site", "value", Kind.GAUGE, Unit.NONE, "A value.", "a FIFO")

class Stuck(Collector):
    metrics = (VALUE,)
    calls = 0

    def sample(self):
        type(self).calls += 1
        yield VALUE.at(), type(self).calls
        if type(self).calls > 1:
            fd = os.open(os.environ["SITE_FIFO"], os.O_RDONLY)
            os.read(fd, 1)
            os.close(fd)
"""


@pytest.fixture
def stuck_plugin(tmp_path: Path) -> dict[str, str]:
    site = tmp_path / "site"
    site.mkdir()
    install_plugin(site, {"site_stuck": STUCK}, {"site_stuck": "site_stuck:Stuck"})
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    return {"PYTHONPATH": str(site), "SITE_FIFO": str(fifo)}


def test_the_daemon_shows_this_machine_within_five_seconds_of_an_empty_configuration(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as daemon:
        eventually(
            lambda: 'telemetryd_utilization_ratio{resource="cpu",device="all"}' in daemon.values(),
            "a utilization ratio",
            patience=5,
        )
        values = daemon.values()
        assert values["telemetryd_memory_total_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf(
            "SC_PAGE_SIZE"
        )
        assert values['telemetryd_collector_up{collector="cpu"}'] == 1
        assert values["telemetryd_config_last_reload_successful"] == 1
        assert daemon.fetch("/-/healthy") == b"healthy\n"
        assert daemon.stop() == 0


def test_a_stuck_collector_leaves_the_others_their_cadence_and_is_never_sampled_twice_at_once(
    tmp_path: Path, stuck_plugin: dict[str, str]
) -> None:
    config = '[collectors.site_stuck]\ninterval = "1s"\n'
    with running(tmp_path, config, stuck_plugin) as daemon:
        eventually(
            lambda: daemon.value('telemetryd_collector_up{collector="site_stuck"}') == 0,
            "the stuck collector is down",
            patience=5,
        )
        # Two intervals after it was last read, which may be a moment after the collector is down.
        eventually(
            lambda: "telemetryd_site_value" not in daemon.values(), "no stale value", patience=5
        )
        samples = 'telemetryd_collector_samples_total{collector="cpu"}'
        started, before = time.monotonic(), daemon.values()
        eventually(lambda: daemon.values()[samples] >= before[samples] + 10, "ten more samples")
        assert time.monotonic() - started < 12, "the cadence is kept within 10 % and one tick"
        threads = "telemetryd_process_threads"
        assert daemon.values()[threads] <= before[threads], "one stuck thread at most"
        assert daemon.log.count("no answer within") == 1

        with open(stuck_plugin["SITE_FIFO"], "w") as fifo:
            fifo.write("x")
        eventually(
            lambda: (
                daemon.value('telemetryd_collector_up{collector="site_stuck"}') == 0
                and daemon.value('telemetryd_collector_overruns_total{collector="site_stuck"}') == 2
            ),
            "it is sampled again once the read has returned",
        )


def test_sigterm_ends_the_daemon_within_ten_seconds_even_with_a_collector_stuck(
    tmp_path: Path, stuck_plugin: dict[str, str]
) -> None:
    with running(tmp_path, "[collectors.site_stuck]\n", stuck_plugin) as daemon:
        eventually(
            lambda: daemon.value('telemetryd_collector_up{collector="site_stuck"}') == 0,
            "the stuck collector is down",
        )
        assert daemon.stop(patience=10) == 0
        assert "stuck_threads=yes" in daemon.log


def test_a_reload_changes_what_is_sampled_and_keeps_what_the_others_accumulated(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as daemon:
        observed = 'telemetryd_utilization_observed_seconds_total{resource="cpu",device="all"}'
        eventually(lambda: (daemon.value(observed) or 0) > 1, "some observed time")
        before = daemon.values()
        daemon.write("[collectors.memory]\nenabled = false\n")
        daemon.signal(signal.SIGHUP)
        eventually(lambda: "telemetryd_memory_total_bytes" not in daemon.values(), "no memory")
        assert daemon.values()[observed] >= before[observed]
        assert daemon.values()["telemetryd_config_last_reload_successful"] == 1


def test_a_reload_can_move_the_endpoint(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        daemon.port = free_port()
        daemon.write("")
        daemon.signal(signal.SIGHUP)
        eventually(daemon.answers, "it answers on the other port")


def test_a_bad_configuration_on_reload_keeps_the_old_one_running_and_shows(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as daemon:
        daemon.write('[collectors.cpu]\nintervall = "1s"\n')
        daemon.signal(signal.SIGHUP)
        eventually(lambda: daemon.value("telemetryd_config_last_reload_successful") == 0, "refused")
        assert "collectors.cpu.intervall" in daemon.log
        assert 'did you mean "interval"' in daemon.log
        assert 'telemetryd_collector_up{collector="cpu"}' in daemon.values()
        daemon.write("")
        daemon.signal(signal.SIGHUP)
        eventually(
            lambda: daemon.value("telemetryd_config_last_reload_successful") == 1, "accepted"
        )


def test_a_bad_configuration_at_start_is_refused_with_status_2(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, "[web]\nlisten = 5\n")
    assert daemon.process.wait(20) == 2


def test_a_port_that_is_taken_is_named_with_the_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    with running(tmp_path) as first:
        second = Daemon(folder, port=first.port)
        assert second.process.wait(20) == 1
    assert f"cannot listen on 127.0.0.1:{first.port}: Address already in use" in second.log
    assert "set [web] listen" in second.log


# What was learned

# A CPU package of 100 W.
PACKAGE = """
import time
from telemetryd import meters
from telemetryd.collector import Collector

class Package(Collector):
    metrics = (meters.ENERGY,)

    def sample(self):
        joules = 100 * time.monotonic()
        yield meters.ENERGY.at("rapl", "package", "77", "component"), joules
"""
IDLE = 'telemetryd_energy_idle_power_watts{device_kind="cpu",device="77"}'
LEARNED = {"format": 1, "learned": {"EnergyBalance": {"cpu 77": {"60": 900.0}}}}


@pytest.fixture
def package(tmp_path: Path) -> dict[str, str]:
    """An environment with a package, and with a folder in which its idle power is known."""
    site, state = tmp_path / "site", tmp_path / "state"
    site.mkdir()
    state.mkdir()
    install_plugin(site, {"site_package": PACKAGE}, {"site_package": "site_package:Package"})
    return {"PYTHONPATH": str(site), "STATE_DIRECTORY": str(state)}


def test_what_was_learned_survives_a_restart(tmp_path: Path, package: dict[str, str]) -> None:
    file = tmp_path / "state" / "learned.json"
    file.write_text(json.dumps(LEARNED))
    for _ in range(2):
        with running(tmp_path, "[collectors.site_package]\n", package) as daemon:
            eventually(lambda: daemon.value(IDLE) is not None, "the idle power")
            assert daemon.value(IDLE) == pytest.approx(60, abs=1)
            assert daemon.stop() == 0
        learned = json.loads(file.read_text())["learned"]["EnergyBalance"]
        assert learned["cpu 77"]["60"] == pytest.approx(900, rel=0.01)


def test_what_was_learned_survives_a_reload(tmp_path: Path, package: dict[str, str]) -> None:
    (tmp_path / "state" / "learned.json").write_text(json.dumps(LEARNED))
    plugin = "[collectors.site_package]\n"
    with running(tmp_path, plugin, package) as daemon:
        eventually(lambda: daemon.value(IDLE) is not None, "the idle power")
        daemon.write(f"{plugin}[derived.energy]\npue = 1.5\n")
        daemon.signal(signal.SIGHUP)
        eventually(
            lambda: (
                {IDLE, "telemetryd_node_facility_energy_joules_total"} <= daemon.values().keys()
            ),
            "the PUE, and the idle power again",
        )
        assert daemon.value(IDLE) == pytest.approx(60, abs=1)


def test_a_file_of_what_was_learned_that_is_broken_is_no_reason_not_to_start(
    tmp_path: Path, package: dict[str, str]
) -> None:
    file = tmp_path / "state" / "learned.json"
    file.write_text('{"format": 1, "learned": {"EnergyBalance": {"cpu 77": {"6')
    with running(tmp_path, "[collectors.site_package]\n", package) as daemon:
        assert "cannot use" in daemon.log
        assert IDLE not in daemon.values()
        assert daemon.stop() == 0
    assert file.with_name("learned.json.unusable").exists()

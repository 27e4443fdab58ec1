"""The commands as an operator runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.daemon import ROOT, running
from support.trees import write_tree


def telemetryd(*arguments: str, status: int = 0) -> str:
    """Run a command to its end; its standard output. Fails unless it exits with `status`."""
    done = subprocess.run(
        [sys.executable, "-m", "telemetryd", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status in {0, 1} else done.stderr


def test_once_prints_ratios_of_this_machine_in_the_text_format() -> None:
    families = {f.name: f for f in parse_text(telemetryd("once", "--interval", "0.2"))}
    resources = {s.labels["resource"] for s in families["telemetryd_utilization_ratio"].samples}
    assert {"cpu", "memory"} <= resources


def test_once_prints_openmetrics() -> None:
    page = telemetryd("once", "--interval", "0.1", "--format", "openmetrics", "--only", "cpu")
    assert {f.name for f in parse_openmetrics(page)} >= {"telemetryd_cpu_time_seconds"}


def test_once_prints_json_with_name_labels_and_value_of_each_series() -> None:
    page = telemetryd("once", "--interval", "0.1", "--format", "json", "--only", "memory")
    (batch,) = json.loads(page)
    names = {series["name"]: series for series in batch["series"]}
    assert names["telemetryd_memory_total_bytes"]["value"] > 0
    ratio = next(s for s in batch["series"] if s["name"] == "telemetryd_utilization_ratio")
    assert ratio["labels"]["resource"] in {"memory", "swap"}


def test_once_prints_line_protocol_with_the_configured_labels(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('[labels]\ncluster = "c 1"\n')
    page = telemetryd(
        *("once", "--interval", "0.1", "--format", "influx"),
        *("--only", "memory", "--config", str(file)),
    )
    assert page.startswith("telemetryd_")
    assert all("cluster=c\\ 1" in line for line in page.splitlines())


def test_once_refuses_a_collector_that_does_not_exist() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "telemetryd", "once", "--only", "cpu,dsk"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "dsk" in done.stderr
    assert "disk" in done.stderr


def test_a_pipe_that_closes_early_gives_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m telemetryd metrics | head -n 1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "# Metrics\n"
    assert done.stderr == ""


def test_the_trees_to_read_can_be_elsewhere(tmp_path: Path) -> None:
    write_tree(
        tmp_path, {"proc/meminfo": "MemTotal: 4 kB\nMemAvailable: 1 kB\n", "proc/vmstat": ""}
    )
    page = telemetryd(
        *("once", "--interval", "0.1", "--only", "memory"),
        *("--procfs", str(tmp_path / "proc"), "--sysfs", str(tmp_path / "sys")),
    )
    assert "telemetryd_memory_total_bytes 4096" in page
    assert 'telemetryd_utilization_ratio{resource="memory",device="all"} 0.75' in page


def test_doctor_shows_every_collector_and_the_remedy_of_what_is_missing(tmp_path: Path) -> None:
    findings = json.loads(
        telemetryd(
            "doctor",
            "--format",
            "json",
            "--rootfs",
            str(tmp_path),
            "--config",
            _config(tmp_path, ""),
        )
    )
    by_name = {finding["name"]: finding for finding in findings}
    assert by_name["cpu"]["state"] == "ok"
    assert by_name["textfile"]["state"] == "missing"
    assert by_name["textfile"]["remedy"]
    assert by_name["prometheus"]["kind"] == "exporter"


def _config(folder: Path, text: str) -> str:
    file = folder / "telemetryd.toml"
    file.write_text('web.listen = "127.0.0.1:0"\n' + text)
    return str(file)


def test_doctor_exits_1_when_something_required_is_missing(tmp_path: Path) -> None:
    config = _config(tmp_path, "[collectors.textfile]\nenabled = true\n")
    table = telemetryd("doctor", "--config", config, "--rootfs", str(tmp_path), status=1)
    assert "remedy:" in table
    assert "\x1b" not in table, "no colours in a pipe"


def test_doctor_sees_that_the_daemon_holds_the_port(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        table = telemetryd("doctor", "--config", str(daemon.file))
        assert f"a telemetryd answers on 127.0.0.1:{daemon.port}" in table


def test_check_config_accepts_a_good_file(tmp_path: Path) -> None:
    assert "fine" in telemetryd("check-config", _config(tmp_path, ""))


@pytest.mark.parametrize(
    ("text", "complaints"),
    [
        ("[collectors.cpu]\nintervall = 1\n", ["collectors.cpu.intervall", '"interval"']),
        ("[collectors.dsk]\n", ["collectors.dsk", '"disk"']),
        (
            '[collectors.cpu]\ninterval = "1 parsec"\n',
            ["collectors.cpu.interval", "'1 parsec'", "ms"],
        ),
        ("[colectors.cpu]\n", ["colectors", '"collectors"']),
        (
            '[collectors.cpu]\nenabled = "perhaps"\n',
            ["collectors.cpu.enabled", "'perhaps'", "auto"],
        ),
    ],
)
def test_check_config_names_file_key_value_and_what_is_allowed(
    tmp_path: Path, text: str, complaints: list[str]
) -> None:
    file = _config(tmp_path, text)
    errors = telemetryd("check-config", file, status=2)
    assert errors.startswith(file)
    for complaint in complaints:
        assert complaint in errors


def test_every_command_has_a_help_text() -> None:
    for command in ("run", "once", "doctor", "check-config", "metrics"):
        assert "usage: telemetryd " + command in telemetryd(command, "--help")


def test_output_that_cannot_be_written_is_one_line_and_status_1() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "telemetryd", "metrics"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "telemetryd: [Errno 28] No space left on device\n"

"""`telemetryd spool` beside the real daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.daemon import running
from support.receiver import OK, Receiver, Reply, Request, serving
from support.servers import eventually
from support.spooled import Shell

WORDS = "field type conflict: input field is type float, already exists as type integer"


def refuse_points(request: Request) -> Reply:
    """As InfluxDB does; what asks whether we are there gets an answer."""
    if b"telemetryd_" not in request.body:
        return OK
    return Reply(status=400, body=json.dumps({"message": WORDS}).encode())


def refuse_everything(_request: Request) -> Reply:
    return Reply(status=503)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def configuration(shell: Shell, url: str) -> str:
    return f"""
[spool]
directory = "{shell.spool}"
[exporters.influxdb]
url = "{url}"
bucket = "telemetry"
resolution = 1
flush_interval = 1
include = ["telemetryd_memory_total_bytes"]
"""


def test_what_is_refused_can_be_read_and_sent_once_more_while_the_daemon_runs(
    shell: Shell, tmp_path: Path
) -> None:
    with serving(Receiver(refuse_points)) as receiver:
        config = configuration(shell, receiver.url)
        shell.configure(config)
        (tmp_path / "daemon").mkdir()
        with running(tmp_path / "daemon", config):

            def ids() -> list[str]:
                if not shell.spool.exists():
                    return []
                page = shell.run("quarantine", "list", "--format", "json")
                return [entry["id"] for entry in json.loads(page)]

            first = eventually(ids)[0]
            sheet, _, body = shell.run("quarantine", "show", first).partition("\n\n")
            assert WORDS in sheet
            assert "telemetryd_memory" in body
            receiver.script(OK)
            before = receiver.bodies.count(body.encode())
            shell.run("quarantine", "replay", first)
            eventually(lambda: receiver.bodies.count(body.encode()) > before)
            assert first not in ids()
            shell.run("quarantine", "drop", "--all")
            eventually(lambda: not ids())


def test_what_waits_is_told_while_the_daemon_writes_it_and_after_its_end(
    shell: Shell, tmp_path: Path
) -> None:
    with serving(Receiver(refuse_everything)) as receiver:
        config = configuration(shell, receiver.url)
        shell.configure(config)
        (tmp_path / "daemon").mkdir()

        def records() -> int:
            if not (shell.spool / "influxdb").exists():
                return 0
            page = json.loads(shell.run("status", "--format", "json"))
            (found,) = page["destinations"]
            assert (found["name"], found["kind"]) == ("influxdb", "influxdb")
            return int(found["records"])

        with running(tmp_path / "daemon", config) as daemon:
            eventually(lambda: records() >= 3)
            assert daemon.stop() == 0
        assert records() >= 3

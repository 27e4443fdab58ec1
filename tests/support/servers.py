"""Real servers on free ports of the loopback interface, each with a folder of its own.

A test that needs one that is not installed is skipped with the name of the Debian package.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

# Longer than any of them takes, so that only what is broken runs into it.
_START_S = 60.0
_STOP_S = 10.0
_POLL_S = 0.05
# A free port may be taken by somebody else before the server listens on it.
_TRIES = 3


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Server:
    """A server that runs: `url` without a path, `process` our child, `log` what it says."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def get(self, path: str, **query: str) -> Answer:
        return self._ask("GET", path, query, None)

    def post(self, path: str, body: bytes = b"", **query: str) -> Answer:
        return self._ask("POST", path, query, body)

    def _ask(self, method: str, path: str, query: dict[str, str], body: bytes | None) -> Answer:
        target = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=30)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()


def eventually(probe: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `probe` returns as soon as that is true; fails when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {probe}, last {found!r}"
        time.sleep(_POLL_S)
    return found


@contextmanager
def prometheus(folder: Path, config: str = "", port: int | None = None) -> Iterator[Server]:
    """Prometheus that takes remote writes; `config` is the text of its configuration file. `port`
    is that of one which ran on this folder before."""
    program = _program("prometheus", "prometheus")
    file = folder / "prometheus.yml"
    file.write_text(config)

    def command(port: int) -> Sequence[str]:
        return (
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
        )

    with _running(command, folder, "/-/ready", port) as server:
        yield server


@contextmanager
def victoria_metrics(folder: Path, port: int | None = None) -> Iterator[Server]:
    """VictoriaMetrics that shows points as soon as they are stored. `port` is that of one which
    ran on this folder before."""
    program = _program("victoria-metrics", "victoria-metrics")

    def command(port: int) -> Sequence[str]:
        return (
            program,
            f"-httpListenAddr=127.0.0.1:{port}",
            f"-storageDataPath={folder / 'data'}",
            "-search.latencyOffset=0s",
            "-retentionPeriod=100y",
        )

    with _running(command, folder, "/health", port) as server:
        yield server


@contextmanager
def influxdb(folder: Path, database: str = "telemetry") -> Iterator[Server]:
    """InfluxDB 1.6, which has no /api/v2/write, with an empty database."""
    program = _program("influxd", "influxdb")

    def command(port: int) -> Sequence[str]:
        file = folder / "influxdb.conf"
        file.write_text(
            "reporting-disabled = true\n"
            f'bind-address = "127.0.0.1:{_free_port()}"\n'
            f'[meta]\ndir = "{folder}/meta"\n'
            f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\n'
            f'[http]\nbind-address = "127.0.0.1:{port}"\n'
            "[monitor]\nstore-enabled = false\n"
        )
        return program, "-config", str(file)

    with _running(command, folder, "/ping") as server:
        assert server.post("/query", q=f'CREATE DATABASE "{database}"').status == 200
        yield server


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return path


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@contextmanager
def _running(
    command: Callable[[int], Sequence[str]],
    folder: Path,
    ready_path: str,
    port: int | None = None,
) -> Iterator[Server]:
    server = _start(command, folder, ready_path, port)
    try:
        yield server
    finally:
        _stop(server.process)


def _start(
    command: Callable[[int], Sequence[str]], folder: Path, ready_path: str, wanted: int | None
) -> Server:
    log = folder / "log"
    for _ in range(_TRIES):
        port = wanted or _free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(port), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder
            )
        server = Server(f"http://127.0.0.1:{port}", process, log)
        try:
            if _becomes_ready(server, port, ready_path):
                return server
        except BaseException:
            _stop(process)
            raise
        _stop(process)
    tail = log.read_text(errors="replace")[-2000:]
    raise AssertionError(f"{process.args!r} does not get ready; it says:\n{tail}")


def _becomes_ready(server: Server, port: int, path: str) -> bool:
    """Whether our own child listens on the port and says that it is ready, before it ends."""
    deadline = time.monotonic() + _START_S
    while server.process.poll() is None and time.monotonic() < deadline:
        try:
            if _listens(server.process.pid, port) and server.get(path).status < 300:
                return True
        except (OSError, http.client.HTTPException, psutil.Error):
            pass
        time.sleep(_POLL_S)
    return False


def _listens(pid: int, port: int) -> bool:
    sockets = psutil.Process(pid).net_connections("tcp")
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

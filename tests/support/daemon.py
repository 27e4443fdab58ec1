"""The real daemon as a child process on a free port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(check: Callable[[], bool], what: str, patience: float = PATIENCE_S) -> None:
    """Wait until `check` holds; fails with `what` if it does not in time."""
    deadline = time.monotonic() + patience
    while not check():
        assert time.monotonic() < deadline, f"not within {patience} s: {what}"
        time.sleep(0.05)


class Daemon:
    """A running telemetryd. `config` is the text of its configuration file."""

    def __init__(
        self,
        folder: Path,
        config: str = "",
        env: dict[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.file = folder / "telemetryd.toml"
        self.log_file = folder / "telemetryd.log"
        self._env = {**os.environ, **(env or {})}
        self.write(config)
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "telemetryd", "run", "--config", str(self.file)],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def write(self, config: str) -> None:
        self.file.write_text(f'web.listen = "127.0.0.1:{self.port}"\n{config}')

    def fetch(self, path: str = "/metrics", headers: dict[str, str] | None = None) -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers=headers or {}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def values(self) -> dict[str, float]:
        """The scrape, by the text of each series."""
        lines = (line for line in self.fetch().decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    def value(self, series: str) -> float | None:
        return self.values().get(series)

    def answers(self) -> bool:
        assert self.process.poll() is None, f"the daemon ended: {self.log}"
        try:
            return self.fetch("/-/ready") == b"ready\n"
        except (urllib.error.URLError, ConnectionError):
            return False

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, patience: float = 10.0) -> int:
        """SIGTERM; the exit status. Raises subprocess.TimeoutExpired if it does not end."""
        self.signal(signal.SIGTERM)
        return self.process.wait(patience)


@contextmanager
def running(folder: Path, config: str = "", env: dict[str, str] | None = None) -> Iterator[Daemon]:
    """A daemon that is ready; killed at the end if it still runs."""
    daemon = Daemon(folder, config, env)
    try:
        eventually(daemon.answers, "the daemon is ready")
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.process.wait()

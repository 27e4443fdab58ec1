"""How each process is started: on a free port of the loopback interface, and gone at the end."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from common import NODE_EXPORTER_COLLECTORS, TELEMETRYD_CONFIG
from scrape import Client, Scrape
from trees import Tree

ROOT = Path(__file__).parent.parent
NODE_EXPORTER = "prometheus-node-exporter"
_START_S = 30.0
_STOP_S = 10.0
_POLL_S = 0.02
# A free port may be taken by somebody else before the peer listens on it.
_TRIES = 3
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to measure. `only_common` restricts it to what both export; `config` is more of
    telemetryd's configuration file."""

    name: str
    only_common: bool = False
    tree: Tree | None = None
    config: str = ""

    def command(self, port: int, folder: Path) -> Sequence[str]:
        return (self._telemetryd if self.name == "telemetryd" else self._node_exporter)(
            port, folder
        )

    def _telemetryd(self, port: int, folder: Path) -> Sequence[str]:
        file = folder / "telemetryd.toml"
        common = TELEMETRYD_CONFIG if self.only_common else ""
        file.write_text(f'web.listen = "127.0.0.1:{port}"\n{common}{self.config}')
        command = [sys.executable, "-m", "telemetryd", "run", "--config", str(file)]
        if self.tree is not None:
            command += ["--procfs", self.tree.procfs, "--sysfs", self.tree.sysfs]
        return command

    def _node_exporter(self, port: int, folder: Path) -> Sequence[str]:  # noqa: ARG002
        command = [node_exporter(), f"--web.listen-address=127.0.0.1:{port}"]
        if self.only_common:
            command += ["--collector.disable-defaults", "--web.disable-exporter-metrics"]
            command += [f"--collector.{name}" for name in NODE_EXPORTER_COLLECTORS]
        if self.tree is not None:
            command += [f"--path.procfs={self.tree.procfs}", f"--path.sysfs={self.tree.sysfs}"]
            # By default it asks the kernel over netlink, and so for our interfaces.
            command += ["--no-collector.netdev.netlink"]
        return command


def telemetryd(**options: object) -> Peer:
    return Peer("telemetryd", **options)  # type: ignore[arg-type]


def node_exporters(**options: object) -> Peer:
    return Peer("node_exporter", **options)  # type: ignore[arg-type]


def node_exporter() -> str:
    """Path of Debian's node_exporter. Raises FileNotFoundError, with the remedy."""
    path = shutil.which(NODE_EXPORTER)
    if path is None:
        raise FileNotFoundError(
            f"{NODE_EXPORTER} is not installed; run: sudo apt install {NODE_EXPORTER}"
        )
    return path


@dataclass(frozen=True, slots=True)
class Running:
    """A peer that answers on `port`; `first` is what it answered."""

    pid: int
    port: int
    first: Scrape


@contextmanager
def child(command: Sequence[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child process that ends with this block, and with us however we end. `options` are those
    of subprocess.Popen."""
    settings = {"stdin": subprocess.DEVNULL, "cwd": ROOT, "preexec_fn": _die_with_parent}
    process = subprocess.Popen(command, **{**settings, **options})  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def running(peer: Peer) -> Iterator[Running]:
    """`peer` from its first answer on. Raises RuntimeError with its log if it does not start."""
    said = ""
    for _ in range(_TRIES):
        port = _free_port()
        with tempfile.TemporaryDirectory(prefix="telemetryd-bench-") as folder:
            log = Path(folder) / "log"
            with (
                log.open("wb") as output,
                child(peer.command(port, Path(folder)), stdout=output, stderr=output) as process,
            ):
                first = _first_answer(process, port)
                if first is not None:
                    yield Running(process.pid, port, first)
                    return
            said = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{peer.name} does not start; it says:\n{said}")


def _first_answer(process: subprocess.Popen[bytes], port: int) -> Scrape | None:
    client = Client(port)
    deadline = time.monotonic() + _START_S
    try:
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError, ValueError):
                answer = client.get()
                # Somebody else may have taken the port while our child ended.
                return answer if process.poll() is None else None
            time.sleep(_POLL_S)
    finally:
        client.close()
    return None


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def cores() -> int:
    return len(os.sched_getaffinity(0))

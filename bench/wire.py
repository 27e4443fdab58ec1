"""Bytes on the wire for each sample, and series of this node, by the daemon itself:
`python bench/wire.py [--gpus] [--resolution 10] [--flush 10] [--seconds 60]`.

Starts `telemetryd run` with a destination of each kind, takes what they send, and counts: series,
requests, points, bytes of a point as it is sent and as it waits in the spool, bytes of the headers
of a request. --gpus: with eight fake H100 under load, as in `make demo`. What TLS, TCP and IP add
is not in it.
"""

from __future__ import annotations

import argparse
import gzip
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "bench")]

import cramjam  # noqa: E402  (found through the path above)
from report import table  # noqa: E402

from telemetryd.delivery.body_text import as_text  # noqa: E402

_STEP_S = 0.5
_GZIP = b"\x1f\x8b"
_ESCAPED = re.compile(r"\\.")


class Count:
    """What came from one destination."""

    def __init__(self) -> None:
        self.requests = self.body = self.plain = self.headers = self.points = 0
        self.series: set[str] = set()

    def add(self, kind: str, body: bytes, headers: int) -> None:
        plain = unpacked(kind, body)
        names = list(points(kind, plain))
        if not names:  # only whether we are there
            return
        self.requests += 1
        self.body += len(body)
        self.plain += len(plain)
        self.headers += headers
        self.points += len(names)
        self.series.update(names)


def unpacked(kind: str, body: bytes) -> bytes:
    """As it waits in the spool."""
    if kind == "remote_write":
        return bytes(cramjam.snappy.decompress_raw(body)) if body else b""
    return gzip.decompress(body) if body.startswith(_GZIP) else body


def points(kind: str, plain: bytes) -> Iterator[str]:
    """The series of each point in a body."""
    if kind == "remote_write":
        yield from (line.rsplit(" ", 2)[0] for line in as_text(kind, plain).splitlines())
        return
    for line in plain.decode().splitlines():
        yield from fields(line)


def fields(line: str) -> Iterator[str]:
    """Each field of a line of line protocol, with its measurement and tags."""
    tags, _, values = _ESCAPED.sub("_", line).rpartition(" ")[0].partition(" ")
    for field in filter(None, values.split(",")):
        yield f"{tags} {field.partition('=')[0]}"


@contextmanager
def receiver(counts: dict[str, Count]) -> Iterator[int]:
    """A server that takes everything and counts it; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            kind = "remote_write" if self.path == "/api/v1/write" else "influxdb"
            counts[kind].add(kind, body, len(self.raw_requestline) + len(bytes(self.headers)))
            self.send_response(204)
            self.end_headers()

        do_HEAD = do_GET = do_POST  # noqa: N815  (http.server chooses the names)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def fake_gpus(folder: Path) -> Iterator[str]:
    """Eight fake H100 under a changing load; yields their lines of configuration."""
    from fakes.nvml.demo import pretender  # noqa: PLC0415
    from fakes.nvml.load import Node  # noqa: PLC0415
    from support.nvml import FakeNvml  # noqa: PLC0415

    with pretender("train-llm") as training, pretender("llm-server") as inference:
        fake = FakeNvml(folder)
        node = Node(fake, training=training, inference=inference, holding=training)
        node.step(_STEP_S)
        stop = threading.Event()

        def play() -> None:
            while not stop.wait(_STEP_S):
                node.step(_STEP_S)

        thread = threading.Thread(target=play, daemon=True)
        thread.start()
        try:
            yield f'[collectors.gpu_nvidia]\nlibrary = "{fake.library}"\n'
        finally:
            stop.set()
            thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="bytes on the wire for each sample")
    parser.add_argument("--gpus", action="store_true", help="with eight fake H100")
    parser.add_argument("--resolution", type=float, default=10, help="seconds (10)")
    parser.add_argument("--flush", type=float, default=10, help="flush_interval in seconds (10)")
    parser.add_argument("--seconds", type=float, default=60, help="how long to look (60)")
    arguments = parser.parse_args()
    counts = {"remote_write": Count(), "influxdb": Count()}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(receiver(counts))
        gpus = stack.enter_context(fake_gpus(folder)) if arguments.gpus else ""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            own = probe.getsockname()[1]
        pushes = f"resolution = {arguments.resolution}\nflush_interval = {arguments.flush}\n"
        config = folder / "telemetryd.toml"
        config.write_text(
            f'web.listen = "127.0.0.1:{own}"\n[labels]\ncluster = "c1"\nrack = "r07"\n{gpus}'
            f'[exporters.remote_write]\nurl = "http://127.0.0.1:{port}/api/v1/write"\n{pushes}'
            f'[exporters.influxdb]\nurl = "http://127.0.0.1:{port}"\nbucket = "b"\n{pushes}'
        )
        command = [sys.executable, "-m", "telemetryd", "run", "--config", str(config)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            time.sleep(arguments.seconds)
        finally:
            process.terminate()
            process.wait(20)
    header = ("", "series", "requests", "points", "bytes a point", "in the spool", "of headers")
    rows = [
        (
            kind,
            str(len(one.series)),
            str(one.requests),
            str(one.points),
            f"{one.body / one.points:.2f}",
            f"{one.plain / one.points:.2f}",
            f"{one.headers / one.requests:.0f}",
        )
        for kind, one in counts.items()
    ]
    print(table(header, rows), end="")


if __name__ == "__main__":
    main()

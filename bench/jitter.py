"""How late the daemon's ticks are with every core busy, beside a bare thread at the same time.

The daemon is the real one, with its default configuration, and pushes every reading of one metric
to a receiver in this process: a pushed point carries the moment at which its collector began to
read. The bare thread is a Python process that sleeps to absolute deadlines and notes when it
wakes. Nobody but the daemon knows its deadlines, so both grids are found alike: the earliest tick
of all, less whole intervals, is taken for on time. Pushed times are of the wall clock; they are
put on the monotonic one with the difference of the two as it was then.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import peers
from clock import wait_until
from measure import percentile
from scrape import Client

_WARM_S = 5
_METRIC = "telemetryd_cpu_forks_total"
_MEASUREMENT = b"telemetryd_cpu,"
_GZIP_WINDOW = 31
# Two pushes, so that the last readings have come.
_LAST_PUSH_S = 2.5

# argv: seconds, after which it ends though nobody stops it.
_BUSY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[1]),) * 2)
while True:
    pass
"""
# argv: how many ticks. Prints the monotonic time of each, in nanoseconds.
_BARE = """
import sys, threading, time
times = []
def run():
    due = time.monotonic_ns() + 500_000_000
    for _ in range(int(sys.argv[1])):
        while (left := due - time.monotonic_ns()) > 0:
            time.sleep(left / 1e9)
        times.append(time.monotonic_ns())
        due += 1_000_000_000
thread = threading.Thread(target=run)
thread.start()
thread.join()
print(*times)
"""


@dataclass(frozen=True, slots=True)
class Grid:
    """Ticks of a second: how late each was in milliseconds, how many did not come, and by how
    much the last ones are later than the first."""

    late_ms: tuple[float, ...]
    missed: int
    drift_ms: float

    @classmethod
    def of(cls, times_ns: Sequence[int], interval_ns: int = 1_000_000_000) -> Grid:
        """Raises ValueError if there is no tick."""
        ordered = sorted(times_ns)
        # The first may be late itself: by less than a quarter of an interval, it is assumed.
        rests = [(t - ordered[0] + interval_ns // 4) % interval_ns for t in ordered]
        earliest = min(rests)
        late = [(rest - earliest) / 1e6 for rest in rests]
        span = round((ordered[-1] - ordered[0]) / interval_ns) + 1
        tenth = max(1, len(late) // 10)
        drift = statistics.median(late[-tenth:]) - statistics.median(late[:tenth])
        return cls(tuple(late), span - len(ordered), drift)

    @property
    def p50(self) -> float:
        return percentile(self.late_ms, 0.5)

    @property
    def p99(self) -> float:
        return percentile(self.late_ms, 0.99)


@dataclass(frozen=True, slots=True)
class Jitter:
    """Both grids. `counted` is how many ticks the daemon itself says it missed."""

    seconds: int
    cores: int
    ours: Grid
    bare: Grid
    counted: float


class _Receiver:
    """Takes pushes of line protocol, and notes the time of each point."""

    def __init__(self) -> None:
        self.wall_ns: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = zlib.decompress(body, _GZIP_WINDOW)
                for line in body.splitlines():
                    if line.startswith(_MEASUREMENT):
                        receiver.wall_ns.append(int(line.rpartition(b" ")[2]))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()


def _config(port: int) -> str:
    return f"""
[exporters.influxdb]
url = "http://127.0.0.1:{port}"
org = "bench"
bucket = "bench"
resolution = 0
flush_interval = 1
include = ["{_METRIC}"]
"""


def measure(seconds: int) -> Jitter:
    """Load every core, and watch both grids for so many seconds."""
    receiver = _Receiver()
    cores = peers.cores()
    with ExitStack() as stack:
        stack.enter_context(receiver.serving())
        peer = peers.telemetryd(config=_config(receiver.port))
        daemon = stack.enter_context(peers.running(peer))
        client = stack.enter_context(closing(Client(daemon.port)))
        limit = str(_WARM_S + seconds + 60)
        for _ in range(cores):
            stack.enter_context(peers.child([sys.executable, "-c", _BUSY, limit]))
        time.sleep(_WARM_S)
        # Both ends of the time, because the wall clock may be steered meanwhile.
        begin = time.monotonic()
        offset_begin = time.time_ns() - time.monotonic_ns()
        bare = stack.enter_context(
            peers.child([sys.executable, "-c", _BARE, str(seconds)], stdout=-1)
        )
        for second in range(seconds + 1):
            # As in life: it is scraped meanwhile.
            wait_until(begin + second + 0.3)
            counted = _missed_ticks(client)
        offset_end = time.time_ns() - time.monotonic_ns()
        end = begin + seconds + 1
        printed, _ = bare.communicate(timeout=30)
        time.sleep(_LAST_PUSH_S)
        wall_ns = list(receiver.wall_ns)
    times = []
    for wall in wall_ns:
        share = ((wall - offset_begin) / 1e9 - begin) / (end - begin)
        mono = wall - offset_begin - round((offset_end - offset_begin) * share)
        if begin <= mono / 1e9 < end:
            times.append(mono)
    if not times:
        raise RuntimeError("telemetryd pushed nothing that could be measured")
    return Jitter(seconds, cores, Grid.of(times), Grid.of([*map(int, printed.split())]), counted)


def _missed_ticks(client: Client) -> float:
    found = client.get().series()
    return sum(v for s, v in found.items() if s.name == "telemetryd_lane_missed_ticks_total")

"""The InfluxDB exporter against receivers that misbehave, and against real ones."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError
from support import servers
from support.clock import FakeClock
from support.line_parser import parse
from support.receiver import OK, Receiver, Reply, Request, serving
from support.servers import eventually

from telemetryd.batch import Batch
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.exporters.influxdb import InfluxDB, InfluxDBConfig
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog
from telemetryd.metric import Kind, Metric, Unit

VALUE = Metric("test", "value", Kind.GAUGE, Unit.NONE, "Help.", "test", ("row",))
OTHER = Metric("test", "other", Kind.GAUGE, Unit.NONE, "Help.", "test", ("row",))


class Bench:
    """An exporter that pushes to `receiver` by a clock that stands still. After a failure it
    waits `jitter` times the longest it may: not at all, unless told otherwise."""

    def __init__(self, receiver: Receiver, jitter: float = 0.0, **config: Any) -> None:
        self.clock = FakeClock()
        self.instruments = Instruments(QuietLog(logging.getLogger("test")))
        self.exporter = InfluxDB(
            "influxdb",
            InfluxDBConfig(url=receiver.url, bucket="b", **{"host": "n1", **config}),
            {"cluster": "c1"},
            self.instruments,
            SpoolConfig(),
            clock=self.clock,
            random=lambda: jitter,
        )
        self.offered = 0

    def read(self, points: int = 1, seconds: float = 1.0) -> None:
        """Time passes, and a collector reads `points` rows."""
        self.clock.tick(seconds)
        series = tuple(VALUE.at(str(row)) for row in range(points))
        values = tuple(float(self.offered + row) for row in range(points))
        self.offered += points
        self.exporter.offer(
            Batch("c", self.clock.wall_ns(), self.clock.mono_ns(), 1.0, series, values)
        )

    def count(self, name: str, label: str = "influxdb", subsystem: str = "exporter") -> float:
        """A counter of this destination's; `label` is the value of its last label."""
        found = [
            value
            for series, value in self.instruments.points()
            if series.metric.name == f"telemetryd_{subsystem}_{name}" and series.labels[-1] == label
        ]
        return found[0]

    def delivered(self, points: int) -> bool:
        return self.count("points_total") == points


@contextmanager
def pushing(bench: Bench) -> Iterator[Bench]:
    bench.exporter.start()
    try:
        yield bench
    finally:
        bench.exporter.stop(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver(welcomes_probes=True)) as found:
        yield found


def test_points_arrive_with_their_tags_and_the_moment_of_their_reading(receiver: Receiver) -> None:
    bench = Bench(receiver, org="o 1")
    with pushing(bench):
        for _ in range(11):
            bench.read()
        receiver.wait_for(1)
    (request,) = receiver.requests[:1]
    address = urlsplit(request.path)
    assert address.path == "/api/v2/write"
    assert parse_qs(address.query) == {"org": ["o 1"], "bucket": ["b"], "precision": ["ns"]}
    assert request.headers["Content-Type"].startswith("text/plain")
    assert "Authorization" not in request.headers
    (line,) = parse(request.body)
    assert line.measurement == "telemetryd_test"
    assert line.tags == {"cluster": "c1", "host": "n1", "row": "0"}
    # The last value of the first ten seconds.
    assert line.fields == {"value": 8.0}
    assert line.time_ns == bench.clock.wall_ns() - 2 * 10**9


def test_only_metrics_that_are_included_and_not_excluded_are_sent(receiver: Receiver) -> None:
    bench = Bench(receiver, resolution=0, include=("telemetryd_test_*",), exclude=("*_other",))
    with pushing(bench):
        series = (VALUE.at("0"), OTHER.at("0"))
        bench.exporter.offer(
            Batch("c", 1, bench.clock.mono_ns(), 1.0, series, (1.0, 2.0)),
        )
    (line,) = parse(receiver.bodies[0])
    assert line.fields == {"value": 1.0}


def test_after_503_everything_arrives_in_order(receiver: Receiver) -> None:
    receiver.script(*[Reply(503)] * 3, OK)
    bench = Bench(receiver, resolution=0, batch_size=10)
    with pushing(bench):
        for _ in range(5):
            bench.read(10)
        eventually(lambda: bench.delivered(50))
    rows = [line.fields["value"] for body in receiver.bodies[3:] for line in parse(body)]
    assert rows == [float(i) for i in range(50)]
    assert bench.count("requests_total", "retry") == 3


@pytest.mark.parametrize(
    "reply", [Reply(reset=True), Reply(cut=True), Reply(raw=b"\0\xff not http\r\n\r\n")]
)
def test_after_a_broken_connection_everything_arrives(receiver: Receiver, reply: Reply) -> None:
    receiver.script(OK, reply, reply, OK)
    bench = Bench(receiver, resolution=0, batch_size=10)
    with pushing(bench):
        for _ in range(3):
            bench.read(10)
        eventually(lambda: bench.delivered(30))
    assert bench.count("requests_total", "retry") == 2


def test_nothing_is_sent_before_retry_after_is_over(receiver: Receiver) -> None:
    receiver.script(Reply(429, {"Retry-After": "120"}), OK)
    bench = Bench(receiver, resolution=0, batch_size=1)
    with pushing(bench):
        bench.read()
        receiver.wait_for(1)
        eventually(lambda: bench.count("requests_total", "retry") == 1)
        bench.clock.tick(119)
        # The thread looks at the clock every 50 ms: it had its chance.
        assert not _happens(lambda: len(receiver.requests) > 1, 0.3)
        bench.clock.tick(1)
        eventually(lambda: bench.delivered(1))


def _happens(probe: Any, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return True
        time.sleep(0.01)
    return False


def _only(token: str) -> Any:
    def judge(request: Request) -> Reply:
        return OK if request.headers.get("Authorization") == f"Token {token}" else Reply(401)

    return judge


def test_a_token_that_was_replaced_is_read_again_and_nothing_is_lost(
    receiver: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    receiver.script(_only("old"))
    bench = Bench(receiver, resolution=0, batch_size=1, token_file=str(file))
    with pushing(bench):
        bench.read()
        eventually(lambda: bench.delivered(1))
        file.write_text("new\n")
        receiver.script(_only("new"))
        bench.read()
        eventually(lambda: bench.delivered(2))
    assert bench.count("requests_total", "unauthorized") == 1


def test_a_token_that_comes_late_is_waited_for(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "token"
    receiver.script(_only("late"))
    bench = Bench(receiver, resolution=0, batch_size=1, token_file=str(file))
    with pushing(bench):
        bench.read()
        eventually(lambda: bench.count("requests_total", "unauthorized") == 1)
        file.write_text("late")
        bench.clock.tick(60)
        eventually(lambda: bench.delivered(1))
    assert len(receiver.requests) == 1


def test_a_bad_line_is_found_and_dropped_and_the_others_arrive(receiver: Receiver) -> None:
    receiver.script(lambda request: Reply(400) if b"row=7 " in request.body else OK)
    bench = Bench(receiver, resolution=0, batch_size=100)
    with pushing(bench):
        bench.read(100)
        eventually(lambda: bench.delivered(99))
    assert bench.count("dropped_points_total", "refused") == 1
    assert bench.count("size_bytes", subsystem="spool") == 0


def test_a_hanging_receiver_never_holds_up_a_lane_and_every_point_is_accounted_for(
    receiver: Receiver,
) -> None:
    receiver.script(Reply(hang=True), OK)
    bench = Bench(receiver, resolution=0, batch_size=1000, timeout=60)
    with pushing(bench):
        bench.read(1000)
        receiver.wait_for(1)
        for done in range(2, 12):
            bench.read(1000)
            # It waits for its turn while the receiver hangs.
            eventually(lambda done=done: _encoded(bench) >= done * 1000)
        receiver.release()
        eventually(lambda: bench.delivered(11_000))
    assert bench.offered == 11_000
    assert bench.count("dropped_points_total", "queue_full") == 0
    rows = [line.fields["value"] for body in receiver.bodies[1:] for line in parse(body)]
    assert rows == [*map(float, range(11_000))]


def test_a_dead_receiver_costs_the_oldest_points_and_their_number_is_exact() -> None:
    with serving(Receiver(Reply(503), welcomes_probes=True)) as receiver:
        bench = Bench(receiver, jitter=1.0, resolution=0, batch_size=1000, queue_bytes=1 << 20)
        with pushing(bench):
            for done in range(1, 31):
                bench.read(1000)
                eventually(lambda done=done: _encoded(bench) >= done * 1000)
            assert bench.count("size_bytes", subsystem="spool") <= 1 << 20
            before = len(receiver.requests)
            receiver.script(OK)
            bench.clock.tick(60)
            eventually(lambda: _accounted(bench) == 30_000)
        dropped = bench.count("dropped_points_total", "queue_full")
        assert 0 < dropped < 30_000
        bodies = [body for body in receiver.bodies[before:] if body]
    arrived = {line.fields["value"] for body in bodies for line in parse(body)}
    missing = {float(i) for i in range(30_000)} - arrived
    assert len(missing) == dropped
    # The first ones were on their way all the time; of the others the newest are left.
    assert arrived == {float(i) for i in (*range(1000), *range(1000 + int(dropped), 30_000))}


def _accounted(bench: Bench) -> float:
    return bench.count("points_total") + bench.count("dropped_points_total", "queue_full")


def _encoded(bench: Bench) -> float:
    """Points that have left the lanes: what a lane waits with is not encoded yet."""
    return bench.offered - bench.exporter._lane._gather.points


def test_stopping_sends_what_is_left_and_ends_the_thread(receiver: Receiver) -> None:
    bench = Bench(receiver)
    bench.exporter.start()
    bench.read(3)
    bench.exporter.stop(10)
    assert len(parse(receiver.bodies[0])) == 3
    assert not any(thread.name == "push-influxdb" for thread in threading.enumerate())
    bench.exporter.stop(10)


def test_an_exporter_that_was_never_started_stops_too(receiver: Receiver) -> None:
    bench = Bench(receiver)
    bench.exporter.stop(1)
    assert receiver.requests == []


# Configuration


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:8086", "write http:// or https://"),
        ("ftp://host", "write http:// or https://"),
        ("http://", "write http:// or https://"),
        ("http://host name", "write http:// or https://"),
        ("http://host/api/v2/write", "leave out /api/v2/write"),
        ("http://me:secret@host", "token_file"),
        ("http://host?db=x", "their own keys"),
        ("http://host:0", "port 0"),
        ("http://host:99999", "Port out of range"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        InfluxDBConfig(url=url, bucket="b")


def test_a_key_needs_its_certificate() -> None:
    with pytest.raises(ValidationError, match="key_file needs cert_file"):
        InfluxDBConfig(url="http://h", bucket="b", key_file="/k")


def test_the_client_is_imported_only_when_an_exporter_is_made() -> None:
    code = (
        "import sys, telemetryd.exporters.influxdb\n"
        "print([m for m in ('influxdb_client', 'urllib3') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


# Real servers


@pytest.fixture(scope="module")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.victoria_metrics(tmp_path_factory.mktemp("victoria-metrics")) as server:
        yield server


@pytest.mark.server
def test_victoria_metrics_takes_the_push_and_returns_the_values(
    victoria_metrics: servers.Server,
) -> None:
    instruments = Instruments()
    config = InfluxDBConfig(url=victoria_metrics.url, bucket="b", resolution=0, host="n1")
    exporter = InfluxDB("influxdb", config, {"rack": "r 7"}, instruments, SpoolConfig())
    exporter.check()
    exporter.start()
    odd = 'a "b", c=d \\ ü'
    series = (VALUE.at("0"), VALUE.at(odd), OTHER.at("0"))
    values = (0.1, -2.5e-9, 123456789.125)
    exporter.offer(Batch("c", time.time_ns(), time.monotonic_ns(), 1.0, series, values))
    exporter.stop(30)

    # Makes what was just stored visible; asking too early would be remembered for 10 s.
    assert victoria_metrics.get("/internal/force_flush").status == 200

    def ask() -> list[Any]:
        query = '{__name__=~"telemetryd_test_.*"}'
        return victoria_metrics.get("/api/v1/query", query=query).json["data"]["result"]

    eventually(lambda: len(ask()) == 3)
    labels = {"host": "n1", "rack": "r 7"}
    found = {tuple(sorted(one["metric"].items())): float(one["value"][1]) for one in ask()}
    assert found == {
        tuple(sorted({**labels, "__name__": name, "row": row}.items())): value
        for (name, row), value in zip(
            [
                ("telemetryd_test_value", "0"),
                ("telemetryd_test_value", 'a "b", c=d \\x5c ü'),
                ("telemetryd_test_other", "0"),
            ],
            values,
            strict=True,
        )
    }

"""The InfluxDB exporter against receivers that misbehave, and against real ones."""

from __future__ import annotations

import logging
import shutil
import ssl
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
from telemetryd.clock import Clock
from telemetryd.delivery.queue import Body
from telemetryd.delivery.sender import Outcome, Verdict
from telemetryd.errors import Unavailable
from telemetryd.exporters.influxdb import InfluxDB, InfluxDBConfig
from telemetryd.exporters.influxdb_transport import Transport
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog
from telemetryd.metric import Kind, Metric, Unit

VALUE = Metric("test", "value", Kind.GAUGE, Unit.NONE, "Help.", "test", ("row",))
OTHER = Metric("test", "other", Kind.GAUGE, Unit.NONE, "Help.", "test", ("row",))
LINE = Body(b"m,host=a v=1 1\n", 1)


class Bench:
    """An exporter that pushes to `receiver` by a clock that stands still, without waiting after
    failures."""

    def __init__(self, receiver: Receiver, clock: Clock | None = None, **config: Any) -> None:
        self.clock = FakeClock()
        self.instruments = Instruments(QuietLog(logging.getLogger("test")))
        self.exporter = InfluxDB(
            "influxdb",
            InfluxDBConfig(url=receiver.url, bucket="b", **{"host": "n1", **config}),
            {"cluster": "c1"},
            self.instruments,
            clock=clock or self.clock,
            random=lambda: 0.0,
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

    def count(self, name: str, label: str = "influxdb") -> float:
        """A counter of this destination's; `label` is the value of its last label."""
        found = [
            value
            for series, value in self.instruments.points()
            if series.metric.name == f"telemetryd_push_{name}" and series.labels[-1] == label
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
    with serving(Receiver()) as found:
        yield found


@contextmanager
def transport(url: str, **config: Any) -> Iterator[Transport]:
    found = Transport("influxdb", InfluxDBConfig(url=url, bucket="b", **config), FakeClock())
    try:
        yield found
    finally:
        found.close()


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


@pytest.mark.parametrize("packed", [True, False])
def test_compression_is_what_the_configuration_says(receiver: Receiver, packed: bool) -> None:
    with transport(receiver.url, gzip=packed) as there:
        assert there.send(LINE).outcome is Outcome.OK
    (request,) = receiver.requests
    assert request.headers["Content-Encoding"] == ("gzip" if packed else "identity")
    assert request.body == LINE.data


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


def test_retry_after_is_kept_in_seconds_and_as_a_date(receiver: Receiver) -> None:
    # The fake clock's wall stands at 2023-11-14 22:13:20 GMT.
    date = "Tue, 14 Nov 2023 22:14:20 GMT"
    receiver.script(
        Reply(429, {"Retry-After": "17"}), Reply(503, {"Retry-After": date}), Reply(503)
    )
    with transport(receiver.url) as there:
        verdicts = [there.send(LINE) for _ in range(3)]
    assert [verdict.outcome for verdict in verdicts] == [Outcome.RETRY] * 3
    assert [verdict.retry_after for verdict in verdicts] == [17.0, 60.0, None]


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


def test_a_token_file_that_vanishes_for_a_moment_does_not_lose_the_token(
    receiver: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("good")
    receiver.script(_only("good"))
    with transport(receiver.url, token_file=str(file)) as there:
        file.unlink()
        assert there.renew() is False
        assert there.send(LINE).outcome is Outcome.OK


@pytest.mark.parametrize("text", ["", "two words", "gr\u00fc\u00dfe", "a\x7fb"])
def test_what_cannot_be_a_token_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, "utf-8")
    with (
        transport("http://127.0.0.1:9", token_file=str(file)) as there,
        pytest.raises(Unavailable, match="cannot read a token from") as raised,
    ):
        there.check()
    assert not any(word in str(raised.value) for word in text.split())


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "ok"), (204, "ok"), (307, "missing"), (400, "refused"), (401, "unauthorized"),
        (403, "unauthorized"), (404, "missing"), (405, "missing"), (408, "retry"),
        (413, "too_large"), (418, "missing"), (422, "refused"), (429, "retry"), (500, "retry"),
        (501, "retry"), (503, "retry"), (599, "retry"),
    ],
)  # fmt: skip
def test_each_status_has_its_outcome(receiver: Receiver, status: int, outcome: str) -> None:
    receiver.script(Reply(status))
    with transport(receiver.url) as there:
        assert there.send(LINE).outcome.value == outcome


@pytest.mark.parametrize(
    "text",
    [
        b'{"error":"partial write: points beyond retention policy dropped=5"}',
        b'{"code":"unprocessable entity","message":"dropped 5 points outside retention policy"}',
    ],
)
def test_points_beyond_the_retention_are_known_by_the_answer(
    receiver: Receiver, text: bytes
) -> None:
    receiver.script(Reply(422, body=text))
    with transport(receiver.url) as there:
        verdict = there.send(LINE)
    assert verdict.outcome is Outcome.TOO_OLD
    assert "retention policy" in verdict.detail


def test_a_bad_line_is_found_and_dropped_and_the_others_arrive(receiver: Receiver) -> None:
    receiver.script(lambda request: Reply(400) if b"row=7 " in request.body else OK)
    bench = Bench(receiver, resolution=0, batch_size=100)
    with pushing(bench):
        bench.read(100)
        eventually(lambda: bench.delivered(99))
    assert bench.count("dropped_points_total", "refused") == 1
    assert bench.count("queue_bytes") == 0


def test_a_redirect_is_not_followed_and_the_token_stays_here(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret")
    with serving(Receiver()) as elsewhere, serving(Receiver()) as here:
        here.script(Reply(307, {"Location": f"{elsewhere.url}/api/v2/write"}))
        with transport(here.url, token_file=str(file)) as there:
            verdict = there.send(LINE)
            with pytest.raises(Unavailable, match="address it redirects to"):
                there.check()
    assert verdict.detail == f"307 redirects to {elsewhere.url}/api/v2/write"
    assert elsewhere.requests == []


def test_the_connection_is_kept_unless_an_answer_is_left_unread(receiver: Receiver) -> None:
    long = Reply(500, body=b"\xff" * 10_000_000)
    receiver.script(OK, Reply(500, body=b"{}"), long, OK, OK)
    with transport(receiver.url) as there:
        verdicts = [there.send(LINE) for _ in range(5)]
    numbers = [request.connection for request in receiver.requests]
    assert [verdict.outcome for verdict in verdicts].count(Outcome.RETRY) == 2
    assert len(verdicts[2].detail) <= 300
    assert len(set(numbers[:3])) == 1
    assert len(set(numbers[3:])) == 1
    assert numbers[2] != numbers[3]


def test_a_hanging_receiver_never_holds_up_a_lane_and_every_point_is_accounted_for(
    receiver: Receiver,
) -> None:
    receiver.script(Reply(hang=True), OK)
    # A MiB of queue lets 4096 points wait for a thread that waits itself.
    bench = Bench(receiver, resolution=0, batch_size=1000, queue_bytes=1 << 20, timeout=60)
    with pushing(bench):
        bench.read(1000)
        receiver.wait_for(1)
        for _ in range(10):
            bench.read(1000)
        assert bench.count("dropped_points_total", "queue_full") == 6000
        receiver.release()
        eventually(lambda: bench.delivered(5000))
    assert bench.offered == 11_000
    rows = [line.fields["value"] for body in receiver.bodies[1:] for line in parse(body)]
    assert rows == [*map(float, range(1000)), *map(float, range(7000, 11_000))]


def test_a_dead_receiver_costs_the_oldest_points_and_their_number_is_exact() -> None:
    with serving(Receiver(Reply(503))) as receiver:
        bench = Bench(receiver, resolution=0, batch_size=1000, queue_bytes=1 << 20)
        with pushing(bench):
            for done in range(1, 31):
                bench.read(1000)
                eventually(lambda done=done: _encoded(bench) >= done * 1000)
            dropped = bench.count("dropped_points_total", "queue_full")
            assert 0 < dropped < 30_000
            assert bench.count("queue_bytes") <= 1 << 20
            receiver.script(OK)
            before = len(receiver.requests)
            bench.clock.tick(60)
            eventually(lambda: bench.delivered(30_000 - int(dropped)))
        bodies = [body for body in receiver.bodies[before:] if body]
    arrived = {line.fields["value"] for body in bodies for line in parse(body)}
    assert {float(i) for i in range(int(dropped), 30_000)} <= arrived


def _encoded(bench: Bench) -> float:
    """Points that have left the lanes: what a lane waits with is not encoded yet."""
    return bench.offered - bench.exporter._lane._gather.points


def test_a_timeout_is_a_failure_to_try_again(receiver: Receiver) -> None:
    receiver.script(Reply(hang=True))
    with transport(receiver.url, timeout=0.05) as there:
        verdict = there.send(LINE)
    assert verdict.outcome is Outcome.RETRY
    assert "timed out" in verdict.detail


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


# doctor


@pytest.mark.parametrize("reply", [OK, Reply(400, body=b'{"message":"no points"}'), Reply(200)])
def test_check_passes_where_a_write_of_nothing_gets_in(receiver: Receiver, reply: Reply) -> None:
    receiver.script(reply)
    with transport(receiver.url) as there:
        there.check()
    assert receiver.bodies == [b"\n"]


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "set exporters.influxdb.token_file to a file with a token that may write"),
        (404, "create bucket b in organization"),
        (503, "look into the log of the server"),
    ],
)
def test_check_tells_what_to_do_about_an_answer(
    receiver: Receiver, status: int, remedy: str
) -> None:
    receiver.script(Reply(status, body=b'{"message":"it says so"}'))
    with transport(receiver.url) as there, pytest.raises(Unavailable, match=remedy) as raised:
        there.check()
    assert raised.value.why == f"{receiver.url} answers {status} it says so"


def test_check_tells_which_token_is_not_accepted(receiver: Receiver, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret")
    receiver.script(Reply(401))
    with (
        transport(receiver.url, token_file=str(file)) as there,
        pytest.raises(Unavailable, match=f"put a token that may write to bucket b into {file}"),
    ):
        there.check()


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("http://127.0.0.1:1", "start the server there"),
        ("http://no-such-host.invalid:8086", "make it known to DNS"),
    ],
)
def test_check_tells_why_a_server_is_not_reached(url: str, remedy: str) -> None:
    with transport(url) as there, pytest.raises(Unavailable, match=remedy) as raised:
        there.check()
    assert raised.value.why.startswith(f"{url} cannot be reached: ")


def test_check_tells_of_a_server_that_does_not_answer(receiver: Receiver) -> None:
    receiver.script(Reply(hang=True))
    with (
        transport(receiver.url, timeout=0.05) as there,
        pytest.raises(Unavailable, match=r"answers within exporters.influxdb.timeout = 0.05"),
    ):
        there.check()


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that signs itself, twice."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed (Debian package openssl)")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("server", "client"):
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2",
             "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"],
            cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
    return folder


@pytest.fixture
def secure(certificates: Path) -> Iterator[Receiver]:
    """A receiver that speaks TLS and asks for the client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "client.pem")
    context.verify_mode = ssl.CERT_OPTIONAL
    with serving(Receiver(), context) as found:
        yield found


def test_a_server_is_trusted_by_its_authority(secure: Receiver, certificates: Path) -> None:
    with transport(secure.url, ca_file=str(certificates / "server.pem")) as there:
        assert there.send(LINE) == Verdict(Outcome.OK, "204")


def test_a_server_that_nobody_vouches_for_gets_nothing(secure: Receiver) -> None:
    with transport(secure.url) as there:
        assert there.send(LINE).outcome is Outcome.RETRY
        with pytest.raises(Unavailable, match=r"set exporters\.influxdb\.ca_file"):
            there.check()
    assert secure.requests == []


def test_a_certificate_is_shown_when_there_is_one(secure: Receiver, certificates: Path) -> None:
    files = {name: str(certificates / name) for name in ("server.pem", "client.pem", "client.key")}
    with transport(
        secure.url,
        ca_file=files["server.pem"],
        cert_file=files["client.pem"],
        key_file=files["client.key"],
    ) as there:
        assert there.send(LINE).outcome is Outcome.OK


def test_checking_the_certificate_can_be_switched_off(
    secure: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    with transport(secure.url, verify=False) as there:
        assert there.send(LINE).outcome is Outcome.OK
    assert "certificate is not checked" in caplog.text


def test_plain_http_on_a_tls_port_and_the_reverse_are_told_apart(
    secure: Receiver, receiver: Receiver
) -> None:
    for url, remedy in (
        (secure.url.replace("https", "http"), "with TLS, https://"),
        (receiver.url.replace("http", "https"), "see that the server speaks TLS on that port"),
    ):
        with transport(url) as there, pytest.raises(Unavailable, match=remedy):
            there.check()


@pytest.mark.parametrize("key", ["ca_file", "cert_file"])
def test_tls_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path, key: str) -> None:
    for text in (None, "not PEM"):
        file = tmp_path / "file.pem"
        if text is not None:
            file.write_text(text)
        config = InfluxDBConfig(url="https://127.0.0.1:1", bucket="b", **{key: str(file)})
        with pytest.raises(Unavailable, match=rf"cannot use {file} .*influxdb\.{key}"):
            InfluxDB("influxdb", config, {}, Instruments())


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


def test_a_path_before_the_api_is_kept(receiver: Receiver) -> None:
    with transport(f"{receiver.url}/influx/") as there:
        assert there.send(LINE).outcome is Outcome.OK
    assert receiver.requests[0].path.startswith("/influx/api/v2/write?")


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
    exporter = InfluxDB("influxdb", config, {"rack": "r 7"}, instruments)
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


@pytest.mark.server
def test_an_influxdb_without_the_api_is_told_by_check(tmp_path: Path) -> None:
    with (
        servers.influxdb(tmp_path) as server,
        transport(server.url) as there,
        pytest.raises(Unavailable, match=r"such as InfluxDB 1\.7, cannot be used"),
    ):
        there.check()

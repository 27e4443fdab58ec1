"""One request to a receiver through the client: what it carries, what the answer means, TLS, and
what `doctor` is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import servers
from support.clock import START_WALL_NS, FakeClock
from support.receiver import OK, Receiver, Reply, serving

from telemetryd.delivery.destination import Outcome
from telemetryd.delivery.queue import Body
from telemetryd.errors import Unavailable
from telemetryd.exporters.influxdb import InfluxDBConfig
from telemetryd.exporters.influxdb_transport import Transport

LINE = Body(b"m,host=a v=1 1\n", 1)


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


@pytest.mark.parametrize("packed", [True, False])
def test_compression_is_what_the_configuration_says(receiver: Receiver, packed: bool) -> None:
    with transport(receiver.url, gzip=packed) as there:
        assert there.send(LINE).outcome is Outcome.OK
    (request,) = receiver.requests
    assert request.headers["Content-Encoding"] == ("gzip" if packed else "identity")
    assert request.body == LINE.data


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


def test_a_token_file_that_vanishes_for_a_moment_does_not_lose_the_token(
    receiver: Receiver, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("good")
    with transport(receiver.url, token_file=str(file)) as there:
        file.unlink()
        assert there.renew() is False
        assert there.send(LINE).outcome is Outcome.OK
    assert receiver.requests[0].headers["Authorization"] == "Token good"


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
    assert (verdict.outcome, verdict.status) == (Outcome.TOO_OLD, 422)
    assert "retention policy" in verdict.detail


def test_the_date_is_told_of_every_answer(receiver: Receiver) -> None:
    receiver.script(*(Reply(status, date_ns=START_WALL_NS) for status in (204, 400, 503)))
    with transport(receiver.url) as there:
        verdicts = [there.send(LINE) for _ in range(3)]
    assert [(one.status, one.server_ns) for one in verdicts] == [
        (204, START_WALL_NS),
        (400, START_WALL_NS),
        (503, START_WALL_NS),
    ]


def test_a_probe_writes_no_points_and_tells_whether_anybody_answers(receiver: Receiver) -> None:
    receiver.script(OK, Reply(400), Reply(401), Reply(503), Reply(cut=True))
    with transport(receiver.url) as there:
        outcomes = [there.probe().outcome for _ in range(5)]
    assert outcomes == [*[Outcome.OK] * 3, Outcome.RETRY, Outcome.RETRY]
    assert receiver.bodies == [b"\n"] * 5


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


def test_a_timeout_is_a_failure_to_try_again(receiver: Receiver) -> None:
    receiver.script(Reply(hang=True))
    with transport(receiver.url, timeout=0.05) as there:
        verdict = there.send(LINE)
    assert verdict.outcome is Outcome.RETRY
    assert "timed out" in verdict.detail


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


def test_a_path_before_the_api_is_kept(receiver: Receiver) -> None:
    with transport(f"{receiver.url}/influx/") as there:
        assert there.send(LINE).outcome is Outcome.OK
    assert receiver.requests[0].path.startswith("/influx/api/v2/write?")


@pytest.mark.server
def test_an_influxdb_without_the_api_is_told_by_check(tmp_path: Path) -> None:
    with (
        servers.influxdb(tmp_path) as server,
        transport(server.url) as there,
        pytest.raises(Unavailable, match=r"such as InfluxDB 1\.7, cannot be used"),
    ):
        there.check()

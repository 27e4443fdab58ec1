"""One request of remote write: what it carries, what the answer means, TLS, and what `doctor` is
told."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cramjam
import pytest
from support.clock import START_WALL_NS, FakeClock
from support.receiver import OK, Receiver, Reply, Request, serving

from telemetryd import __version__
from telemetryd.delivery.destination import Outcome
from telemetryd.delivery.queue import Body
from telemetryd.errors import Unavailable
from telemetryd.exporters.remote_write import RemoteWriteConfig
from telemetryd.exporters.remote_write_message import ends, labels_message
from telemetryd.exporters.remote_write_transport import Transport

BODY = Body(ends([labels_message([(b"__name__", b"m")])], 1), 1)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as found:
        yield found


@contextmanager
def transport(url: str, **config: Any) -> Iterator[Transport]:
    address = f"{url}/api/v1/write"
    there = Transport("remote_write", RemoteWriteConfig(url=address, **config), FakeClock())
    try:
        yield there
    finally:
        there.close()


def sent(receiver: Receiver, **config: Any) -> Request:
    """The request that arrives."""
    with transport(receiver.url, **config) as there:
        assert there.send(BODY).outcome is Outcome.OK
    return receiver.requests[-1]


def file_with(folder: Path, text: str) -> str:
    file = folder / "secret"
    file.write_text(text, "utf-8")
    return str(file)


# What a request carries


def test_a_request_is_what_the_specification_asks_for(receiver: Receiver) -> None:
    request = sent(receiver)
    assert request.path == "/api/v1/write"
    assert bytes(cramjam.snappy.decompress_raw(request.packed)) == request.body == BODY.data
    assert {name: request.headers.get(name) for name in (
        "Content-Type", "Content-Encoding", "X-Prometheus-Remote-Write-Version", "User-Agent",
        "Authorization",
    )} == {
        "Content-Type": "application/x-protobuf",
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
        "User-Agent": f"telemetryd/{__version__}",
        "Authorization": None,
    }  # fmt: skip


def test_the_query_of_the_address_is_kept(receiver: Receiver) -> None:
    config = RemoteWriteConfig(url=f"{receiver.url}/insert/0/write?extra_label=a=b")
    there = Transport("remote_write", config, FakeClock())
    there.send(BODY)
    there.close()
    assert receiver.requests[0].path == "/insert/0/write?extra_label=a=b"


def test_a_name_and_a_password_are_sent_together(receiver: Receiver, tmp_path: Path) -> None:
    file = file_with(tmp_path, "pass: wörd\n")
    request = sent(receiver, username="me", password_file=file)
    kind, _, pair = request.headers["Authorization"].partition(" ")
    assert (kind, base64.b64decode(pair).decode()) == ("Basic", "me:pass: wörd")


def test_a_bearer_token_is_sent(receiver: Receiver, tmp_path: Path) -> None:
    request = sent(receiver, token_file=file_with(tmp_path, "tok\n"))
    assert request.headers["Authorization"] == "Bearer tok"


def test_the_tenant_and_secret_headers_arrive(receiver: Receiver, tmp_path: Path) -> None:
    file = file_with(tmp_path, "ApiKey s3cret\n")
    request = sent(
        receiver, headers={"X-Scope-OrgID": "team-a"}, header_files={"Authorization": file}
    )
    assert request.headers["X-Scope-OrgID"] == "team-a"
    assert request.headers["Authorization"] == "ApiKey s3cret"


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"token_file": "FILE"}, "token_file"),
        ({"username": "u", "password_file": "FILE"}, "password_file"),
        ({"header_files": {"X-Key": "FILE"}}, "header_files"),
    ],
)
def test_a_secret_that_is_missing_is_waited_for_and_read_again(
    receiver: Receiver, tmp_path: Path, config: dict[str, Any], key: str
) -> None:
    file = tmp_path / "secret"
    named = _with_file(config, str(file))
    with transport(receiver.url, **named) as there:
        verdict = there.send(BODY)
        assert verdict.outcome is Outcome.UNAUTHORIZED
        assert str(file) in verdict.detail
        with pytest.raises(Unavailable, match=rf"exporters\.remote_write\.{key}"):
            there.check()
        assert receiver.requests == []
        file.write_text("first")
        assert there.renew() is True
        assert there.renew() is False
        assert there.send(BODY).outcome is Outcome.OK
        file.write_text("second")
        assert there.renew() is True
        assert there.send(BODY).outcome is Outcome.OK
        file.unlink()
        assert there.renew() is False
        assert there.send(BODY).outcome is Outcome.OK
    shown = [" ".join(_secrets_in(request)) for request in receiver.requests]
    assert ["second" in text for text in shown] == [False, True, True]


def _with_file(config: dict[str, Any], file: str) -> dict[str, Any]:
    def named(value: Any) -> Any:
        return file if value == "FILE" else value

    return {
        key: {name: named(one) for name, one in value.items()}
        if isinstance(value, dict)
        else named(value)
        for key, value in config.items()
    }


def _secrets_in(request: Request) -> Iterator[str]:
    for name in ("Authorization", "X-Key"):
        kind, _, rest = request.headers.get(name, "").partition(" ")
        yield base64.b64decode(rest).decode() if kind == "Basic" else f"{kind} {rest}"


# What an answer means


@pytest.mark.parametrize(
    ("status", "text", "outcome"),
    [
        (204, "", "ok"), (200, "", "ok"), (400, "bad label", "refused"),
        (400, "out of order sample", "too_old"), (400, "out of bounds", "too_old"),
        (400, "duplicate sample for timestamp", "too_old"), (400, "too old sample", "too_old"),
        (400, "... not allowed (err-mimir-sample-out-of-order)", "too_old"),
        (400, "(err-mimir-sample-timestamp-too-old)", "too_old"),
        (400, "(err-mimir-sample-duplicate-timestamp)", "too_old"),
        (400, "(err-mimir-too-far-in-future)", "refused"),
        (422, "out of order", "too_old"),
        (409, "store locally: conflict", "too_old"),
        (500, "too old sample", "too_old"), (500, "out of memory", "retry"),
        (500, "mutex is out of order", "retry"), (503, "too old sample", "retry"),
        (500, "x: partial write: points beyond retention policy dropped=1", "too_old"),
        (401, "no org id", "unauthorized"), (403, "", "unauthorized"), (404, "", "missing"),
        (413, "", "too_large"), (429, "too many", "retry"), (308, "", "missing"),
    ],
)  # fmt: skip
def test_each_answer_has_its_outcome(
    receiver: Receiver, status: int, text: str, outcome: str
) -> None:
    receiver.script(Reply(status, body=text.encode()))
    with transport(receiver.url) as there:
        verdict = there.send(BODY)
    assert (verdict.outcome.value, verdict.status) == (outcome, status)
    assert text in verdict.detail or status < 300 or status == 308
    assert verdict.taken is None


def test_the_date_and_retry_after_of_an_answer_are_told(receiver: Receiver) -> None:
    receiver.script(
        Reply(503, {"Retry-After": "7"}, date_ns=START_WALL_NS),
        Reply(503, {"Date": "yesterday"}, date_ns=0),
        Reply(503, date_ns=0),
    )
    with transport(receiver.url) as there:
        verdicts = [there.send(BODY) for _ in range(3)]
    assert [one.server_ns for one in verdicts] == [START_WALL_NS, None, None]
    assert [one.retry_after for one in verdicts] == [7.0, None, None]


def test_a_date_without_a_zone_is_not_that_of_this_machine(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.script(Reply(503, {"Date": "Tue, 14 Nov 2023 22:13:20 -0000"}, date_ns=0))
    try:
        monkeypatch.setenv("TZ", "America/New_York")
        time.tzset()
        with transport(receiver.url) as there:
            assert there.send(BODY).server_ns == START_WALL_NS
    finally:
        monkeypatch.undo()
        time.tzset()


def test_no_answer_is_a_failure_to_try_again(receiver: Receiver) -> None:
    receiver.script(Reply(hang=True), Reply(cut=True), Reply(reset=True), Reply(raw=b"\0\xff\r\n"))
    with transport(receiver.url, timeout=0.1) as there:
        verdicts = [there.send(BODY) for _ in range(4)]
    assert {(one.outcome, one.status, one.server_ns) for one in verdicts} == {
        (Outcome.RETRY, 0, None)
    }


def test_a_shorter_timeout_holds_and_a_longer_one_does_not(receiver: Receiver) -> None:
    receiver.script(Reply(hang=True))
    for usual, asked in ((30.0, 0.1), (0.1, 30.0)):
        with transport(receiver.url, timeout=usual) as there:
            assert "timed out" in there.send(BODY, asked).detail


def test_a_redirect_is_not_followed_and_the_password_stays_here(tmp_path: Path) -> None:
    file = file_with(tmp_path, "secret")
    with serving(Receiver()) as elsewhere, serving(Receiver()) as here:
        here.script(Reply.redirect(f"{elsewhere.url}/api/v1/write"))
        with transport(here.url, username="u", password_file=file) as there:
            verdict = there.send(BODY)
            with pytest.raises(Unavailable, match="address it redirects to"):
                there.check()
    assert verdict.outcome is Outcome.MISSING
    assert verdict.detail == f"307 redirects to {elsewhere.url}/api/v1/write"
    assert elsewhere.requests == []


def test_the_connection_is_kept_unless_an_answer_is_left_unread(receiver: Receiver) -> None:
    receiver.script(OK, Reply(500, body=b"x"), Reply(500, body=b"\xff" * 10_000_000), OK, OK)
    with transport(receiver.url) as there:
        verdicts = [there.send(BODY) for _ in range(5)]
    numbers = [request.connection for request in receiver.requests]
    assert len(verdicts[2].detail) <= 300
    assert len(set(numbers[:3])) == len(set(numbers[3:])) == 1
    assert numbers[2] != numbers[3]


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [(OK, "ok"), (Reply(400), "ok"), (Reply(401), "ok"), (Reply(404), "ok"), (Reply(429), "ok"),
     (Reply(500), "retry"), (Reply(503), "retry"), (Reply(cut=True), "retry")],
)  # fmt: skip
def test_a_probe_writes_nothing_and_tells_whether_anybody_answers(
    receiver: Receiver, reply: Reply, outcome: str
) -> None:
    receiver.script(reply)
    with transport(receiver.url) as there:
        verdict = there.probe()
    assert verdict.outcome.value == outcome
    assert (verdict.server_ns is not None) == (not reply.cut)
    assert receiver.bodies == [b""]


# doctor


def test_check_writes_nothing_and_passes_where_that_gets_in(receiver: Receiver) -> None:
    with transport(receiver.url) as there:
        there.check()
    assert receiver.bodies == [b""]


@pytest.mark.parametrize(
    ("status", "text", "remedy"),
    [
        (404, "", "start Prometheus with --web.enable-remote-write-receiver"),
        (401, "no org id", "headers to { X-Scope-OrgID"),
        (401, "", "username and password_file, or token_file"),
        (400, "", "an address that takes Prometheus remote write"),
        (308, "", "the address it redirects to"),
        (502, "", "the proxy at"),
    ],
)
def test_check_tells_what_to_do_about_an_answer(
    receiver: Receiver, status: int, text: str, remedy: str
) -> None:
    receiver.script(Reply(status, body=text.encode()))
    with transport(receiver.url) as there, pytest.raises(Unavailable, match=remedy):
        there.check()


def test_check_names_the_file_whose_credentials_are_refused(
    receiver: Receiver, tmp_path: Path
) -> None:
    file = file_with(tmp_path, "tok")
    receiver.script(Reply(403))
    with (
        transport(receiver.url, token_file=file) as there,
        pytest.raises(Unavailable, match=f"credentials that may write into {file}"),
    ):
        there.check()


def test_check_tells_why_a_server_is_not_reached() -> None:
    for url, remedy in (
        ("http://127.0.0.1:1", "start the server there"),
        ("http://no-such-host.invalid", "make it known to DNS"),
    ):
        with transport(url) as there, pytest.raises(Unavailable, match=remedy):
            there.check()

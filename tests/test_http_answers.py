"""Successes that are none, and how answers are told, by remote write and to InfluxDB alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from support.http_destinations import LINE, Connect
from support.receiver import OK, Receiver, Reply, serving

from telemetryd.delivery.destination import Outcome
from telemetryd.errors import Unavailable

HTML = {"Content-Type": "text/html; charset=utf-8"}
PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver()) as found:
        yield found


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, HTML, PAGE),
        Reply(202, {"content-type": "Text/HTML"}, b"It works!"),
        Reply(200, {"Content-Type": "application/xhtml+xml"}, b"<?xml version='1.0'?>"),
        Reply(200, HTML),
        Reply(200, {}, b"\n <HTML>"),
        Reply(200, {"Content-Type": "text/plain"}, PAGE),
    ],
)
def test_a_web_page_takes_no_points(connect: Connect, receiver: Receiver, reply: Reply) -> None:
    receiver.script(reply)
    with closing(connect(receiver.url)) as there:
        for verdict in (there.send(LINE), there.probe()):
            assert verdict.outcome is Outcome.MISSING
            assert verdict.detail == f"{reply.status} with a web page: no receiver is there"
            assert verdict.server_ns is None, "it is not the receiver's clock"
        with pytest.raises(Unavailable, match=r"answers 20\d with a web page: no receiver") as told:
            there.check()
    assert told.value.remedy.startswith("correct the address in exporters.there.url")


@pytest.mark.parametrize(
    "reply",
    [
        OK,
        Reply(204, HTML),
        Reply(raw=b"HTTP/1.0 204 No Content\r\n\r\n"),
        Reply(200),
        Reply(202, {"Content-Type": "text/plain; charset=utf-8"}, b"ok"),
        Reply(200, {"Content-Type": "application/json"}, b'{"text": "<html>"}'),
    ],
)
def test_short_successes_of_real_receivers_count(
    connect: Connect, receiver: Receiver, reply: Reply
) -> None:
    receiver.script(reply)
    with closing(connect(receiver.url)) as there:
        assert there.send(LINE).outcome is Outcome.OK
        assert there.probe().outcome is Outcome.OK
        there.check()


@pytest.mark.parametrize("raw", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 202 \r\n\r\n"])
def test_a_success_that_was_cut_off_is_sent_again(
    connect: Connect, receiver: Receiver, raw: bytes
) -> None:
    receiver.script(Reply(raw=raw))
    with closing(connect(receiver.url)) as there:
        for verdict in (there.send(LINE), there.probe()):
            assert verdict.outcome is Outcome.RETRY
            assert verdict.detail.endswith("without any header: the answer was cut off")
        with pytest.raises(Unavailable, match="cut off"):
            there.check()


def test_a_probe_that_is_sent_elsewhere_has_found_nobody(
    connect: Connect, receiver: Receiver
) -> None:
    receiver.script(Reply.redirect("http://login.example/", 302))
    with closing(connect(receiver.url)) as there:
        assert there.probe().outcome is Outcome.MISSING


@pytest.mark.parametrize(
    ("status", "text", "shown"),
    [
        (404, "404 page not found\n", "404 page not found"),
        (404, "page not found", "404 page not found"),
        (503, "503", "503"),
        (503, "5030 waiting", "503 5030 waiting"),
        (500, "", "500"),
    ],
)
def test_a_status_is_told_once(
    connect: Connect, receiver: Receiver, status: int, text: str, shown: str
) -> None:
    receiver.script(Reply(status, body=text.encode()))
    with closing(connect(receiver.url)) as there:
        assert there.send(LINE).detail == shown


@pytest.mark.parametrize("status", [401, 404, 418])
def test_what_only_an_operator_can_mend_comes_with_the_remedy_of_doctor(
    connect: Connect, receiver: Receiver, status: int
) -> None:
    receiver.script(Reply(status))
    with closing(connect(receiver.url)) as there:
        verdict = there.send(LINE)
        with pytest.raises(Unavailable) as told:
            there.check()
    assert verdict.url.startswith(receiver.url)
    assert verdict.remedy == told.value.remedy
    assert "s3cret" not in f"{verdict.url} {told.value}"


def test_a_secret_that_is_missing_comes_with_its_remedy(connect: Connect) -> None:
    with closing(connect("http://127.0.0.1:1", token_file="/missing")) as there:
        verdict = there.send(LINE)
    assert verdict.remedy.endswith("or set exporters.there.token_file")

"""Requests that the HTTP server refuses."""

from __future__ import annotations

import contextlib
import random
import socket

import pytest
from support.web import GET, NEVER, Client, counted, get_works, get_works_or_is_refused, until

# Requests that are refused.


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405, id="POST"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 405, id="OPTIONS *"),
        pytest.param(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405, id="CONNECT"),
        pytest.param(b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 405, id="lower-case method"),
        pytest.param(b"GET metrics HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="no slash"),
        pytest.param(b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, id="other scheme"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET /\r\n\r\n", 400, id="HTTP/0.9"),
        pytest.param(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, id="space before colon"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", 400, id="NUL"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, id="TLS hello"),
        pytest.param(b"\r\n\r\n", 400, id="empty lines"),
        pytest.param(GET[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400,
                     id="two lengths"),
        pytest.param(GET[:-2] + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400,
                     id="bad chunk"),
        pytest.param(b"HEAD" + GET[3:-2] + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400,
                     id="bad chunk under HEAD"),
        pytest.param(GET[:-2] + b"Transfer-Encoding: gzip\r\n\r\n", 501, id="unknown coding"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="HTTP/2 preface"),
        pytest.param(b"GET /" + b"a" * 8192 + GET[12:], 414, id="URI over 8 KiB"),
        pytest.param(b"HEAD /" + b"a" * 8192 + GET[12:], 414, id="URI over 8 KiB under HEAD"),
        pytest.param(b"GET /" + b"a" * 100_000, 414, id="endless URI"),
        pytest.param(GET[:-2] + b"X: " + b"a" * 17_000 + b"\r\n\r\n", 431, id="big header"),
        pytest.param(GET[:-2] + b"A: b\r\n" * 3000 + b"\r\n", 431, id="many headers"),
        pytest.param(GET[:-2] + b"X: " + b"a" * 100_000, 431, id="endless header"),
    ],
)  # fmt: skip
def test_an_odd_request_is_refused_and_the_connection_closed(serve, request_bytes, status):
    server = serve(lambda request: pytest.fail("the handler was asked"))
    with Client(server) as client:
        answer = client.send(request_bytes).answer("HEAD" if request_bytes[:4] == b"HEAD" else "")
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert client.at_end()
    assert counted(server, {status: 1})


def test_a_header_at_the_limit_is_served(serve):
    head = b"GET /" + b"a" * 8000 + b" HTTP/1.1\r\nHost: a\r\nX: "
    with Client(serve()) as client:
        client.send(head + b"b" * (16 * 1024 - len(head) - 4) + b"\r\n\r\n")
        assert client.answer().status == 200


def test_a_refused_method_is_told_what_is_allowed(serve):
    with Client(serve()) as client:
        answer = client.send(b"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").answer()
    assert (answer.headers["allow"], answer.body) == ("GET, HEAD", b"405 Method Not Allowed\n")


def test_a_huge_post_is_refused_without_being_taken_in(serve):
    with Client(serve()) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1 << 30:
                sent += client.sock.send(bytes(1 << 16))
        assert sent < 1 << 26
        assert client.answer().status == 405


def test_a_post_that_waits_for_leave_to_send_is_refused_at_once(serve):
    with Client(serve(linger_timeout=NEVER)) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n")
        assert client.send(b"Expect: 100-continue\r\n\r\n").answer().status == 405


def test_a_refused_client_may_finish_what_it_sends_without_a_reset(serve):
    with Client(serve(linger_timeout=NEVER)) as client:
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n")
        assert client.answer().status == 405
        for _ in range(20):
            client.send(bytes(1000))
        client.sock.shutdown(socket.SHUT_WR)
        assert client.at_end()


@pytest.mark.parametrize("body", [b"12345", b""], ids=["sent", "withheld"])
def test_a_get_with_a_body_is_answered_and_the_connection_closed(serve, body):
    with Client(serve(linger_timeout=0.05)) as client:
        answer = client.send(GET[:-2] + b"Content-Length: 5\r\n\r\n" + body).answer()
        assert (answer.body, answer.headers["connection"]) == (b"hello /metrics", "close")
        assert client.at_end()


def test_a_refused_client_that_never_hangs_up_gives_its_slot_back(serve):
    server = serve(max_connections=1, linger_timeout=0.1)
    with Client(server) as client:
        assert client.send(b"nonsense\r\n\r\n").answer().status == 400
        until(lambda: get_works_or_is_refused(server) == 200)


def test_garbage_never_hurts_the_server(serve):
    server, chance = serve(header_timeout=NEVER), random.Random(7)
    words = [b"GET ", b"/", b" HTTP/1.1", b"\r\n", b"\n", b":", b"Host: a", b"\0", b"\xff", b" "]
    for _ in range(150):
        with Client(server) as client:
            parts = [
                chance.choice(words) if chance.random() < 0.8 else chance.randbytes(3)
                for _ in range(chance.randrange(1, 30))
            ]
            client.send(b"".join(parts))
            client.sock.shutdown(socket.SHUT_WR)
            said = client.file.read()
            assert said == b"" or said.startswith(b"HTTP/1.1 ")
    assert get_works(server)

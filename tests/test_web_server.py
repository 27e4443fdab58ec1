"""The HTTP server, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

import pytest

from telemetryd.web import Request, Response
from telemetryd.web.message import http_date
from telemetryd.web.server import WebServer

GET = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
NEVER = 60.0  # a deadline that a test does not live to see
BIG = os.urandom(1 << 20) * 32  # more than loopback's socket buffers take


def hello(request: Request) -> Response:
    return Response(200, f"hello {request.path}".encode())


def big(request: Request) -> Response:
    return Response(200, BIG)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A socket and a strict reader of what comes back."""

    def __init__(self, server: WebServer, receive_buffer: int = 0, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(20)
        self.sock.connect((host, server.port))
        self.file = self.sock.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.sock.close()

    def send(self, data: bytes) -> Client:
        self.sock.sendall(data)
        return self

    def answer(self, method: str = "GET") -> Answer:
        version, status, _ = self.file.readline().decode("ascii").split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode("ascii").strip().partition(": ")
            assert name.lower() not in headers
            headers[name.lower()] = value
        length = 0 if method == "HEAD" else int(headers["content-length"])
        body = self.file.read(length)
        assert len(body) == length
        return Answer(int(status), headers, body)

    def at_end(self) -> bool:
        """True once the server has closed, in order or by a reset; False if it sent more."""
        try:
            return self.file.read(1) == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        """Close so that the server gets a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.sock.close()


class Loop:
    """An event loop in a thread, as the daemon's runs beside the lanes."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.unhandled: list[dict] = []
        self.loop.set_exception_handler(lambda _, context: self.unhandled.append(context))
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def loop():
    loop = Loop()
    yield loop
    loop.close()
    assert loop.unhandled == []


@pytest.fixture
def serve(loop):
    """Start a server; what the handler's clients were answered is counted in `server.codes`."""
    servers = []

    def start(handler=hello, host="127.0.0.1", **options) -> WebServer:
        codes: Counter[int] = Counter()
        server = WebServer(handler, host, 0, answered=lambda code: codes.update([code]), **options)
        loop.run(server.start())
        server.codes = codes
        servers.append(server)
        return server

    yield start
    for server in servers:
        loop.run(server.stop())


def until(condition) -> None:
    """Wait for what the server does in its own time."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def counted(server: WebServer, codes: dict[int, int]) -> bool:
    """The server counts a response after its client has it."""
    with contextlib.suppress(AssertionError):
        until(lambda: server.codes == codes)
    assert server.codes == codes
    return True


def get_works(server: WebServer) -> bool:
    with Client(server) as client:
        return client.send(GET).answer().status == 200


# Requests and responses.


def test_a_get_is_answered_with_length_type_and_date(serve):
    with Client(serve()) as client:
        answer = client.send(GET).answer()
    assert (answer.status, answer.body) == (200, b"hello /metrics")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == "14"
    assert answer.headers["date"].endswith(" GMT")


def test_an_independent_client_understands_the_server(serve):
    connection = http.client.HTTPConnection("127.0.0.1", serve().port, timeout=20)
    for path in ("/a", "/b"):
        connection.request("GET", path)
        assert connection.getresponse().read() == f"hello {path}".encode()
    connection.close()


def test_the_date_is_written_as_http_wants_it():
    assert http_date(784111777.9) == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert http_date(1709164800) == "Thu, 29 Feb 2024 00:00:00 GMT"


def test_the_handler_gets_method_path_query_and_headers(serve):
    seen = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response(204, headers=(("X-Extra", "1"),))

    with Client(serve(handler)) as client:
        client.send(
            b"GET /a%20b?x=1&y=?2 HTTP/1.1\r\nHost: h\r\nACCEPT: text/plain\r\n"
            b"Accept:  gzip\r\nX-Latin: \xe9\r\n\r\n"
        )
        head = list(iter(client.file.readline, b"\r\n"))
    assert seen == [
        Request(
            "GET", "/a%20b", "x=1&y=?2",
            {"host": "h", "accept": "text/plain, gzip", "x-latin": "\xe9"},
        )
    ]  # fmt: skip
    assert head[0] == b"HTTP/1.1 204 No Content\r\n"
    assert b"X-Extra: 1\r\n" in head
    assert not any(line.startswith(b"Content-") for line in head)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://node:10090/metrics?a", "/metrics", "a"),
        (b"HTTP://node", "/", ""),
        (b"/metrics?", "/metrics", ""),
        (b"//x/y", "//x/y", ""),
    ],
)
def test_both_forms_of_a_target_are_taken_apart(serve, target, path, query):
    def handler(request: Request) -> Response:
        return Response(200, f"{request.path} {request.query}".encode())

    with Client(serve(handler)) as client:
        answer = client.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n").answer()
    assert answer.body.decode() == f"{path} {query}"


def test_head_is_answered_as_get_without_the_body(serve):
    with Client(serve()) as client:
        client.send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        assert client.answer("HEAD").headers["content-length"] == "8"
        assert client.answer().body == b"hello /metrics"


def test_a_refusal_after_a_head_has_a_body_again(serve):
    with Client(serve()) as client:
        client.send(b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n")
        assert client.answer("HEAD").status == 200
        assert client.answer().body == b"400 Bad Request\n"


def test_one_connection_serves_many_requests(serve):
    server = serve()
    with Client(server) as client:
        for _ in range(20):
            answer = client.send(GET).answer()
            assert answer.status == 200
            assert "connection" not in answer.headers
    assert counted(server, {200: 20})


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
def test_the_connection_closes_after_the_response_when_the_client_says_so(serve, request_bytes):
    with Client(serve()) as client:
        answer = client.send(request_bytes).answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.at_end()


def test_a_request_that_comes_byte_by_byte_is_answered(serve):
    with Client(serve()) as client:
        for byte in GET:
            client.send(bytes([byte]))
        assert client.answer().status == 200


def test_pipelined_requests_are_answered_in_order(serve):
    with Client(serve()) as client:
        client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(500)))
        assert [client.answer().body for _ in range(500)] == [b"hello /%d" % i for i in range(500)]
        assert client.send(GET).answer().status == 200


def test_a_client_that_pipelines_does_not_starve_another(serve):
    begun, go_on, order = threading.Event(), threading.Event(), []

    def handler(request: Request) -> Response:
        order.append(request.path)
        begun.set()
        go_on.wait(20)
        return Response(200)

    server = serve(handler)
    with Client(server) as greedy, Client(server) as other:
        greedy.send(b"GET /greedy HTTP/1.1\r\nHost: a\r\n\r\n" * 300)
        assert begun.wait(20)
        other.send(b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n")
        go_on.set()
        assert other.answer().status == 200
        for _ in range(300):
            greedy.answer()
    assert order.index("/other") < 50


def test_an_offer_to_upgrade_is_passed_over(serve):
    with Client(serve()) as client:
        upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        answer = client.send(GET[:-2] + upgrade + GET).answer()
        assert (answer.status, client.answer().status) == (200, 200)


def test_ipv6_is_served(serve):
    try:
        server = serve(host="::1")
    except OSError as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    assert server.address == f"[::1]:{server.port}"
    with Client(server, host="::1") as client:
        assert client.send(GET).answer().status == 200


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


# Connections at the limit, and deadlines.


def get_works_or_is_refused(server: WebServer) -> int:
    with Client(server) as client, contextlib.suppress(ConnectionError):
        return client.send(GET).answer().status
    return 0


def hears_a_reset(client: Client) -> bool:
    try:
        client.send(b"x")
    except ConnectionError:
        return True
    return False


def test_one_connection_too_many_gets_503_and_the_others_stay(serve, caplog):
    server = serve(max_connections=2, header_timeout=NEVER)
    with Client(server) as first, Client(server) as second:
        assert first.send(GET).answer().status == 200
        second.send(b"GET")
        for _ in range(3):
            with Client(server) as third:
                answer = third.send(GET).answer()
                assert (answer.status, answer.headers["connection"]) == (503, "close")
                assert answer.headers["retry-after"] == "5"
                assert third.at_end()
        assert first.send(GET).answer().status == 200
        assert second.send(GET[3:]).answer().status == 200
    until(lambda: get_works_or_is_refused(server) == 200)
    lines = [r.getMessage() for r in caplog.records if "connection limit reached" in r.getMessage()]
    assert len(lines) == 1


def test_connections_far_above_the_limit_are_cut_off_and_the_others_stay(serve):
    server = serve(max_connections=1, header_timeout=NEVER, linger_timeout=NEVER)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Client(server))
        assert first.send(GET).answer().status == 200
        others = [stack.enter_context(Client(server)) for _ in range(40)]
        # None of these hangs up, so sixteen are waited for and the rest find themselves closed.
        until(lambda: server.codes[503] == 40)
        assert first.send(GET).answer().status == 200
        for other in others:
            assert other.answer().status == 503
            assert other.at_end()
        # Those hear a reset from the kernel when they go on.
        until(lambda: sum(hears_a_reset(other) for other in others) == 24)


def test_slots_come_back_when_the_header_deadline_passes(serve):
    server = serve(max_connections=3, header_timeout=0.15)
    with Client(server) as silent, Client(server) as half, Client(server) as dripping:
        half.send(b"GET / HTT")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                dripping.send(b"x")
                dripping.sock.settimeout(0.01)
                try:
                    if dripping.sock.recv(1, socket.MSG_PEEK):
                        break
                except TimeoutError:
                    continue
        dripping.sock.settimeout(20)
        assert dripping.answer().status == 408
        assert half.answer().status == 408
        assert half.at_end()
        assert silent.at_end()
    until(lambda: get_works_or_is_refused(server) == 200)


def test_a_get_is_answered_while_63_connections_drip(serve):
    server = serve(header_timeout=0.6)
    answered = 0
    with contextlib.ExitStack() as stack:
        dripping = [stack.enter_context(Client(server)) for _ in range(63)]
        deadline = time.monotonic() + 20
        while server.codes[408] < 63:
            assert time.monotonic() < deadline
            for client in dripping:
                with contextlib.suppress(ConnectionError):
                    client.send(b"x")
            with Client(server) as client:
                get = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
                assert client.send(get).answer().status == 200
                assert client.at_end()
            answered += 1
            time.sleep(0.02)
    assert answered > 1
    assert counted(server, {200: answered, 408: 63})


def test_the_header_deadline_does_not_run_between_requests(serve):
    with Client(serve(header_timeout=0.1)) as client:
        assert client.send(GET).answer().status == 200
        time.sleep(0.3)
        assert client.send(GET).answer().status == 200


def test_the_header_deadline_runs_for_a_later_request_too(serve):
    with Client(serve(header_timeout=0.1)) as client:
        assert client.send(GET + GET[:10]).answer().status == 200
        assert client.answer().status == 408
        assert client.at_end()
    with Client(serve(header_timeout=0.1)) as client:
        assert client.send(GET).answer().status == 200
        assert client.send(GET[:10]).answer().status == 408


def test_a_connection_idle_for_too_long_is_closed_without_a_word(serve):
    server = serve(idle_timeout=0.1)
    with Client(server) as client:
        assert client.send(GET).answer().status == 200
        assert client.at_end()
    assert counted(server, {200: 1})


# Clients that are slow to read, or leave.


def test_a_big_response_arrives_whole_and_the_connection_lives_on(serve):
    server = serve(big)
    with Client(server) as client:
        for _ in range(2):
            client.send(GET)
            assert client.answer().body == BIG
    assert counted(server, {200: 2})


def test_a_client_that_does_not_read_is_dropped_at_the_write_deadline(serve, caplog):
    server = serve(big, max_connections=1, write_timeout=0.15)
    with Client(server, receive_buffer=4096) as client:
        client.send(GET)
        until(lambda: server.codes[499] == 1)
        with Client(server) as next_client:
            assert next_client.send(GET).answer().body == BIG
        with pytest.raises((ConnectionError, AssertionError)):
            client.answer()
    assert counted(server, {200: 1, 499: 1})
    assert 'why="write deadline"' in caplog.text


def test_a_client_that_sips_does_not_move_the_write_deadline(serve):
    server = serve(big, write_timeout=0.2)
    with Client(server, receive_buffer=4096) as client:
        client.send(GET)
        deadline = time.monotonic() + 20
        while server.codes[499] == 0:
            assert time.monotonic() < deadline
            with contextlib.suppress(ConnectionError):
                client.sock.recv(512)
            time.sleep(0.005)


def test_unsent_responses_are_bounded_by_dropping_the_oldest(serve, caplog):
    server = serve(big, write_timeout=NEVER, max_unsent_bytes=len(BIG) + len(BIG) // 2)
    with (
        Client(server, receive_buffer=4096) as oldest,
        Client(server, receive_buffer=4096) as newest,
    ):
        assert oldest.send(GET).file.peek(1)
        assert newest.send(GET).file.peek(1)
        until(lambda: server.codes[499] == 1)
        assert newest.answer().body == BIG
    assert counted(server, {200: 1, 499: 1})
    assert 'why="too much unsent data"' in caplog.text


def flood(client: Client) -> int:
    """Bytes of pipelined requests that the server takes before it has kept us waiting for 1 s."""
    client.sock.settimeout(None)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
    # One call, so that Python's lock does not slow us down.
    sent = client.sock.send(GET * (4 * KERNEL // len(GET)))
    client.sock.settimeout(20)
    return sent


# What the kernel buffers on loopback for a client that is not read from: 6 MB at most.
KERNEL = 1 << 24


def test_no_more_is_read_from_a_client_that_does_not_take_its_responses(serve):
    calls = []

    def handler(request: Request) -> Response:
        calls.append(request)
        return Response(200, BIG[: 1 << 20])

    with Client(serve(handler, write_timeout=NEVER), receive_buffer=4096) as client:
        assert flood(client) < KERNEL
        assert len(calls) < 30
        for _ in range(40):
            assert client.answer().status == 200


def test_no_more_is_read_behind_a_request_whose_response_is_not_taken(serve):
    with Client(serve(big, write_timeout=NEVER), receive_buffer=4096) as client:
        assert client.send(GET).file.peek(1)
        assert flood(client) < KERNEL
        assert client.answer().body == BIG


def test_a_client_that_resets_in_the_middle_of_a_response_hurts_nobody(serve, caplog):
    server = serve(big, max_connections=1)
    for _ in range(5):
        client = Client(server, receive_buffer=4096)
        client.send(GET).file.read(10)
        client.reset()
        until(lambda: get_works_or_is_refused(server) == 200)
    until(lambda: server.codes[499] == 5)
    assert [r for r in caplog.records if r.name == "asyncio" and r.levelno >= logging.WARNING] == []


def test_a_half_closed_client_gets_its_responses(serve):
    with Client(serve()) as client:
        client.send(GET * 3)
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.answer().status for _ in range(3)] == [200] * 3
        assert client.at_end()


def test_a_half_closed_client_gets_a_big_response_whole(serve):
    with Client(serve(big)) as client:
        client.send(GET)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().body == BIG
        assert client.at_end()


def test_a_request_cut_short_is_malformed(serve):
    server = serve(header_timeout=NEVER, linger_timeout=NEVER)
    with Client(server) as client:
        client.send(GET[:-2])
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().status == 400
        assert client.at_end()
    assert counted(server, {400: 1})


def test_a_client_that_says_nothing_and_hangs_up_is_forgotten(serve):
    server = serve(max_connections=1, header_timeout=NEVER)
    with Client(server) as client:
        client.sock.shutdown(socket.SHUT_WR)
        assert client.at_end()
    until(lambda: get_works_or_is_refused(server) == 200)
    assert 400 not in server.codes


# Handlers that fail.


def test_a_handler_that_raises_yields_500_and_one_line_in_the_log(serve, caplog):
    def handler(request: Request) -> Response:
        raise ValueError("no such\nthing")

    server = serve(handler)
    with Client(server) as client:
        for _ in range(3):
            answer = client.send(GET).answer()
            assert (answer.status, answer.body) == (500, b"500 Internal Server Error\n")
    assert counted(server, {500: 3})
    (record,) = [r for r in caplog.records if r.name == "telemetryd.web"]
    assert "path=/metrics" in record.getMessage()
    assert "test_web_server.py:" in record.getMessage()
    assert "ValueError: no such" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    "response",
    [
        Response(200, b"", headers=(("X", "a\r\nSet-Cookie: b"),)),
        Response(200, b"x", content_type="text/plain; é"),
        Response(42, b"x"),
        Response(200, "text"),  # type: ignore[arg-type]
        None,
    ],
    ids=["line break in header", "content type not ASCII", "status", "text body", "nothing"],
)
def test_a_malformed_response_of_the_handler_becomes_a_500(serve, response):
    answers = [response, Response(200)]
    with Client(serve(lambda request: answers.pop(0))) as client:
        assert client.send(GET).answer().status == 500
        assert client.send(GET).answer().status == 200


# Starting and stopping.


def test_a_port_in_use_is_named_with_the_remedy(serve, loop):
    taken = serve()
    server = WebServer(hello, "127.0.0.1", taken.port)
    with pytest.raises(OSError, match="Address already in use; stop the program") as caught:
        loop.run(server.start())
    assert str(caught.value).startswith(f"cannot listen on 127.0.0.1:{taken.port}: ")
    assert "[web] listen" in str(caught.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "a" * 100, "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_named_with_the_remedy(loop, host):
    with pytest.raises(OSError, match=rf"cannot listen on {host}:0: .*; set \[web\] listen"):
        loop.run(WebServer(hello, host, 0).start())


def test_the_address_names_the_port_that_was_bound(serve):
    assert WebServer(hello, "127.0.0.1", 10090).address == "127.0.0.1:10090"
    server = serve()
    assert server.port > 0
    assert server.address == f"127.0.0.1:{server.port}"


def test_stopping_closes_what_is_open_and_frees_the_port(serve, loop):
    server = serve(header_timeout=NEVER, linger_timeout=NEVER, stop_timeout=NEVER)
    port = server.port
    with Client(server) as idle, Client(server) as half, Client(server) as refused:
        assert idle.send(GET).answer().status == 200
        half.send(b"GET")
        assert refused.send(b"nonsense\r\n\r\n").answer().status == 400
        loop.run(server.stop())
        assert idle.at_end()
        assert half.at_end()
        assert refused.at_end()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    loop.run(server.stop())


def test_stopping_lets_a_response_on_its_way_arrive(serve, loop):
    server = serve(big, stop_timeout=NEVER)
    with Client(server, receive_buffer=4096) as client:
        client.send(GET)
        assert client.file.peek(1)
        stopping = asyncio.run_coroutine_threadsafe(server.stop(), loop.loop)
        assert client.answer().body == BIG
        assert client.at_end()
        stopping.result(20)


def test_stopping_does_not_wait_for_a_client_that_does_not_read(serve, loop):
    server = serve(big, write_timeout=NEVER, stop_timeout=0.1)
    with Client(server, receive_buffer=4096) as client:
        assert client.send(GET).file.peek(1)
        loop.run(server.stop())
    assert counted(server, {499: 1})


def test_a_stopped_server_can_start_again(serve, loop):
    server = serve()
    loop.run(server.stop())
    loop.run(server.start())
    assert get_works(server)

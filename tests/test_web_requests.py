"""Requests and responses of the HTTP server, over real sockets on loopback."""

from __future__ import annotations

import http.client
import threading

import pytest
from support.web import GET, Client, counted

from telemetryd.web import Request, Response
from telemetryd.web.message import http_date

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
    assert "test_web_requests.py:" in record.getMessage()
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

"""The HTTP server against too many connections, slow and vanishing clients."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time

import pytest
from support.web import BIG, GET, NEVER, Client, big, counted, get_works_or_is_refused, until

from telemetryd.web import Request, Response

# Connections at the limit, and deadlines.


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

"""Starting and stopping the HTTP server."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.web import BIG, GET, NEVER, Client, big, counted, get_works, hello

from telemetryd.web.server import WebServer

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

"""A client, an event loop and handlers for trying the HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Self

import pytest

from telemetryd.web import Request, Response
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


def get_works_or_is_refused(server: WebServer) -> int:
    with Client(server) as client, contextlib.suppress(ConnectionError):
        return client.send(GET).answer().status
    return 0

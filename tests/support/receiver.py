"""An HTTP server that answers what a test tells it to, and keeps what it was sent."""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice

import cramjam

_UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.decompress,
    "snappy": lambda packed: bytes(cramjam.snappy.decompress_raw(packed)),
}
# Nothing here waits longer than this, so that a test that fails ends, too.
LONGEST_S = 30.0
# Between two bytes that drip.
_DRIP_S = 0.01


@dataclass(frozen=True)
class Request:
    """What came: `body` is unpacked, `packed` as it came; `certificate` is the one that was shown,
    as DER."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    packed: bytes = b""
    certificate: bytes = b""


@dataclass(frozen=True)
class Reply:
    """What to answer. `cut` closes the connection instead, `reset` with a reset; `raw` is sent as
    it is, and `drip` behind it, a byte every now and then, again and again without an end; `hang`
    waits for `Receiver.release` first, `delay` so many seconds. `date_ns` is what
    time it says that it is, in nanoseconds since 1970; unset: the real one; 0: it does not say."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes = b""
    drip: bytes = b""
    cut: bool = False
    reset: bool = False
    hang: bool = False
    delay: float = 0.0
    date_ns: int | None = None

    @classmethod
    def redirect(cls, url: str, status: int = 307) -> Reply:
        """Sends elsewhere."""
        return cls(status, {"Location": url})


OK = Reply()
# Decides by what was sent.
Judge = Callable[[Request], Reply]


class Receiver:
    """Answers one request after the other from `script`, the last entry again and again.

    With `welcomes_probes`, writes of nothing are no part of that: they are answered with OK, and
    kept in `probes`.
    """

    def __init__(self, *script: Reply | Judge, welcomes_probes: bool = False) -> None:
        self.requests: list[Request] = []
        self.probes: list[Request] = []
        self.url = ""
        self._welcomes_probes = welcomes_probes
        self._script = list(script) or [OK]
        self._changed = threading.Condition()
        self._released = threading.Event()

    @property
    def bodies(self) -> list[bytes]:
        return [request.body for request in self.requests]

    def script(self, *script: Reply | Judge) -> None:
        """Answer like this from now on."""
        with self._changed:
            self._script = list(script)

    def release(self) -> None:
        """End every hang."""
        self._released.set()

    def wait_for(self, count: int) -> None:
        """Wait until so many requests have come; fails after a while."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.requests) >= count, LONGEST_S)
            assert came, f"{len(self.requests)} of {count} requests came"

    def _take(self, request: Request) -> Reply:
        if self._welcomes_probes and not request.body.strip():
            self.probes.append(request)
            return OK
        with self._changed:
            step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
            self.requests.append(request)
            self._changed.notify_all()
        reply = step if isinstance(step, Reply) else step(request)
        if reply.hang or reply.delay:
            self._released.wait(LONGEST_S if reply.hang else reply.delay)
        return reply


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = LONGEST_S
    server: _Server

    def do_POST(self) -> None:
        packed = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = _UNPACK[self.headers.get("Content-Encoding", "identity")](packed)
        shown = b""
        if isinstance(self.connection, ssl.SSLSocket):
            shown = self.connection.getpeercert(binary_form=True) or b""
        number = self.client_address[1]
        request = Request(self.path, dict(self.headers), body, number, packed, shown)
        reply = self.server.receiver._take(request)
        if reply.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wfile.write(reply.raw)
        if reply.drip:
            self._drip(reply.drip)
        if reply.cut or reply.reset or reply.raw or reply.drip or reply.hang:
            self.close_connection = True
            return
        self.send_response_only(reply.status)
        if reply.date_ns != 0:
            date_s = time.time() if reply.date_ns is None else reply.date_ns / 1e9
            self.send_header("Date", formatdate(date_s, usegmt=True))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _drip(self, text: bytes) -> None:
        """Until the other side or the test has had enough."""
        for byte in islice(cycle(text), int(LONGEST_S / _DRIP_S)):
            if self.server.receiver._released.wait(_DRIP_S):
                return
            self.wfile.write(bytes([byte]))

    do_GET = do_POST  # noqa: N815  (http.server chooses the names)

    def log_message(self, *_arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side has gone away: tests make it do so."""


@contextmanager
def serving(receiver: Receiver, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """`receiver` at its `url` on a free port of the loopback interface."""
    server = _Server(receiver)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    receiver.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.release()
        server.shutdown()
        server.server_close()
        thread.join(LONGEST_S)

"""A BMC for tests: a real HTTP(S) server with a tree of Redfish resources behind a login."""

from __future__ import annotations

import base64
import copy
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from support.trees import FIXTURES

# Nothing here waits longer than this, so that a test that fails ends, too.
LONGEST_S = 30.0
SESSIONS = "/redfish/v1/SessionService/Sessions"
USER, PASSWORD = "monitor", "s3cret f0r tests"

Tree = dict[str, Any]


def tree(name: str) -> Tree:
    """A tree of tests/fixtures/redfish: one file, its resources by their path."""
    found: Tree = json.loads((FIXTURES / "redfish" / f"{name}.json").read_text())
    return found


@dataclass(frozen=True)
class Asked:
    """A request that came: over which connection, and with what to be let in."""

    method: str
    path: str
    connection: int
    login: str


@dataclass(frozen=True)
class Reply:
    """What to answer in place of the resource. `hang` waits for `release` first; `drip` sends the
    body a byte at a time, for ever; `cut` closes the connection instead."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    drip: bool = False
    cut: bool = False


class RedfishServer:
    """Answers from `resources`, which a test may change at any time."""

    def __init__(self, resources: Tree) -> None:
        self.resources = copy.deepcopy(resources)
        self.replies: dict[str, Reply] = {}
        self.session_reply: Reply | None = None
        self.asked: list[Asked] = []
        self.tokens: set[str] = set()
        self.opened = 0
        self.user, self.password = USER, PASSWORD
        self.needs_login = True
        self.closes_connections = False
        self.url = ""
        self._count = 0
        self._lock = threading.Lock()
        self._released = threading.Event()

    def reboot(self) -> None:
        """Forget every session, as a BMC does when it restarts."""
        with self._lock:
            self.tokens.clear()

    def release(self) -> None:
        """End every hang."""
        self._released.set()

    def paths(self, method: str = "GET") -> list[str]:
        with self._lock:
            return [one.path for one in self.asked if one.method == method]

    def set(self, path: str, *keys: str | int, to: object) -> None:
        """Change one value of a resource."""
        place: Any = self.resources[path]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    def note(self, asked: Asked) -> None:
        with self._lock:
            self.asked.append(asked)

    def answer(self, method: str, path: str, login: str, body: bytes) -> Reply:
        reply = self.replies.get(path)
        if reply is not None and method == "GET":
            if reply.hang:
                self._released.wait(LONGEST_S)
            return reply
        if method == "POST" and path == SESSIONS:
            return self.session_reply or self._open(json.loads(body))
        if self.needs_login and path.rstrip("/") != "/redfish/v1" and not self._lets_in(login):
            return Reply(401, b'{"error": {}}')
        if method == "DELETE" and path.startswith(f"{SESSIONS}/"):
            with self._lock:
                self.tokens.discard(path.rpartition("/")[2])
            return Reply(204, b"")
        found = self.resources.get(path, self.resources.get(path.rstrip("/")))
        return Reply(404, b'{"error": {}}') if found is None else Reply(200, _as_json(found))

    def drip(self, write: Any) -> None:
        while not self._released.wait(0.01):
            write(b" ")

    def _open(self, wanted: Mapping[str, str]) -> Reply:
        if (wanted.get("UserName"), wanted.get("Password")) != (self.user, self.password):
            return Reply(401, b'{"error": {}}')
        with self._lock:
            self.opened += 1
            token = f"token{self.opened}"
            self.tokens.add(token)
        where = f"{SESSIONS}/{token}"
        return Reply(
            201,
            _as_json({"@odata.id": where}),
            {"X-Auth-Token": token, "Location": f"{self.url}{where}"},
        )

    def _lets_in(self, login: str) -> bool:
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        with self._lock:
            return login in self.tokens or login == f"Basic {pair}"


def _as_json(found: object) -> bytes:
    return found if isinstance(found, bytes) else json.dumps(found).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = LONGEST_S
    disable_nagle_algorithm = True  # headers and body are two packets
    server: _Server

    def do_GET(self) -> None:
        bmc = self.server.bmc
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        login = self.headers.get("X-Auth-Token") or self.headers.get("Authorization") or ""
        path = urlsplit(self.path).path
        bmc.note(Asked(self.command, path, self.client_address[1], login))
        reply = bmc.answer(self.command, path, login, body)
        if reply.cut or reply.hang:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.drip:
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.close_connection = True
            bmc.drip(self.wfile.write)
            return
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)
        # Without a word of it: what a client sees on its next request.
        self.close_connection = self.close_connection or bmc.closes_connections

    do_POST = do_DELETE = do_GET  # noqa: N815  (http.server chooses the names)

    def log_message(self, *_arguments: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, bmc: RedfishServer, port: int) -> None:
        self.bmc = bmc
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """The other side has gone away: tests make it do so."""


@contextmanager
def serving(
    bmc: RedfishServer, tls: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[RedfishServer]:
    """`bmc` at its `url` on the loopback interface, on a free port unless one is given."""
    server = _Server(bmc, port)
    if tls is not None:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    scheme = "http" if tls is None else "https"
    bmc.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield bmc
    finally:
        bmc.release()
        server.shutdown()
        server.server_close()
        thread.join(LONGEST_S)

"""A client that asks for /metrics as Prometheus 2.42 does, over one connection, and takes time."""

from __future__ import annotations

import re
import socket
import time
import zlib
from dataclasses import dataclass
from typing import NamedTuple

TIMEOUT_S = 15.0
_HEADERS = (
    "Accept: application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n"
    "Accept-Encoding: gzip\r\n"
    "User-Agent: Prometheus/2.42.0\r\n"
    "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n"
)
_LAST_CHUNK = b"0\r\n\r\n"
_GZIP_WINDOW = 31
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Series(NamedTuple):
    """A line of a scrape, without its value."""

    name: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer: how long it took from the request to its last byte, its head, its body."""

    seconds: float
    head: bytes
    body: bytes

    @property
    def text(self) -> str:
        data = _dechunked(self.body) if b"chunked" in self.head else self.body
        if b"content-encoding: gzip" in self.head:
            data = zlib.decompress(data, _GZIP_WINDOW)
        return data.decode()

    def series(self) -> dict[Series, float]:
        """Every sample. Raises ValueError for a line that is none."""
        found = {}
        for line in self.text.splitlines():
            if line and not line.startswith("#"):
                match = _SAMPLE.fullmatch(line)
                if match is None:
                    raise ValueError(f"not a sample: {line!r}")
                labels = tuple(sorted(_LABEL.findall(match[2] or "")))
                found[Series(match[1], labels)] = float(match[3])
        return found


def _dechunked(body: bytes) -> bytes:
    parts, begin = [], 0
    while True:
        end = body.index(b"\r\n", begin)
        size = int(body[begin:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        begin = end + size + 4


class Client:
    """Keeps its connection, as Prometheus does. Unpacking is left out of the time: it is work of
    the client's that both peers would pay alike."""

    def __init__(self, port: int, path: str = "/metrics") -> None:
        self._address = ("127.0.0.1", port)
        host = f"Host: 127.0.0.1:{port}\r\n"
        self._request = f"GET {path} HTTP/1.1\r\n{host}{_HEADERS}\r\n".encode()
        self._socket: socket.socket | None = None

    def get(self) -> Scrape:
        """One scrape. Raises OSError, and ValueError for an answer other than 200."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        self._socket.sendall(self._request)
        head, body = self._receive(self._socket)
        seconds = time.perf_counter() - begun
        if not head.startswith(b"http/1.1 200"):
            raise ValueError(f"answered {head[:60]!r}")
        return Scrape(seconds, head, body)

    def _receive(self, connection: socket.socket) -> tuple[bytes, bytes]:
        data = bytearray()
        end = -1
        while end < 0:
            self._more(connection, data)
            end = data.find(b"\r\n\r\n")
        head, body = bytes(data[:end]).lower(), data[end + 4 :]
        length = re.search(rb"content-length: *([0-9]+)", head)
        while not (len(body) >= int(length[1]) if length else body.endswith(_LAST_CHUNK)):
            self._more(connection, body)
        return head, bytes(body)

    def _more(self, connection: socket.socket, data: bytearray) -> None:
        part = connection.recv(1 << 18)
        if not part:
            self.close()
            raise ConnectionError("the connection was closed in the middle of an answer")
        data += part

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

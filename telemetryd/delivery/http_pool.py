"""A connection to one server that is kept, and whose requests end in time whatever the server does.

The timeouts of urllib3 hold for each read of the socket: a server that sends a byte now and then
would keep a request for ever. Here each step of a request, from connecting to the last byte of the
answer, has what is left of the time for all of it. Only looking up a name does not: it ends as
resolv.conf says.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import allowed_gai_family

from telemetryd.delivery.answer import LONGEST


class Deadline:
    """When the request that is on its way has to be over."""

    def __init__(self) -> None:
        self._end = 0.0

    def start(self, seconds: float) -> None:
        """A request begins, and may take so long."""
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds. Raises TimeoutError if there are none."""
        if (left := self._end - time.monotonic()) <= 0:
            raise TimeoutError("timed out")
        return left


class _Socket(socket.socket):
    """One that reads and writes as long as there is time."""

    def __init__(self, deadline: Deadline, family: int, kind: int, protocol: int) -> None:
        super().__init__(family, kind, protocol)
        self._deadline = deadline

    def recv_into(self, *place: Any) -> int:
        self.settimeout(self._deadline.left())
        return super().recv_into(*place)

    def sendall(self, *data: Any) -> None:
        self.settimeout(self._deadline.left())
        super().sendall(*data)


class _TlsSocket(ssl.SSLSocket):
    """The same over TLS. The handshake comes before `deadline` can be set: as a whole, it may take
    what was left when the connection was there."""

    deadline: Deadline | None = None

    def recv_into(self, *place: Any) -> int:
        self._hurry()
        return super().recv_into(*place)

    def send(self, *data: Any) -> int:
        # sendall() calls this for each piece.
        self._hurry()
        return super().send(*data)

    def _hurry(self) -> None:
        if self.deadline is not None:
            self.settimeout(self.deadline.left())


if TYPE_CHECKING:
    _Base = HTTPConnection
else:
    _Base = object


class _InTime(_Base):
    """What is mixed into the two connections of urllib3."""

    def __init__(self, *arguments: Any, deadline: Deadline, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline = deadline

    def __str__(self) -> str:
        """As messages name it."""
        return f"{self.host}:{self.port}"

    def _new_conn(self) -> socket.socket:
        """A name may have several addresses: each of them gets its share of the time, so that one
        that does not answer leaves some for the next."""
        name = self._dns_host.strip("[]")
        failure: Exception = OSError("it has no address")
        try:
            found = socket.getaddrinfo(name, self.port, allowed_gai_family(), socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            reason = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
            raise exceptions.NameResolutionError(self.host, self, reason) from error
        for number, (family, kind, protocol, _, address) in enumerate(found):
            one = _Socket(self._deadline, family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    one.setsockopt(*option)
                one.settimeout(self._deadline.left() / (len(found) - number))
                one.connect(address)
                # For the handshake of TLS.
                one.settimeout(self._deadline.left())
            except OSError as error:
                one.close()
                failure = error
            else:
                return one
        if isinstance(failure, TimeoutError):
            raise exceptions.ConnectTimeoutError(f"{self}: connecting timed out") from failure
        raise exceptions.NewConnectionError(
            self, f"Failed to establish a new connection: {failure}"
        ) from failure


class _PlainConnection(_InTime, HTTPConnection):
    pass


class _TlsConnection(_InTime, HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        if isinstance(self.sock, _TlsSocket):
            self.sock.deadline = self._deadline


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class HttpPool(urllib3.PoolManager):
    """Speaks TLS as `context` says; None where no address is https. One thread at a time."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        if context is not None:
            context.sslsocket_class = _TlsSocket
        super().__init__(num_pools=1, maxsize=1, ssl_context=context)
        self.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}
        self._deadline = Deadline()

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Send a body, and read status, headers and the begin of the answer, in so many seconds
        altogether. The connection can be used again only if nothing was left unread. Raises what
        urllib3 does, and OSError."""
        self._deadline.start(seconds)
        response = self.request(
            "POST",
            url,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(total=seconds),
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
        )
        try:
            return response.status, response.headers, response.read(LONGEST)
        finally:
            # Only if part of the answer was left unread is the connection still its own to close.
            response.close()

    def _new_pool(
        self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None
    ) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, host, port, request_context)
        pool.conn_kw["deadline"] = self._deadline
        return pool

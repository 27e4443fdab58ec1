"""The HTTP server: listens on one address inside the daemon's event loop.

Clients are held to limits so that none of them can keep the others out or fill memory; what a
single client may do is in connection.py. TLS would be an `ssl` argument to create_server.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable

from telemetryd.web import Handler
from telemetryd.web.connection import Connection
from telemetryd.web.pool import Limits, Pool

_REMEDIES = {
    errno.EADDRINUSE: "stop the program that holds the port (`ss -ltnp` shows it) "
    "or set [web] listen to another port",
    errno.EADDRNOTAVAIL: "set [web] listen to an address of this host (`ip address` lists them)",
    errno.EAFNOSUPPORT: "set [web] listen to an address of a family that this kernel has",
    errno.EACCES: "set [web] listen to a port above 1023 or grant CAP_NET_BIND_SERVICE",
}
_OTHER_REMEDY = "set [web] listen to an address and port that this host can bind"


class WebServer:
    """Serves `handler` on `host` and `port`; port 0 takes a free one.

    Timeouts are in seconds. `header_timeout` bounds the whole header of a request,
    `idle_timeout` the pause between two, `write_timeout` the taking of one response, and
    `linger_timeout` the wait for a refused client to hang up. Responses that clients are slow to
    take may hold `max_unsent_bytes` together. `answered` is called with the status of each
    response, or 499 when its client did not take it.
    """

    def __init__(
        self,
        handler: Handler,
        host: str,
        port: int,
        *,
        max_connections: int = 64,
        header_timeout: float = 5.0,
        idle_timeout: float = 120.0,
        write_timeout: float = 10.0,  # Prometheus itself gives up a scrape after 10 s
        linger_timeout: float = 1.0,
        stop_timeout: float = 1.0,
        max_unsent_bytes: int = 8 * 1024 * 1024,
        answered: Callable[[int], None] = lambda _status: None,
    ) -> None:
        self._handler = handler
        self._host = host
        self._port = port
        self._limits = Limits(
            max_connections,
            header_timeout,
            idle_timeout,
            write_timeout,
            linger_timeout,
            max_unsent_bytes,
        )
        self._stop_timeout = stop_timeout
        self._answered = answered
        self._server: asyncio.Server | None = None
        self._pool: Pool | None = None

    @property
    def port(self) -> int:
        """The port bound; before start, the one asked for."""
        if self._server is None or not self._server.sockets:
            return self._port
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def address(self) -> str:
        """Host and port as a URL has them: 127.0.0.1:10090, [::1]:10090."""
        return _address(self._host, self.port)

    async def start(self) -> None:
        """Listen. OSError says which address cannot be had, why, and what to do."""
        loop = asyncio.get_running_loop()
        pool = Pool(self._handler, self._limits, self._answered)
        try:
            self._server = await loop.create_server(
                lambda: Connection(pool), self._host, self._port
            )
        except (OSError, UnicodeError) as error:
            # A code below 0 is getaddrinfo's, and asyncio's own wording repeats the address.
            code = (error.errno or 0) if isinstance(error, OSError) else 0
            why = os.strerror(code) if code > 0 else str(error)
            remedy = _REMEDIES.get(code, _OTHER_REMEDY)
            raise OSError(
                f"cannot listen on {_address(self._host, self._port)}: {why}; {remedy}"
            ) from error
        self._pool = pool

    async def stop(self) -> None:
        """Stop listening, let responses on their way arrive, close; twice is safe."""
        server, self._server = self._server, None
        pool, self._pool = self._pool, None
        if server is not None:
            server.close()
        if pool is not None:
            await pool.close(self._stop_timeout)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""What the clients of one server share, and how much of it they may take together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from telemetryd.log import QuietLog
from telemetryd.web import Handler

if TYPE_CHECKING:
    from telemetryd.web.connection import Connection

_READ = 16 * 1024  # of a request, read at once


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take: connections, seconds, bytes."""

    connections: int
    header_timeout: float
    idle_timeout: float
    write_timeout: float
    linger_timeout: float
    unsent_bytes: int  # of responses that clients are slow to take, all together
    # Connections above the limit that are told so politely; the rest are cut off.
    turned_away: int = 16
    header_bytes: int = 16 * 1024
    target_bytes: int = 8 * 1024


class Pool:
    """All open connections, and what they share: the handler, the limits, one read buffer.

    `answered` is called with the status of each response when the kernel has all of it, or with
    499 when the client left or was dropped before that.
    """

    def __init__(self, handler: Handler, limits: Limits, answered: Callable[[int], None]) -> None:
        self.handler = handler
        self.limits = limits
        self.answered = answered
        self.loop = asyncio.get_running_loop()
        # One for all: what is read is copied into h11 before the loop serves another connection.
        self.read_buffer = memoryview(bytearray(_READ))
        self.quiet = QuietLog(logging.getLogger("telemetryd.web"))
        self.stopping = False
        self._open: set[Connection] = set()
        self._turned_away: set[Connection] = set()
        self._unsent: dict[Connection, int] = {}
        self._empty = asyncio.Event()

    def admit(self, connection: Connection) -> bool:
        """Give `connection` one of the slots; False if all are taken."""
        if len(self._open) >= self.limits.connections:
            return False
        self._open.add(connection)
        return True

    def turn_away(self, connection: Connection) -> bool:
        """Count a connection that got no slot; False if there is no time to be polite to it."""
        self.answered(503)
        self.quiet.warning(
            "full", f'msg="connection limit reached, answering 503" limit={self.limits.connections}'
        )
        if len(self._turned_away) >= self.limits.turned_away:
            return False
        self._turned_away.add(connection)
        return True

    def forget(self, connection: Connection) -> None:
        """The connection is closed."""
        self.release(connection)
        self._open.discard(connection)
        self._turned_away.discard(connection)
        if not self._open and not self._turned_away:
            self._empty.set()

    def hold(self, connection: Connection, size: int) -> None:
        """A response of `size` bytes waits for its client; too many, and the oldest are dropped.

        The oldest, because an honest reader waits for milliseconds.
        """
        self._unsent[connection] = size
        while len(self._unsent) > 1 and sum(self._unsent.values()) > self.limits.unsent_bytes:
            next(iter(self._unsent)).drop("too much unsent data")

    def release(self, connection: Connection) -> None:
        """The response is taken, or will never be."""
        self._unsent.pop(connection, None)

    def handler_failed(self, path: str, error: Exception) -> None:
        """One line for a bug in the handler, at most once a minute for each place in the code."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        at = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
        what = f"{type(error).__name__}: {error}"[:200]
        self.quiet.warning(at, f'msg="handler failed" path={path[:200]} at={at} error="{what}"')

    async def close(self, timeout: float) -> None:
        """Close every connection; a response on its way has `timeout` seconds to be taken."""
        self.stopping = True
        for connection in [*self._open, *self._turned_away]:
            connection.leave()
        if not self._open and not self._turned_away:
            return
        self._empty.clear()
        try:
            await asyncio.wait_for(self._empty.wait(), timeout)
        except TimeoutError:
            for connection in [*self._open, *self._turned_away]:
                connection.drop("the server stops")
            await self._empty.wait()

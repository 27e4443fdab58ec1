"""One HTTP/1.1 client: h11 reads and writes the protocol, asyncio moves the bytes.

A connection is in one of four phases, each with one deadline:

    HEADER    a request has begun (or the first is awaited)   408, or close if nothing came
    IDLE      kept alive between two requests                  close
    SENDING   the client has not yet taken the response        abort
    DRAINING  the last response is out; unread input is        abort
              thrown away for a moment, then we close

HEADER's deadline is absolute: bytes that drip in do not move it. One request is answered at a
time and one per turn of the event loop, so that a client that pipelines thousands neither starves
the others nor fills memory: reading stops while a response or a pipelined request waits.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import cast

import h11

from telemetryd.web import Response
from telemetryd.web.message import decode, encode, plain, refusal
from telemetryd.web.pool import Pool

_CHUNK = 64 * 1024  # of a response, copied into the transport at once
_MOST_DISCARDED = 1024 * 1024  # a guess: enough for an honest client to notice our answer
_CLIENT_GONE = 499  # the code under which a response is counted that was not taken, as nginx does
_BUSY_TEXT = b"503 Service Unavailable: too many connections\n"
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\nRetry-After: 5\r\nConnection: close\r\n\r\n%s"
) % (len(_BUSY_TEXT), _BUSY_TEXT)
_NOTHING = memoryview(b"")


class _Phase(Enum):
    HEADER = "header"
    IDLE = "idle"
    SENDING = "sending"
    DRAINING = "draining"


class Connection(asyncio.BufferedProtocol):
    """One client, from accept to close."""

    __slots__ = (
        "_deadline", "_discarded", "_head_only", "_http", "_paused", "_phase", "_pool", "_status",
        "_timer", "_transport", "_unsent",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._http = h11.Connection(h11.SERVER, pool.limits.header_bytes)
        self._phase = _Phase.HEADER
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._unsent = _NOTHING
        self._status = 0  # of the response under way; 0 for none
        self._head_only = False  # the request under way is a HEAD
        self._discarded = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # No buffer beside the chunk just written: pause_writing means that the client is behind.
        self._transport.set_write_buffer_limits(high=0)
        if self._pool.stopping:
            self._transport.abort()
        elif self._pool.admit(self):
            self._enter(_Phase.HEADER, self._pool.limits.header_timeout)
        else:
            self._transport.write(_BUSY)
            if self._pool.turn_away(self):
                self._drain()
            else:
                self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._pool.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._phase is _Phase.DRAINING:
            self._discarded += nbytes
            if self._discarded > _MOST_DISCARDED:
                self._transport.abort()
            return
        self._http.receive_data(bytes(self._pool.read_buffer[:nbytes]))
        self._advance()

    def eof_received(self) -> None:
        """The client has sent all it will; on return asyncio closes, once what is written is out.

        It may still read, but nothing is owed to it: reading stops while a response or a request
        waits, so this is heard only after the last of them.
        """
        self._http.receive_data(b"")
        if self._phase is not _Phase.DRAINING:
            self._advance()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        # Not from here: asyncio calls connection_lost twice for a transport closed inside this.
        self._pool.loop.call_soon(self._write)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._timer is not None:
            self._timer.cancel()
        if self._status:
            self._pool.answered(_CLIENT_GONE)
        self._unsent = _NOTHING
        self._pool.forget(self)

    # What the pool calls.

    def leave(self) -> None:
        """Close now if nothing is under way, otherwise after the response."""
        if self._phase is not _Phase.SENDING:
            self._transport.close()

    def drop(self, why: str) -> None:
        """Cut the connection off, and what is unsent with it."""
        if self._phase is _Phase.SENDING:
            peer = self._transport.get_extra_info("peername")
            self._pool.quiet.warning(
                "slow", f'msg="response not taken, client dropped" peer="{peer}" why="{why}"'
            )
        self._pool.release(self)
        self._unsent = _NOTHING  # now, not at the loop's next turn: many may be dropped in one
        self._transport.abort()

    # Deadlines. A later one leaves the timer armed and is noticed when that fires: a client that
    # scrapes every second costs no timer.

    def _enter(self, phase: _Phase, seconds: float) -> None:
        self._phase = phase
        self._deadline = self._pool.loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return
            self._timer.cancel()
        self._timer = self._pool.loop.call_at(self._deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._pool.loop.time() < self._deadline:
            self._timer = self._pool.loop.call_at(self._deadline, self._expire)
        elif self._phase is _Phase.HEADER and self._http.trailing_data[0]:
            self._send(plain(408), last=True)
        elif self._phase in (_Phase.HEADER, _Phase.IDLE):
            self._transport.close()
        else:
            self.drop("write deadline")

    # Requests.

    def _advance(self) -> None:
        """Answer the next request if it is here whole; otherwise wait for more of it."""
        if self._transport.is_closing():
            return
        try:
            event = self._http.next_event()
            if type(event) is h11.Request:
                self._answer(event)
            elif event is h11.NEED_DATA:
                if self._phase is _Phase.IDLE:
                    self._enter(_Phase.HEADER, self._pool.limits.header_timeout)
                self._transport.resume_reading()
            elif type(event) is h11.ConnectionClosed:
                self._transport.close()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            if status == 431 and b"\n" not in self._http.trailing_data[0]:
                status = 414
            self._send(plain(status), last=True)

    def _answer(self, event: h11.Request) -> None:
        """Send what the handler says, or why it was not asked."""
        self._head_only = event.method == b"HEAD"
        limits = self._pool.limits
        refused = refusal(event, limits.header_bytes, limits.target_bytes)
        if refused is not None:
            self._send(refused, last=True)
            return
        # A body is legal and means nothing here: it is not read, which ends the connection.
        last = type(self._http.next_event()) is not h11.EndOfMessage
        request = decode(event)
        try:
            head, body = encode(self._pool.handler(request), last=last)
        except Exception as error:  # noqa: BLE001  (the handler is not ours: its bugs end here)
            self._pool.handler_failed(request.path, error)
            head, body = encode(plain(500), last=last)
        self._begin(head, body)

    # Responses.

    def _send(self, response: Response, *, last: bool) -> None:
        self._begin(*encode(response, last=last))

    def _begin(self, head: h11.Response, body: memoryview) -> None:
        if self._head_only or head.status_code in (204, 304):
            body = _NOTHING
        start = self._http.send(head)
        if body:
            self._http.send_with_data_passthrough(h11.Data(data=cast("bytes", body)))
        self._http.send(h11.EndOfMessage())
        self._status = head.status_code
        self._unsent = body[_CHUNK:]
        self._transport.write(start + body[:_CHUNK])
        self._write()

    def _write(self) -> None:
        """Hand the kernel as much as it takes, then wait for the client or go on."""
        if not self._status:
            return
        while self._unsent and not self._paused and not self._transport.is_closing():
            chunk, self._unsent = self._unsent[:_CHUNK], self._unsent[_CHUNK:]
            self._transport.write(chunk)
        if self._transport.is_closing():
            return
        if not self._paused:
            self._sent()
        elif self._phase is not _Phase.SENDING:
            self._transport.pause_reading()
            self._enter(_Phase.SENDING, self._pool.limits.write_timeout)
            # The whole body stays in memory until its last chunk is out.
            body = len(cast("bytes", self._unsent.obj))
            self._pool.hold(self, body + self._transport.get_write_buffer_size())

    def _sent(self) -> None:
        self._pool.release(self)
        self._pool.answered(self._status)
        self._status = 0
        self._unsent = _NOTHING
        if self._http.their_state not in (h11.DONE, h11.MUST_CLOSE):
            self._drain()
        elif self._http.our_state is not h11.DONE or self._pool.stopping:
            self._transport.close()
        else:
            self._http.start_next_cycle()
            self._head_only = False
            self._enter(_Phase.IDLE, self._pool.limits.idle_timeout)
            if self._http.trailing_data[0]:  # the next request, or a part of it
                self._transport.pause_reading()
                self._pool.loop.call_soon(self._advance)
            else:
                self._transport.resume_reading()

    def _drain(self) -> None:
        """Say that we are done and wait a moment for the client to be done, too.

        Closing with input unread would reset the connection, and the reset can overtake the
        response (RFC 9112, 9.6).
        """
        self._enter(_Phase.DRAINING, self._pool.limits.linger_timeout)
        try:
            if self._transport.can_write_eof():
                self._transport.write_eof()
        except OSError:  # the client has reset the connection already
            self._transport.abort()
        self._transport.resume_reading()

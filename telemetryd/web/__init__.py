"""HTTP as the daemon speaks it: a handler takes a Request and returns a Response.

server.py listens; connection.py is one client. GET and HEAD only, no request bodies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """A GET or HEAD, whole and within the limits.

    `path` and `query` are as the client sent them: percent signs are not decoded, and the query is
    without its question mark. Header names are lower case; repeated ones are joined with ", ".
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back. Date, Content-Length and Connection are added by the server."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


# Called on the event loop, so it must not wait; what it raises becomes a 500.
Handler = Callable[[Request], Response]

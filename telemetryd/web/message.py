"""Between h11's events and our Request and Response."""

from __future__ import annotations

import time

import h11

from telemetryd.web import Request, Response

_PHRASES = {
    200: "OK", 204: "No Content", 301: "Moved Permanently", 302: "Found", 304: "Not Modified",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 408: "Request Timeout",
    414: "URI Too Long", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}  # fmt: skip
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def refusal(event: h11.Request, header_bytes: int, target_bytes: int) -> Response | None:
    """Why the handler is not asked about this request; None if it is."""
    if event.http_version[:2] != b"1.":
        return plain(505)
    if len(event.target) > target_bytes:
        return plain(414)
    if _size(event) > header_bytes:
        return plain(431)
    if event.method not in (b"GET", b"HEAD"):
        return plain(405, ("Allow", "GET, HEAD"))
    if _split(event.target) is None:
        return plain(400)
    return None


def decode(event: h11.Request) -> Request:
    """The request as a handler sees it; `refusal` has let it pass."""
    target = _split(event.target)
    assert target is not None
    headers: dict[str, str] = {}
    for name, value in event.headers:
        key = name.decode("ascii")
        text = value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return Request(event.method.decode("ascii"), *target, headers)


def encode(response: Response, *, last: bool) -> tuple[h11.Response, memoryview]:
    """The head as h11 wants it, and the body; raises whatever a malformed response provokes."""
    headers = [("Date", http_date(time.time()))]
    if response.body:
        headers.append(("Content-Type", response.content_type))
    if response.status != 204:  # which must not have one: RFC 9110, 8.6
        headers.append(("Content-Length", str(len(response.body))))
    headers += response.headers
    if last:
        headers.append(("Connection", "close"))
    reason = _PHRASES.get(response.status, "")
    head = h11.Response(status_code=response.status, headers=headers, reason=reason)
    return head, memoryview(response.body)


def plain(status: int, *headers: tuple[str, str]) -> Response:
    """The status and its name, for people who look at it with curl."""
    return Response(status, f"{status} {_PHRASES.get(status, '')}\n".encode(), headers=headers)


def http_date(epoch: float) -> str:
    """`epoch` seconds as the Date header has it, whatever the locale."""
    year, month, day, hour, minute, second, weekday = time.gmtime(epoch)[:7]
    return (
        f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} "
        f"{hour:02}:{minute:02}:{second:02} GMT"
    )


def _split(target: bytes) -> tuple[str, str] | None:
    """Path and query of a request target, in origin or absolute form; None for the other forms."""
    text = target.decode("latin-1")
    if not text.startswith("/"):
        scheme, _, rest = text.partition("://")
        if scheme.lower() not in ("http", "https"):
            return None
        text = "/" + rest.partition("/")[2]
    path, _, query = text.partition("?")
    return path, query


def _size(event: h11.Request) -> int:
    """Bytes of the request's header, as it came but for optional white space."""
    # The 14: " ", " HTTP/1.1" and the two line ends; the 4: ": " and the line end of a field.
    size = len(event.method) + len(event.target) + 14
    return size + sum(len(name) + len(value) + 4 for name, value in event.headers)

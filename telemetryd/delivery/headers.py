"""Headers of HTTP that an operator may add to requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# Set by the exporter, or by what sends the request.
_TAKEN = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-prometheus-remote-write-version",
    }
)


def check_names(names: Iterable[str]) -> None:
    """Raises ValueError for what is no name of a header, or is not an operator's to set."""
    seen: set[str] = set()
    for name in names:
        small = name.lower()
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is not the name of a header: letters, digits and -")
        if small in _TAKEN:
            raise ValueError(f"{name} is set by telemetryd itself: leave it out")
        if small in seen:
            raise ValueError(f"{name} stands here twice; capitals make no difference")
        seen.add(small)


def check_values(headers: Mapping[str, str]) -> None:
    """Raises ValueError for a value that cannot be sent, or that should not stand in a
    configuration."""
    for name, value in headers.items():
        if name.lower() in {"authorization", "proxy-authorization", "cookie"}:
            raise ValueError(f"{name} is a secret: put it into a file and name it in header_files")
        if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
            raise ValueError(f"the value of {name} must be plain ASCII, and not empty")

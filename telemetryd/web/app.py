"""What the endpoint answers: /metrics, /-/healthy, /-/ready and a page that names them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache

from telemetryd import __version__
from telemetryd.batch import Batch
from telemetryd.exporters.prometheus import Format, Renderer
from telemetryd.web import Request, Response

_INDEX = f"""telemetryd {__version__}

/metrics     for Prometheus
/-/healthy   the process answers
/-/ready     every collector has been sampled
"""
# Level 1: level 6 costs three times as much for a tenth less.
_GZIP_LEVEL = 1
# A scraper sends the same headers each time; there are few kinds of them.
_HEADERS_KEPT = 16
_GZIP_WINDOW = 31  # zlib's word for "with a gzip header"


class App:
    """Answers requests from the latest table; never waits for a sample.

    `live` gives the batches that are not stale; `serves_metrics` is the switch of the Prometheus
    exporter, which a reload may turn.
    """

    def __init__(self, live: Callable[[], Sequence[Batch]], is_ready: Callable[[], bool]) -> None:
        self.serves_metrics = True
        self._live = live
        self._is_ready = is_ready
        self._renderer = Renderer()

    def __call__(self, request: Request) -> Response:
        match request.path:
            case "/metrics" if self.serves_metrics:
                return self._metrics(request, self._live())
            case "/metrics":
                return Response(404, b"exporters.prometheus is switched off\n")
            case "/-/healthy":
                return Response(200, b"healthy\n")
            case "/-/ready":
                ready = self._is_ready()
                return Response(200 if ready else 503, b"ready\n" if ready else b"starting\n")
            case "/":
                return Response(200, _INDEX.encode())
        return Response(404, b"not found; /metrics is what you want\n")

    def _metrics(self, request: Request, batches: Sequence[Batch]) -> Response:
        form = negotiate(request.headers.get("accept", ""))
        body = self._renderer.render(batches, form)
        headers: tuple[tuple[str, str], ...] = (("Vary", "Accept, Accept-Encoding"),)
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
            body = packer.compress(body) + packer.flush()
            headers += (("Content-Encoding", "gzip"),)
        return Response(200, body, form.value, headers)


@lru_cache(_HEADERS_KEPT)
def negotiate(accept: str) -> Format:
    """OpenMetrics if it is asked for, in a version we speak, and not liked less than text."""
    liked = {Format.OPENMETRICS: 0.0, Format.TEXT: 0.0}
    for item in accept.split(","):
        media, options = _item(item)
        quality = _quality(options)
        if media == "application/openmetrics-text" and options.get("version", "1.0.0") in {
            "0.0.1",
            "1.0.0",
        }:
            liked[Format.OPENMETRICS] = max(liked[Format.OPENMETRICS], quality)
        elif media == "text/plain":
            liked[Format.TEXT] = max(liked[Format.TEXT], quality)
    wins = liked[Format.OPENMETRICS] > 0 and liked[Format.OPENMETRICS] >= liked[Format.TEXT]
    return Format.OPENMETRICS if wins else Format.TEXT


@lru_cache(_HEADERS_KEPT)
def accepts_gzip(accept_encoding: str) -> bool:
    """Whether gzip is named and not refused, or stands under a "*" (RFC 9110, 12.5.3)."""
    items = map(_item, accept_encoding.split(","))
    liked = {coding: _quality(options) for coding, options in items}
    return liked.get("gzip", liked.get("*", 0.0)) > 0


def _item(text: str) -> tuple[str, dict[str, str]]:
    """`text/plain; version="0.0.4"; q=0.5` apart: what is asked for, and its parameters."""
    media, *parameters = (part.strip() for part in text.lower().split(";"))
    options = dict(part.split("=", 1) for part in parameters if "=" in part)
    return media, {name: value.strip('"') for name, value in options.items()}


def _quality(options: dict[str, str]) -> float:
    try:
        return float(options.get("q", "1"))
    except ValueError:
        return 0.0

"""Durations and sizes in the configuration: a number, or a number with a unit."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BeforeValidator

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*\Z")


def _scale(value: object, units: dict[str, float], example: str) -> object:
    if isinstance(value, bool):
        raise ValueError(f"write a number or a text such as {example}")  # noqa: TRY004  (pydantic)
    if not isinstance(value, str):
        return value
    match = _QUANTITY.match(value)
    if match is None or match[2] not in units:
        raise ValueError(f"write a number with a unit of {', '.join(units)}, such as {example}")
    return float(match[1]) * units[match[2]]


def _seconds(value: object) -> object:
    return _scale(value, _SECONDS, '"10s"')


def _bytes(value: object) -> object:
    scaled = _scale(value, dict(_BYTES), '"64MiB"')
    if isinstance(value, str) and isinstance(scaled, float):
        if math.isinf(scaled):
            raise ValueError("is too large")
        return int(scaled)
    return scaled


# `10`, `0.5`, "500ms", "10s", "5m", "24h"
Seconds = Annotated[float, BeforeValidator(_seconds)]
# 1048576, "64MiB"
Bytes = Annotated[int, BeforeValidator(_bytes)]

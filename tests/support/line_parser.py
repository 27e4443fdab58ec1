r"""A strict parser of line protocol: takes only what every receiver reads alike.

Refused, beyond what is wrong by the documented grammar
(https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/): empty tag values, tags
out of order or twice, a field twice, the reserved names, values that are not finite floats, a
backslash before anything that makes its meaning depend on the receiver, control characters.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

RESERVED = {"time", "_field", "_measurement"}
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?\Z")
_TIME = re.compile(r"-?[0-9]{1,19}\Z")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Refused(ValueError):  # noqa: N818  (what a receiver says)
    """The text is not line protocol, or not the same to everybody."""


@dataclass(frozen=True)
class Line:
    measurement: str
    tags: dict[str, str]
    fields: dict[str, float]
    time_ns: int


def parse(data: bytes) -> list[Line]:
    """All lines, in order. Raises Refused."""
    text = data.decode("utf-8")
    if text and not text.endswith("\n"):
        raise Refused("the last line does not end")
    return [_line(line) for line in text.split("\n")[:-1]]


def _line(text: str) -> Line:
    if _CONTROL.search(text):
        raise Refused(f"control character in {text!r}")
    words = _split(text, " ")
    if len(words) != 3:
        raise Refused(f"not key, fields and time: {text!r}")
    key, fields, time = words
    measurement, *tags = _split(key, ",")
    if not measurement or measurement.startswith("#"):
        raise Refused(f"no measurement: {text!r}")
    if not _TIME.match(time):
        raise Refused(f"not a time: {time!r}")
    pairs = [_pair(tag) for tag in tags]
    if [name for name, _ in pairs] != sorted({name for name, _ in pairs}):
        raise Refused(f"tags twice or out of order: {text!r}")
    numbers: dict[str, float] = {}
    for field in _split(fields, ","):
        name, value = _pair(field)
        number = float(value) if _FLOAT.match(value) else math.nan
        if name in numbers or not math.isfinite(number):
            raise Refused(f"field twice or not a finite float: {field!r}")
        numbers[name] = number
    return Line(_unescape(measurement, ", "), dict(pairs), numbers, int(time))


def _pair(text: str) -> tuple[str, str]:
    halves = _split(text, "=")
    if len(halves) != 2 or not all(halves):
        raise Refused(f"not name=value: {text!r}")
    name, value = (_unescape(half, ",= ") for half in halves)
    if name in RESERVED:
        raise Refused(f"reserved name: {name}")
    return name, value


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that no backslash stands before."""
    return re.split(rf"(?<!\\){separator}", text)


def _unescape(text: str, special: str) -> str:
    if re.search(r"\\\\|\\\Z", text):
        raise Refused(f"backslash before a backslash or at the end: {text!r}")
    if re.search(rf"(?<!\\)[{special}]", text):
        raise Refused(f"not escaped: {text!r}")
    return re.sub(rf"\\([{special}])", r"\1", text)

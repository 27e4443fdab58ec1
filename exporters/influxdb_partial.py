"""How many points InfluxDB took of a body that it refused.

It stores the good lines around bad ones and answers 400 (InfluxDB 1 and 3), 422 (2) or 500 (2.0):

- `partial write: points beyond retention policy dropped=2` (1.x), `partial write: dropped 2 points
  outside retention policy ...` (2.7): the two oldest lines are not stored. 2.7 tells whether it was
  an upper bound; then it may be others.
- `partial write: field type conflict: ... dropped=1`, `partial write: max series ... dropped=1`:
  so many lines are not stored, but which ones is not told.
- `partial write: unable to parse '...': ... dropped=0`: nor are those that it could not read, one
  in each line of the message.
- `partial write of line protocol occurred` with a list of the first 100 lines that are not
  stored (3.x).

Where it does not tell which lines, those with the most points are assumed: what is counted as
stored then surely is. A line of ours has one point for each field. Seen with 1.6.7; of the others,
https://docs.influxdata.com/influxdb3/core/write-data/troubleshoot/ and answers that users report.
"""

from __future__ import annotations

import json
import re

from telemetryd.delivery.answer import LONGEST, message
from telemetryd.delivery.queue import Body

_PARTIAL = "partial write"
_DROPPED = re.compile(r"dropped[= ](\d{1,9})\b")
_RETENTION = re.compile("(?:beyond|outside) retention policy(?!.*Upper Bound)", re.DOTALL)
_MOST_LISTED = 100
_UNREADABLE = "unable to parse '"


def taken(body: Body, answer: bytes) -> int | None:
    """How many points of `body` the server took that answered this; None if it does not tell."""
    text = message(answer)
    if _PARTIAL not in text:
        return None
    # Time and number of points of each line.
    lines = [_time_and_points(line) for line in body.data.splitlines()]
    listed = _listed(answer)
    if len(listed) >= _MOST_LISTED:
        return None
    if listed:
        bad = {number - 1 for number in listed}
        return sum(points for row, (_, points) in enumerate(lines) if row not in bad)
    unreadable = text.count(_UNREADABLE)
    found = _DROPPED.search(text)
    if (unreadable and len(answer) >= LONGEST) or not (unreadable or found):
        return None
    dropped = unreadable + (int(found[1]) if found else 0)
    if _RETENTION.search(text) and not unreadable:
        lines.sort(key=lambda line: line[0])
    else:
        lines.sort(key=lambda line: -line[1])
    return sum(points for _, points in lines[dropped:])


def _time_and_points(line: bytes) -> tuple[int, int]:
    _, fields, time = line.rsplit(b" ", 2)
    return int(time), fields.count(b"=")


def _listed(answer: bytes) -> list[int]:
    """The numbers of the bad lines, from 1, in an answer of InfluxDB 3."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        return []
    rows = told.get("data") if isinstance(told, dict) else None
    if not isinstance(rows, list):
        return []
    numbers = [row.get("line_number") for row in rows if isinstance(row, dict)]
    return [number for number in numbers if isinstance(number, int)]

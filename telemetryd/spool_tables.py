"""What `telemetryd spool` prints: tables, and sheets of single bodies."""

from __future__ import annotations

from collections.abc import Sequence

from telemetryd.delivery.body_text import moment, printable
from telemetryd.delivery.quarantine import Quarantined
from telemetryd.delivery.spool_contents import Contents

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
# Characters of an answer that fit into a line of a list.
_ANSWER = 60


def sheet(name: str, entry: Quarantined) -> str:
    """What is known of a body, and an empty line."""
    rows = {
        "id": entry.id,
        "destination": f"{name} ({entry.kind})",
        "refused": moment(entry.when_ns),
        "reason": entry.reason,
        "status": str(entry.status) if entry.status else "no answer",
        "answer": entry.answer,
        "points": f"{entry.points}, the newest read {moment(entry.newest_ns)}",
        "size": f"{entry.size} bytes",
    }
    lines = [f"{title + ':':12} {printable(text).rstrip()}" for title, text in rows.items()]
    return "\n".join(lines).replace("\n\n", "\n") + "\n\n"


def quarantine_table(found: Sequence[tuple[str, Quarantined]]) -> str:
    """A line for each body, with the name of its destination."""
    titles = ("ID", "DESTINATION", "STATUS", "REASON", "POINTS", "SIZE", "ANSWER")
    return _table(
        titles,
        [
            (
                entry.id,
                name,
                str(entry.status or "-"),
                entry.reason,
                str(entry.points),
                _size(entry.size),
                _short(entry.answer),
            )
            for name, entry in found
        ],
    )


def status_table(found: Sequence[Contents], now_ns: int) -> str:
    """A line for each destination, and its remarks below the table."""
    titles = (
        *("DESTINATION", "KIND", "RECORDS", "SIZE", "OLDEST", "NEWEST", "ASIDE"),
        *("QUARANTINE", "REPLAY", "UNUSABLE"),
    )
    rows = [
        (
            one.name,
            one.kind or "-",
            str(one.records),
            _size(one.size),
            _age(one.oldest_ns, now_ns),
            _age(one.newest_ns, now_ns),
            str(one.set_aside),
            f"{one.quarantined} ({_size(one.quarantined_bytes)})" if one.quarantined else "0",
            str(one.to_replay),
            str(one.unusable),
        )
        for one in found
    ]
    remarks = [f"{one.name}: {printable(text)}\n" for one in found for text in one.remarks]
    return _table(titles, rows) + "".join(remarks)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [titles, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines) + "\n"


def _short(answer: str) -> str:
    line = " ".join(answer.split())
    return line if len(line) <= _ANSWER else f"{line[: _ANSWER - 3]}..."


def _size(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def _age(ns: int | None, now_ns: int) -> str:
    """How long ago that was; the time itself if it is ahead."""
    if ns is None:
        return "-"
    seconds = (now_ns - ns) // 10**9
    if seconds < 0:
        return moment(ns)
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    parts = [f"{days}d", f"{hours}h", f"{minutes}m", f"{seconds}s"]
    first = next((place for place, part in enumerate(parts) if part[:-1] != "0"), 3)
    return " ".join(parts[first : first + 2])

"""A whole daemon that pushes, and receivers that keep exactly what they have taken."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

from support.line_parser import parse
from support.receiver import LONGEST_S, OK, Reply, Request
from support.remote_write_reader import samples
from telemetryd.delivery.record import read_body, walk
from telemetryd.delivery.segment import PREAMBLE_SIZE

# What a push carries, whatever the protocol: a series, the time in nanoseconds, the value's bits.
Sample = tuple[frozenset[tuple[str, str]], int, float]

# Two collectors ten times a second, and nothing else.
COLLECTORS = "\n".join(
    [
        "[collectors]",
        *(
            f"{name}.enabled = false"
            for name in (
                *("pressure", "disk", "filesystem", "network", "tcp", "thermal", "rapl"),
                *("gpu_nvidia", "gpu_amd", "gpu_intel", "hwmon_power", "ipmi", "redfish"),
                *("owners", "system", "textfile"),
            )
        ),
        'cpu.interval = "100ms"',
        'memory.interval = "100ms"',
        "",
    ]
)


# In a row: the daemon waits longer after each.
_MOST_REFUSED = 3


def destination(kind: str, name: str, url: str, **more: object) -> str:
    """The table of a destination that is sent every reading, five times a second."""
    keys: dict[str, object] = {"type": kind, "url": url, "resolution": 0, "flush_interval": 0.2}
    if kind == "influxdb":
        keys["bucket"] = "b"
    keys |= more
    lines = [f"{key} = {value!r}".replace("'", '"') for key, value in keys.items()]
    return f"[exporters.{name}]\n" + "\n".join(lines) + "\n"


def spool(folder: Path) -> str:
    return f'[spool]\ndirectory = "{folder}"\nfree = 0\n'


def of_lines(body: bytes) -> set[Sample]:
    """The samples of a body in line protocol."""
    return {
        (frozenset({*line.tags.items(), ("", f"{line.measurement} {field}")}), line.time_ns, value)
        for line in parse(body)
        for field, value in line.fields.items()
    }


def of_messages(body: bytes) -> set[Sample]:
    """The samples of a body of remote write; values as their bits, times in milliseconds."""
    return {(frozenset(one.labels), one.ms, one.bits) for one in samples(body)}


def on_disk(spool: Path, name: str) -> list[bytes]:
    """Every whole body in the files of the destination `name`, sent or not."""
    found = []
    for path in sorted((spool / name).glob("*.seg")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            size = path.stat().st_size
            for offset, header in walk(descriptor, PREAMBLE_SIZE, size):
                body = read_body(descriptor, offset, header)
                assert body is not None
                found.append(body.data)
        finally:
            os.close(descriptor)
    return found


class Taker:
    """Judges requests: takes them, but for a share of `mischief`, and every fourth at least;
    `taken` are the bodies that were answered with 204."""

    def __init__(self, mischief: float = 0.0) -> None:
        self.taken: list[bytes] = []
        self.mischief = mischief
        self._random = random.Random(7)
        self._refused = 0
        self._changed = threading.Condition()

    def __call__(self, request: Request) -> Reply:
        if not request.body.strip():
            return OK
        if self._refused < _MOST_REFUSED and self._random.random() < self.mischief:
            self._refused += 1
            return self._random.choice([Reply(503), Reply(500), Reply(cut=True), Reply(reset=True)])
        self._refused = 0
        with self._changed:
            self.taken.append(request.body)
            self._changed.notify_all()
        return OK

    def wait_for_more(self, count: int) -> None:
        """Wait until it has taken so many more bodies."""
        with self._changed:
            goal = len(self.taken) + count
            assert self._changed.wait_for(lambda: len(self.taken) >= goal, LONGEST_S)

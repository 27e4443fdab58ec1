"""Spools on a real disk, with small bounds, and everything they give up."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.clock import START_WALL_NS, FakeClock
from telemetryd.clock import Clock
from telemetryd.delivery.queue import Body, Queue
from telemetryd.delivery.spool import Spool, open_spool
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.instruments import SPOOL_ERRORS, Instruments

KIND = "influxdb"
NAME = "far"


class Drops:
    """Counts what a queue gives up."""

    def __init__(self) -> None:
        self.points: Counter[str] = Counter()
        self.records: Counter[str] = Counter()

    def __call__(self, reason: str, points: int, records: int = 1) -> None:
        self.points[reason] += points
        self.records[reason] += records


class Kept:
    """A spool in `directory`, opened, with what it counts. `config` are keys of [spool]."""

    def __init__(
        self,
        directory: Path,
        *,
        kind: str = KIND,
        clock: Clock | None = None,
        drops: Drops | None = None,
        **config: object,
    ) -> None:
        self.directory = directory
        self.drops = drops or Drops()
        self.instruments = Instruments()
        self.clock = clock or FakeClock()
        self.spool: Spool = open_spool(
            str(directory),
            kind,
            SpoolConfig.model_validate({"free": 0, **config}),
            self.drops,
            self.instruments,
            NAME,
            self.clock,
        )

    @property
    def errors(self) -> float:
        """What SPOOL_ERRORS shows."""
        shown = {series.metric: value for series, value in self.instruments.points()}
        return shown[SPOOL_ERRORS]

    def drain(self) -> list[Body]:
        """Acknowledge everything; returns it."""
        return list(drain(self.spool))

    def crash(self, to: Path) -> Path:
        """What a kill -9 would leave behind at this moment, in the folder `to`."""
        # What is written beside the cursor may be gone before it is copied.
        with self.spool._lock:  # its thread deletes segments
            shutil.copytree(self.directory, to, ignore=shutil.ignore_patterns(".cursor.*"))
        return to


def drain(queue: Queue) -> Iterator[Body]:
    while (body := queue.peek()) is not None:
        yield body
        queue.acknowledge()


def body(number: int, size: int = 100, points: int | None = None, age: float = 0.0) -> Body:
    """A body that can be told from others, with `number` points unless told, read `age` seconds
    before the fake clock starts."""
    text = b"%d;" % number
    data = text * (size // len(text)) + text[: size % len(text)]
    return Body(data, number if points is None else points, START_WALL_NS - int(age * 1e9))


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    """Every write to a segment ends with this error."""

    def fail(descriptor: int, parts: list[bytes], offset: int) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", fail)
        yield


def same(bodies: list[Body]) -> list[tuple[bytes, int, int]]:
    """To compare: bodies themselves are only equal to themselves."""
    return [(one.data, one.points, one.newest_ns) for one in bodies]


def tree(directory: Path) -> dict[str, bytes]:
    """The files of a spool as they lie there, without the lock."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def plant(directory: Path, files: dict[str, bytes]) -> Path:
    """Put `files` into `directory`, and nothing else."""
    shutil.rmtree(directory, ignore_errors=True)
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory

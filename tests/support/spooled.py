"""Folders of a spool as a daemon leaves them, and the command that looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from support.clock import FakeClock
from telemetryd.cli import main
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import Body
from telemetryd.delivery.spool import Spool, open_spool
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.instruments import Instruments

SECOND = 10**9
# 2026-03-01T12:00:00Z
NOON = 1772366400 * SECOND


def body(number: int = 1, points: int = 2) -> Body:
    """The body with this number: lines of `points` points, read that many seconds after noon."""
    at = NOON + number * SECOND
    text = "".join(f"telemetryd_cpu,cpu={cpu} load=0.{number} {at}\n" for cpu in range(points))
    return Body(text.encode(), points, at)


def opened(folder: Path, kind: str = "influxdb") -> Spool:
    """The spool in this folder, as the daemon has it open."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    config = SpoolConfig(free=0)
    return open_spool(str(folder), kind, config, _no_drop, Instruments(), folder.name, FakeClock())


def _no_drop(reason: str, points: int, records: int = 1) -> None:
    raise AssertionError(f"{records} dropped: {reason}")


def fill(folder: Path, bodies: Sequence[Body], kind: str = "influxdb") -> Path:
    """What a daemon leaves behind that got these bodies and could send none; the last file."""
    spool = opened(folder, kind)
    for one in bodies:
        spool.put(one)
    spool.close()
    return max(folder.glob("*.seg"), default=folder)


def quarantined(
    folder: Path, one: Body, *, kind: str = "influxdb", answer: str = "field type conflict"
) -> str:
    """Put a body into the quarantine of a destination, a second after it was read; its ID."""
    kept = Quarantine(str(folder), 1 << 20)
    before = {entry.id for entry in kept.list()}
    kept.add(one, kind, "refused", 400, answer, one.newest_ns + SECOND)
    (new,) = {entry.id for entry in kept.list()} - before
    return new


class Shell:
    """An operator's shell: a spool, a configuration that has it and two destinations."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.spool = folder / "spool"
        self._capsys = capsys
        self._file = folder / "telemetryd.toml"
        self.configure(
            f"""
            [spool]
            directory = "{self.spool}"
            [exporters.influxdb]
            url = "http://127.0.0.1:9"
            bucket = "telemetry"
            [exporters.second]
            type = "influxdb"
            url = "http://127.0.0.1:9"
            bucket = "telemetry"
            """
        )

    def configure(self, text: str) -> None:
        self._file.write_text(text)

    def run(self, *words: str, status: int = 0) -> str:
        """What `telemetryd spool WORDS` prints; what it complains about if `status` is not 0."""
        found = main(["spool", *words, "--config", str(self._file)])
        printed = self._capsys.readouterr()
        assert found == status, printed
        return printed.err if status else printed.out

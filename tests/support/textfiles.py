"""The textfile collector on a folder, and what it says."""

from __future__ import annotations

from pathlib import Path

from support.clock import FakeClock
from support.trees import host_at
from telemetryd.batch import Batch
from telemetryd.collectors.textfile import Textfile, TextfileConfig
from telemetryd.exporters.prometheus import Format, Renderer
from telemetryd.metric import Point

FOLDER = "root/var/lib/telemetryd/textfile/"


def collector(tmp_path: Path, clock: FakeClock | None = None, **config: object) -> Textfile:
    return Textfile(TextfileConfig(**config), host_at(tmp_path, clock))


def faults_of(collector: Textfile) -> list[tuple[str, str]]:
    """What the collector reports from now on."""
    found: list[tuple[str, str]] = []
    collector.on_fault = lambda reason, what: found.append((reason, what))
    return found


def site(values: dict[str, float]) -> dict[str, float]:
    """Without what the daemon says of the files themselves."""
    return {name: v for name, v in values.items() if not name.startswith("telemetryd_textfile_")}


def pages_of(points: list[Point]) -> dict[Format, str]:
    series, values = zip(*points, strict=True) if points else ((), ())
    batch = Batch("textfile", 0, 0, 15.0, series, values)
    return {form: Renderer().render([batch], form).decode() for form in Format}


def ok(name: str) -> str:
    return f'telemetryd_textfile_ok{{file="{name}"}}'

"""Trees of files that stand for a machine's /proc, /sys and /."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from support.clock import FakeClock
from telemetryd.batch import Batch, LatestTable
from telemetryd.collector import Collector
from telemetryd.derivation import Derivation
from telemetryd.host import Host
from telemetryd.metric import Point

FIXTURES = Path(__file__).parent.parent / "fixtures"
RECORDED = Path(__file__).parent.parent.parent.parent / "shared" / "data"


def write_tree(root: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files below `root`; names are relative, such as proc/stat."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def host_at(root: Path, clock: FakeClock | None = None) -> Host:
    """A host whose trees are proc/, sys/ and root/ below `root`."""
    return Host(
        procfs=str(root / "proc"),
        sysfs=str(root / "sys"),
        rootfs=str(root / "root"),
        clock=clock or FakeClock(),
    )


def values_of(collector: Collector) -> dict[str, float]:
    """One sample, by the series as text: {'telemetryd_cpu_load{minutes="1"}': 0.5}."""
    return named(collector.sample())


def named(points: object) -> dict[str, float]:
    """Points by the text of their series; fails if one occurs twice."""
    result: dict[str, float] = {}
    for series, value in points:  # type: ignore[attr-defined]
        assert repr(series) not in result, f"{series!r} twice"
        result[repr(series)] = value
    return result


class Bench:
    """Feeds a derivation with points by hand, batch after batch, on a fake clock."""

    def __init__(self, derivation: Derivation, interval: float = 1.0) -> None:
        self.derivation = derivation
        self.clock = FakeClock()
        self.latest = LatestTable()
        self.interval = interval
        self._layout: tuple[object, ...] = ()

    def feed(
        self, points: list[Point], after: float = 1.0, collector: str = "c"
    ) -> dict[str, float]:
        """Let `after` seconds pass, give these points, and return what is derived from them."""
        self.clock.tick(after)
        series = tuple(s for s, _ in points)
        if series == self._layout:
            series = self._layout  # type: ignore[assignment]
        self._layout = series
        batch = Batch(
            collector,
            self.clock.wall_ns(),
            self.clock.mono_ns(),
            self.interval,
            series,
            tuple(v for _, v in points),
        )
        return named(self.derivation.update(batch, self.latest))

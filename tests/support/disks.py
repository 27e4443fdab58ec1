"""Disks as /proc/diskstats and /sys/block show them."""

from __future__ import annotations

from pathlib import Path

from support.clock import FakeClock
from support.trees import host_at
from telemetryd.collectors.disk import Disk, DiskConfig

Faults = list[tuple[str, str]]

# reads merged sectors ms, writes merged sectors ms, in flight, io ms, weighted ms; discards (4.18);
# flushes (5.5).
SDA = "100 1 2048 300 50 2 4096 700 3 900 1000 7 4 8192 60 9 11"
IDLE = " ".join(["0"] * 17)


def diskstats(columns: int = 20, **rows: str) -> str:
    """The text of /proc/diskstats as a kernel with this many columns prints it."""
    return "".join(
        f"{8:4} {minor:7} {name} {' '.join(numbers.split()[: columns - 3])}\n"
        for minor, (name, numbers) in enumerate(rows.items())
    )


def blocks(*names: str) -> dict[str, str | bytes]:
    """/sys/block with whole disks of these names."""
    return {f"sys/block/{name}/size": "2048\n" for name in names}


def disk_at(
    root: Path, clock: FakeClock | None = None, **config: tuple[str, ...]
) -> tuple[Disk, Faults]:
    """The collector on a tree, and the faults it reports."""
    faults: Faults = []
    disk = Disk(DiskConfig(**config), host_at(root, clock))
    disk.on_fault = lambda reason, what: faults.append((reason, what))
    return disk, faults

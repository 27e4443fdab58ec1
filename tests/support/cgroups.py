"""Control groups on disk that count as the kernel's do: what a group uses, those above it use too,
and go on having used when it is gone."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support.clock import FakeClock
from support.trees import host_at
from telemetryd.host import Host

_TICKS = os.sysconf("SC_CLK_TCK")


class Cgroups:
    """A machine of version 2 with nothing but control groups, and a /proc/stat that knows of what
    they use. `root` is where its proc/ and sys/ are."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()
        self._groups = root / "sys/fs/cgroup"
        self._groups.mkdir(parents=True)
        (self._groups / "cgroup.controllers").write_text("cpu memory\n")
        self._busy = 0.0
        (root / "proc").mkdir()
        self.spend(0)

    @property
    def host(self) -> Host:
        return host_at(self.root, self.clock)

    def make(self, path: str, memory: int | None = None) -> None:
        """A group and those above it, which have used nothing yet."""
        folder = self._groups / path
        folder.mkdir(parents=True, exist_ok=True)
        while folder != self._groups:
            if not (folder / "cpu.stat").exists():
                self._set(folder, 0)
            folder = folder.parent
        if memory is not None:
            (self._groups / path / "memory.current").write_text(f"{memory}\n")

    def use(self, path: str, seconds: float) -> None:
        """What is used in a group is used in those above it."""
        folder = self._groups / path
        while folder != self._groups:
            used_us = int((folder / "cpu.stat").read_text().split()[1])
            self._set(folder, used_us + round(seconds * 1e6))
            folder = folder.parent
        self.spend(seconds)

    def spend(self, seconds: float) -> None:
        """Time that no group used, such as of the kernel itself."""
        self._busy += seconds
        busy = round(self._busy * _TICKS)
        (self.root / "proc/stat").write_text(f"cpu  {busy} 0 0 {10 * busy} 0 0 0 0 0 0\n")

    def end(self, path: str) -> None:
        shutil.rmtree(self._groups / path)

    def _set(self, folder: Path, used_us: int) -> None:
        (folder / "cpu.stat").write_text(f"usage_usec {used_us}\nuser_usec 0\nsystem_usec 0\n")

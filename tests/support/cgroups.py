"""Control groups and processes on disk that count as the kernel's do: what a group uses, those
above it use too, and go on having used when it is gone. A process counts in whole ticks."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from support.clock import FakeClock
from support.trees import host_at
from telemetryd.host import Host

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class _Process:
    command: str
    group: str
    resident: int
    started: int
    is_kernels: bool
    seconds: float = 0.0


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
        self._processes: dict[int, _Process] = {}
        self._started = 0
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

    def start(
        self, pid: int, command: str, group: str, *, resident: int = 0, is_kernels: bool = False
    ) -> None:
        """A process, or a thread of the kernel, in a group that is there; "" is the root."""
        self._started += 1
        self._processes[pid] = _Process(command, group, resident, self._started, is_kernels)
        (self.root / f"proc/{pid}").mkdir(exist_ok=True)
        self._write(pid)

    def work(self, pid: int, seconds: float) -> None:
        """The process uses CPU time, and its group with it."""
        process = self._processes[pid]
        self.use(process.group, seconds)
        process.seconds += seconds
        self._write(pid)

    def change(self, pid: int, *, command: str | None = None, group: str | None = None) -> None:
        """The process takes another name, or is moved to another group."""
        process = self._processes[pid]
        process.command = process.command if command is None else command
        process.group = process.group if group is None else group
        self._write(pid)

    def exit(self, pid: int) -> None:
        del self._processes[pid]
        shutil.rmtree(self.root / f"proc/{pid}")

    def _write(self, pid: int) -> None:
        process = self._processes[pid]
        ticks = int(round(process.seconds * 1e6) * _TICKS / 1e6)
        flags = 0x0020_8040 if process.is_kernels else 0x0040_0000
        pages = process.resident // os.sysconf("SC_PAGE_SIZE")
        folder = self.root / f"proc/{pid}"
        (folder / "cgroup").write_text(f"0::/{process.group}\n")
        (folder / "stat").write_text(
            f"{pid} ({process.command}) S 1 1 1 0 -1 {flags} 1 0 0 0 {ticks // 2} "
            f"{ticks - ticks // 2} 0 0 20 0 1 0 {process.started} 1 {pages} 1 1 1 0 0 0\n"
        )

    def _set(self, folder: Path, used_us: int) -> None:
        (folder / "cpu.stat").write_text(f"usage_usec {used_us}\nuser_usec 0\nsystem_usec 0\n")

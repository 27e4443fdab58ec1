"""The machine as a collector sees it: where its /proc, /sys and / are, its clocks, and the rule by
which it is told whose a process is.

Everything a collector opens goes through here, so that `--procfs`, `--sysfs` and `--rootfs` point
all of them at a fixture, a container's host or a synthetic tree.

Hot files are kept open and read again with pread: opening costs about ten times the read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from telemetryd.clock import Clock

_PAGE = 4096


class Attribute:
    """A small file that is read again and again, in one pread: a sysfs attribute (at most a page
    long by sysfs(5)'s rule), or a procfs file that surely fits `size`.

    `read` raises OSError; a device that was replaced answers ENODEV on the old descriptor, which
    is then closed, so that the next read opens the new one.
    """

    __slots__ = ("_fd", "_size", "path")

    def __init__(self, path: str, size: int = _PAGE) -> None:
        self.path = path
        self._size = size
        self._fd = -1

    def read(self) -> bytes:
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(self._fd, self._size, 0)
        except OSError as error:
            self.close()
            error.filename = self.path
            raise

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class Table(Attribute):
    """A file of any length. The kernel hands out long /proc files a buffer at a time, so it is
    read until the end is seen."""

    __slots__ = ()

    def read(self) -> bytes:
        data = super().read()
        if not data:
            return data
        parts = [data]
        offset = len(data)
        try:
            while data := os.pread(self._fd, self._size, offset):
                parts.append(data)
                offset += len(data)
        except OSError as error:
            self.close()
            error.filename = self.path
            raise
        if offset > self._size:
            self._size = offset + offset // 4 + _PAGE
        return b"".join(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True, slots=True)
class Ownership:
    """The rule by which telemetryd.owners tells whose a process is, one for the whole machine.

    A process whose command fits one of the shell patterns `commands` belongs to its command, every
    other to the owner of its control group: of a Slurm job, or with `slurm_steps` of a step.
    """

    commands: tuple[str, ...] = ()
    slurm_steps: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """Roots of the trees to read, the clock, and the rule of who owns what. Paths given to the
    methods are relative."""

    procfs: str = "/proc"
    sysfs: str = "/sys"
    rootfs: str = "/"
    clock: Clock = field(default_factory=Clock, compare=False)
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    ownership: Ownership = Ownership()

    def proc(self, *parts: str) -> str:
        return os.path.join(self.procfs, *parts)

    def sys(self, *parts: str) -> str:
        return os.path.join(self.sysfs, *parts)

    def root(self, path: str) -> str:
        """Where the absolute path `path` of the watched machine lies for us."""
        return os.path.join(self.rootfs, path.lstrip("/")) if self.rootfs != "/" else path

    @property
    def is_live(self) -> bool:
        """Whether this is the machine we run on: only then do its system calls speak of it."""
        return self.procfs == "/proc" and self.sysfs == "/sys" and self.rootfs == "/"

    def read(self, path: str) -> bytes:
        """The whole of a file that is read once or rarely. Raises OSError."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while data := os.read(fd, 65536):
                parts.append(data)
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(fd)
        return b"".join(parts)

    def text(self, path: str) -> str:
        """A short attribute as text, stripped. Bytes that are not UTF-8 stay as surrogates, which
        `Metric.at` turns into escapes. Raises OSError."""
        return os.fsdecode(self.read(path)).strip()

    def names(self, path: str) -> list[str]:
        """The entries of a directory, sorted; none if it is not there. Other errors are raised."""
        try:
            return sorted(os.listdir(path))
        except (FileNotFoundError, NotADirectoryError):
            return []

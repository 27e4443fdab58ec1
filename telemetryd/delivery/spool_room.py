"""How much a spool may take of the file system that it lies in."""

from __future__ import annotations

import os

from telemetryd.delivery.spool_config import SpoolConfig

# File systems whose files are memory, as a diskless node has them.
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "rootfs", "devtmpfs"})
MOST_IN_MEMORY = 128 << 20
_FREE_SHARE = 0.05
_MOST_FREE = 1 << 30


class Room:
    """The bounds that `config` sets for a spool in `directory`. `most` is that in bytes which does
    not depend on how full the file system is."""

    def __init__(self, directory: str, config: SpoolConfig) -> None:
        self._directory = directory
        self._free = config.free
        is_in_memory = file_system(directory) in _IN_MEMORY
        self.most = min(config.bytes, MOST_IN_MEMORY) if is_in_memory else config.bytes

    def limit(self, used: int) -> int:
        """Most bytes that the spool may have, of which it has `used` now. Raises OSError."""
        status = os.statvfs(self._directory)
        if not status.f_blocks:
            # A file system without a size, such as ramfs.
            return self.most
        total = status.f_blocks * status.f_frsize
        left = min(int(total * _FREE_SHARE), _MOST_FREE) if self._free is None else self._free
        return max(0, min(self.most, used + status.f_bavail * status.f_frsize - left))


def file_system(path: str) -> str | None:
    """The type of the file system that `path` is in, from /proc/self/mountinfo (proc.rst); None if
    that does not tell."""
    try:
        device = os.stat(path).st_dev
        with open("/proc/self/mountinfo", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    wanted = b"%d:%d" % (os.major(device), os.minor(device))
    for line in lines:
        fields, _, more = line.partition(b" - ")
        if fields.split(b" ", 3)[2] == wanted:
            return more.split(b" ", 1)[0].decode("ascii", "replace")
    return None

"""Files of a spool that cannot be used, set aside for an operator: at most 64 MiB of them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from telemetryd.delivery.spool_files import make_folder

FOLDER = "unusable"
_LIMIT = 64 << 20


def put_aside(path: str) -> str:
    """Move `path` to the folder `unusable` next to it, whatever it is; returns where it is now. The
    oldest there are deleted when they become too many. Raises OSError."""
    directory, name = os.path.split(path)
    folder = os.path.join(directory, FOLDER)
    make_folder(folder)
    target = os.path.join(folder, name)
    count = 0
    while os.path.lexists(target):
        count += 1
        target = os.path.join(folder, f"{name}.{count}")
    os.rename(path, target)
    # The ring goes by when a file came here; renaming leaves the other times as they were.
    _trim(folder, target)
    return target


def _trim(folder: str, newest: str) -> None:
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode) and entry.path != newest:
                    files.append((status.st_ctime_ns, entry.path, status.st_size))
    left = sum(size for _, _, size in files) + os.lstat(newest).st_size
    for _, path, size in sorted(files):
        if left <= _LIMIT:
            return
        with suppress(OSError):
            os.unlink(path)
            left -= size

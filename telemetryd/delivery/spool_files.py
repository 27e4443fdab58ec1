"""What the parts of the spool ask of the file system: folders and files of its owner alone,
written to the disk before they count, never through a link that someone else put there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
# Ends the name of a file that is being written, which begins with a dot.
UNFINISHED = "new"
# A link is not followed; a pipe where a file should be must not hang the daemon.
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def opened_folder(path: str, above: int | None = None) -> Iterator[int]:
    """A descriptor of the folder `path`, which lies in the one that `above` is a descriptor of. It
    is that folder and no other whatever is renamed meanwhile. Raises OSError, also for a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _SAFE, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(path: str) -> None:
    """Make the folder `path` if it is missing, with the owner of the folder around it: a command
    that root runs must leave nothing behind that the daemon cannot use. Raises OSError."""
    above, name = os.path.split(path)
    descriptor = os.open(above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        make_folder_in(descriptor, name)
    finally:
        os.close(descriptor)


def make_folder_in(above: int, name: str) -> None:
    """The same for `name` in the folder that `above` is a descriptor of."""
    try:
        os.mkdir(name, _FOLDER_MODE, dir_fd=above)
    except FileExistsError:
        return
    with opened_folder(name, above) as made:
        _give_to_owner_of(above, made)
    os.fsync(above)


def make_folders(path: str) -> None:
    """Make the folder `path` and every folder above it that is missing. Raises OSError."""
    above = os.path.dirname(path)
    if above and above != path and not os.path.isdir(above):
        make_folders(above)
    make_folder(path)


def _give_to_owner_of(folder: str | int, descriptor: int) -> None:
    """By descriptor: under its name something else may lie by now."""
    if os.geteuid() == 0:
        owner = os.stat(folder)
        with suppress(PermissionError):  # a file system that knows no owners, or a user namespace
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def sync_folder(path: str) -> None:
    """Names in the folder `path` survive a loss of power from now on. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(path: str) -> int:
    """A descriptor of the new file `path`, to read and write. Raises OSError, FileExistsError."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, _FILE_MODE)
    try:
        _give_to_owner_of(os.path.dirname(path), descriptor)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def open_lock(path: str) -> int:
    """A descriptor of the file `path`, which is made if it is missing. Raises OSError."""
    try:
        return create(path)
    except FileExistsError:
        return os.open(path, os.O_RDWR | _SAFE)


def open_regular(path: str) -> int:
    """A descriptor to read the file `path`. Raises OSError; ValueError if it is no plain file."""
    descriptor = os.open(path, os.O_RDONLY | _SAFE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("not a plain file")
    return descriptor


def read_regular(path: str) -> bytes:
    """All of the file `path`. Raises OSError; ValueError if it is no plain file."""
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read()


def write_all(descriptor: int, data: bytes) -> None:
    """Write `data` at the end of what was written, however many calls it takes. Raises OSError,
    with a part of it possibly written."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def write_beside(path: str, data: bytes, suffix: str, *, sync: bool) -> str:
    """Write `data` to a file next to `path`, to be renamed to it; returns that file's name. Raises
    OSError, and leaves nothing then."""
    folder, name = os.path.split(path)
    unfinished = os.path.join(folder, f".{name}.{suffix}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _SAFE
    descriptor = os.open(unfinished, flags, _FILE_MODE)
    try:
        try:
            _give_to_owner_of(folder, descriptor)
            write_all(descriptor, data)
            if sync:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    except OSError:
        with suppress(OSError):
            os.unlink(unfinished)
        raise
    return unfinished


def replace(path: str, data: bytes) -> None:
    """Put `data` in the place of the file `path`, on the disk when this returns: a reader sees the
    old or the new, never a part. Raises OSError and leaves the old one."""
    os.rename(write_beside(path, data, UNFINISHED, sync=True), path)
    sync_folder(os.path.dirname(path))

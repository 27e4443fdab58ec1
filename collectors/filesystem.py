"""Size, free space and inodes of local filesystems, and whether they are read-only.

The mount table is /proc/1/mountinfo (Documentation/filesystems/proc.rst, 3.5): in a hardened unit
our own shows every mount as read-only. Sizes come from statvfs(3), which hangs for good on a dead
disk or server, so only local types are asked, and in a thread that may be given up.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from posixpath import dirname
from typing import NamedTuple

from pydantic import Field

from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.duration import Seconds
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Host, Table
from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.worker import Relay

# Filesystems on this machine's own disks, and in its memory: data loaders fill /dev/shm. Left out
# are network filesystems (they hang, and every node would report the same one), the kernel's
# pseudo filesystems, images that are always full, and overlay, which is a view of its upper one.
LOCAL_TYPES = (
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "nilfs2", "reiserfs",
    "vfat", "exfat", "ntfs", "ntfs3", "fuseblk", "tmpfs",
)  # fmt: skip
# Mounts that come and go with sessions, services and containers.
TRANSIENT = (
    "/run/user/*", "/run/credentials/*", "/run/containerd/*", "/run/docker/*", "/run/netns*",
    "/var/lib/docker/*", "/var/lib/containers/*", "/var/lib/containerd/*",
    "/var/lib/kubelet/pods/*", "/sys/*", "/proc/*",
)  # fmt: skip
# A run must end before the lane gives the whole collector up, which it does after half of the
# interval and at most 5 s.
_DEADLINE_INTERVALS = 0.4
_LONGEST_DEADLINE_S = 4.0

_LABELS = ("mountpoint", "device", "type")
_STATVFS = "statvfs(3)"
_MOUNTINFO = "/proc/1/mountinfo, proc_pid_mountinfo(5)"

SIZE = Metric(
    "filesystem", "size", Kind.GAUGE, Unit.BYTES,
    "Size of each local filesystem.", f"{_STATVFS} f_blocks", _LABELS,
)  # fmt: skip
FREE = Metric(
    "filesystem", "free", Kind.GAUGE, Unit.BYTES,
    "Free space, with what is reserved for root.", f"{_STATVFS} f_bfree", _LABELS,
)  # fmt: skip
AVAILABLE = Metric(
    "filesystem", "available", Kind.GAUGE, Unit.BYTES,
    "Free space that is not reserved for root.", f"{_STATVFS} f_bavail", _LABELS,
)  # fmt: skip
FILES = Metric(
    "filesystem", "files", Kind.GAUGE, Unit.NONE,
    "Inodes of the filesystem; absent where their number is not fixed.",
    f"{_STATVFS} f_files", _LABELS,
)  # fmt: skip
FILES_FREE = Metric(
    "filesystem", "files_free", Kind.GAUGE, Unit.NONE,
    "Inodes that are free; absent where their number is not fixed.",
    f"{_STATVFS} f_ffree", _LABELS,
)  # fmt: skip
READ_ONLY = Metric(
    "filesystem", "read_only", Kind.GAUGE, Unit.NONE,
    "1 if the filesystem or its mount is read-only, 0 if not.", _MOUNTINFO, _LABELS,
)  # fmt: skip
DEVICE_ERROR = Metric(
    "filesystem", "device_error", Kind.GAUGE, Unit.NONE,
    "1 if the filesystem gives no sizes (stuck, failing or hidden from the daemon), 0 if it does.",
    _STATVFS, _LABELS,
)  # fmt: skip

_HIDDEN = ReadError(
    "missing", "the daemon finds another filesystem there; its unit or rootfs hides this one"
)
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class FilesystemConfig(CollectorConfig, Filters):
    """include and exclude are patterns of mount points."""

    interval: Seconds = Field(10.0, ge=0.05, le=3600, description="time between two samples")
    include: tuple[str, ...] = Field(
        ("*",), description="shell patterns of the mount points to watch"
    )
    exclude: tuple[str, ...] = Field(
        TRANSIENT, description="shell patterns of the mount points to leave alone"
    )
    types: tuple[str, ...] = Field(
        LOCAL_TYPES, description="shell patterns of the filesystem types to watch"
    )
    exclude_types: tuple[str, ...] = Field(
        (), description="shell patterns of the filesystem types to leave alone"
    )

    def wants_type(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.types) and not any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.exclude_types
        )


class Mount(NamedTuple):
    """A row of the mount table. `device` is the major:minor number of the filesystem."""

    number: bytes
    parent: bytes
    device: str
    path: str
    is_read_only: bool
    has_read_only_source: bool
    type: str
    source: str


def mounts_of(table: bytes) -> Iterator[Mount]:
    """The rows of a mountinfo. Raises ValueError for one that is not like this:

    36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    """
    for line in table.split(b"\n"):
        if not line:
            continue
        ours, separator, theirs = line.partition(b" - ")
        fields, source = ours.split(b" "), theirs.split(b" ", 2)
        if not separator or len(fields) < 6 or len(source) != 3:
            raise ValueError(f"not a row of a mount table: {line!r}")
        yield Mount(
            number=fields[0],
            parent=fields[1],
            device=fields[2].decode("ascii"),
            path=_text(fields[4]),
            is_read_only=b"ro" in fields[5].split(b","),
            has_read_only_source=b"ro" in source[2].split(b","),
            type=_text(source[0]),
            source=_text(source[1]),
        )


def _text(field: bytes) -> str:
    """A field without the kernel's octal escapes; bytes that are not UTF-8 stay as surrogates."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field))


def visible(mounts: Iterable[Mount]) -> dict[str, Mount]:
    """What a path lookup finds at each mount point: the last mount where several are stacked,
    and none that lies below a directory over which something else was mounted later."""
    mounts = list(mounts)
    rows = {mount.number: mount for mount in mounts}
    taken: dict[bytes, set[str]] = {}
    for mount in mounts:
        # The root of all may name itself as its parent.
        if mount.parent != mount.number:
            taken.setdefault(mount.parent, set()).add(mount.path)

    def is_hidden(mount: Mount) -> bool:
        beside = taken.get(mount.parent, ())
        return any(above in beside for above in _above(mount.path))

    found: dict[str, Mount] = {}
    for mount in mounts:
        chain = [mount]
        # A table that we read halfway through a change might have a circle.
        while len(chain) <= len(rows) and (parent := rows.get(chain[-1].parent)) is not None:
            if parent is chain[-1]:
                break
            chain.append(parent)
        is_covered = mount.path in taken.get(mount.number, ())
        if not is_covered and not any(map(is_hidden, chain)):
            found[mount.path] = mount
    return found


def _above(path: str) -> Iterator[str]:
    """The directories above an absolute path, nearest first."""
    while path not in {"/", ""}:
        path = dirname(path)
        yield path


def _at(mounts: Mapping[str, Mount], path: str) -> Mount | None:
    """The mount on which `path` lies."""
    return next((mounts[p] for p in (path, *_above(path)) if p in mounts), None)


class _Row:
    """A filesystem that is watched, with its series prepared."""

    __slots__ = ("error", "inodes", "is_seen", "key", "mount", "read_only", "space")

    def __init__(self, mount: Mount, is_seen: bool) -> None:
        labels = (mount.path, mount.source, mount.type)
        self.mount = mount
        self.is_seen = is_seen
        # With the device, because what is mounted there next is not stuck as this one may be.
        self.key = (mount.device, mount.path)
        self.space: tuple[Series, ...] = (SIZE.at(*labels), FREE.at(*labels), AVAILABLE.at(*labels))
        self.inodes: tuple[Series, ...] = (FILES.at(*labels), FILES_FREE.at(*labels))
        self.read_only = READ_ONLY.at(*labels)
        self.error = DEVICE_ERROR.at(*labels)


class Filesystem(Collector):
    """Raises Unavailable if no mount table is readable."""

    Config = FilesystemConfig
    config: FilesystemConfig
    metrics = (SIZE, FREE, AVAILABLE, FILES, FILES_FREE, READ_ONLY, DEVICE_ERROR)
    may_block = True

    def __init__(self, config: FilesystemConfig, host: Host) -> None:
        super().__init__(config, host)
        self._own = Table(host.proc("self/mountinfo"), 65536)
        self._table = Table(host.proc("1/mountinfo"), 65536)
        try:
            self._table.read()
        except OSError:
            self._table = self._own
            try:
                self._table.read()
            except OSError as error:
                raise Unavailable(
                    f"cannot read {self._own.path}: {error.strerror}", "mount procfs there"
                ) from error
        self._bytes = b""
        self._rows: list[_Row] = []
        deadline_s = min(config.interval * _DEADLINE_INTERVALS, _LONGEST_DEADLINE_S)
        self._relay = Relay(self._ask, deadline_s, host.clock, "filesystem")

    def _ask(self, key: tuple[str, str]) -> os.statvfs_result:
        return self.host.statvfs(self.host.root(key[1]))

    def sample(self) -> Iterator[Point]:
        # Each time, because an error that turns a filesystem read-only gives no other sign.
        table = self._table.read()
        if table != self._bytes:
            self._look_at_mounts(table)
        answers = self._relay.run([row.key for row in self._rows if row.is_seen])
        for row in self._rows:
            yield row.read_only, int(self._is_read_only(row.mount))
            answer = answers[row.key] if row.is_seen else _HIDDEN
            if isinstance(answer, Exception):
                yield row.error, 1
                self.fault(answer, f"statvfs {row.mount.path}")
                continue
            yield row.error, 0
            size, block = row.space, answer.f_frsize
            yield size[0], answer.f_blocks * block
            yield size[1], answer.f_bfree * block
            yield size[2], answer.f_bavail * block
            if answer.f_files:
                yield row.inodes[0], answer.f_files
                yield row.inodes[1], answer.f_ffree

    def _is_read_only(self, mount: Mount) -> bool:
        # Of our own table only the filesystem's flag holds: the unit's protection sets the other.
        on_mount = mount.is_read_only and self._table is not self._own
        return on_mount or mount.has_read_only_source

    def _look_at_mounts(self, table: bytes) -> None:
        """The mount table has changed: choose one mount for each filesystem that is wanted."""
        chosen: dict[str, Mount] = {}
        for mount in visible(mounts_of(table)).values():
            if self.config.wants_type(mount.type) and self.config.wants(mount.path):
                other = chosen.get(mount.device)
                if other is None or _rank(mount) < _rank(other):
                    chosen[mount.device] = mount
        ours = self._own_mounts()
        self._rows = [_Row(mount, self._is_seen(mount, ours)) for mount in chosen.values()]
        self._bytes = table

    def _own_mounts(self) -> dict[str, Mount]:
        if self._table is self._own:
            return {}
        try:
            return visible(mounts_of(self._own.read()))
        except OSError:
            return {}

    def _is_seen(self, mount: Mount, ours: Mapping[str, Mount]) -> bool:
        """Whether its mount point leads us to this filesystem. The unit's protection may hide it
        (ProtectHome=yes), and what is found there instead has another size."""
        found = _at(ours, self.host.root(mount.path))
        return found is None or found.device == mount.device

    def close(self) -> None:
        self._table.close()
        self._own.close()
        self._relay.close()


def _rank(mount: Mount) -> tuple[int, str]:
    return len(mount.path), mount.path

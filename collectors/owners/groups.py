"""The control groups that belong to owners, and those above them.

Version 2 has one tree with all files, version 1 a tree for each controller; on a hybrid machine
the controllers are version 1's (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/cgroups.rst).

A tree is walked again when one of its directories changed. The kernel does not keep the time of a
change for them, but their number of links is that of their subdirectories + 2 (fs/kernfs/dir.c);
on a filesystem that does not count so, a directory is taken to have changed always. Inside a pod,
a container, a job, or a unit without groups of its own hardly ever another owner begins: there a
look a minute does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Attribute, Host, Table
from telemetryd.owners import JOB, UNIT, Owner, owner_of

# A guess: few nest owners inside containers, and then they stay.
_LOOK_INSIDE_NS = 60 * 10**9
# Where units and jobs begin, also the first.
_GROWS = (".slice", "slurmstepd.scope")
# Far more than any machine has; a user with a tree of his own may make as many as he likes.
_MOST_FOLDERS = 20_000
# Enough for the first line of cpu.stat.
_HEAD = 64
_Key = tuple[int, int, int]


class Group:
    """A control group that is an owner's outermost (`is_top`), or is or was above such a one.

    `usage` is its last reading in the kernel's unit, None before the first. `is_new` if it was
    made since the last look, so that all it used was used since. `ended` are the owners that were
    below it, with their rate. The rest is cpu_time's.
    """

    __slots__ = (
        "above", "below_ns", "cpu", "debt_ns", "devices", "ended", "is_new", "is_top",
        "keeps_open", "memory", "memory_below", "own_rate", "owner", "path", "usage",
    )  # fmt: skip

    def __init__(self, path: str, owner: Owner | None, above: Group | None, is_top: bool) -> None:
        self.path = path
        self.owner = owner
        self.above = above
        self.is_top = is_top
        self.is_new = False
        self.keeps_open = True
        self.cpu: Attribute | None = None
        self.memory: Attribute | None = None
        self.devices: Table | None = None
        self.usage: int | None = None
        self.below_ns = 0
        self.own_rate = 0.0
        self.debt_ns = 0
        self.memory_below = 0
        self.ended: dict[Owner, float] = {}

    def close(self) -> None:
        for file in (self.cpu, self.memory, self.devices):
            if file is not None:
                file.close()


def whose(group: Group) -> dict[Owner, float]:
    """The owner of a group that ended, with its rate; of one above owners, those that ended."""
    if group.is_top and group.owner is not None:
        return {group.owner: group.own_rate}
    return group.ended


@dataclass(frozen=True, slots=True)
class Files:
    """What the files of a group are called in a tree; empty for what the tree does not have.
    `controller` is its name in /proc/PID/cgroup, `cpu_ns` the unit of the CPU time."""

    controller: str = ""
    cpu: str = ""
    cpu_ns: int = 1
    memory: str = ""
    devices: str = ""


V2 = Files(cpu="cpu.stat", cpu_ns=1000, memory="memory.current")
V1 = {
    "cpuacct": Files("cpuacct", cpu="cpuacct.usage"),
    "memory": Files("memory", memory="memory.usage_in_bytes"),
    "devices": Files("devices", devices="devices.list"),
}


def find_trees(host: Host, *, steps: bool, most_open: int) -> list[Tree]:
    """The trees of this machine; at most `most_open` of their files are kept open.
    Raises Unavailable if none tells CPU time."""
    root = host.sys("fs/cgroup")
    try:
        names = host.names(root)
    except OSError as error:
        raise Unavailable(
            f"cannot list {root}: {error.strerror}", "let the daemon read the control groups"
        ) from error
    found: list[tuple[str, Files]] = []
    if "cgroup.controllers" in names:
        found.append((root, V2))
    else:
        for controller, files in V1.items():
            # Controllers that are mounted together have a folder such as cpu,cpuacct.
            folders = [name for name in names if controller in name.split(",")]
            if folders:
                found.append((os.path.join(root, folders[0]), files))
        if not any(files.cpu for _, files in found) and "unified" in names:
            found.append((os.path.join(root, "unified"), V2))
    if not any(files.cpu for _, files in found):
        raise Unavailable(
            f"no control groups that tell CPU time under {root}",
            "mount cgroup2 there, or version 1's cpuacct controller",
        )
    return [Tree(path, files, steps, most_open // len(found)) for path, files in found]


class Tree:
    """One hierarchy: `groups` are in an order in which each comes after those above it. `ended`
    are owners that ended with nothing of theirs left but the root."""

    def __init__(self, root: str, files: Files, steps: bool, most_open: int) -> None:
        self.root = root
        self.files = files
        self.groups: list[Group] = []
        self._by_path: dict[str, Group] = {}
        self._steps = steps
        self._most_open = most_open
        self._seen: dict[str, _Key | None] = {}
        self._watched: dict[str, _Key | None] = {}
        self._look_inside_at_ns = 0
        self.must_look = True
        self.ended: dict[Owner, float] = {}
        self.faults: list[tuple[Exception, str]] = []

    def owners(self) -> dict[Owner, str]:
        """Those that are there, each with the path of its group."""
        tops = [group for group in self._by_path.values() if group.is_top]
        return {group.owner: group.path for group in tops if group.owner is not None}

    def owner_at(self, below: str) -> Owner | None:
        """Whose the CPU time is that is used in the group at this path below the root."""
        path = self.root + below
        while path not in self._by_path and len(path) > len(self.root):
            path = os.path.dirname(path)
        group = self._by_path.get(path)
        return None if group is None else group.owner

    def look(self, mono_ns: int) -> bool:
        """Find the groups again if any may have come or gone; whether that was so."""
        if mono_ns < self._look_inside_at_ns and not self.must_look and not self._has_changed():
            return False
        is_first = not self._seen
        self.must_look = False
        self._look_inside_at_ns = mono_ns + _LOOK_INSIDE_NS
        before, self._by_path = self._by_path, {}
        seen, watched = self._seen, self._watched
        tops = self._walk()
        for path in self._and_above(tops):
            group = before.pop(path, None)
            if group is None:
                group = self._open(path, tops.get(path))
                folder = os.path.dirname(path)
                is_below_new = group.above is not None and group.above.is_new
                group.is_new = not is_first and (
                    is_below_new or (path not in seen and folder in watched)
                )
            elif group.is_top and group.memory is None:
                group.memory = self._memory(path)  # it may have been switched on
            self._by_path[path] = group
        # What was above an owner stays, though there may be none below any more: it shows what the
        # last of them used to its end.
        for path in [path for path in before if path in self._seen]:
            self._by_path[path] = before.pop(path)
        for group in reversed(before.values()):
            self.end(group)
        self.groups = list(self._by_path.values())
        return True

    def lose(self, group: Group) -> None:
        """It went since the last look. Should there be one of its name, that is another."""
        self.end(group)
        if group.above is not None:
            group.above.below_ns += group.below_ns
        self._by_path.pop(group.path, None)
        self._seen.pop(group.path, None)
        self.must_look = True

    def end(self, group: Group) -> None:
        """It is gone: the group above is told whose it was."""
        group.close()
        ended = self.ended if group.above is None else group.above.ended
        ended |= whose(group)

    def close(self) -> None:
        for group in self.groups:
            group.close()

    def _has_changed(self) -> bool:
        for path, key in self._watched.items():
            try:
                if key is None or _key(os.stat(path)) != key:
                    return True
            except OSError:
                return True
        return False

    def _open(self, path: str, owner: Owner | None) -> Group:
        folder, is_top = os.path.dirname(path), owner is not None
        above = self._by_path.get(folder)
        if owner is None and above is not None:
            owner = above.owner
        group = Group(path, owner, above, is_top)
        group.keeps_open = 2 * len(self._by_path) < self._most_open
        if self.files.cpu:
            group.cpu = Attribute(os.path.join(path, self.files.cpu), _HEAD)
        if is_top:
            group.memory = self._memory(path)
        is_job = owner is not None and owner.kind == JOB and "." not in owner.name
        if is_top and is_job and self.files.devices:
            group.devices = Table(os.path.join(path, self.files.devices))
        return group

    def _memory(self, path: str) -> Attribute | None:
        name = self.files.memory
        return Attribute(os.path.join(path, name), _HEAD) if name else None

    def _walk(self) -> dict[str, Owner]:
        """The outermost groups of each owner, in the order of a walk from the root."""
        tops: dict[str, Owner] = {}
        self._seen = {}
        waiting: list[tuple[str, Owner | None]] = [(self.root, None)]
        while waiting:
            path, above = waiting.pop()
            owner = owner_of(path[len(self.root) :], steps=self._steps)
            if owner is not None and owner is not above:
                tops[path] = owner
            if len(self._seen) >= _MOST_FOLDERS:
                self.faults.append((ReadError("limit", f"over {_MOST_FOLDERS} folders"), self.root))
                break
            try:
                key, folders = self._list(path, owner)
            except OSError as error:
                if path != self.root and isinstance(error, FileNotFoundError):
                    continue
                self.faults.append((error, path))
                key, folders = None, []
            self._seen[path] = key
            waiting += [(folder, owner) for folder in folders]
        inner = {os.path.dirname(path) for path in self._and_above(tops)}
        self._watched = {
            path: key for path, key in self._seen.items() if self._may_grow(path, inner)
        }
        return tops

    def _list(self, path: str, owner: Owner | None) -> tuple[_Key | None, list[str]]:
        status = os.stat(path)
        if status.st_nlink == 2 or self._holds_no_other(owner):
            return _key(status), []
        with os.scandir(path) as entries:
            folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        folders.sort(reverse=True)
        counts = status.st_nlink == len(folders) + 2
        return (_key(status) if counts else None), folders

    def _holds_no_other(self, owner: Owner | None) -> bool:
        return owner is not None and owner.kind == JOB and (not self._steps or "." in owner.name)

    def _may_grow(self, path: str, inner: set[str]) -> bool:
        """Whether another owner may begin there any moment."""
        if path in inner or path == self.root:
            return True
        owner = owner_of(path[len(self.root) :], steps=self._steps)
        if owner is not None and owner.kind == UNIT:
            key = self._seen[path]
            return path.endswith(_GROWS) or key is None or key[1] > 2
        return owner is None or (owner.kind == JOB and self._steps)

    def _and_above(self, tops: dict[str, Owner]) -> Iterator[str]:
        """The groups of owners, each after all that are above it."""
        given: set[str] = {self.root}
        for top in tops:
            path, chain = top, []
            while path not in given:
                given.add(path)
                chain.append(path)
                path = os.path.dirname(path)
            yield from reversed(chain)


def _key(status: os.stat_result) -> _Key:
    return status.st_ino, status.st_nlink, status.st_mtime_ns

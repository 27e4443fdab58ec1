"""Who uses the machine: jobs, pods, containers and units, known by their control groups.

An owner is told from the path of a control group alone, as it stands in /proc/PID/cgroup or below
/sys/fs/cgroup, version 1 or 2 (cgroups(7), Documentation/admin-guide/cgroup-v2.rst):

    job        Slurm: .../uid_1000/job_7/step_0, .../slurmstepd.scope/job_7/step_0 (cgroup_v2.html);
               since Slurm 26.05 .../slurmstepd.scope/s5K1KKYAYG5D00, where the name is the SLUID
    pod        Kubernetes: .../kubepods*pod<uid>..., of both drivers (kubelet, pkg/kubelet/cm)
    container  Docker, Podman, containerd, CRI-O: the first 12 of the id's 64 digits; LXC: its name
    unit       systemd: the unit in its slice; all that a user started is `user-<uid>.slice`

A job owns what is inside it, then a pod, then a container, then a unit: each of them may hold
those to its right. A process that monitors a container (conmon) is no part of it.

Where the configuration asks for it, a process belongs to its command instead:

    process    the name in /proc/PID/stat, if it fits a pattern of host.ownership.commands

Threads of the kernel have such names too, and belong to nobody.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar
from weakref import WeakValueDictionary

from telemetryd.host import Host
from telemetryd.metric import Kind, Metric, Unit

JOB, POD, CONTAINER, UNIT, PROCESS = "job", "pod", "container", "unit", "process"
LABELS = ("owner_kind", "owner")
_GROUPS = "control groups (admin-guide/cgroup-v2.rst, cgroup-v1/cpuacct.rst)"

CPU = Metric(
    "owner", "cpu", Kind.COUNTER, Unit.SECONDS,
    "CPU time of each owner since it was found, without what owners inside it used. "
    'owner_kind="other" is the rest beyond max_owners, "system" what no owner used: the kernel, '
    "interrupts, processes in no owner's group. An owner counts as other while it is not among "
    "the first. An owner that ended is shown once more, with what it used to its end. "
    'owner_kind="process" is that of processes with a command that host.commands chose, and is '
    "not in that of their job, pod, container or unit, but for what a process used after it was "
    "last read. All of them add up to the busy CPU time.",
    f"{_GROUPS}: cpu.stat, cpuacct.usage; /proc/stat; /proc/PID/stat", LABELS,
)  # fmt: skip
MEMORY = Metric(
    "owner", "memory", Kind.GAUGE, Unit.BYTES,
    "Memory charged to each owner, file cache included, without that of owners inside it. "
    'owner_kind="other" is the rest beyond max_owners. Of owner_kind="process" it is the resident '
    "memory of its processes, in which each counts what they share: not comparable, and not to be "
    "added, for the owners of their control groups are charged for it too.",
    f"{_GROUPS}: memory.current, memory.usage_in_bytes; /proc/PID/stat: rss", LABELS,
)  # fmt: skip
INFO = Metric(
    "owner", "", Kind.INFO, Unit.NONE,
    "What is known of an owner. `name` is the owner itself until scontrol or the kubelet tells a "
    "better one; `user` a name, or the number of a user where the path holds it.",
    "paths of control groups; scontrol show job; kubelet /pods",
    (*LABELS, "name", "user", "partition", "namespace"),
)  # fmt: skip
GPU_MINOR = Metric(
    "owner", "gpu_minor", Kind.GAUGE, Unit.NONE,
    "1 for each GPU that a Slurm job holds, also without a process on it, by the minor number of "
    "its device (telemetryd_gpu_info has it too). It is told of jobs, never of steps.",
    "devices.list of cgroup v1; GRES of scontrol -d show job", (*LABELS, "minor"),
)  # fmt: skip
COUNT = Metric(
    "owner", "found", Kind.GAUGE, Unit.NONE,
    "Owners that there are: jobs, pods, containers, units, and commands that are told apart.",
    _GROUPS,
)  # fmt: skip
DROPPED = Metric(
    "owner", "dropped", Kind.GAUGE, Unit.NONE,
    'Owners beyond max_owners, whose figures are in owner_kind="other".', _GROUPS,
)  # fmt: skip

METRICS = (CPU, MEMORY, INFO, GPU_MINOR, COUNT, DROPPED)


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Owner:
    """Interned: the same kind and name are the same object."""

    kind: str
    name: str
    _all: ClassVar[WeakValueDictionary[tuple[str, str], Owner]] = WeakValueDictionary()

    def __new__(cls, kind: str, name: str) -> Owner:  # noqa: PYI034  (interned, not subclassed)
        known = cls._all.get((kind, name))
        return known or cls._all.setdefault((kind, name), object.__new__(cls))


# What no owner used, and owners beyond those that are shown.
SYSTEM = Owner("system", "system")
OTHER = Owner("other", "other")

_UID = r"[0-9a-fA-F]{8}(?:[-_][0-9a-fA-F]{4}){3}[-_][0-9a-fA-F]{12}|[0-9a-f]{32}"
_JOB = re.compile(
    r"/(?:[^/]*slurmstepd\.scope|uid_[0-9]+)/(?:job_([0-9]+)|(s[0-9A-Z]{13}))"
    r"(?:/step_([^/]+))?(?=/|\Z)"
)
_POD = re.compile(rf"kubepods(?:.*?[/-])?pod({_UID})(?=[./:]|\Z)")
_CONTAINER = re.compile(r"/(?:([^/]*)[-:])?([0-9a-f]{64})(?:\.scope)?(?=/|\Z)")
_LXC = re.compile(r"/lxc(?:\.payload\.|/)([^/]+)")
_USER_SLICE = re.compile(r"user-[0-9]+\.slice\Z")
_USER = re.compile(r"/(?:user-|uid_)([0-9]+)(?:\.slice|/job_)")
_UNIT_SUFFIXES = (".service", ".scope", ".mount", ".socket", ".swap")
_USERS = "/user.slice/"
_DELETED = " (deleted)"
_ID_SHOWN = 12
_RANK = {JOB: 0, POD: 1, CONTAINER: 2, UNIT: 3}
# PF_KTHREAD of include/linux/sched.h
_KERNEL_THREAD = 0x0020_0000
_FLAGS = 6
# As far as the resident memory.
_FIELDS = 22


@lru_cache(maxsize=4096)
def owner_of(path: str, *, steps: bool = False) -> Owner | None:
    """Whose the control group at `path` is; None for nobody's, such as a slice.

    With `steps` a step of a Slurm job is an owner of its own, called `<job>.<step>`.
    """
    path = path if path.startswith("/") else f"/{path}"
    return _job_of(path, steps) or _pod_of(path) or _container_of(path) or _unit_of(path)


def of_process(host: Host, pid: int) -> Owner | None:
    """Whose the process is by the rule of `host.ownership`; None if it is nobody's or is gone.

    From /proc/PID/stat where commands own processes, and /proc/PID/cgroup. Where a process is in
    several hierarchies, they need not agree: Slurm may use but one of them. Raises OSError if a
    file is there and cannot be read, ValueError if it is not as proc_pid_stat(5) has it.
    """
    commands, steps = host.ownership.commands, host.ownership.slurm_steps
    try:
        if commands:
            name, fields = split_stat(host.read(host.proc(str(pid), "stat")))
            command = command_of(name, fields, commands)
            if command is not None:
                return command
        groups = list(groups_of(host, pid))
    except (FileNotFoundError, ProcessLookupError):
        return None
    return first_of(owner_of(path, steps=steps) for _, path in groups)


def groups_of(host: Host, pid: int) -> Iterator[tuple[str, str]]:
    """The control groups of a process: the controllers of the hierarchy, which version 2 leaves
    empty, and the path in it. Raises OSError."""
    for line in host.text(host.proc(str(pid), "cgroup")).splitlines():
        _, _, rest = line.partition(":")  # without the number of the hierarchy
        controllers, colon, path = rest.partition(":")
        if colon:
            yield controllers, path.removesuffix(_DELETED)


def split_stat(stat: bytes) -> tuple[bytes, list[bytes]]:
    """The command in a /proc/PID/stat, and the fields after it, of which the process's state is
    the first (proc_pid_stat(5)). Raises ValueError if there are too few."""
    name, _, rest = stat.partition(b"(")[2].rpartition(b")")
    fields = rest.split(None, _FIELDS)
    if len(fields) < _FIELDS:
        raise ValueError("is too short")
    return name, fields


def command_of(name: bytes, fields: Sequence[bytes], patterns: tuple[str, ...]) -> Owner | None:
    """The command as an owner, of a process as `split_stat` gives it; None if no pattern fits, or
    if it is a thread of the kernel. Raises ValueError."""
    owner = _fitting(name, patterns)
    return None if owner is None or int(fields[_FLAGS]) & _KERNEL_THREAD else owner


@lru_cache(maxsize=4096)
def _fitting(name: bytes, patterns: tuple[str, ...]) -> Owner | None:
    text = os.fsdecode(name)
    fits = any(fnmatch.fnmatchcase(text, pattern) for pattern in patterns)
    return Owner(PROCESS, text) if text and fits else None


def first_of(owners: Iterable[Owner | None]) -> Owner | None:
    """The one that owns the others' things: a job before a pod, a container, a unit."""
    found = [owner for owner in owners if owner is not None]
    return min(found, key=lambda owner: _RANK[owner.kind], default=None)


def user_of(path: str) -> str:
    """The number of the user to whom a control group belongs; empty where the path has none."""
    match = _USER.search(f"/{path}")
    return match[1] if match else ""


def _job_of(path: str, steps: bool) -> Owner | None:
    match = _JOB.search(path)
    # Users may name their own groups as they like: nobody charges somebody else's job like that.
    if match is None or path.startswith(_USERS):
        return None
    job = match[1] or match[2]
    return Owner(JOB, f"{job}.{match[3]}" if steps and match[3] else job)


def _pod_of(path: str) -> Owner | None:
    match = _POD.search(path)
    # systemd allows no `-` inside a part of a slice's name, so that driver writes `_`.
    return None if match is None else Owner(POD, match[1].replace("_", "-"))


def _container_of(path: str) -> Owner | None:
    for match in _CONTAINER.finditer(path):
        if not (match[1] or "").endswith("conmon"):
            return Owner(CONTAINER, match[2][:_ID_SHOWN])
    lxc = _LXC.match(path)
    return None if lxc is None else Owner(CONTAINER, lxc[1])


def _unit_of(path: str) -> Owner | None:
    for part in path.split("/"):
        # `..` leads out of the namespace of whoever reads; `_` escapes what looks like a file of
        # the kernel's (systemd, src/basic/cgroup-util.c).
        name = part.removeprefix("_")
        if name.endswith(_UNIT_SUFFIXES):
            return None if _CONTAINER.match(f"/{name}") else Owner(UNIT, name)
        if _USER_SLICE.match(name):
            return Owner(UNIT, name)
        if name not in {"", ".."} and not name.endswith(".slice"):
            return None
    return None

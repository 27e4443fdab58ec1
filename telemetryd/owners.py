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
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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
    'All of them but owner_kind="process" (the same time again, by command) add up to the busy '
    "CPU time.",
    f"{_GROUPS}: cpu.stat, cpuacct.usage; /proc/stat", LABELS,
)  # fmt: skip
MEMORY = Metric(
    "owner", "memory", Kind.GAUGE, Unit.BYTES,
    "Memory charged to each owner, file cache included, without that of owners inside it. "
    'owner_kind="other" is the rest beyond max_owners.',
    f"{_GROUPS}: memory.current, memory.usage_in_bytes", LABELS,
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
    "its device (telemetryd_gpu_info has it too).",
    "devices.list of cgroup v1; GRES of scontrol -d show job", (*LABELS, "minor"),
)  # fmt: skip
COUNT = Metric(
    "owner", "found", Kind.GAUGE, Unit.NONE,
    "Owners that there are: jobs, pods, containers and units.", _GROUPS,
)  # fmt: skip
DROPPED = Metric(
    "owner", "dropped", Kind.GAUGE, Unit.NONE,
    "Owners beyond max_owners, whose figures are in owner_kind=\"other\", and commands beyond it.",
    _GROUPS,
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


@lru_cache(maxsize=4096)
def owner_of(path: str, *, steps: bool = False) -> Owner | None:
    """Whose the control group at `path` is; None for nobody's, such as a slice.

    With `steps` a step of a Slurm job is an owner of its own, called `<job>.<step>`.
    """
    path = path if path.startswith("/") else f"/{path}"
    return _job_of(path, steps) or _pod_of(path) or _container_of(path) or _unit_of(path)


def of_process(host: Host, pid: int, *, steps: bool = False) -> Owner | None:
    """Whose the process is; None if it is nobody's or is gone.

    From /proc/PID/cgroup. Where a process is in several hierarchies, they need not agree: Slurm
    may use but one of them. Raises OSError if the file is there and cannot be read.
    """
    try:
        lines = host.text(host.proc(str(pid), "cgroup")).splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # hierarchy number, controllers, path
    paths = [line.split(":", 2)[2] for line in lines if line.count(":") >= 2]
    return first_of(owner_of(path.removesuffix(_DELETED), steps=steps) for path in paths)


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

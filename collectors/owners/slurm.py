"""What Slurm knows of its jobs: names through scontrol, and the GPUs that a job holds.

`scontrol -d show job N` asks the controller, so it is run once for each new job, and only where
the configuration allows it. The GPUs that are a job's, also while no process uses them, are in its
GRES line as indexes into gres.conf, which are minor numbers where that lists the devices in their
order; and on cgroup v1 in devices.list, where the site denies all devices first
(Documentation/admin-guide/cgroup-v1/devices.rst). Slurm itself allows all and denies single ones,
which that file does not show, and on version 2 it is a program that nobody can read. What else
knows of them (SLURM_JOB_GPUS in /proc/PID/environ, slurmd's spool) is for root's eyes only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from telemetryd.clock import Clock
from telemetryd.collectors.owners.lookup import Lookup
from telemetryd.errors import ReadError
from telemetryd.host import Host
from telemetryd.program import Program

# Character devices: 195 is NVIDIA's, whose minors from 254 on are no GPUs; 226 has the render
# nodes of all drivers from 128 on (admin-guide/devices.txt).
_DEVICE = re.compile(rb"^c (195|226):([0-9]+) ", re.MULTILINE)
_GPU_MINORS = {b"195": range(254), b"226": range(128, 192)}

_ANSWER = re.compile(r"JobId=[0-9]+ ")
_JOB_NAME = re.compile(r"^JobId=.*?\bJobName=(.*)$", re.MULTILINE)
_USER = re.compile(r"^ +UserId=([^\s(]+)\(", re.MULTILINE)
_PARTITION = re.compile(r"^ +Partition=(\S+)", re.MULTILINE)
# GRES=gpu:a100:2(IDX:0-1),shard:4(...), one line for the nodes that have the same.
_NODES = re.compile(r"^ +Nodes=(\S+) .*?\bGRES=(\S*)", re.MULTILINE)
_GPUS = re.compile(r"(?:^|,)gpu((?::[^(,]*)?)\(IDX:([0-9,-]+)\)")
# A MIG instance, such as a100_1g.10gb: its index is not its GPU's.
_INSTANCE = re.compile(r"[0-9]g\.")
_HOSTS = re.compile(r"((?:[^,\[]|\[[^\]]*\])+)")
_BRACKETS = re.compile(r"([^\[]*)\[([0-9,-]+)\]([^\[]*)\Z")
_HIGHEST = 1 << 10
_LONGEST_ANSWER = 1 << 16
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """What scontrol says of a job; `minors` are those of its GPUs on this node."""

    name: str
    user: str
    partition: str
    minors: frozenset[str]


class Scontrol(Lookup[Job]):
    """Asks for one job after the other; never twice for one that was refused or not answered."""

    what = "scontrol"

    def __init__(self, command: str, node: str, clock: Clock) -> None:
        super().__init__(clock)
        self._command = command
        self._node = node
        self._program = Program(_TIMEOUT_S, _LONGEST_ANSWER)
        self._asked: set[str] = set()

    def _open_questions(self, keys: Collection[str]) -> list[str]:
        self._asked.intersection_update(keys)
        return [key for key in keys if key not in self._asked]

    def _ask(self, keys: list[str], answers: dict[str, Job]) -> None:
        for job in keys:
            self._asked.add(job)
            said = self._program.run(
                [self._command, "-d", "show", "job", job], {**os.environb, b"LC_ALL": b"C"}
            )
            answers[job] = parse_job(said, self._node)

    def close(self) -> None:
        super().close()
        self._program.close()


def parse_job(said: str, node: str) -> Job:
    """Raises ReadError if it is no answer of scontrol's about a job."""
    if _ANSWER.match(said) is None:
        line = said.strip().partition("\n")[0][:200]
        raise ReadError("parse", f"does not describe a job: {line!r}")

    def first(pattern: re.Pattern[str]) -> str:
        match = pattern.search(said)
        return match[1].strip() if match else ""

    return Job(first(_JOB_NAME), first(_USER), first(_PARTITION), _minors(said, node))


def _minors(said: str, node: str) -> frozenset[str]:
    lines = _NODES.findall(said)
    # A single line is ours whatever we are called: the job runs here.
    here = lines if len(lines) == 1 else [one for one in lines if has_host(one[0], node)]
    return frozenset(
        str(number)
        for _, devices in here
        for model, indexes in _GPUS.findall(devices)
        if _INSTANCE.search(model) is None
        for number in numbers(indexes)
    )


def numbers(text: str) -> Iterator[int]:
    """The numbers of `0-2,5`."""
    for part in text.split(","):
        low, _, high = part.partition("-")
        if low.isdecimal() and (not high or high.isdecimal()):
            yield from range(int(low), min(int(high or low), _HIGHEST) + 1)


def has_host(hosts: str, node: str) -> bool:
    """Whether `node` is among `gpu[01-03,07],login`."""
    return any(_is_host(item, node) for item in _HOSTS.findall(hosts))


def _is_host(item: str, node: str) -> bool:
    match = _BRACKETS.match(item)
    if match is None:
        return item == node
    before, numbered, after = match[1], match[2], match[3]
    if not (node.startswith(before) and node.endswith(after)):
        return False
    digits = node[len(before) : len(node) - len(after)]
    if not digits.isdecimal():
        return False
    for part in numbered.split(","):
        low, _, high = part.partition("-")
        if low and len(low) == len(digits) and int(low) <= int(digits) <= int(high or low):
            return True
    return False


def has_gpus(host: Host) -> bool:
    """Whether the machine has a GPU that a job could hold: one of NVIDIA's, or a render node."""
    try:
        nodes = host.names(host.sys("class/drm"))
        return bool(host.names(host.proc("driver/nvidia/gpus"))) or any(
            node.startswith("renderD") for node in nodes
        )
    except OSError:
        return False


def allows_all(devices: bytes) -> bool:
    """Whether a group may use every device, or all but some that its devices.list does not show."""
    return devices.startswith(b"a ")


def held_minors(devices: bytes) -> frozenset[str]:
    """The GPUs that a group may use, from its devices.list; none if it may use any device."""
    return frozenset(
        minor.decode()
        for major, minor in _DEVICE.findall(devices)
        if int(minor) in _GPU_MINORS[major]
    )

"""Owners: what every job, pod, container and unit of this machine uses."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator

from telemetryd.collector import Collector
from telemetryd.collectors.owners.accounts import Account, Accounts
from telemetryd.collectors.owners.cpu_time import Rest, memory_of, used_since
from telemetryd.collectors.owners.groups import find_trees
from telemetryd.collectors.owners.kubelet import Kubelet
from telemetryd.collectors.owners.processes import Commands
from telemetryd.collectors.owners.settings import OwnersConfig
from telemetryd.collectors.owners.slurm import Scontrol, allows_all, has_gpus, held_minors
from telemetryd.host import Host
from telemetryd.metric import Point, Series
from telemetryd.owners import (
    COUNT,
    CPU,
    DROPPED,
    GPU_MINOR,
    INFO,
    JOB,
    MEMORY,
    METRICS,
    OTHER,
    POD,
    PROCESS,
    SYSTEM,
    Owner,
    user_of,
)

_COUNT, _DROPPED = COUNT.at(), DROPPED.at()
_SYSTEM_CPU = CPU.at(SYSTEM.kind, SYSTEM.name)
_SYSTEM_INFO = INFO.at(SYSTEM.kind, SYSTEM.name, SYSTEM.name, "", "", "")
_OTHER_CPU = CPU.at(OTHER.kind, OTHER.name)
_OTHER_MEMORY = MEMORY.at(OTHER.kind, OTHER.name)
_OTHER_INFO = INFO.at(OTHER.kind, OTHER.name, OTHER.name, "", "", "")


class Owners(Collector):
    """CPU time and memory of each owner, its names, and the GPUs that a Slurm job holds.

    Raises Unavailable if there are no control groups that tell CPU time.
    """

    Config = OwnersConfig
    metrics = METRICS
    may_block = True

    def __init__(self, config: OwnersConfig, host: Host) -> None:
        super().__init__(config, host)
        # The other half of the files that the daemon may open is for everything else.
        most_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        steps = host.ownership.slurm_steps
        self._trees = find_trees(host, steps=steps, most_open=most_open)
        self._cpu = next(tree for tree in self._trees if tree.files.cpu)
        self._rest = Rest(host)
        self._system_ns = 0
        self._accounts = Accounts(config.max_owners)
        self._paths: dict[Owner, str] = {}
        self._gpus: dict[Series, Owner] = {}
        self._devices_tell = False
        self._last_ns: int | None = None
        self._commands = Commands(host) if host.ownership.commands else None
        self._kubelet = Kubelet(config, host) if config.kubelet_url else None
        self._scontrol = (
            Scontrol(config.scontrol_command, _node(host), host.clock) if config.scontrol else None
        )

    def sample(self) -> Iterator[Point]:
        mono_ns = self.host.clock.mono_ns()
        has_changed = self._look(mono_ns)
        if self._commands is not None:
            # Before the groups: what a process was seen to use, its group has used by then.
            has_changed |= self._commands.look(self._cpu, self.fault)
        step_ns = 0 if self._last_ns is None else mono_ns - self._last_ns
        self._last_ns = mono_ns
        found = used_since(self._cpu, step_ns, self.fault)
        held: dict[Owner, int] = {}
        for tree in self._trees:
            if tree.files.memory:
                held |= memory_of(tree, self.fault)
        if has_changed or self._cpu.must_look or self._accounts.ended:
            self._meet()
        # Not what came and went between two looks: that is the system's.
        used = {owner: ns for owner, ns in found.items() if owner in self._accounts}
        is_whole = self._add_rest(used, step_ns)
        if self._commands is not None:
            held |= self._commands.memory
            self._commands.take(used, self._accounts)
        self._system_ns += used.pop(SYSTEM, 0)
        self._accounts.add(used, self._holders(), step_ns)
        yield from self._figures(held)
        if is_whole:
            yield _SYSTEM_CPU, self._system_ns / 1e9
            yield _SYSTEM_INFO, 1
        yield _COUNT, len(self._accounts)
        yield _DROPPED, self._accounts.hidden

    def _look(self, mono_ns: int) -> bool:
        has_changed = False
        for tree in self._trees:
            has_changed |= tree.look(mono_ns)
            for error, path in tree.faults:
                self.fault(error, path)
            tree.faults.clear()
        return has_changed

    def _add_rest(self, used: dict[Owner, int], step_ns: int) -> bool:
        """Add to `used` what no owner used, which is the system's; what an owner used that ended
        may show in it only. Whether it is known."""
        ended = {owner: rate for owner, rate in self._cpu.ended.items() if owner in self._accounts}
        self._cpu.ended.clear()
        try:
            used[SYSTEM] = self._rest.advance(used, ended, step_ns)
        except (OSError, ValueError, IndexError) as error:
            self.fault(error, self.host.proc("stat"))
            return False
        return True

    def _meet(self) -> None:
        """Who is there now."""
        self._paths = {}
        for tree in self._trees:
            if not tree.files.devices:
                for owner, path in tree.owners().items():
                    self._paths.setdefault(owner, path)
        if self._commands is not None:
            self._paths |= dict.fromkeys(self._commands.memory, "")
        self._accounts.keep(self._paths)

    def _holders(self) -> set[Owner]:
        """Ask for names, and find the GPUs that jobs hold."""
        self._ask_for_names()
        self._devices_tell = False
        found: dict[Series, Owner] = {}
        for owner, minors in self._minors():
            for minor in sorted(minors, key=int):
                found[GPU_MINOR.at(owner.kind, owner.name, minor)] = owner
        self._gpus = found
        return set(found.values())

    def _minors(self) -> Iterator[tuple[Owner, frozenset[str]]]:
        for tree in self._trees:
            for group in tree.groups if tree.files.devices else ():
                if group.devices is not None and group.owner in self._paths:
                    try:
                        devices = group.devices.read()
                        yield group.owner, held_minors(devices)
                        self._devices_tell |= not allows_all(devices)
                    except OSError as error:
                        if not isinstance(error, FileNotFoundError):
                            self.fault(error, group.devices.path)
        if self._scontrol is not None:
            for owner in self._paths:
                job = self._scontrol.known.get(owner.name) if owner.kind == JOB else None
                if job is not None:
                    yield owner, job.minors

    def _ask_for_names(self) -> None:
        has_news = False
        if self._scontrol is not None:
            jobs = {o.name.partition(".")[0] for o in self._paths if o.kind == JOB}
            has_news |= self._scontrol.want(jobs, self.fault)
        if self._kubelet is not None:
            pods = {o.name for o in self._paths if o.kind == POD}
            has_news |= self._kubelet.want(pods, self.fault)
        if has_news:
            for account in self._accounts:
                account.info = None

    def _figures(self, held: dict[Owner, int]) -> Iterator[Point]:
        others_memory = 0
        for account in self._accounts:
            memory = None if account.has_ended else held.get(account.owner)
            if not account.is_shown:
                # That of a command is in that of the owner of its group.
                others_memory += memory or 0 if account.owner.kind != PROCESS else 0
                continue
            yield account.cpu, account.total_ns / 1e9
            if memory is not None:
                yield account.memory, memory
            yield account.info or self._info(account), 1
        if self._accounts.hidden or self._accounts.others_ns:
            yield _OTHER_CPU, self._accounts.others_ns / 1e9
            yield _OTHER_MEMORY, others_memory
            yield _OTHER_INFO, 1
        for series in self._gpus:
            yield series, 1

    def _info(self, account: Account) -> Series:
        owner = account.owner
        user = user_of(self._paths.get(owner, ""))
        name, partition, namespace = owner.name, "", ""
        if owner.kind == JOB and self._scontrol is not None:
            job = self._scontrol.known.get(owner.name.partition(".")[0])
            if job is not None:
                name, user, partition = job.name or name, job.user or user, job.partition
        elif owner.kind == POD and self._kubelet is not None:
            pod = self._kubelet.known.get(owner.name)
            if pod is not None:
                name, namespace = pod.name, pod.namespace
        account.info = INFO.at(owner.kind, owner.name, name, user, partition, namespace)
        return account.info

    def remarks(self) -> Iterable[str]:
        # Only groups other than the root have this file.
        if os.path.exists(os.path.join(self._cpu.root, "cgroup.type")):
            yield f"{self._cpu.root} shows the daemon's own container only, not the whole machine"
        if self._accounts.hidden:
            yield f"{self._accounts.hidden} owners beyond max_owners are summed as other"
        has_jobs = any(owner.kind == JOB for owner in self._paths)
        if has_jobs and self._scontrol is None and not self._devices_tell and has_gpus(self.host):
            yield (
                "a GPU that a Slurm job holds without a process on it counts as free: the device "
                "control groups do not tell; set collectors.owners.scontrol to true"
            )

    def close(self) -> None:
        for tree in self._trees:
            tree.close()
        self._rest.close()
        if self._scontrol is not None:
            self._scontrol.close()
        if self._kubelet is not None:
            self._kubelet.close()


def _node(host: Host) -> str:
    """The machine's name without its domain, which is what Slurm calls it on most."""
    try:
        return host.text(host.proc("sys/kernel/hostname")).partition(".")[0]
    except OSError:
        return ""

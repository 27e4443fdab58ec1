"""Whose the processes on GPUs are: their number, memory and share by owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.amd_gpus import Machine
from support.clock import FakeClock
from support.gpu_series import only
from support.gpus import Node
from support.nvml import Process
from support.trees import host_at, write_tree

from telemetryd.host import Ownership

MIB = 1 << 20
NOT_AVAILABLE = (1 << 64) - 1
PROCESSES, MEMORY = "gpu_owner_processes", "gpu_owner_memory_bytes"
SHARE = "gpu_owner_utilization_ratio"
BY_GROUP = Ownership()
COMMANDS = Ownership(commands=("python*",))
FDINFO = "drm-client-id: {pid}\ndrm-pdev: 0000:05:00.0\ndrm-engine-gfx: {gfx} ns\n{more}"


def _process(folder: Path, pid: int, group: str, command: str = "bash") -> None:
    stat = f"{pid} ({command}) S 1 1 1 0 -1 4194304 {' '.join(['0'] * 43)}\n"
    where = f"0::/system.slice/slurmstepd.scope/{group}\n"
    write_tree(folder, {f"proc/{pid}/cgroup": where, f"proc/{pid}/stat": stat})


def _watched(folder: Path, ownership: Ownership = BY_GROUP) -> Node:
    """One GPU, whose processes are in /proc below `folder`."""
    clock = FakeClock()
    host = replace(host_at(folder, clock), ownership=ownership)
    node = Node(folder, gpus=1, host=host, events=False, max_processes=1)
    node.clock = clock
    return node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    for pid, group in {100: "job_7/step_0", 101: "job_7/step_1", 102: "job_8/step_0"}.items():
        _process(tmp_path, pid, group, "python3" if pid == 101 else "bash")
    with closing(_watched(tmp_path)) as node:
        yield node


def _of(family: str, kind: str, owner: str, gpu: str = "0") -> str:
    return f'{family}{{gpu="{gpu}",owner_kind="{kind}",owner="{owner}"}}'


def _uses(node: Node) -> None:
    uses = {100: 30, 101: 10, 102: 5}
    node.fake.processes(0, *[Process(pid, MIB, sm=sm) for pid, sm in uses.items()])


def test_an_owner_has_the_number_memory_and_share_of_its_processes(node: Node) -> None:
    _uses(node)
    assert only(node.sample(), PROCESSES, MEMORY, SHARE) == {
        _of(PROCESSES, "job", "7"): 2,
        _of(PROCESSES, "job", "8"): 1,
        _of(MEMORY, "job", "7"): 2 * MIB,
        _of(MEMORY, "job", "8"): MIB,
        _of(SHARE, "job", "7"): 0.4,
        _of(SHARE, "job", "8"): 0.05,
    }
    node.fake.processes(0)
    assert only(node.sample(), PROCESSES, MEMORY, SHARE) == {}


def test_an_owner_has_no_memory_if_that_of_one_of_its_processes_is_not_known(node: Node) -> None:
    node.fake.processes(0, Process(100, MIB), Process(101, NOT_AVAILABLE), Process(102, MIB))
    assert only(node.sample(), PROCESSES, MEMORY) == {
        _of(PROCESSES, "job", "7"): 2,
        _of(PROCESSES, "job", "8"): 1,
        _of(MEMORY, "job", "8"): MIB,
    }


def test_under_mig_owners_are_those_of_each_instance(node: Node) -> None:
    node.fake.mig(0, ["3g.40gb", "1g.10gb"])
    large, small = (int(node.fake.state[f"g0.mig.{i}.gi"]) for i in (0, 1))
    node.fake.processes(
        0,
        Process(100, MIB, gi=large, ci=0),
        Process(101, NOT_AVAILABLE, gi=small, ci=0),
        Process(102, MIB, gi=small, ci=0),
    )
    assert only(node.sample(), PROCESSES, MEMORY) == {
        _of(PROCESSES, "job", "7", f"0/{large}/0"): 1,
        _of(MEMORY, "job", "7", f"0/{large}/0"): MIB,
        _of(PROCESSES, "job", "7", f"0/{small}/0"): 1,
        _of(PROCESSES, "job", "8", f"0/{small}/0"): 1,
        _of(MEMORY, "job", "8", f"0/{small}/0"): MIB,
    }


@pytest.mark.parametrize(
    ("ownership", "owners"),
    [
        (Ownership(slurm_steps=True), {("job", "7.0"), ("job", "7.1"), ("job", "8.0")}),
        (COMMANDS, {("job", "7"), ("process", "python3"), ("job", "8")}),
    ],
)
def test_steps_and_commands_own_what_they_have_on_a_gpu_as_they_own_cpu_time(
    node: Node, tmp_path: Path, ownership: Ownership, owners: set[tuple[str, str]]
) -> None:
    with closing(_watched(tmp_path, ownership)) as other:
        _uses(other)
        values = other.sample()
    for family in (PROCESSES, MEMORY, SHARE):
        assert only(values, family).keys() == {_of(family, *owner) for owner in owners}


def test_a_process_that_takes_the_name_of_a_command_is_that_from_then_on(
    node: Node, tmp_path: Path
) -> None:
    with closing(_watched(tmp_path, COMMANDS)) as other:
        other.fake.processes(0, Process(100, MIB))
        assert list(only(other.sample(), MEMORY)) == [_of(MEMORY, "job", "7")]
        _process(tmp_path, 100, "job_7", "python3")
        assert list(only(other.sample(), MEMORY)) == [_of(MEMORY, "process", "python3")]


# what DRM shows


def _clients(machine: Machine, memory: dict[int, int | None]) -> None:
    """Processes of job 7 on the first GPU, and none else."""
    for pid in (4100, 4200):
        (machine.root / f"proc/{pid}").rename(machine.root / f"ended-{pid}")
    for pid, size in memory.items():
        _process(machine.root, pid, "job_7/step_0")
        more = "" if size is None else f"drm-memory-vram: {size} KiB\n"
        text = FDINFO.format(pid=pid, gfx=5, more=more)
        write_tree(machine.root, {f"proc/{pid}/comm": "app\n", f"proc/{pid}/fdinfo/5": text})
        (machine.root / f"proc/{pid}/fd").mkdir()
        (machine.root / f"proc/{pid}/fd/5").symlink_to("/dev/dri/renderD128")


@pytest.mark.parametrize(
    ("memory", "of_owner"),
    [({7: 1024, 8: 2048, 9: 0}, {"3": 3 * MIB}), ({7: 1024, 8: None}, {"2": None})],
)
def test_owners_of_an_amd_gpu_have_all_their_processes_shown_or_not(
    tmp_path: Path, memory: dict[int, int | None], of_owner: dict[str, int | None]
) -> None:
    machine = Machine("mi300x", tmp_path, max_processes=1)
    _clients(machine, memory)
    values = machine.values()
    labels = '{gpu="card1",owner_kind="job",owner="7"}'
    ((count, total),) = of_owner.items()
    assert values[f"owner_processes{labels}"] == int(count)
    assert values.get(f"owner_memory_bytes{labels}") == total
    assert sum(name.startswith("process_memory") for name in values) == 1

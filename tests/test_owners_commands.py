"""Commands that are owners: what their processes use is theirs, and nobody else's."""

from __future__ import annotations

import errno
import os

import pytest
from support.cgroups import Cgroups
from support.trees import write_tree
from support.watched_owners import JOB, MIB, NGINX, Watched, cpu_by_owner, cpu_of, memory_of

from telemetryd.host import Ownership

PYTHON = Ownership(commands=("python*",))
USER = "user.slice/user-1000.slice"

# CPU time


def test_what_a_chosen_command_uses_is_its_own_and_not_its_jobs(groups: Cgroups) -> None:
    groups.make(JOB)
    groups.start(8, "bash", JOB)
    groups.start(9, "python3", JOB)
    groups.work(9, 50)  # before anybody looked
    watched = Watched(groups, PYTHON)
    assert watched.sample()[cpu_of("process", "python3")] == 0
    groups.work(8, 1)
    groups.work(9, 3)
    groups.spend(0.5)
    assert cpu_by_owner(watched.sample()) == {
        ("job", "7"): 1,
        ("process", "python3"): 3,
        ("unit", "slurmstepd.scope"): 0,
        ("system", "system"): 0.5,
    }


def test_processes_of_a_command_in_many_groups_are_one_owner(groups: Cgroups) -> None:
    for pid, group in enumerate((JOB, JOB.replace("7", "8"), USER, NGINX), start=10):
        groups.make(group)
        groups.start(pid, "python3", group)
    watched = Watched(groups, PYTHON)
    watched.sample()
    for pid in range(10, 14):
        groups.work(pid, pid)
    groups.use(NGINX, 1)
    cpu = cpu_by_owner(watched.sample())
    assert cpu["process", "python3"] == 10 + 11 + 12 + 13
    assert cpu["job", "7"] == cpu["job", "8"] == cpu["unit", "user-1000.slice"] == 0
    assert cpu["unit", "nginx.service"] == 1


def test_with_steps_a_command_takes_from_the_step(groups: Cgroups) -> None:
    groups.make(f"{JOB}/step_0/user")
    groups.start(9, "python3", f"{JOB}/step_0/user")
    watched = Watched(groups, Ownership(("python*",), slurm_steps=True))
    watched.sample()
    groups.work(9, 3)
    groups.use(f"{JOB}/step_0", 2)
    cpu = cpu_by_owner(watched.sample())
    assert (cpu["job", "7.0"], cpu["job", "7"], cpu["process", "python3"]) == (2, 0, 3)


def test_a_command_in_nobodys_group_takes_from_the_system(groups: Cgroups) -> None:
    groups.start(9, "python3", "")
    groups.make("custom")
    groups.start(10, "python3", "custom")
    watched = Watched(groups, PYTHON)
    watched.sample()
    groups.work(9, 3)
    groups.work(10, 1)
    groups.spend(2)
    assert cpu_by_owner(watched.sample()) == {("process", "python3"): 4, ("system", "system"): 2}


def test_version_1_tells_a_process_group_by_the_tree_of_cpu_time(groups: Cgroups) -> None:
    (groups.root / "sys/fs/cgroup/cgroup.controllers").unlink()
    tree = "cpu,cpuacct"
    files = {f"sys/fs/cgroup/{tree}/system.slice/a.service/cpuacct.usage": "0\n"}
    files[f"sys/fs/cgroup/{tree}/system.slice/cpuacct.usage"] = "0\n"
    write_tree(groups.root, files)
    groups.start(9, "python3", "")
    listed = f"5:memory:/system.slice/b.service\n4:{tree}:/system.slice/a.service\n0::/\n"
    write_tree(groups.root, {"proc/9/cgroup": listed})
    watched = Watched(groups, PYTHON)
    watched.sample()
    groups.work(9, 3)
    write_tree(groups.root, {"proc/9/cgroup": listed} | dict.fromkeys(files, "4000000000\n"))
    groups.spend(1)
    cpu = cpu_by_owner(watched.sample())
    assert (cpu["process", "python3"], cpu["unit", "a.service"]) == (3, 1)


def test_ticks_that_run_ahead_of_the_group_are_made_good_the_next_time(groups: Cgroups) -> None:
    groups.make(JOB)
    groups.start(9, "python3", JOB)
    groups.work(9, 0.0099)  # no tick yet
    watched = Watched(groups, PYTHON)
    watched.sample()
    groups.work(9, 0.0002)  # now there is one
    cpu = cpu_by_owner(watched.sample())
    assert cpu["process", "python3"] == pytest.approx(0.0002)
    assert cpu["job", "7"] == 0
    groups.use(JOB, 1)
    cpu = cpu_by_owner(watched.sample())
    assert cpu["process", "python3"] == pytest.approx(0.01)
    assert cpu["job", "7"] == pytest.approx(1 - 0.0098)


def test_two_commands_that_are_due_more_than_their_group_used_share_it(groups: Cgroups) -> None:
    groups.make(JOB)
    groups.start(8, "python2", JOB)
    groups.start(9, "python3", JOB)
    watched = Watched(groups, PYTHON)
    watched.sample()
    groups.work(8, 3)
    groups.work(9, 1)
    groups.use(JOB, -2)  # it was read earlier
    cpu = cpu_by_owner(watched.sample())
    assert (cpu["process", "python2"], cpu["process", "python3"]) == (1.5, 0.5)
    groups.use(JOB, 2)
    cpu = cpu_by_owner(watched.sample())
    assert (cpu["process", "python2"], cpu["process", "python3"]) == (3, 1)
    assert cpu["job", "7"] == 0


def test_what_a_process_used_after_it_was_last_read_stays_with_its_group(groups: Cgroups) -> None:
    groups.make(JOB)
    groups.start(9, "python3", JOB)
    groups.start(10, "python3", JOB)
    watched = Watched(groups, PYTHON)
    watched.sample()
    groups.work(9, 1)
    watched.sample()
    groups.work(9, 2)
    groups.exit(9)
    cpu = cpu_by_owner(watched.sample())
    assert (cpu["process", "python3"], cpu["job", "7"]) == (1, 2)


def test_a_process_that_began_since_the_last_look_counts_from_its_beginning(
    groups: Cgroups,
) -> None:
    groups.make(JOB)
    groups.start(9, "python3", JOB)
    groups.work(9, 1)
    watched = Watched(groups, PYTHON)
    watched.sample()
    groups.exit(9)
    groups.start(9, "python3", JOB)  # another of its number
    groups.work(9, 2)
    groups.start(10, "python3", JOB)
    groups.work(10, 1)
    assert cpu_by_owner(watched.sample())["process", "python3"] == 3


def test_a_process_that_takes_another_name_is_another_command_from_then_on(
    groups: Cgroups,
) -> None:
    groups.make(JOB)
    groups.start(9, "bash", JOB)
    watched = Watched(groups, PYTHON)
    watched.sample()
    groups.work(9, 1)
    assert cpu_by_owner(watched.sample())["job", "7"] == 1
    groups.change(9, command="python3")
    groups.work(9, 2)
    cpu = cpu_by_owner(watched.sample())
    assert (cpu["job", "7"], cpu["process", "python3"]) == (1, 2)
    groups.change(9, command="a.out")
    groups.work(9, 4)
    assert cpu_by_owner(watched.sample())["job", "7"] == 5
    assert ("process", "python3") not in cpu_by_owner(watched.sample())


def test_a_process_that_could_not_be_read_for_a_while_brings_no_past_with_it(
    groups: Cgroups,
) -> None:
    groups.make(JOB)
    groups.start(9, "python3", JOB)
    groups.start(10, "python3", JOB)
    groups.work(9, 100)
    write_tree(groups.root, {"proc/9/stat": "9 (python3) S\n"})
    watched = Watched(groups, PYTHON)
    watched.sample()
    assert watched.faults[0][0] == "parse"
    groups.work(9, 1)  # whether before or after it can be read again is not known
    watched.sample()
    groups.use(JOB, 500)
    assert cpu_by_owner(watched.sample())["process", "python3"] == 0
    groups.work(9, 2)
    assert cpu_by_owner(watched.sample())["process", "python3"] == 2


def test_threads_of_the_kernel_are_the_systems_whatever_the_pattern(groups: Cgroups) -> None:
    groups.start(2, "kworker/0:1", "", is_kernels=True)
    watched = Watched(groups, Ownership(commands=("*",)))
    watched.sample()
    groups.work(2, 3)
    assert cpu_by_owner(watched.sample()) == {("system", "system"): 3}


def test_without_patterns_no_process_is_looked_at(groups: Cgroups) -> None:
    groups.make(JOB)
    groups.start(9, "python3", JOB)
    write_tree(groups.root, {"proc/9/stat": "garbage"})
    watched = Watched(groups)
    assert not any('"process"' in name for name in watched.sample())
    assert watched.faults == []


# memory, names, limits


def test_a_command_has_the_resident_memory_of_its_processes_and_its_group_keeps_its_own(
    groups: Cgroups,
) -> None:
    groups.make(JOB, memory=100 * MIB)
    groups.start(9, "python3", JOB, resident=40 * MIB)
    groups.start(10, "python3", JOB, resident=30 * MIB)
    watched = Watched(groups, PYTHON)
    values = watched.sample()
    assert values[memory_of("process", "python3")] == 70 * MIB
    assert values[memory_of("job", "7")] == 100 * MIB
    info = 'telemetryd_owner_info{owner_kind="process",owner="python3",name="python3",user=""'
    assert values[f'{info},partition="",namespace=""}}'] == 1
    assert values["telemetryd_owner_found{}"] == 3
    groups.exit(9)
    groups.exit(10)
    values = watched.sample()
    assert values[cpu_of("process", "python3")] == 0  # for the last time
    assert memory_of("process", "python3") not in values
    assert not any('"process"' in name for name in watched.sample())


def test_commands_beyond_max_owners_are_among_the_others(groups: Cgroups) -> None:
    groups.make(JOB, memory=100 * MIB)
    groups.start(9, "python3", JOB, resident=40 * MIB)
    watched = Watched(groups, PYTHON, max_owners=1)
    watched.sample()
    groups.work(9, 1)
    groups.use(JOB, 5)
    values = watched.sample()
    assert (values[cpu_of("job", "7")], values[cpu_of("other")]) == (5, 1)
    # Its memory is in that of the job.
    assert values[memory_of("other")] == 0
    assert values["telemetryd_owner_dropped{}"] == 2


def test_processes_that_cannot_be_listed_are_a_fault_and_all_else_goes_on(
    groups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups.make(JOB)
    groups.start(9, "python3", JOB)
    watched = Watched(groups, PYTHON)
    watched.sample()
    groups.work(9, 3)
    groups.make(NGINX)
    with monkeypatch.context() as patch:
        patch.setattr("os.listdir", _refuse)
        values = watched.sample()
    assert watched.faults == [("io", f"{groups.root}/proc: [Errno 5] Input/output error")]
    assert cpu_by_owner(values)["job", "7"] == 3
    assert memory_of("process", "python3") not in values
    groups.use(NGINX, 1)
    groups.work(9, 2)
    cpu = cpu_by_owner(watched.sample())
    assert (cpu["process", "python3"], cpu["job", "7"]) == (2, 3)
    assert cpu["unit", "nginx.service"] == 1


def _refuse(_: str) -> list[str]:
    raise OSError(errno.EIO, os.strerror(errno.EIO))

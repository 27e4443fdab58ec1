"""The owners collector: who is found where, and that no second of CPU time counts twice or is
lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cgroups import Cgroups
from support.clock import FakeClock
from support.trees import FIXTURES, host_at, values_of, write_tree

from telemetryd.collectors.owners import Owners, OwnersConfig
from telemetryd.collectors.owners.accounts import Accounts
from telemetryd.errors import Unavailable
from telemetryd.host import Attribute, Host
from telemetryd.owners import Owner

TREES = FIXTURES / "owners"
SHORT = ("4c01db0b339c", "9f86d081884c", "2c26b46b68ff")
MIB = 1 << 20
JOB = "system.slice/slurmstepd.scope/job_7"
NGINX = "system.slice/nginx.service"


def _cpu(kind: str, name: str = "") -> str:
    return f'telemetryd_owner_cpu_seconds_total{{owner_kind="{kind}",owner="{name or kind}"}}'


def _memory(kind: str, name: str = "") -> str:
    return f'telemetryd_owner_memory_bytes{{owner_kind="{kind}",owner="{name or kind}"}}'


def _owners(collector: Owners) -> set[tuple[str, str]]:
    points = list(collector.sample())
    return {s.labels[:2] for s, _ in points if len(s.labels) == 2} - {("system", "system")}  # type: ignore[misc]


class _Watched:
    """The collector on control groups that a test makes and uses."""

    def __init__(self, groups: Cgroups, **settings: object) -> None:
        self.groups = groups
        self.faults: list[tuple[str, str]] = []
        self.collector = Owners(OwnersConfig.model_validate(settings), groups.host)
        self.collector.on_fault = lambda reason, what: self.faults.append((reason, what))

    def sample(self, after: float = 5.0) -> dict[str, float]:
        self.groups.clock.tick(after)
        return values_of(self.collector)


@pytest.fixture
def groups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path / "machine")


# who is there


@pytest.mark.parametrize(
    ("tree", "owners"),
    [
        (
            "v2",
            {
                ("job", "7"),
                ("job", "s5K1KKYAYG5D00"),
                ("unit", "init.scope"),
                ("unit", "nginx.service"),
                ("unit", "cpu_.service"),
                ("unit", "getty@tty1.service"),
                ("unit", "node1_slurmstepd.scope"),
                ("unit", "user-1000.slice"),
                ("unit", "machine-qemu-1-vm.scope"),
            },
        ),
        ("slurm-v1", {("job", "7"), ("job", "8"), ("unit", "sshd.service")}),
        ("hybrid", {("container", SHORT[0]), ("unit", "nginx.service")}),
        ("docker", {*(("container", short) for short in SHORT), ("unit", "docker.service")}),
        (
            "podman",
            {
                *(("container", short) for short in SHORT),
                ("unit", "user-1000.slice"),
                ("unit", "web.service"),
            },
        ),
    ],
)
def test_the_owners_of_a_machine_are_found(tree: str, owners: set[tuple[str, str]]) -> None:
    collector = Owners(OwnersConfig(), host_at(TREES / tree))
    assert _owners(collector) == owners
    collector.close()


def test_every_counter_begins_at_zero_however_much_was_used_before() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(TREES / "v2")))
    assert {value for name, value in values.items() if "cpu_seconds" in name} == {0}


def test_memory_is_that_of_an_owner_without_those_inside_it() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(TREES / "podman")))
    assert values[_memory("container", SHORT[1])] == 100 * MIB
    # its session, and the conmon of its container
    assert values[_memory("unit", "user-1000.slice")] == 11 * MIB
    assert values[_memory("container", SHORT[2])] == 40 * MIB
    assert values[_memory("unit", "web.service")] == 3 * MIB


def test_memory_of_version_1_may_know_other_owners_than_its_cpu_time() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(TREES / "slurm-v1")))
    assert values[_memory("job", "7")] == 1000 * MIB
    assert _memory("job", "8") not in values
    assert _cpu("job", "8") in values
    assert values[_memory("unit", "sshd.service")] == 5 * MIB


def test_an_owner_has_a_name_and_a_user_where_its_path_tells() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(TREES / "slurm-v1")))
    info = 'telemetryd_owner_info{owner_kind="job",owner="7",name="7",user="1000"'
    assert values[f'{info},partition="",namespace=""}}'] == 1


@pytest.mark.parametrize("files", [{}, {"sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n"}])
def test_without_groups_that_tell_cpu_time_there_is_nothing_to_watch(
    tmp_path: Path, files: dict[str, str]
) -> None:
    write_tree(tmp_path, files)
    with pytest.raises(Unavailable, match=r"fs/cgroup; mount cgroup2"):
        Owners(OwnersConfig(), host_at(tmp_path))


def test_in_a_container_it_says_that_it_sees_no_more_than_that(groups: Cgroups) -> None:
    watched = _Watched(groups)
    assert list(watched.collector.remarks()) == []
    write_tree(groups.root, {"sys/fs/cgroup/cgroup.type": "domain\n"})
    assert "own container only" in next(iter(watched.collector.remarks()))


def test_memory_that_seems_less_than_what_is_inside_it_is_absent(groups: Cgroups) -> None:
    user = "user.slice/user-1000.slice"
    groups.make(user, memory=4 * MIB)
    groups.make(f"{user}/libpod-{'0' * 64}.scope", memory=5 * MIB)
    values = _Watched(groups).sample()
    assert values[_memory("container", "0" * 12)] == 5 * MIB
    assert _memory("unit", "user-1000.slice") not in values


# what they use


def test_time_of_an_owner_inside_another_is_its_own_alone(groups: Cgroups) -> None:
    user = "user.slice/user-1000.slice"
    container = f"{user}/user@1000.service/user.slice/libpod-{'0' * 64}.scope/container"
    groups.make(container)
    groups.make(f"{user}/session-3.scope")
    watched = _Watched(groups)
    watched.sample()
    groups.use(container, 3)
    groups.use(f"{user}/session-3.scope", 2)
    values = watched.sample()
    assert values[_cpu("container", "0" * 12)] == 3
    assert values[_cpu("unit", "user-1000.slice")] == 2
    assert values[_cpu("system")] == 0


def test_an_owner_read_a_moment_later_than_the_one_inside_it_loses_nothing_and_gains_nothing(
    groups: Cgroups,
) -> None:
    user = "user.slice/user-1000.slice"
    container = f"{user}/libpod-{'0' * 64}.scope"
    groups.make(container)
    watched = _Watched(groups)
    watched.sample()
    groups.use(container, 1)
    groups.use(user, -0.25)
    assert watched.sample()[_cpu("unit", "user-1000.slice")] == 0
    groups.use(container, 1)
    groups.use(user, 0.75)
    assert watched.sample()[_cpu("unit", "user-1000.slice")] == 0.5


def test_what_was_used_where_later_an_owner_begins_counts_once(groups: Cgroups) -> None:
    user = "user.slice/user-1000.slice"
    groups.make(f"{user}/user@1000.service/user.slice")
    groups.use(f"{user}/user@1000.service/user.slice", 50)
    watched = _Watched(groups)
    watched.sample()
    container = f"{user}/user@1000.service/user.slice/libpod-{'0' * 64}.scope"
    groups.make(container)
    groups.use(container, 3)
    groups.use(user, 2)
    values = watched.sample()
    assert values[_cpu("container", "0" * 12)] == 3
    assert values[_cpu("unit", "user-1000.slice")] == 2


def test_what_nobody_used_is_the_systems(groups: Cgroups) -> None:
    groups.make(NGINX)
    groups.make("custom/workers")
    watched = _Watched(groups)
    watched.sample()
    groups.use(NGINX, 1)
    groups.use("custom/workers", 2)
    groups.spend(4)
    assert watched.sample()[_cpu("system")] == 6
    groups.spend(0.5)
    assert watched.sample()[_cpu("system")] == 6.5


def test_without_proc_stat_the_systems_share_is_absent_and_made_up_for_later(
    groups: Cgroups,
) -> None:
    groups.make(NGINX)
    watched = _Watched(groups)
    watched.sample()
    (groups.root / "proc/stat").write_text("garbage\n")
    watched.collector._rest.close()
    values = watched.sample()
    assert _cpu("system") not in values
    assert _cpu("unit", "nginx.service") in values
    assert watched.faults[0][0] == "parse"
    groups.use(NGINX, 1)
    groups.spend(2)
    assert watched.sample()[_cpu("system")] == 2


def test_a_processor_that_goes_offline_takes_nothing_from_the_system(groups: Cgroups) -> None:
    groups.make(NGINX)
    groups.spend(100)
    watched = _Watched(groups)
    watched.sample()
    groups.spend(5)
    assert watched.sample()[_cpu("system")] == 5
    groups.spend(-50)
    assert watched.sample()[_cpu("system")] == 5
    groups.spend(1)
    assert watched.sample()[_cpu("system")] == 6


def test_owners_that_seem_to_use_more_than_the_machine_are_no_credit_to_the_system(
    groups: Cgroups,
) -> None:
    groups.make(NGINX)
    watched = _Watched(groups)
    watched.sample()
    groups.use(NGINX, 1)
    groups.spend(-0.5)  # as when it was read half a second of CPU time earlier
    assert watched.sample()[_cpu("system")] == 0
    groups.spend(2)
    assert watched.sample()[_cpu("system")] == 1.5


def test_an_owner_that_comes_counts_from_its_beginning(groups: Cgroups) -> None:
    groups.make("system.slice/slurmstepd.scope/system")
    watched = _Watched(groups)
    watched.sample()
    groups.make(f"{JOB}/step_0/user")
    groups.use(f"{JOB}/step_0/user", 4)
    values = watched.sample()
    assert values[_cpu("job", "7")] == 4
    assert values[_cpu("unit", "slurmstepd.scope")] == 0


def test_an_owner_that_ends_is_shown_once_more_with_what_it_used_to_its_end(
    groups: Cgroups,
) -> None:
    groups.make(JOB, memory=MIB)
    watched = _Watched(groups)
    watched.sample()
    groups.use(JOB, 4)
    assert watched.sample()[_cpu("job", "7")] == 4
    groups.use(JOB, 3)
    groups.end(JOB)
    values = watched.sample()
    assert values[_cpu("job", "7")] == 7
    assert _memory("job", "7") not in values
    assert values["telemetryd_owner_found{}"] == 1
    values = watched.sample()
    assert not any('owner="7"' in name for name in values)
    assert values[_cpu("system")] == 0


def test_what_is_left_below_a_busy_owner_goes_to_the_one_that_ended_but_for_the_usual(
    groups: Cgroups,
) -> None:
    scope = "system.slice/slurmstepd.scope"
    groups.make(JOB)
    groups.make(f"{scope}/system")
    watched = _Watched(groups)
    for _ in range(2):
        watched.sample()
        groups.use(f"{scope}/system", 1)
    groups.use(JOB, 3)
    groups.end(JOB)
    values = watched.sample()
    assert values[_cpu("job", "7")] == 3
    assert values[_cpu("unit", "slurmstepd.scope")] == 2


def test_of_two_that_end_at_once_nobody_knows_and_the_one_above_keeps_the_rest(
    groups: Cgroups,
) -> None:
    other = JOB.replace("7", "8")
    groups.make(JOB)
    groups.make(other)
    watched = _Watched(groups)
    watched.sample()
    groups.use(JOB, 3)
    groups.use(other, 2)
    groups.end(JOB)
    groups.end(other)
    values = watched.sample()
    assert values[_cpu("job", "7")] == values[_cpu("job", "8")] == 0
    assert values[_cpu("unit", "slurmstepd.scope")] == 5


def test_the_last_job_of_a_user_takes_the_users_group_along_and_its_time_too(
    tmp_path: Path,
) -> None:
    shutil.copytree(TREES / "slurm-v1", tmp_path / "machine", symlinks=True)
    clock = FakeClock()
    collector = Owners(OwnersConfig(), host_at(tmp_path / "machine", clock))
    list(collector.sample())
    slurm = tmp_path / "machine/sys/fs/cgroup/cpu,cpuacct/slurm"
    (slurm / "cpuacct.usage").write_text(f"{(341 + 6) * 10**9}\n")
    shutil.rmtree(slurm / "uid_1000")
    clock.tick(5)
    assert values_of(collector)[_cpu("job", "7")] == 6


def test_what_is_above_the_last_owner_still_tells_what_that_used(groups: Cgroups) -> None:
    groups.make("slurm/uid_1000/job_7")
    watched = _Watched(groups)
    watched.sample()
    groups.use("slurm/uid_1000/job_7", 6)
    groups.spend(9)
    groups.end("slurm/uid_1000")
    values = watched.sample()
    assert values[_cpu("job", "7")] == 6
    assert values[_cpu("system")] == 9
    groups.make("slurm/uid_1000/job_8")
    groups.use("slurm/uid_1000/job_8", 2)
    assert watched.sample()[_cpu("job", "8")] == 2


@pytest.mark.parametrize(
    ("job_s", "system_s", "given_s"),
    [(3, 0.5, 3), (3, 0, 2.5), (4, 10, 5)],  # no more than the job used in the time before
)
def test_an_owner_of_whom_nothing_is_left_is_given_what_the_system_would_not_have_used(
    groups: Cgroups, job_s: float, system_s: float, given_s: float
) -> None:
    job = "slurm_node1/uid_1000/job_7"
    groups.make(job)
    watched = _Watched(groups)
    watched.sample()
    groups.use(job, 5)
    groups.spend(0.5)
    watched.sample()
    groups.use(job, job_s)
    groups.spend(system_s)
    groups.end("slurm_node1")
    values = watched.sample()
    assert values[_cpu("job", "7")] == 5 + given_s
    assert values[_cpu("system")] == 0.5 + job_s + system_s - given_s
    groups.spend(3)
    assert watched.sample()[_cpu("system")] == values[_cpu("system")] + 3


def test_a_service_that_restarts_goes_on_counting(groups: Cgroups) -> None:
    groups.make(NGINX)
    watched = _Watched(groups)
    watched.sample()
    groups.use(NGINX, 5)
    watched.sample()
    groups.use(NGINX, 2)
    unit = watched.collector._cpu.groups[-1]
    _replace(unit.cpu)
    groups.end(NGINX)
    groups.make(NGINX)
    groups.use(NGINX, 1)
    values = watched.sample()
    assert values[_cpu("unit", "nginx.service")] == 8
    assert values[_cpu("system")] == 0
    groups.use(NGINX, 1)
    assert watched.sample()[_cpu("unit", "nginx.service")] == 9


def _replace(file: Attribute | None) -> None:
    """Make it answer once as the kernel does when the group is gone."""
    assert file is not None
    fd = os.open(file.path, os.O_RDONLY)
    file._fd = fd
    os.close(fd)

    def pread(given: int, *rest: int) -> bytes:
        os.pread = real
        if given == fd:
            file._fd = -1
            raise OSError(errno.ENODEV, "No such device")
        return real(given, *rest)

    real, os.pread = os.pread, pread


def test_a_group_that_cannot_be_read_is_a_fault_and_its_time_is_made_up_for(
    groups: Cgroups,
) -> None:
    groups.make(NGINX)
    groups.make(JOB)
    watched = _Watched(groups)
    watched.sample()
    stat = groups.root / "sys/fs/cgroup" / NGINX / "cpu.stat"
    good = stat.read_text()
    stat.write_text("nr_periods 1\n")
    groups.use(JOB, 1)
    values = watched.sample()
    assert values[_cpu("job", "7")] == 1
    assert watched.faults == [("parse", f"{stat.parent}: does not begin with usage_usec ")]
    stat.write_text(good)
    groups.use(NGINX, 2)
    assert watched.sample()[_cpu("unit", "nginx.service")] == 2


def test_a_counter_that_goes_back_is_a_fault_and_gives_nothing(groups: Cgroups) -> None:
    groups.make(NGINX)
    groups.use(NGINX, 9)
    watched = _Watched(groups)
    watched.sample()
    groups.use(NGINX, -5)
    assert watched.sample()[_cpu("unit", "nginx.service")] == 0
    assert watched.faults[0][0] == "invalid"
    groups.use(NGINX, 1)
    assert watched.sample()[_cpu("unit", "nginx.service")] == 1


def test_memory_that_is_switched_on_later_is_found(groups: Cgroups) -> None:
    groups.make(NGINX)
    watched = _Watched(groups)
    assert _memory("unit", "nginx.service") not in watched.sample()
    groups.make(NGINX, memory=MIB)
    assert watched.sample(61)[_memory("unit", "nginx.service")] == MIB
    assert watched.faults == []


def test_an_owner_that_begins_inside_a_container_is_found_within_a_minute(groups: Cgroups) -> None:
    container = f"system.slice/docker-{'0' * 64}.scope"
    groups.make(f"{container}/init")
    watched = _Watched(groups)
    watched.sample()
    job = f"{container}/init/{JOB}"
    groups.make(job)
    groups.use(job, 7)
    watched.sample(30)
    assert watched.sample(31)[_cpu("job", "7")] == 0  # so far it was the container's
    groups.use(job, 2)
    values = watched.sample()
    assert values[_cpu("job", "7")] == 2
    assert values[_cpu("container", "0" * 12)] == 7


def test_steps_of_jobs_are_told_apart_where_the_configuration_says_so(groups: Cgroups) -> None:
    groups.make(f"{JOB}/step_0/user/task_0")
    groups.make(f"{JOB}/step_batch/user/task_0")
    watched = _Watched(groups, slurm_steps=True)
    watched.sample()
    groups.use(f"{JOB}/step_0/user/task_0", 3)
    groups.use(f"{JOB}/step_batch/user/task_0", 1)
    groups.make(f"{JOB}/step_1/user/task_0")
    groups.use(f"{JOB}/step_1/user/task_0", 2)
    values = watched.sample()
    assert values[_cpu("job", "7.0")] == 3
    assert values[_cpu("job", "7.batch")] == 1
    assert values[_cpu("job", "7.1")] == 2
    assert values[_cpu("job", "7")] == 0


def test_no_more_files_are_kept_open_than_half_of_those_allowed(
    groups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        groups.make(f"system.slice/s{number}.service", memory=number)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    watched = _Watched(groups)
    for _ in range(2):
        values = watched.sample()
        assert values[_memory("unit", "s29.service")] == 29
        assert values[_memory("unit", "s0.service")] == 0
    assert 15 <= _open_files_below(groups.root) <= 21
    watched.collector.close()
    assert _open_files_below(groups.root) == 0


def _open_files_below(folder: Path) -> int:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(one).startswith(str(folder)) for one in links if os.path.exists(one))


# the first, and the others


def test_beyond_its_limit_owners_are_others_and_no_counter_falls(groups: Cgroups) -> None:
    for name in "abc":
        groups.make(f"system.slice/{name}.service", memory=10)
    watched = _Watched(groups, max_owners=2)
    watched.sample()
    groups.use("system.slice/a.service", 5)
    groups.use("system.slice/b.service", 4)
    groups.use("system.slice/c.service", 1)
    values = watched.sample()
    assert values[_cpu("unit", "a.service")] == 5
    assert values[_cpu("unit", "b.service")] == 4
    assert values[_cpu("other")] == 1
    assert values[_memory("other")] == 10
    assert values["telemetryd_owner_found{}"] == 3
    assert values["telemetryd_owner_dropped{}"] == 1
    groups.use("system.slice/c.service", 50)
    values = watched.sample()
    assert values[_cpu("unit", "c.service")] == 50
    assert values[_cpu("other")] == 1
    assert _cpu("unit", "b.service") not in values
    groups.use("system.slice/b.service", 500)
    values = watched.sample()
    assert values[_cpu("unit", "b.service")] == 504
    assert _cpu("unit", "a.service") not in values
    groups.end("system.slice/c.service")
    assert watched.sample()[_cpu("unit", "c.service")] == 50
    values = watched.sample()
    assert values[_cpu("unit", "a.service")] == 5
    assert values[_cpu("other")] == 1
    assert values["telemetryd_owner_dropped{}"] == 0


def test_an_owner_that_holds_a_gpu_is_among_the_first() -> None:
    accounts = Accounts(1)
    holder, busy = Owner("job", "1"), Owner("unit", "busy.service")
    accounts.keep({holder, busy})
    accounts.add({busy: 10**9}, {holder}, 10**9)
    assert [one.owner for one in accounts if one.is_shown] == [holder]


_NAMES = st.sampled_from(["a", "b", "c", "d"])
_STEPS = st.lists(
    st.tuples(st.sets(_NAMES), st.dictionaries(_NAMES, st.integers(0, 10**12))), max_size=20
)


@given(st.integers(1, 4), _STEPS)
def test_every_nanosecond_is_in_one_counter_and_none_falls(
    most: int, steps: list[tuple[set[str], dict[str, int]]]
) -> None:
    accounts = Accounts(most)
    shown: dict[Owner, int] = {}
    others = spent = counted = 0
    for alive, used in steps:
        accounts.keep({Owner("unit", name) for name in alive})
        there = {one.owner: one for one in accounts}
        known = {Owner("unit", name): ns for name, ns in used.items()}
        known = {owner: ns for owner, ns in known.items() if owner in there}
        accounts.add(known, (), 5 * 10**9)
        spent += sum(known.values())
        # A series begins at 0, as does one that was gone for a while because its owner had ended.
        shown = {owner: last for owner, last in shown.items() if owner in there}
        for owner, one in there.items():
            if one.is_shown:
                assert one.total_ns >= shown.get(owner, 0)
                counted += one.total_ns - shown.get(owner, 0)
                shown[owner] = one.total_ns
        assert accounts.others_ns >= others
        counted += accounts.others_ns - others
        others = accounts.others_ns
        assert counted == spent
        assert sum(one.is_shown and not one.has_ended for one in accounts) <= most


_GROUPS = st.sampled_from(
    [
        *(NGINX, JOB, JOB.replace("7", "8"), "system.slice/slurmstepd.scope", "custom"),
        f"system.slice/docker-{'0' * 64}.scope",
        "user.slice/user-1000.slice/session-1.scope",
        "user.slice/user-1000.slice/user@1000.service/app.slice",
        f"user.slice/user-1000.slice/user@1000.service/libpod-{'1' * 64}.scope",
        f"user.slice/user-1000.slice/user@1000.service/libpod-{'2' * 64}.scope",
    ]
)
_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("use"), _GROUPS, st.integers(1, 400)),
        st.tuples(st.just("end"), _GROUPS, st.just(0)),
        st.tuples(st.just("spend"), st.just(""), st.integers(1, 400)),
        st.tuples(st.just("sample"), st.just(""), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(_EVENTS)
def test_whatever_comes_and_goes_the_owners_and_the_system_add_up_to_the_busy_time(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, str, int]]
) -> None:
    groups = Cgroups(tmp_path_factory.mktemp("machine") / "root")
    watched = _Watched(groups)
    seen: dict[str, float] = {}
    added_up = 0.0

    def look() -> None:
        nonlocal added_up, seen
        now = {name: v for name, v in watched.sample().items() if "cpu_seconds" in name}
        for name, value in now.items():
            assert value >= seen.get(name, 0)
            added_up += value - seen.get(name, 0)
        seen = now

    look()
    busy = 0.0
    for event, path, hundredths in [*events, ("sample", "", 0)]:
        match event:
            case "use":
                groups.make(path)
                groups.use(path, hundredths / 100)
            case "end" if (groups.root / "sys/fs/cgroup" / path).exists():
                groups.end(path)
            case "spend":
                groups.spend(hundredths / 100)
            case "sample":
                look()
        busy += hundredths / 100
    assert added_up == pytest.approx(busy, abs=0.011)
    assert watched.faults == []


# the kernel's own groups


@pytest.fixture
def kernels() -> Iterator[Path]:
    """A group of the kernel's, at the root of its tree."""
    root = Path("/sys/fs/cgroup")
    tree = root if (root / "cgroup.controllers").exists() else root / "cpuacct"
    group = tree / f"telemetryd-test-{os.getpid()}.service"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    if group.exists():
        group.rmdir()


def _burn(group: Path) -> None:
    """Use a fifth of a second of CPU time in the group."""
    code = "import time\nwhile time.process_time() < 0.2: pass"
    script = f"echo $$ >{group}/cgroup.procs && exec {sys.executable} -c '{code}'"
    subprocess.run(["/bin/sh", "-c", script], check=True, timeout=60)


def test_a_service_of_the_kernels_is_followed_over_its_restart_to_its_end(kernels: Path) -> None:
    collector = Owners(OwnersConfig(), Host())
    faults: list[tuple[str, str]] = []
    collector.on_fault = lambda reason, what: faults.append((reason, what))
    name = _cpu("unit", kernels.name)
    assert values_of(collector)[name] == 0
    _burn(kernels)
    first = values_of(collector)[name]
    assert 0.2 <= first < 1
    _burn(kernels)
    kernels.rmdir()
    kernels.mkdir()
    _burn(kernels)
    second = values_of(collector)[name]
    assert first + 0.2 <= second < first + 2
    kernels.rmdir()
    assert values_of(collector)[name] >= second
    assert name not in values_of(collector)
    collector.close()
    assert faults == []


# commands


def _process(pid: int, command: str, ticks: int, started: int = 1) -> dict[str, str]:
    stat = f"{pid} ({command}) S 1 1 1 0 -1 4194560 1 0 0 0 {ticks} 0 0 0 20 0 1 0 {started} 1 1"
    return {f"proc/{pid}/stat": f"{stat} 0 0 0\n"}


def test_commands_that_are_asked_for_have_the_time_of_all_their_processes(groups: Cgroups) -> None:
    hz = os.sysconf("SC_CLK_TCK")
    watched = _Watched(groups, processes=["python*", "a )"])
    write_tree(groups.root, _process(1, "init", 50) | _process(9, "python3", 1000))
    assert watched.sample()[_cpu("process", "python3")] == 0
    write_tree(
        groups.root,
        _process(1, "init", 70)
        | _process(9, "python3", 1000 + hz)
        | _process(10, "python3", hz)
        | _process(11, "a )", 2 * hz),
    )
    values = watched.sample()
    assert values[_cpu("process", "python3")] == 2
    assert values[_cpu("process", "a )")] == 2
    assert _cpu("process", "init") not in values
    shutil.rmtree(groups.root / "proc/9")
    write_tree(groups.root, _process(10, "python3", 0, started=99))  # another of its number
    values = watched.sample()
    assert values[_cpu("process", "python3")] == 2
    for pid in ("10", "11"):
        shutil.rmtree(groups.root / "proc" / pid)
    assert not any("process" in name for name in watched.sample())


def test_commands_beyond_the_limit_are_counted_as_dropped(groups: Cgroups) -> None:
    watched = _Watched(groups, processes=["*"], max_owners=1)
    write_tree(groups.root, _process(1, "a", 1) | _process(2, "b", 1))
    watched.sample()
    write_tree(groups.root, _process(2, "b", 100))
    values = watched.sample()
    assert _cpu("process", "b") in values
    assert _cpu("process", "a") not in values
    assert values["telemetryd_owner_dropped{}"] == 1

"""The owners collector: who is found where, the first and the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cgroups import Cgroups
from support.trees import host_at, values_of, write_tree
from support.watched_owners import (
    JOB,
    MIB,
    NGINX,
    SHORT,
    TREES,
    Watched,
    cpu_of,
    memory_of,
    owners_of,
)

from telemetryd.collectors.owners import Owners, OwnersConfig
from telemetryd.collectors.owners.accounts import Accounts
from telemetryd.errors import Unavailable
from telemetryd.owners import Owner

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
    assert owners_of(collector) == owners
    collector.close()


def test_every_counter_begins_at_zero_however_much_was_used_before() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(TREES / "v2")))
    assert {value for name, value in values.items() if "cpu_seconds" in name} == {0}


def test_memory_is_that_of_an_owner_without_those_inside_it() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(TREES / "podman")))
    assert values[memory_of("container", SHORT[1])] == 100 * MIB
    # its session, and the conmon of its container
    assert values[memory_of("unit", "user-1000.slice")] == 11 * MIB
    assert values[memory_of("container", SHORT[2])] == 40 * MIB
    assert values[memory_of("unit", "web.service")] == 3 * MIB


def test_memory_of_version_1_may_know_other_owners_than_its_cpu_time() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(TREES / "slurm-v1")))
    assert values[memory_of("job", "7")] == 1000 * MIB
    assert memory_of("job", "8") not in values
    assert cpu_of("job", "8") in values
    assert values[memory_of("unit", "sshd.service")] == 5 * MIB


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
    watched = Watched(groups)
    assert list(watched.collector.remarks()) == []
    write_tree(groups.root, {"sys/fs/cgroup/cgroup.type": "domain\n"})
    assert "own container only" in next(iter(watched.collector.remarks()))


def test_memory_that_seems_less_than_what_is_inside_it_is_absent(groups: Cgroups) -> None:
    user = "user.slice/user-1000.slice"
    groups.make(user, memory=4 * MIB)
    groups.make(f"{user}/libpod-{'0' * 64}.scope", memory=5 * MIB)
    values = Watched(groups).sample()
    assert values[memory_of("container", "0" * 12)] == 5 * MIB
    assert memory_of("unit", "user-1000.slice") not in values


# the first, and the others


def test_beyond_its_limit_owners_are_others_and_no_counter_falls(groups: Cgroups) -> None:
    for name in "abc":
        groups.make(f"system.slice/{name}.service", memory=10)
    watched = Watched(groups, max_owners=2)
    watched.sample()
    groups.use("system.slice/a.service", 5)
    groups.use("system.slice/b.service", 4)
    groups.use("system.slice/c.service", 1)
    values = watched.sample()
    assert values[cpu_of("unit", "a.service")] == 5
    assert values[cpu_of("unit", "b.service")] == 4
    assert values[cpu_of("other")] == 1
    assert values[memory_of("other")] == 10
    assert values["telemetryd_owner_found{}"] == 3
    assert values["telemetryd_owner_dropped{}"] == 1
    groups.use("system.slice/c.service", 50)
    values = watched.sample()
    assert values[cpu_of("unit", "c.service")] == 50
    assert values[cpu_of("other")] == 1
    assert cpu_of("unit", "b.service") not in values
    groups.use("system.slice/b.service", 500)
    values = watched.sample()
    assert values[cpu_of("unit", "b.service")] == 504
    assert cpu_of("unit", "a.service") not in values
    groups.end("system.slice/c.service")
    assert watched.sample()[cpu_of("unit", "c.service")] == 50
    values = watched.sample()
    assert values[cpu_of("unit", "a.service")] == 5
    assert values[cpu_of("other")] == 1
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
    watched = Watched(groups)
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

"""The owners collector: no second of CPU time counts twice or is lost."""

from __future__ import annotations

from support.cgroups import Cgroups
from support.watched_owners import (
    NGINX,
    Watched,
    cpu_of,
)

# what they use


def test_time_of_an_owner_inside_another_is_its_own_alone(groups: Cgroups) -> None:
    user = "user.slice/user-1000.slice"
    container = f"{user}/user@1000.service/user.slice/libpod-{'0' * 64}.scope/container"
    groups.make(container)
    groups.make(f"{user}/session-3.scope")
    watched = Watched(groups)
    watched.sample()
    groups.use(container, 3)
    groups.use(f"{user}/session-3.scope", 2)
    values = watched.sample()
    assert values[cpu_of("container", "0" * 12)] == 3
    assert values[cpu_of("unit", "user-1000.slice")] == 2
    assert values[cpu_of("system")] == 0


def test_an_owner_read_a_moment_later_than_the_one_inside_it_loses_nothing_and_gains_nothing(
    groups: Cgroups,
) -> None:
    user = "user.slice/user-1000.slice"
    container = f"{user}/libpod-{'0' * 64}.scope"
    groups.make(container)
    watched = Watched(groups)
    watched.sample()
    groups.use(container, 1)
    groups.use(user, -0.25)
    assert watched.sample()[cpu_of("unit", "user-1000.slice")] == 0
    groups.use(container, 1)
    groups.use(user, 0.75)
    assert watched.sample()[cpu_of("unit", "user-1000.slice")] == 0.5


def test_what_was_used_where_later_an_owner_begins_counts_once(groups: Cgroups) -> None:
    user = "user.slice/user-1000.slice"
    groups.make(f"{user}/user@1000.service/user.slice")
    groups.use(f"{user}/user@1000.service/user.slice", 50)
    watched = Watched(groups)
    watched.sample()
    container = f"{user}/user@1000.service/user.slice/libpod-{'0' * 64}.scope"
    groups.make(container)
    groups.use(container, 3)
    groups.use(user, 2)
    values = watched.sample()
    assert values[cpu_of("container", "0" * 12)] == 3
    assert values[cpu_of("unit", "user-1000.slice")] == 2


def test_what_nobody_used_is_the_systems(groups: Cgroups) -> None:
    groups.make(NGINX)
    groups.make("custom/workers")
    watched = Watched(groups)
    watched.sample()
    groups.use(NGINX, 1)
    groups.use("custom/workers", 2)
    groups.spend(4)
    assert watched.sample()[cpu_of("system")] == 6
    groups.spend(0.5)
    assert watched.sample()[cpu_of("system")] == 6.5


def test_without_proc_stat_the_systems_share_is_absent_and_made_up_for_later(
    groups: Cgroups,
) -> None:
    groups.make(NGINX)
    watched = Watched(groups)
    watched.sample()
    (groups.root / "proc/stat").write_text("garbage\n")
    watched.collector._rest.close()
    values = watched.sample()
    assert cpu_of("system") not in values
    assert cpu_of("unit", "nginx.service") in values
    assert watched.faults[0][0] == "parse"
    groups.use(NGINX, 1)
    groups.spend(2)
    assert watched.sample()[cpu_of("system")] == 2


def test_a_processor_that_goes_offline_takes_nothing_from_the_system(groups: Cgroups) -> None:
    groups.make(NGINX)
    groups.spend(100)
    watched = Watched(groups)
    watched.sample()
    groups.spend(5)
    assert watched.sample()[cpu_of("system")] == 5
    groups.spend(-50)
    assert watched.sample()[cpu_of("system")] == 5
    groups.spend(1)
    assert watched.sample()[cpu_of("system")] == 6


def test_owners_that_seem_to_use_more_than_the_machine_are_no_credit_to_the_system(
    groups: Cgroups,
) -> None:
    groups.make(NGINX)
    watched = Watched(groups)
    watched.sample()
    groups.use(NGINX, 1)
    groups.spend(-0.5)  # as when it was read half a second of CPU time earlier
    assert watched.sample()[cpu_of("system")] == 0
    groups.spend(2)
    assert watched.sample()[cpu_of("system")] == 1.5

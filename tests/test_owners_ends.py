"""The owners collector: owners that come, end, restart, and cannot be read."""

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
from support.cgroups import Cgroups
from support.clock import FakeClock
from support.trees import host_at, values_of
from support.watched_owners import (
    JOB,
    MIB,
    NGINX,
    TREES,
    Watched,
    cpu_of,
    memory_of,
)

from telemetryd.collectors.owners import Owners, OwnersConfig
from telemetryd.host import Attribute, Host, Ownership

# who comes and goes


def test_an_owner_that_comes_counts_from_its_beginning(groups: Cgroups) -> None:
    groups.make("system.slice/slurmstepd.scope/system")
    watched = Watched(groups)
    watched.sample()
    groups.make(f"{JOB}/step_0/user")
    groups.use(f"{JOB}/step_0/user", 4)
    values = watched.sample()
    assert values[cpu_of("job", "7")] == 4
    assert values[cpu_of("unit", "slurmstepd.scope")] == 0


def test_an_owner_that_ends_is_shown_once_more_with_what_it_used_to_its_end(
    groups: Cgroups,
) -> None:
    groups.make(JOB, memory=MIB)
    watched = Watched(groups)
    watched.sample()
    groups.use(JOB, 4)
    assert watched.sample()[cpu_of("job", "7")] == 4
    groups.use(JOB, 3)
    groups.end(JOB)
    values = watched.sample()
    assert values[cpu_of("job", "7")] == 7
    assert memory_of("job", "7") not in values
    assert values["telemetryd_owner_found{}"] == 1
    values = watched.sample()
    assert not any('owner="7"' in name for name in values)
    assert values[cpu_of("system")] == 0


def test_what_is_left_below_a_busy_owner_goes_to_the_one_that_ended_but_for_the_usual(
    groups: Cgroups,
) -> None:
    scope = "system.slice/slurmstepd.scope"
    groups.make(JOB)
    groups.make(f"{scope}/system")
    watched = Watched(groups)
    for _ in range(2):
        watched.sample()
        groups.use(f"{scope}/system", 1)
    groups.use(JOB, 3)
    groups.end(JOB)
    values = watched.sample()
    assert values[cpu_of("job", "7")] == 3
    assert values[cpu_of("unit", "slurmstepd.scope")] == 2


def test_of_two_that_end_at_once_nobody_knows_and_the_one_above_keeps_the_rest(
    groups: Cgroups,
) -> None:
    other = JOB.replace("7", "8")
    groups.make(JOB)
    groups.make(other)
    watched = Watched(groups)
    watched.sample()
    groups.use(JOB, 3)
    groups.use(other, 2)
    groups.end(JOB)
    groups.end(other)
    values = watched.sample()
    assert values[cpu_of("job", "7")] == values[cpu_of("job", "8")] == 0
    assert values[cpu_of("unit", "slurmstepd.scope")] == 5


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
    assert values_of(collector)[cpu_of("job", "7")] == 6


def test_what_is_above_the_last_owner_still_tells_what_that_used(groups: Cgroups) -> None:
    groups.make("slurm/uid_1000/job_7")
    watched = Watched(groups)
    watched.sample()
    groups.use("slurm/uid_1000/job_7", 6)
    groups.spend(9)
    groups.end("slurm/uid_1000")
    values = watched.sample()
    assert values[cpu_of("job", "7")] == 6
    assert values[cpu_of("system")] == 9
    groups.make("slurm/uid_1000/job_8")
    groups.use("slurm/uid_1000/job_8", 2)
    assert watched.sample()[cpu_of("job", "8")] == 2


@pytest.mark.parametrize(
    ("job_s", "system_s", "given_s"),
    [(3, 0.5, 3), (3, 0, 2.5), (4, 10, 5)],  # no more than the job used in the time before
)
def test_an_owner_of_whom_nothing_is_left_is_given_what_the_system_would_not_have_used(
    groups: Cgroups, job_s: float, system_s: float, given_s: float
) -> None:
    job = "slurm_node1/uid_1000/job_7"
    groups.make(job)
    watched = Watched(groups)
    watched.sample()
    groups.use(job, 5)
    groups.spend(0.5)
    watched.sample()
    groups.use(job, job_s)
    groups.spend(system_s)
    groups.end("slurm_node1")
    values = watched.sample()
    assert values[cpu_of("job", "7")] == 5 + given_s
    assert values[cpu_of("system")] == 0.5 + job_s + system_s - given_s
    groups.spend(3)
    assert watched.sample()[cpu_of("system")] == values[cpu_of("system")] + 3


def test_a_service_that_restarts_goes_on_counting(groups: Cgroups) -> None:
    groups.make(NGINX)
    watched = Watched(groups)
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
    assert values[cpu_of("unit", "nginx.service")] == 8
    assert values[cpu_of("system")] == 0
    groups.use(NGINX, 1)
    assert watched.sample()[cpu_of("unit", "nginx.service")] == 9


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
    watched = Watched(groups)
    watched.sample()
    stat = groups.root / "sys/fs/cgroup" / NGINX / "cpu.stat"
    good = stat.read_text()
    stat.write_text("nr_periods 1\n")
    groups.use(JOB, 1)
    values = watched.sample()
    assert values[cpu_of("job", "7")] == 1
    assert watched.faults == [("parse", f"{stat.parent}: does not begin with usage_usec ")]
    stat.write_text(good)
    groups.use(NGINX, 2)
    assert watched.sample()[cpu_of("unit", "nginx.service")] == 2


def test_a_counter_that_goes_back_is_a_fault_and_gives_nothing(groups: Cgroups) -> None:
    groups.make(NGINX)
    groups.use(NGINX, 9)
    watched = Watched(groups)
    watched.sample()
    groups.use(NGINX, -5)
    assert watched.sample()[cpu_of("unit", "nginx.service")] == 0
    assert watched.faults[0][0] == "invalid"
    groups.use(NGINX, 1)
    assert watched.sample()[cpu_of("unit", "nginx.service")] == 1


def test_memory_that_is_switched_on_later_is_found(groups: Cgroups) -> None:
    groups.make(NGINX)
    watched = Watched(groups)
    assert memory_of("unit", "nginx.service") not in watched.sample()
    groups.make(NGINX, memory=MIB)
    assert watched.sample(61)[memory_of("unit", "nginx.service")] == MIB
    assert watched.faults == []


def test_an_owner_that_begins_inside_a_container_is_found_within_a_minute(groups: Cgroups) -> None:
    container = f"system.slice/docker-{'0' * 64}.scope"
    groups.make(f"{container}/init")
    watched = Watched(groups)
    watched.sample()
    job = f"{container}/init/{JOB}"
    groups.make(job)
    groups.use(job, 7)
    watched.sample(30)
    assert watched.sample(31)[cpu_of("job", "7")] == 0  # so far it was the container's
    groups.use(job, 2)
    values = watched.sample()
    assert values[cpu_of("job", "7")] == 2
    assert values[cpu_of("container", "0" * 12)] == 7


def test_steps_of_jobs_are_told_apart_where_the_configuration_says_so(groups: Cgroups) -> None:
    groups.make(f"{JOB}/step_0/user/task_0")
    groups.make(f"{JOB}/step_batch/user/task_0")
    watched = Watched(groups, Ownership(slurm_steps=True))
    watched.sample()
    groups.use(f"{JOB}/step_0/user/task_0", 3)
    groups.use(f"{JOB}/step_batch/user/task_0", 1)
    groups.make(f"{JOB}/step_1/user/task_0")
    groups.use(f"{JOB}/step_1/user/task_0", 2)
    values = watched.sample()
    assert values[cpu_of("job", "7.0")] == 3
    assert values[cpu_of("job", "7.batch")] == 1
    assert values[cpu_of("job", "7.1")] == 2
    assert values[cpu_of("job", "7")] == 0


def test_no_more_files_are_kept_open_than_half_of_those_allowed(
    groups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        groups.make(f"system.slice/s{number}.service", memory=number)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
    watched = Watched(groups)
    for _ in range(2):
        values = watched.sample()
        assert values[memory_of("unit", "s29.service")] == 29
        assert values[memory_of("unit", "s0.service")] == 0
    assert 15 <= _open_files_below(groups.root) <= 21
    watched.collector.close()
    assert _open_files_below(groups.root) == 0


def _open_files_below(folder: Path) -> int:
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return sum(os.readlink(one).startswith(str(folder)) for one in links if os.path.exists(one))


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
    name = cpu_of("unit", kernels.name)
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

"""GPUs that Slurm's jobs hold without a process on them, as far as control groups tell."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.cgroups import Cgroups
from support.clock import FakeClock
from support.trees import FIXTURES, host_at, values_of, write_tree
from support.watched_owners import JOB, minors_of

from telemetryd.collectors.owners import Owners, OwnersConfig
from telemetryd.collectors.owners.slurm import held_minors
from telemetryd.host import Ownership

# the device controller of version 1


def test_a_job_holds_the_gpus_that_its_devices_allow_without_a_process() -> None:
    values = values_of(Owners(OwnersConfig(), host_at(FIXTURES / "owners/slurm-v1")))
    assert minors_of(values) == {"2", "130"}
    assert minors_of(values, "8") == set()  # it may use any device: nothing is known
    assert not any("gpu_minor" in name and "unit" in name for name in values)


def test_the_gpus_of_a_job_are_told_of_the_job_and_not_of_its_steps(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "owners/slurm-v1", tmp_path / "machine", symlinks=True)
    job = tmp_path / "machine/sys/fs/cgroup/devices/slurm/uid_1000/job_7"
    (job / "step_0").mkdir(exist_ok=True)
    shutil.copy(job / "devices.list", job / "step_0/devices.list")
    host = replace(host_at(tmp_path / "machine"), ownership=Ownership(slurm_steps=True))
    values = values_of(Owners(OwnersConfig(), host))
    assert minors_of(values) == {"2", "130"}
    assert sum("gpu_minor" in name for name in values) == 2


def test_a_job_that_is_given_a_gpu_later_holds_it_then(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "owners/slurm-v1", tmp_path / "machine", symlinks=True)
    clock = FakeClock()
    collector = Owners(OwnersConfig(), host_at(tmp_path / "machine", clock))
    devices = tmp_path / "machine/sys/fs/cgroup/devices/slurm/uid_1001/job_8/devices.list"
    values_of(collector)
    devices.write_text("c 195:0 rwm\nc 195:1 rw\n")
    clock.tick(5)
    assert minors_of(values_of(collector), "8") == {"0", "1"}
    devices.unlink()
    collector.close()
    clock.tick(5)
    assert minors_of(values_of(collector), "8") == set()


@pytest.mark.parametrize(
    ("text", "minors"),
    [
        (b"a *:* rwm\n", set()),
        (b"c 195:* rwm\n", set()),
        (b"c 195:0 rwm\nc 195:254 rwm\nc 195:255 rwm\n", {"0"}),
        (b"c 1195:0 rwm\nb 195:1 rwm\nx c 195:2 rwm\n", set()),
        (b"c 226:0 rw\nc 226:128 rw\n", {"128"}),
        (b"\xff\n\n", set()),
    ],
)
def test_gpus_are_told_from_other_devices(text: bytes, minors: set[str]) -> None:
    assert held_minors(text) == minors


# what an operator is told

_FREE = "a GPU that a Slurm job holds without a process on it counts as free"
_NVIDIA = "proc/driver/nvidia/gpus/0000:1b:00.0/information"


@pytest.mark.parametrize("file", [_NVIDIA, "sys/class/drm/renderD128/dev"])
def test_where_nothing_tells_the_gpus_of_jobs_it_says_what_does(tmp_path: Path, file: str) -> None:
    groups = Cgroups(tmp_path / "machine")
    groups.make(JOB)
    write_tree(groups.root, {file: ""})
    collector = Owners(OwnersConfig(), groups.host)
    values_of(collector)
    (said,) = collector.remarks()
    assert said.startswith(_FREE)
    assert said.endswith("set collectors.owners.scontrol to true")


@pytest.mark.parametrize(
    ("file", "group", "scontrol"),
    [
        ("sys/class/drm/card0/dev", JOB, False),  # no GPU: a BMC's screen
        (_NVIDIA, "system.slice/nginx.service", False),  # no job
        (_NVIDIA, JOB, True),
    ],
)
def test_it_says_nothing_of_gpus_of_jobs_where_there_is_nothing_to_say(
    tmp_path: Path, file: str, group: str, scontrol: bool
) -> None:
    groups = Cgroups(tmp_path / "machine")
    groups.make(group)
    write_tree(groups.root, {file: ""})
    config = OwnersConfig(scontrol=scontrol, scontrol_command=str(tmp_path / "nowhere"))
    collector = Owners(config, groups.host)
    values_of(collector)
    collector.close()
    assert list(collector.remarks()) == []


@pytest.mark.parametrize(
    ("devices", "is_told"),
    [("a *:* rwm\n", False), ("c 195:0 rwm\n", True), ("c 1:3 rwm\n", True), ("", True)],
)
def test_it_says_nothing_where_the_devices_tell_the_gpus_of_jobs(
    tmp_path: Path, devices: str, is_told: bool
) -> None:
    shutil.copytree(FIXTURES / "owners/slurm-v1", tmp_path / "machine", symlinks=True)
    jobs = tmp_path / "machine/sys/fs/cgroup/devices/slurm"
    for file in jobs.glob("uid_*/job_*/devices.list"):
        file.write_text(devices)
    write_tree(tmp_path / "machine", {_NVIDIA: ""})
    collector = Owners(OwnersConfig(), host_at(tmp_path / "machine"))
    values_of(collector)
    assert (list(collector.remarks()) == []) is is_told

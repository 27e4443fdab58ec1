"""Slurm's jobs: what scontrol says of them, also of the GPUs that they hold without a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cgroups import Cgroups
from support.trees import values_of, write_tree
from support.watched_owners import JOB, minors_of

from telemetryd.clock import Clock
from telemetryd.collectors.owners import Owners, OwnersConfig
from telemetryd.collectors.owners.slurm import has_host, numbers, parse_job
from telemetryd.errors import ReadError
from telemetryd.program import Program

# What scontrol 22.05 says with -d, cut short.
ANSWER = """\
JobId={job} JobName=train llama
   UserId=alice(1000) GroupId=users(100) MCS_label=N/A
   Priority=4294901757 Nice=0 Account=(null) QOS=(null)
   JobState=RUNNING Reason=None Dependency=(null)
   Partition=gpu AllocNode:Sid=login:1234
   NodeList=node[1-2]
   JOB_GRES=gpu:a100:6
     Nodes=node1 CPU_IDs=0-15 Mem=0 GRES=gpu:a100:4(IDX:0-2,5)
     Nodes=node2 CPU_IDs=0-15 Mem=0 GRES=gpu:a100:2(IDX:6-7)
   Command=/home/alice/train.sh
   Comment=UserId=mallory(0)

"""


def _info(job: str, name: str, user: str = "", partition: str = "") -> str:
    labels = f'owner_kind="job",owner="{job}",name="{name}",user="{user}",partition="{partition}"'
    return f'telemetryd_owner_info{{{labels},namespace=""}}'


class _Node:
    """A node on which job 7 runs, with a scontrol that does what the test says."""

    def __init__(self, folder: Path, script: str) -> None:
        self.groups = Cgroups(folder / "machine")
        self.groups.make(JOB)
        write_tree(self.groups.root, {"proc/sys/kernel/hostname": "node2.example.org\n"})
        self.calls = folder / "calls"
        self.calls.touch()
        program = folder / "bin/scontrol"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$@" >>{self.calls}\n{script}\n')
        program.chmod(0o755)
        self.faults: list[tuple[str, str]] = []
        config = OwnersConfig(scontrol=True, scontrol_command=str(program))
        self.collector = Owners(config, self.groups.host)
        self.collector.on_fault = lambda reason, what: self.faults.append((reason, what))

    def sample(self, after: float = 5.0) -> dict[str, float]:
        self.groups.clock.tick(after)
        return values_of(self.collector)

    def wait(self) -> None:
        """Until scontrol has answered."""
        asked = self.collector._scontrol
        assert asked is not None
        if asked._round is not None:
            assert asked._round.wait(20, Clock())

    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Callable[[str], _Node]:
    return lambda script: _Node(tmp_path, script)


def _answer(job: str = "7") -> str:
    return f"cat <<'END'\n{ANSWER.format(job=job)}END"


# scontrol


def test_a_job_has_its_name_user_partition_and_gpus_once_scontrol_has_answered(
    node: Callable[[str], _Node],
) -> None:
    here = node(_answer())
    values = here.sample()
    assert values[_info("7", "7")] == 1
    assert minors_of(values) == set()
    here.wait()
    values = here.sample()
    assert values[_info("7", "train llama", "alice", "gpu")] == 1
    assert _info("7", "7") not in values
    assert minors_of(values) == {"6", "7"}
    here.sample()
    assert here.asked() == ["-d show job 7"]
    here.collector.close()


def test_scontrol_is_asked_once_for_each_new_job_and_forgotten_with_it(
    node: Callable[[str], _Node],
) -> None:
    here = node('[ "$4" = 7 ] && ' + _answer())
    here.sample()
    here.wait()
    here.groups.make(JOB.replace("7", "8"))
    here.sample()
    here.wait()
    here.sample()
    here.groups.end(JOB)
    values = here.sample()
    assert values[_info("7", "train llama", "alice", "gpu")] == 1  # for the last time
    values = here.sample()
    assert not any("llama" in name for name in values)
    assert minors_of(values) == set()
    assert here.asked() == ["-d show job 7", "-d show job 8"]
    here.collector.close()


def test_an_answer_that_is_none_is_a_fault_and_the_job_keeps_its_number(
    node: Callable[[str], _Node],
) -> None:
    here = node('echo "slurm_load_jobs error: Invalid job id specified"; exit 1')
    here.sample()
    here.wait()
    values = here.sample()
    assert values[_info("7", "7")] == 1
    reason, what = here.faults[0]
    assert (reason, "Invalid job id" in what) == ("parse", True)
    here.sample(120)
    assert here.asked() == ["-d show job 7"]
    here.collector.close()


def test_after_a_failure_the_next_job_waits_a_minute(node: Callable[[str], _Node]) -> None:
    here = node("exit 1")
    here.sample()
    here.wait()
    here.groups.make(JOB.replace("7", "8"))
    here.sample()
    here.wait()
    here.sample(30)
    here.wait()
    assert here.asked() == ["-d show job 7"]
    here.sample(40)
    here.wait()
    assert here.asked() == ["-d show job 7", "-d show job 8"]
    here.collector.close()


def test_scontrol_that_hangs_holds_up_no_sample_and_is_killed_in_time(
    node: Callable[[str], _Node],
) -> None:
    here = node("sleep 600")
    asked = here.collector._scontrol
    assert asked is not None
    asked._program = Program(0.2, 1000)
    assert here.sample()[_info("7", "7")] == 1
    here.wait()
    here.sample()
    assert [reason for reason, _ in here.faults] == ["timeout"]
    here.collector.close()


def test_closing_ends_scontrol_at_once(node: Callable[[str], _Node]) -> None:
    here = node("sleep 600")
    here.sample()
    while not here.asked():
        Clock().pause(0.01)
    here.collector.close()
    here.collector.close()
    here.wait()


def test_endless_garbage_is_cut_off(node: Callable[[str], _Node]) -> None:
    here = node("exec cat /dev/zero")
    here.sample()
    here.wait()
    here.sample()
    assert [reason for reason, _ in here.faults] == ["parse"]
    here.collector.close()


def test_a_scontrol_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    groups = Cgroups(tmp_path / "machine")
    groups.make(JOB)
    config = OwnersConfig(scontrol=True, scontrol_command=str(tmp_path / "nowhere/scontrol"))
    collector = Owners(config, groups.host)
    faults: list[tuple[str, str]] = []
    collector.on_fault = lambda reason, what: faults.append((reason, what))
    list(collector.sample())
    assert collector._scontrol is not None
    assert collector._scontrol._round is not None
    assert collector._scontrol._round.wait(20, Clock())
    list(collector.sample())
    assert faults[0][0] == "missing"
    assert "nowhere/scontrol" in faults[0][1]


def test_scontrol_is_not_asked_where_the_configuration_does_not_say_so(tmp_path: Path) -> None:
    groups = Cgroups(tmp_path / "machine")
    assert Owners(OwnersConfig(), groups.host)._scontrol is None


def test_a_jobs_name_may_be_anything() -> None:
    said = ANSWER.replace("train llama", 'a "b", {c} Partition=x \udcff').format(job=7, c="{c}")
    job = parse_job(said, "node1")
    assert job.name == 'a "b", {c} Partition=x \udcff'
    assert (job.user, job.partition) == ("alice", "gpu")
    assert job.minors == {"0", "1", "2", "5"}


def test_an_array_job_is_described_like_any_other() -> None:
    said = ANSWER.replace("JobName=", "ArrayJobId=9 ArrayTaskId=3 JobName=").format(job=12)
    assert parse_job(said, "node1").name == "train llama"


@given(st.text())
def test_no_answer_is_too_strange(said: str) -> None:
    for text in (said, f"JobId=7 {said}"):
        try:
            parse_job(text, "node1")
        except ReadError:
            continue


@pytest.mark.parametrize(
    ("gres", "minors"),
    [
        ("gpu:2(IDX:0-1)", {"0", "1"}),
        ("gpu:a100:1(IDX:3)", {"3"}),
        ("shard:a100:4(4/8),gpu:h100:2(IDX:0,7)", {"0", "7"}),
        ("gpu:a100:1(IDX:0),gpu:v100:1(IDX:4)", {"0", "4"}),
        # The index of a MIG instance is not its GPU's.
        ("gpu:1g.10gb:1(IDX:3)", set()),
        ("gpu:a100_3g.20gb:1(IDX:3)", set()),
        ("gpu:0(IDX:N/A)", set()),
        ("license:3(IDX:1)", set()),
        ("", set()),
    ],
)
def test_gpus_are_the_indexes_of_the_gres_line(gres: str, minors: set[str]) -> None:
    said = f"JobId=7 JobName=x\n     Nodes=other CPU_IDs=0 Mem=0 GRES={gres}\n"
    assert parse_job(said, "node1").minors == minors


@pytest.mark.parametrize(
    ("hosts", "is_there"),
    [
        ("node7", True),
        ("node[1-9]", True),
        ("login,node[1,5-7]", True),
        ("node[01-09]", False),
        ("node[1-6]", False),
        ("node77", False),
        ("node[1-9]-ib", False),
        ("", False),
        ("node[", False),
    ],
)
def test_a_node_is_found_in_slurms_list_of_hosts(hosts: str, is_there: bool) -> None:
    assert has_host(hosts, "node7") is is_there


def test_numbers_of_a_range_are_bounded() -> None:
    assert list(numbers("0-2,7,x,-,3-y")) == [0, 1, 2, 7]
    assert len(list(numbers("0-99999999999"))) < 10_000

"""A job of a real Slurm is found, named, charged, and gone when it has ended."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from support.energy_feed import INPUT, UNATTRIBUTED, Feed, component, cpu_share, energy
from support.slurm import Slurm, slurm, wait
from support.trees import values_of

from telemetryd.collectors.owners import Owners, OwnersConfig
from telemetryd.derivation import EnergyConfig
from telemetryd.host import Host, Ownership
from telemetryd.metric import Point
from telemetryd.owners import Owner, of_process

pytestmark = [pytest.mark.server, pytest.mark.long]

_BUSY = "echo begun; exec python3 -c 'while True: pass'"


@pytest.fixture(scope="module")
def started() -> Iterator[Slurm]:
    with slurm() as found:
        yield found


@pytest.fixture
def cluster(started: Slurm) -> Iterator[Slurm]:
    yield started
    started.end()


def _cpu(job: str) -> str:
    return f'telemetryd_owner_cpu_seconds_total{{owner_kind="job",owner="{job}"}}'


def _job(cluster: Slurm, *options: str) -> str:
    job = cluster.submit(_BUSY, *options)
    wait(lambda: "begun" in cluster.output(job), f"job {job} runs")
    return job


def _processes(cluster: Slurm, job: str) -> list[int]:
    rows = cluster.run("scontrol", "listpids", job).splitlines()[1:]
    return [int(row.split()[0]) for row in rows if row.split()[0].isdecimal()]


def test_a_job_is_charged_what_it_uses_until_its_end(cluster: Slurm) -> None:
    job = _job(cluster)
    collector = Owners(OwnersConfig(), Host())
    try:
        before = values_of(collector)
        since = time.monotonic()
        assert before[_cpu(job)] == 0
        assert before[f'telemetryd_owner_memory_bytes{{owner_kind="job",owner="{job}"}}'] > 0
        time.sleep(3)
        used = values_of(collector)[_cpu(job)]
        assert 0 < used <= (time.monotonic() - since) * 1.1
        cluster.end()
        ended = values_of(collector)
        assert ended[_cpu(job)] >= used
        assert _cpu(job) not in values_of(collector)
    finally:
        collector.close()


def test_processes_of_a_job_are_its_own(cluster: Slurm) -> None:
    job = _job(cluster)

    def owners(*, steps: bool) -> set[Owner | None]:
        processes = _processes(cluster, job)
        host = Host(ownership=Ownership(slurm_steps=steps))
        return {of_process(host, process) for process in processes}

    # Slurm's own begin and end now and then, and may be gone when they are looked at.
    wait(lambda: owners(steps=False) == {Owner("job", job)}, "its processes are the job's")
    batch = {Owner("job", f"{job}.batch")}
    wait(lambda: owners(steps=True) == batch, "its processes are the step's")


def test_scontrol_tells_a_jobs_name_and_the_gpu_that_no_process_uses(
    cluster: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    first = _job(cluster, "--gres=gpu:1", "--job-name=first")
    second = _job(cluster, "--gres=gpu:1", "--job-name=a second, named {so}")
    collector = Owners(OwnersConfig(scontrol=True), Host())
    faults: list[tuple[str, str]] = []
    collector.on_fault = lambda reason, what: faults.append((reason, what))
    values: dict[str, float] = {}

    def are_named() -> bool:
        values.clear()
        values.update(values_of(collector))
        return sum('user="root",partition="gpu"' in name for name in values) == 2

    try:
        wait(are_named, "scontrol has answered")
    finally:
        collector.close()
    minor = 'telemetryd_owner_gpu_minor{{owner_kind="job",owner="{}",minor="{}"}}'
    assert values[minor.format(first, 0)] == 1
    assert values[minor.format(second, 1)] == 1
    assert any('name="a second, named {so}"' in name for name in values)
    assert faults == []


def test_a_job_gets_the_energy_of_the_cpu_that_it_uses(cluster: Slurm) -> None:
    """The job and its CPU time are real; the meters and the passing of minutes are not."""
    job = _job(cluster)
    collector = Owners(OwnersConfig(), Host())
    feed = Feed(EnergyConfig(idle_watts={"cpu *": 40}))
    joules = {"cpu": 0.0, "node": 0.0}

    def cpu() -> list[Point]:
        joules["cpu"] += 100.0
        joules["node"] += 150.0
        return [component("rapl", joules["cpu"], "package")]

    def real_owners() -> list[Point]:
        time.sleep(0.4)
        return list(collector.sample())

    try:
        feed.run(
            250,
            cpu=(1, lambda: cpu_share(0.5)),
            rapl=(1, cpu),
            owners=(5, real_owners),
            redfish=(30, lambda: [energy("redfish", joules["node"])]),
        )
    finally:
        collector.close()
    given = {name: value for name, value in feed.values.items() if "owner_energy_joules" in name}
    of_job = given[f'telemetryd_owner_energy_joules_total{{owner_kind="job",owner="{job}"}}']
    total = feed.values[INPUT]
    assert total >= 150 * 120
    # It is the only one that keeps a CPU busy; this test and the machine's own work are the rest.
    assert 0.2 * total < of_job <= total
    assert sum(given.values()) + feed.values[UNATTRIBUTED] == pytest.approx(
        total - feed.values["telemetryd_owner_energy_ended_joules_total{}"], rel=0.001
    )

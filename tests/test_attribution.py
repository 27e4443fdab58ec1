"""Whose energy it was, on nodes whose true joules of every owner are known because they were made
so: see support/energy_node.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.energy_node import (
    CPUS,
    GPU_IDLE,
    GPU_WORK,
    OVERHEAD,
    SYSTEM,
    UNOWNED,
    EnergyNode,
    job,
)
from support.trees import named

from telemetryd.derivation import EnergyConfig
from telemetryd.derived.balance import split
from telemetryd.derived.balance.ledger import Owner
from telemetryd.derived.balance.results import Results

POD: Owner = ("pod", "0a1b")
UNIT: Owner = ("unit", "nginx.service")


def test_owners_who_share_a_gpu_get_what_their_shares_of_it_drew() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 1.0)
    for owner, share in ((job(1), 0.6), (POD, 0.3), (UNIT, 0.05)):
        node.compute(owner, 2.0)
        node.use(owner, 0, share)
    node.run(700)
    node.assert_true()


def test_the_time_of_the_kernel_is_the_owner_system_and_no_part_of_anybody_elses() -> None:
    node = EnergyNode(packages=2)
    node.compute(SYSTEM, 6.0)
    node.compute(job(1), 20.0)
    node.run(400)
    node.assert_true()
    assert node.measured[SYSTEM] > 0


def test_load_that_comes_and_goes_between_the_readings_lies_with_nobody_else() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 4.0)
    for number in range(12):
        node.compute(job(number), 4.0 + number)
        node.use(job(number), number % 2, 0.4 + 0.02 * number)
        node.run(31.13)
        if number:
            node.end(job(number - 1))
        node.run(137.77)
    node.run(100)
    node.assert_true()


def test_an_owner_that_dies_in_mid_interval_has_what_it_used_to_its_end() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 0.5)
    node.compute(job(1), 10.0)
    node.run(30)
    for number in range(2, 10):
        node.compute(job(number), 20.0)
        node.use(job(number), 0, 0.9)
        node.run(45.5)
        node.end(job(number))
        node.run(14.5)
    node.run(70)
    node.assert_true()


def test_an_owner_that_is_gone_is_published_to_its_end_and_counted_among_the_ended() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 0.5)
    node.compute(job(1), 10.0)
    node.run(110)
    node.end(job(1))
    series = 'telemetryd_owner_energy_joules_total{owner_kind="job",owner="1"}'
    ended = "telemetryd_owner_energy_ended_joules_total{}"
    seen = [0.0]
    for _ in range(200):
        node.run(1)
        node.assert_adds_up()
        if series in node.values:
            assert node.values[series] >= seen[-1], "a counter never falls"
            seen.append(node.values[series])
    assert series not in node.values
    assert node.values[ended] == seen[-1]
    assert seen[-1] == node.measured[job(1)]


def test_a_job_without_a_process_holds_its_gpu_and_pays_for_its_idle_power() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 1.0)
    node.compute(job(1), 4.0)
    node.gpus[1].jobs.add(job(1))
    node.run(400)
    node.assert_true()
    held = node.value('telemetryd_node_energy_split_joules_total{state="allocated_idle"}')
    free = node.value('telemetryd_node_energy_split_joules_total{state="unallocated"}')
    assert held == pytest.approx(free, rel=0.001), "one GPU each"


def test_steps_of_a_slurm_job_hold_the_gpu_of_their_job() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 1.0)
    node.compute(("job", "7.0"), 4.0)
    node.gpus[0].jobs.add(("job", "7.0"))
    node.use(job(7), 0, 0.8)
    node.run(200)
    gpu_w = (GPU_IDLE + 0.8 * GPU_WORK) * (1 + OVERHEAD)
    assert node.measured[job(7)] / gpu_w == pytest.approx(120, rel=0.001)


def test_a_sole_owner_gets_all_of_a_gpu_whose_driver_tells_no_shares() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 1.0)
    node.gpus[0].tells_shares = False
    node.use(job(1), 0, 0.7)
    node.compute(job(1), 1.0)
    node.run(300)
    node.assert_true()


def test_several_owners_without_shares_share_the_floor_and_the_work_is_nobodys() -> None:
    node = EnergyNode(gpu_count=1)
    node.compute(SYSTEM, 6.0)
    node.gpus[0].tells_shares = False
    for owner, share in ((job(1), 0.7), (job(2), 0.2)):
        node.use(owner, 0, share)
    node.run(310)
    node.assert_adds_up()
    seconds = 240.0
    floor_j = GPU_IDLE / 2 * (1 + OVERHEAD) * seconds
    work_j = 0.9 * GPU_WORK * (1 + OVERHEAD) * seconds
    assert node.measured[job(1)] == pytest.approx(floor_j, rel=0.01)
    assert node.measured[job(2)] == pytest.approx(floor_j, rel=0.01)
    assert node.measured[UNOWNED] == pytest.approx(work_j, rel=0.01)


def test_shares_that_are_missing_for_a_second_are_those_of_the_second_before() -> None:
    node = EnergyNode(gpu_count=1)
    node.compute(SYSTEM, 6.0)
    node.use(job(1), 0, 0.6)
    node.use(job(2), 0, 0.2)
    for second in range(250):
        node.gpus[0].tells_shares = second % 3 > 0
        node.run(1)
    node.assert_true()


# MIG


def mig(node: EnergyNode, gpu: int = 0) -> None:
    node.gpus[gpu].instances = {"1": 3, "2": 2, "9": 1}


def test_under_mig_each_instance_gets_what_its_slices_drew() -> None:
    node = EnergyNode()
    mig(node)
    node.compute(SYSTEM, 1.0)
    for owner, share, instance in ((job(1), 0.9, "1"), (job(2), 0.5, "2"), (POD, 0.1, "9")):
        node.compute(owner, 1.0)
        node.use(owner, 0, share, instance)
    node.run(400)
    node.assert_true()


def test_an_instance_that_nobody_holds_is_nobodys() -> None:
    node = EnergyNode(gpu_count=1)
    mig(node)
    node.compute(SYSTEM, 6.0)
    node.use(job(1), 0, 0.8, "1")
    node.run(400)
    node.assert_true()
    assert node.measured[UNOWNED] == pytest.approx(
        GPU_IDLE * 4 / 7 * (1 + OVERHEAD) * 360, rel=0.01
    )


def test_two_owners_on_one_instance_share_its_floor_and_its_work_is_nobodys() -> None:
    node = EnergyNode(gpu_count=1)
    mig(node)
    node.compute(SYSTEM, 6.0)
    node.use(job(1), 0, 0.8, "1")
    node.use(job(2), 0, 0.1, "1")
    node.use(job(3), 0, 0.5, "2")
    node.run(310)
    seconds = 240 * (1 + OVERHEAD)
    assert node.measured[job(1)] == pytest.approx(GPU_IDLE * 3 / 14 * seconds, rel=0.01)
    alone = GPU_IDLE * 2 / 7 + 0.5 * GPU_WORK * 2 / 7
    assert node.measured[job(3)] == pytest.approx(alone * seconds, rel=0.01)
    rest = GPU_IDLE * 2 / 7 + 0.9 * GPU_WORK * 3 / 7
    assert node.measured[UNOWNED] == pytest.approx(rest * seconds, rel=0.01)
    node.assert_adds_up()


def test_owners_come_and_go_under_mig() -> None:
    node = EnergyNode()
    mig(node)
    node.compute(SYSTEM, 1.0)
    for number in range(20):
        node.compute(job(number), 4.0)
        node.use(job(number), 0, 0.5 + 0.02 * number, ("1", "2", "9")[number % 3])
        node.run(53.21)
        if number:
            node.end(job(number - 1))
        node.run(9.4)
    node.run(70)
    node.assert_true()


# Many, and anything


def test_five_hundred_owners_all_get_their_own() -> None:
    node = EnergyNode(gpu_count=8, packages=2)
    node.compute(SYSTEM, 1.0)
    for number in range(500):
        node.compute(job(number), 0.01 + 0.0002 * number)
        if number < 80:
            node.use(job(number), number % 8, 0.02 + 0.0005 * number)
    node.run(160)
    node.assert_true()
    assert len(node.measured) == 502


def test_idle_power_that_was_learned_serves_as_well_as_that_which_is_configured() -> None:
    node = EnergyNode(config=EnergyConfig())
    node.compute(SYSTEM, 0.0)
    node.run(330)
    node.compute(SYSTEM, 1.0)
    node.compute(job(1), 30.0)
    node.use(job(1), 0, 0.6)
    node.run(900)
    node.assert_true()


shares = st.sampled_from([0.0, 0.1, 0.3])
lives = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 1),
        st.sampled_from(["", "1", "2", "9"]),
        shares,
        st.floats(0, CPUS / 8),
        st.floats(0.5, 90),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=25)
@given(lives, st.booleans(), st.sampled_from(["energy", "power"]), st.sampled_from([1.0, 0.8]))
def test_whatever_happens_nothing_is_lost_and_nothing_counted_twice(
    life: list[tuple[int, int, str, float, float, float]],
    tells_shares: bool,
    node_meter: str,
    bmc_scale: float,
) -> None:
    node = EnergyNode(node_meter=node_meter)
    node.bmc_scale = bmc_scale
    mig(node, 1)
    node.gpus[0].tells_shares = tells_shares
    node.compute(SYSTEM, 1.0)
    before: dict[str, float] = {}
    for number, gpu, instance, share, cpus, seconds in life:
        if job(number) in node.cpu and share == 0:
            node.end(job(number))
        else:
            node.compute(job(number), cpus)
            node.leave(job(number), gpu)
            node.use(job(number), gpu, share, (instance or "1") if gpu else "")
        node.run(seconds)
        now = {name: value for name, value in node.values.items() if "_energy_" in name}
        for name, value in now.items():
            if name.partition("{")[0].endswith("_total"):
                assert value >= before.get(name, 0.0) * (1 - 1e-12), name
        before = now
        if "telemetryd_node_energy_split_input_joules_total{}" in now:
            node.assert_adds_up()


def test_an_owner_that_comes_counts_from_0_so_that_its_first_window_is_an_increase() -> None:
    results = Results()
    results.meet(frozenset({("job", "7")}))
    assert not [name for name in named(results.points()) if "owner" in name]
    window = split.Window(60.0, 100.0, 0.0)
    results.add(window, frozenset())
    results.meet(frozenset({("job", "7")}))
    shown = named(results.points())
    assert shown['telemetryd_owner_energy_joules_total{owner_kind="job",owner="7"}'] == 0.0

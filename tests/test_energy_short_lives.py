"""Owners that live for half a minute have their own, as those that live for days: see
support/energy_node.py for what is true of a node."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.energy_node import (
    CPU_IDLE,
    CPU_WORK,
    CPUS,
    DRAM,
    OVERHEAD,
    SYSTEM,
    UNOWNED,
    EnergyNode,
    job,
)

LIFE_S = 30.0


def live(node: EnergyNode, number: int, cpus: float, share: float = 0.0) -> None:
    node.compute(job(number), cpus)
    if share:
        node.use(job(number), number % 2, share)
    node.run(LIFE_S)
    node.end(job(number))


@pytest.mark.parametrize("others", [0.5, 6.0], ids=["idle-otherwise", "busy-otherwise"])
@pytest.mark.parametrize("share", [0.0, 0.35], ids=["no-gpu", "gpu"])
def test_owners_that_live_for_half_a_minute_one_after_the_other(
    others: float, share: float
) -> None:
    node = EnergyNode()
    node.compute(SYSTEM, others)
    node.run(33.3)
    for number in range(8):
        live(node, number, 4.0 + 2 * number, share)
        node.run(7.7 + number)
    node.run(100)
    node.assert_true()


def test_owners_that_come_and_go_beside_one_that_stays() -> None:
    node = EnergyNode(packages=2)
    node.compute(SYSTEM, 1.0)
    node.compute(job(99), 10.0)
    node.run(31.9)
    for number in range(8):
        live(node, number, 16.0 - number)
        node.run(0.4 * number)
    node.run(100)
    node.assert_true()


def test_one_takes_over_from_another_within_an_interval() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 1.0)
    node.run(32.2)
    for number in range(8):
        live(node, number, (12.0, 5.0)[number % 2], 0.4)
        node.run(0.6)
    node.run(100)
    node.assert_true()


begin = st.floats(0, 10)


@settings(deadline=None, max_examples=25)
@given(begin, st.floats(25, 60), st.floats(2, 30), st.floats(0, 20))
@example(4.999, 30.0, 5.0, 1.0)
def test_whenever_an_owner_dies_it_has_had_its_own(
    begin_s: float, life_s: float, cpus: float, others: float
) -> None:
    node = EnergyNode(gpu_count=1)
    node.compute(SYSTEM, 1.0)
    node.compute(job(99), others)
    node.run(60 + begin_s)
    node.compute(job(1), cpus)
    node.use(job(1), 0, 0.6)
    node.run(life_s)
    node.end(job(1))
    node.run(180)
    node.assert_true()


def test_one_that_lived_between_two_readings_has_what_nobody_else_did() -> None:
    """Nobody saw it: its CPU time is in the rest, which is the system's, its GPU nobody's."""
    node = EnergyNode(gpu_count=1)
    node.compute(SYSTEM, 6.0)
    node.run(63.1)
    node.use(job(1), 0, 0.9)
    node.compute(SYSTEM, 26.0)
    node.run(0.7)
    node.compute(SYSTEM, 6.0)
    node.leave(job(1), 0)
    node.run(100)
    node.assert_adds_up()
    assert job(1) not in node.measured
    work_j = CPU_WORK / CPUS * (6.0 * 120 + 20.0 * 0.7)
    cpu_j = ((CPU_IDLE + DRAM) * 120 + work_j) * (1 + OVERHEAD)
    assert node.measured[SYSTEM] == pytest.approx(cpu_j, rel=1e-3)
    assert node.measured[UNOWNED] == pytest.approx(node.expected_node_j - cpu_j, rel=0.01)

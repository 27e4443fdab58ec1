"""Commands and steps get the energy of what they do, and all of it still adds up."""

from __future__ import annotations

import pytest
from support.energy_node import SYSTEM, UNOWNED, EnergyNode, job

from telemetryd import owners

PYTHON = (owners.PROCESS, "python3")
STEP = (owners.JOB, "1.0")


def test_a_command_gets_the_energy_of_the_cpu_time_that_it_took_from_its_job() -> None:
    node = EnergyNode()
    node.compute(SYSTEM, 1.0)
    node.compute(job(2), 8.0)
    node.compute(PYTHON, 24.0)
    node.run(200)
    assert node.measured[PYTHON] / node.measured[job(2)] == pytest.approx(3, rel=0.01)
    node.assert_adds_up()


@pytest.mark.parametrize("tells_shares", [True, False])
@pytest.mark.parametrize("worker", [PYTHON, STEP])
def test_a_command_or_step_on_a_gpu_that_its_job_holds_gets_all_of_it(
    worker: tuple[str, str], tells_shares: bool
) -> None:
    node = EnergyNode(gpu_count=1)
    node.compute(SYSTEM, 1.0)
    node.compute(job(1), 0.0)
    node.compute(worker, 20.0)
    node.gpus[0].jobs.add(job(1))
    node.gpus[0].tells_shares = tells_shares
    node.use(worker, 0, 0.5)
    node.run(200)
    assert node.measured.get(job(1), 0.0) < 0.01 * node.measured[worker]
    assert node.measured[UNOWNED] < 0.01 * node.measured[worker]
    node.assert_adds_up()

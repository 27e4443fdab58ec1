"""What the node's energy costs: 500 owners on 8 GPUs and 2 CPU packages, from their readings to
the published figures, with everything else that is derived from those.

`python bench/energy.py` is the child that `measure` starts: a process of its own, so that nothing
else is counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
OWNERS, GPUS = 500, 8
_ROUNDS = 5
_WARM_S = 125
_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Energy:
    """CPU in microseconds for publishing one batch of each collector, medians; the most that
    all batches of one second took; the mean of a second; series of the batch of energy."""

    gpus_us: float
    rapl_us: float
    owners_us: float
    bmc_us: float
    most_us: float
    mean_us: float
    series: float

    @property
    def interval_us(self) -> float:
        """A second in which all of them come."""
        return self.gpus_us + self.rapl_us + self.owners_us + self.bmc_us


def measure() -> Energy:
    rounds = [_child() for _ in range(_ROUNDS)]
    return Energy(**{key: statistics.median(one[key] for one in rounds) for key in rounds[0]})


def _child() -> dict[str, float]:
    command = [sys.executable, str(Path(__file__))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)


def _cost() -> dict[str, float]:
    from support.energy_node import IDLE_WATTS, SYSTEM, EnergyNode, job  # noqa: PLC0415

    from telemetryd import plugins  # noqa: PLC0415
    from telemetryd.derivation import DerivedConfig, EnergyConfig  # noqa: PLC0415
    from telemetryd.memory import settle  # noqa: PLC0415

    node = EnergyNode(gpu_count=GPUS, packages=2)
    config = DerivedConfig(energy=EnergyConfig(idle_watts=IDLE_WATTS))
    node.pipeline.replace_derivations([kind(config) for kind in plugins.derivation_classes()])
    node.compute(SYSTEM, 4.0)
    for number in range(OWNERS):
        node.compute(job(number), 0.05)
        node.use(job(number), number % GPUS, 0.01)
    took: dict[str, list[float]] = defaultdict(list)
    publish = node.pipeline.publish

    def counted(name: str, *batch) -> None:
        before = time.process_time_ns()
        publish(name, *batch)
        took[name].append((time.process_time_ns() - before) / 1000)

    node.run(_WARM_S)
    settle()  # as the daemon does after its first minute
    node.pipeline.publish = counted
    seconds = []
    for _ in range(_SECONDS):
        before = sum(map(sum, took.values()))
        node.run(1)
        seconds.append(sum(map(sum, took.values())) - before)
    energy = next(
        batch for batch in node.pipeline.latest.live(node.clock.mono_ns())
        if batch.collector == "energy"
    )  # fmt: skip
    return {
        "gpus_us": statistics.median(took["gpu_nvidia"]),
        "rapl_us": statistics.median(took["rapl"]),
        "owners_us": statistics.median(took["owners"]),
        "bmc_us": statistics.median(took["redfish"]),
        "most_us": max(seconds),
        "mean_us": statistics.mean(seconds),
        "series": len(energy.series),
    }


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    print(json.dumps(_cost()))

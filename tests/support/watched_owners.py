"""The owners collector on control groups that a test makes and uses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.cgroups import Cgroups
from support.trees import FIXTURES, values_of
from telemetryd.collectors.owners import Owners, OwnersConfig
from telemetryd.host import Ownership

TREES = FIXTURES / "owners"
SHORT = ("4c01db0b339c", "9f86d081884c", "2c26b46b68ff")
MIB = 1 << 20
JOB = "system.slice/slurmstepd.scope/job_7"
BY_GROUP = Ownership()
NGINX = "system.slice/nginx.service"


def cpu_of(kind: str, name: str = "") -> str:
    return f'telemetryd_owner_cpu_seconds_total{{owner_kind="{kind}",owner="{name or kind}"}}'


def cpu_by_owner(values: dict[str, float]) -> dict[tuple[str, str], float]:
    """Seconds by owner."""
    found = {}
    for name, value in values.items():
        if name.startswith("telemetryd_owner_cpu_seconds_total"):
            _, kind, _, owner, _ = name.split('"')
            found[kind, owner] = value
    return found


def memory_of(kind: str, name: str = "") -> str:
    return f'telemetryd_owner_memory_bytes{{owner_kind="{kind}",owner="{name or kind}"}}'


def minors_of(values: dict[str, float], job: str = "7") -> set[str]:
    """Of the GPUs that a job holds."""
    name = f'telemetryd_owner_gpu_minor{{owner_kind="job",owner="{job}",minor="'
    return {one.removeprefix(name)[:-2] for one in values if one.startswith(name)}


def owners_of(collector: Owners) -> set[tuple[str, str]]:
    points = list(collector.sample())
    return {s.labels[:2] for s, _ in points if len(s.labels) == 2} - {("system", "system")}  # type: ignore[misc]


class Watched:
    """The collector on control groups that a test makes and uses."""

    def __init__(
        self, groups: Cgroups, ownership: Ownership = BY_GROUP, **settings: object
    ) -> None:
        self.groups = groups
        self.faults: list[tuple[str, str]] = []
        host = replace(groups.host, ownership=ownership)
        self.collector = Owners(OwnersConfig.model_validate(settings), host)
        self.collector.on_fault = lambda reason, what: self.faults.append((reason, what))

    def sample(self, after: float = 5.0) -> dict[str, float]:
        self.groups.clock.tick(after)
        return values_of(self.collector)


@pytest.fixture
def groups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path / "machine")

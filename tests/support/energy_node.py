"""A node whose true joules are known, of every owner, because it was made so.

Loads are constant between two calls, so that energy is exact however the readings fall. Its meters
are read as those of a real one: GPUs and RAPL every second, owners every 5 s, the BMC every 30 s,
each a moment after the other. Everything goes through a real pipeline.

What is true: a GPU draws its idle power and a power in proportion to its SM activity, a CPU package
in proportion to its busy share; each owner's share of that is its own doing. Idle power belongs to
those who hold a device. Overhead is a fixed share of what the devices draw.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from support.clock import FakeClock
from support.trees import named
from telemetryd import gpus, meters, owners
from telemetryd.collector import Collector, CollectorConfig
from telemetryd.collectors.gpu_nvidia.families import INSTANCE
from telemetryd.derivation import DerivedConfig, EnergyConfig
from telemetryd.derived import utilization
from telemetryd.derived.balance import families
from telemetryd.derived.balance.balance import EnergyBalance
from telemetryd.derived.balance.ledger import Owner
from telemetryd.host import Host
from telemetryd.instruments import Instruments
from telemetryd.metric import Point
from telemetryd.pipeline import Pipeline

GPU_IDLE, GPU_WORK = 70.0, 600.0
CPU_IDLE, CPU_WORK, DRAM = 80.0, 200.0, 15.0
OVERHEAD = 0.25
CPUS = 64
SLICES = 7
SYSTEM: Owner = (owners.SYSTEM.kind, owners.SYSTEM.name)
UNOWNED: Owner = ("", "")
IDLE_WATTS = {"gpu *": GPU_IDLE, "cpu *": CPU_IDLE + DRAM}

Values = dict[str, float]


def job(number: int) -> Owner:
    return owners.JOB, str(number)


class Stub(Collector):
    metrics = (
        meters.ENERGY, meters.POWER, *gpus.METRICS, *owners.METRICS, INSTANCE, *utilization.METRICS,
    )  # fmt: skip

    def sample(self) -> Iterator[Point]:
        yield from ()


@dataclass
class Gpu:
    """`shares` are of the whole GPU, or of the MIG instance that the owner is on; `jobs` hold it
    without a process; `lost` GPUs draw power, but nobody can read it."""

    shares: dict[tuple[Owner, str], float] = field(default_factory=dict)
    jobs: set[Owner] = field(default_factory=set)
    instances: dict[str, int] = field(default_factory=dict)
    joules: float = 0.0
    used: dict[tuple[Owner, str], float] = field(default_factory=dict)
    tells_shares: bool = True
    lost: bool = False

    def work(self) -> Iterator[tuple[Owner, float]]:
        """Watts of each owner's doing."""
        for (owner, instance), share in self.shares.items():
            width = self.instances[instance] / SLICES if instance else 1.0
            yield owner, GPU_WORK * share * width

    def floor(self) -> Iterator[tuple[Owner, float]]:
        """Idle watts by who holds it."""
        if self.instances:
            rest = GPU_IDLE
            for instance, width in self.instances.items():
                held = [owner for owner, where in self.shares if where == instance]
                part = GPU_IDLE * width / SLICES
                for owner in held:
                    yield owner, part / len(held)
                rest -= part if held else 0.0
            yield UNOWNED, rest
            return
        held = {owner for owner, _ in self.shares} | self.jobs
        for owner in held or {UNOWNED}:
            yield owner, GPU_IDLE / len(held or {UNOWNED})


class EnergyNode:
    """`truth` are the joules of each owner, UNOWNED and "node" so far. `measured` gives what was
    measured over the closed windows, `expected` what is true of them."""

    def __init__(
        self,
        gpu_count: int = 2,
        packages: int = 1,
        config: EnergyConfig | None = None,
        node_meter: str = "energy",
    ) -> None:
        config = config or EnergyConfig(idle_watts=IDLE_WATTS)
        self.clock = FakeClock()
        self.balance = EnergyBalance(DerivedConfig(energy=config))
        self.instruments = Instruments()
        self.pipeline = Pipeline(self.instruments, [self.balance])
        self.gpus = [Gpu() for _ in range(gpu_count)]
        self.cpu: dict[Owner, float] = {}
        self.node_meter = node_meter
        self.bmc_scale = 1.0
        self.truth: dict[Owner, float] = {}
        self.node_j = 0.0
        self._node_w = 0.0
        self._package_j = [0.0] * packages
        self._cpu_s: dict[Owner, float] = {}
        self._busy_s = self._busy_before = 0.0
        self._ended: set[Owner] = set()
        self._snapshots: list[tuple[dict[Owner, float], float]] = []
        self._first: int | None = None
        self._last = 0
        self._window_j = 0.0
        self._measured: dict[Owner, float] = {}
        self._stubs: dict[str, Stub] = {}
        # (nanoseconds from now, name): each collector a moment after the other
        self._now = 0.0
        self._due: list[tuple[float, float, str]] = []
        for late, interval, name in (
            (0.001, 1.0, "cpu"), (0.002, 1.0, "rapl"), (0.003, 1.0, "gpu_nvidia"),
            (0.004, 5.0, "owners"), (0.2, 30.0, "redfish"),
        ):  # fmt: skip
            heapq.heappush(self._due, (late, interval, name))
            config_of = CollectorConfig(interval=interval, max_series=100_000)
            self._stubs[name] = Stub(config_of, Host())
        self.silent: set[str] = set()

    # What happens

    def use(self, owner: Owner, gpu: int, share: float, instance: str = "") -> None:
        """Processes of the owner are on the GPU, and keep so much of it busy."""
        self.gpus[gpu].shares[owner, instance] = share

    def leave(self, owner: Owner, gpu: int) -> None:
        one = self.gpus[gpu]
        for key in [key for key in one.shares if key[0] == owner]:
            del one.shares[key]

    def compute(self, owner: Owner, cpus: float) -> None:
        """The owner is there, and keeps so many CPUs busy."""
        self.cpu[owner] = cpus
        self._ended.discard(owner)
        self._cpu_s.setdefault(owner, 0.0)

    def end(self, owner: Owner) -> None:
        """The owner is gone, from CPUs and GPUs."""
        del self.cpu[owner]
        self._ended.add(owner)
        for number in range(len(self.gpus)):
            self.leave(owner, number)
            self.gpus[number].jobs.discard(owner)

    def run(self, seconds: float) -> None:
        until = self._now + seconds
        while self._due[0][0] <= until:
            at, interval, name = heapq.heappop(self._due)
            heapq.heappush(self._due, (at + interval, interval, name))
            self._advance(at - self._now)
            self._now = at
            if name not in self.silent:
                self._read(name)
        self._advance(until - self._now)
        self._now = until

    # What is true

    @property
    def busy(self) -> float:
        return min(1.0, sum(self.cpu.values()) / CPUS)

    def _advance(self, seconds: float) -> None:
        self.clock.tick(seconds)
        devices_w = 0.0
        for gpu in self.gpus:
            watts = 0.0
            for owner, part in (*gpu.work(), *gpu.floor()):
                self._give(owner, part * seconds)
                watts += part
            gpu.joules += watts * seconds
            for key, share in gpu.shares.items():
                gpu.used[key] = gpu.used.get(key, 0.0) + share * seconds
            devices_w += watts
        devices_w += self._advance_cpus(seconds)
        self.node_j += devices_w * (1 + OVERHEAD) * seconds
        self._node_w = devices_w * (1 + OVERHEAD)

    def _advance_cpus(self, seconds: float) -> float:
        floor_w, work_w = CPU_IDLE + DRAM, CPU_WORK * self.busy
        held = {owner: n for owner, n in self.cpu.items() if owner[0] in ("job", "pod")}
        if self.busy >= 0.05:
            self._share(dict(self.cpu), work_w * len(self._package_j) * seconds)
            self._share(held or self.cpu, floor_w * len(self._package_j) * seconds)
        else:  # what it does counts for nothing
            idle_w = floor_w + work_w
            self._share(held or {UNOWNED: 1.0}, idle_w * len(self._package_j) * seconds)
        for package in range(len(self._package_j)):
            self._package_j[package] += (floor_w - DRAM + work_w) * seconds
        for owner, cpus in self.cpu.items():
            self._cpu_s[owner] += cpus * seconds
        self._busy_s += self.busy * seconds
        return (floor_w + work_w) * len(self._package_j)

    def _share(self, cpus: dict[Owner, float], joules: float) -> None:
        total = sum(cpus.values())
        for owner, used in cpus.items():
            self._give(owner, joules * (used / total if total else 1 / len(cpus)))

    def _give(self, owner: Owner, joules: float) -> None:
        self.truth[owner] = self.truth.get(owner, 0.0) + joules * (1 + OVERHEAD)

    # What is read

    def _read(self, name: str) -> None:
        reads: dict[str, Callable[[], list[Point]]] = {
            "cpu": self._read_cpu,
            "rapl": self._read_rapl,
            "gpu_nvidia": self._read_gpus,
            "owners": self._read_owners,
            "redfish": self._read_bmc,
        }
        if name == "redfish":
            self._snapshots.append((dict(self.truth), self.node_j))
        now = self.clock.wall_ns(), self.clock.mono_ns()
        self.pipeline.publish(name, self._stubs[name], *now, reads[name]())
        divided = self.value("telemetryd_node_energy_split_input_joules_total{}")
        if divided > self._window_j:
            self._window_j = divided
            self._measured |= self._owners_shown()
            self._last = len(self._snapshots) - 1
            if self._first is None:
                self._first = self._last - 2

    def _read_cpu(self) -> list[Point]:
        ratio, self._busy_before = self._busy_s - self._busy_before, self._busy_s
        return [(utilization.RATIO.at("cpu", "all"), min(1.0, ratio))]

    def _read_rapl(self) -> list[Point]:
        points: list[Point] = []
        for number, joules in enumerate(self._package_j):
            labels = str(number), "component"
            points.append((meters.ENERGY.at("rapl", "package", *labels), joules))
            points.append((meters.ENERGY.at("rapl", "dram", *labels), DRAM * self._now))
            points.append((meters.ENERGY.at("rapl", "core", labels[0], "subcomponent"), joules / 2))
        return points

    def _read_gpus(self) -> list[Point]:
        points: list[Point] = []
        for number, gpu in enumerate(self.gpus):
            if not gpu.lost:
                points += self._read_gpu(str(number), gpu)
        return points

    def _read_gpu(self, name: str, gpu: Gpu) -> list[Point]:
        labels = name, f"GPU-{name}"
        facts = (name, "nvidia", "NVIDIA H100", "hopper", "", "", name, "0")
        points: list[Point] = [
            (gpus.INFO.at(*labels, *facts), 1),
            (meters.ENERGY.at("nvml", "gpu", name, "component"), gpu.joules),
            (meters.POWER.at("nvml", "memory", name, "subcomponent"), 20.0),
            (meters.POWER.at("nvml", "module", name, "enclosing"), 900.0),
            (gpus.PROCESSES.at(*labels), len(gpu.shares)),
        ]
        busy: dict[str, float] = dict.fromkeys(gpu.instances, 0.0)
        for (owner, instance), used in gpu.used.items():
            busy[instance] = busy.get(instance, 0.0) + used
            where = (f"{name}/{instance}/0", f"MIG-{name}-{instance}") if instance else labels
            if (owner, instance) not in gpu.shares:
                continue
            points.append((gpus.OWNER_PROCESSES.at(*where, *owner), 1))
            if gpu.tells_shares and not instance:
                points.append((gpus.OWNER_UTILIZATION.at(*where, *owner), used))
        for instance, width in gpu.instances.items():
            where = f"{name}/{instance}/0", f"MIG-{name}-{instance}"
            profile = f"{width}g.10gb"
            points.append((INSTANCE.at(*where, *labels, profile, instance, "0"), 1))
            points.append((gpus.SM_ACTIVE.at(*where), min(1.0, busy[instance])))
        if not gpu.instances:
            points.append((gpus.SM_ACTIVE.at(*labels), min(1.0, busy.get("", 0.0))))
        gpu.used = dict.fromkeys(gpu.shares, 0.0)
        return points

    def _read_owners(self) -> list[Point]:
        points: list[Point] = [
            (owners.CPU.at(*owner), self._cpu_s[owner]) for owner in (*self.cpu, *self._ended)
        ]
        points += [(owners.MEMORY.at(*owner), 1 << 20) for owner in self.cpu]
        for owner in self._ended:
            del self._cpu_s[owner]
        self._ended.clear()
        for number, gpu in enumerate(self.gpus):
            points += [(owners.GPU_MINOR.at(*job, str(number)), 1) for job in gpu.jobs]
        return points

    def _read_bmc(self) -> list[Point]:
        if self.node_meter == "energy":
            joules = self.node_j * self.bmc_scale + 1e9
            return [(meters.ENERGY.at("redfish", "psu_input", "0", "enclosing"), joules)]
        watts = self._node_w * self.bmc_scale
        return [(meters.POWER.at("redfish", "system", "bmc", "enclosing"), watts)]

    # What came out

    @property
    def values(self) -> Values:
        batches = self.pipeline.latest.live(self.clock.mono_ns())
        return named(point for batch in batches for point in batch.points)

    def value(self, name: str) -> float:
        for batch in self.pipeline.latest.live(self.clock.mono_ns()):
            if batch.collector == "energy":
                for series, value in batch.points:
                    if repr(series) == name:
                        return value
        return 0.0

    @property
    def expected(self) -> dict[Owner, float]:
        """True joules over the closed windows."""
        assert self._first is not None, "no window was divided"
        first, last = self._snapshots[self._first][0], self._snapshots[self._last][0]
        return {owner: joules - first.get(owner, 0.0) for owner, joules in last.items()}

    @property
    def expected_node_j(self) -> float:
        assert self._first is not None
        return self._snapshots[self._last][1] - self._snapshots[self._first][1]

    @property
    def measured(self) -> dict[Owner, float]:
        """Joules of each owner as they were last seen, and UNOWNED."""
        return self._measured

    def _owners_shown(self) -> dict[Owner, float]:
        found = {UNOWNED: self.value("telemetryd_owner_energy_unattributed_joules_total{}")}
        for batch in self.pipeline.latest.live(self.clock.mono_ns()):
            for series, value in batch.points:
                if series.metric is families.OWNER_ENERGY:
                    found[series.labels[0], series.labels[1]] = value
        return found

    def assert_true(self) -> None:
        """Each owner is within 1 % of the truth or a ten-thousandth of the node's input, what is
        nobody's within 1 % or a thousandth; all of it together is the node's input."""
        expected, measured, node_j = self.expected, self.measured, self.expected_node_j
        for owner in expected.keys() | measured.keys() | {UNOWNED}:
            joules = expected.get(owner, 0.0)
            limit = max(0.01 * joules, (1e-3 if owner == UNOWNED else 1e-4) * node_j)
            assert measured.get(owner, 0.0) == pytest.approx(joules, abs=limit), (owner, node_j)
        self.assert_adds_up()
        assert self._window_j == pytest.approx(node_j, rel=0.001)

    def assert_adds_up(self) -> None:
        """States, and owners with what is nobody's, add up to what was divided."""
        values = self.values
        whole = values["telemetryd_node_energy_split_input_joules_total{}"]
        for family in ("telemetryd_node_energy_split_joules_total", "telemetryd_owner_energy_"):
            parts = [value for name, value in values.items() if name.startswith(family)]
            assert min(parts) >= 0
            assert sum(parts) == pytest.approx(whole, rel=1e-9)

"""Feeds the node's energy figures with readings by hand, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from support.clock import FakeClock
from support.trees import named
from telemetryd import gpus, meters, owners
from telemetryd.batch import Batch, LatestTable
from telemetryd.derivation import DerivedConfig, EnergyConfig
from telemetryd.derived import utilization
from telemetryd.derived.balance.balance import EnergyBalance
from telemetryd.metric import Point, Series

NODE = "telemetryd_node_energy_joules_total{}"
POWER = "telemetryd_node_power_watts{}"
CHANGES = "telemetryd_node_energy_source_changes_total{}"
GAP = "telemetryd_node_energy_gap_seconds_total{}"
SPLIT = 'telemetryd_node_energy_split_joules_total{state="%s"}'
INPUT = "telemetryd_node_energy_split_input_joules_total{}"
EXCESS = "telemetryd_energy_boundary_error_joules_total{}"
EXCESS_TIME = "telemetryd_energy_boundary_error_seconds_total{}"
RATIO = 'telemetryd_energy_efficiency_ratio{definition="%s"}'
UNATTRIBUTED = "telemetryd_owner_energy_unattributed_joules_total{}"

Values = dict[str, float]
Reading = Callable[[], list[Point]]


def power(source: str, watts: float, domain: str = "system", device: str = "0") -> Point:
    return meters.POWER.at(source, domain, device, "enclosing"), watts


def energy(source: str, joules: float, domain: str = "psu_input", device: str = "0") -> Point:
    return meters.ENERGY.at(source, domain, device, "enclosing"), joules


def component(source: str, joules: float, domain: str = "gpu", device: str = "0") -> Point:
    return meters.ENERGY.at(source, domain, device, "component"), joules


def gpu(joules: float, share: float = 0.0, processes: int = 0, name: str = "0") -> list[Point]:
    """An NVIDIA GPU with its meter."""
    labels = name, f"GPU-{name}"
    facts = (name, "nvidia", "NVIDIA H100", "hopper", "", "", name, "0")
    return [
        (gpus.INFO.at(*labels, *facts), 1),
        component("nvml", joules, device=name),
        (gpus.SM_ACTIVE.at(*labels), share),
        (gpus.PROCESSES.at(*labels), processes),
    ]


def cpu_share(share: float) -> list[Point]:
    return [(utilization.RATIO.at("cpu", "all"), share)]


class Feed:
    """`values` is what was published last."""

    def __init__(self, config: EnergyConfig | None = None) -> None:
        self.clock = FakeClock()
        self.balance = EnergyBalance(DerivedConfig(energy=config or EnergyConfig()))
        self.latest = LatestTable()
        self.values: Values = {}
        self.history: list[Values] = []
        self._layouts: dict[str, tuple[Series, ...]] = {}
        self._began_ns = self.clock.mono_ns()

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return (self.clock.mono_ns() - self._began_ns) / 1e9

    @property
    def source(self) -> str:
        """Source and domain of the node's meter; empty without one."""
        for series, _ in self._last:
            if series.metric.name == "telemetryd_node_energy_source_info":
                return " ".join(series.labels[:2])
        return ""

    def give(
        self, points: Sequence[Point], collector: str = "redfish", interval: float = 30.0
    ) -> Values:
        """A batch now."""
        series = tuple(one for one, _ in points)
        if self._layouts.get(collector) != series:
            self._layouts[collector] = series
        now = self.clock.wall_ns(), self.clock.mono_ns()
        values = tuple(value for _, value in points)
        batch = Batch(collector, *now, interval, self._layouts[collector], values)
        self.latest.put(batch)
        if collector != "cpu":
            published = list(self.balance.update(batch, self.latest))
            if published:
                self._last = published
                self.values = named(published)
                self.history.append(self.values)
        return self.values

    def run(self, seconds: float, **readings: tuple[float, Reading]) -> Values:
        """Let time pass: `name=(interval, reading)` are read every so many seconds, slow ones
        after the others of that moment. An empty reading is none."""
        for _ in range(round(seconds)):
            self.clock.tick(1)
            for name, (interval, reading) in sorted(readings.items(), key=lambda one: one[1][0]):
                if round(self.now) % interval == 0 and (points := reading()):
                    self.give(points, name, interval)
        return self.values

    _last: Sequence[Point] = ()


class Watched:
    """A node of one GPU and one CPU package with its memory; watts and activity are as set."""

    def __init__(self, config: EnergyConfig) -> None:
        self.feed = Feed(config)
        self.gpu_w, self.gpu_share, self.processes = 300.0, 0.9, 1
        self.cpu_w, self.cpu_share = 120.0, 0.5
        self.other_w = 80.0
        self.jobs: list[str] = []
        self.job_s = 0.0
        self.gpu_j = self.cpu_j = self.node_j = 0.0
        self.lost: set[str] = set()
        self.more: list[Point] = []
        # A counter is believed from its second reading on: windows begin at 30 s.
        self.feed.give([energy("redfish", 0.0)])

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.gpu_j += self.gpu_w
            self.cpu_j += self.cpu_w
            self.job_s += self.cpu_share
            self.node_j += self.gpu_w + self.cpu_w + self.other_w
            self.feed.run(1, **{n: r for n, r in self._readings().items() if n not in self.lost})

    def _readings(self) -> dict[str, tuple[float, Reading]]:
        return {
            "cpu": (1, lambda: cpu_share(self.cpu_share)),
            "rapl": (1, self._rapl),
            "gpu_nvidia": (1, self._gpu),
            "owners": (5, self._owners),
            "redfish": (30, lambda: [energy("redfish", self.node_j)]),
        }

    def _rapl(self) -> list[Point]:
        return [
            component("rapl", self.cpu_j * 0.9, "package"),
            component("rapl", self.cpu_j * 0.1, "dram"),
        ]

    def _gpu(self) -> list[Point]:
        return [*gpu(self.gpu_j, self.gpu_share, self.processes), *self.more]

    def _owners(self) -> list[Point]:
        points: list[Point] = [(owners.CPU.at("unit", "a.service"), self.job_s)]
        return points + [(owners.CPU.at("job", job), self.job_s) for job in self.jobs]

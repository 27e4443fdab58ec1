"""A believable day of a node of eight GPUs, for the fake library: training, inference, an idler.

`Node(fake, ...).step(seconds)` says what holds for the coming seconds and writes it at once: all
that is counted (energy, NVLink bytes, time throttled) grows at the rate that the gauges tell, so
that the energy is the integral of the power exactly. It asks for no time but the fake's.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from fakes.nvml.models import ALL_LINKS, MIB, Value
from support.nvml import FakeNvml, Process

GIB = 1024 * MIB
NVLINK_COUNTERS = {138: (61, 1.0), 139: (60, 1.0), 140: (61, 1.12), 141: (60, 1.12)}

IDLE_W, LIMIT_W = 69.85, 700.0
MAX_MHZ, IDLE_MHZ = 1980, 345
AMBIENT_C, SLOWDOWN_C = 27.0, 84.0
POWER_CAP, THERMAL_SLOWDOWN, GPU_IDLE = 0x4, 0x20, 0x1
POWER_CAPPED_FIELD, THERMAL_FIELD = 74, 269

POWER_INERTIA_S = 1.0
HEAT_INERTIA_S = 18.0
COOLING_FAULT_EVERY_S, COOLING_FAULT_S = 240.0, 60.0
XID_FIRST_S, XID_EVERY_S = 20.0, 300.0
CONTAINED_MEMORY_ERROR = 94


@dataclass(frozen=True)
class Work:
    """What a job does on a GPU at a moment: shares from 0 to 1, traffic in MiB/s."""

    sm: float = 0.0
    tensor: float = 0.0
    dram: float = 0.0
    nvlink: float = 0.0
    to_gpu: float = 0.3
    from_gpu: float = 0.3
    memory: int = 0

    @property
    def power(self) -> float:
        """In watts, once it has settled."""
        return min(
            LIMIT_W,
            IDLE_W + (LIMIT_W - IDLE_W) * (0.28 * self.sm + 0.9 * self.tensor + 0.25 * self.dram),
        )


class Training:
    """Steps of four seconds: compute, then exchange gradients; a checkpoint every two minutes."""

    STEP_S, COMPUTE_S, CHECKPOINT_EVERY_S, CHECKPOINT_S = 4.0, 3.3, 120.0, 8.0
    MEMORY = 71 * GIB

    def at(self, seconds: float, dice: random.Random) -> Work:
        if seconds % self.CHECKPOINT_EVERY_S > self.CHECKPOINT_EVERY_S - self.CHECKPOINT_S:
            return Work(sm=0.02, from_gpu=9200.0, memory=self.MEMORY)
        if seconds % self.STEP_S > self.COMPUTE_S:
            return Work(0.31, 0.0, 0.22, 168_000.0, 20.0, 4.0, self.MEMORY)
        sm = dice.uniform(0.94, 0.99)
        return Work(sm, sm * 0.66, sm * 0.58, 9_500.0, 420.0, 8.0, self.MEMORY)


class Inference:
    """Bursts of requests, some seconds each, with nothing between them; its cache fills slowly."""

    WEIGHTS = 32 * GIB

    def __init__(self) -> None:
        self._until = 0.0
        self._intensity = 0.0

    def at(self, seconds: float, dice: random.Random) -> Work:
        if seconds >= self._until:
            busy = self._intensity == 0
            self._intensity = dice.uniform(0.3, 0.95) if busy else 0.0
            self._until = seconds + dice.expovariate(1 / (9 if busy else 5))
        strength = self._intensity
        cache = int(14 * GIB * (1 - math.exp(-seconds / 90)))
        traffic = 60.0 * strength + 0.3
        return Work(
            strength * 0.8, strength * 0.24, strength * 0.72, 0.0, traffic, traffic / 4,
            self.WEIGHTS + cache,
        )  # fmt: skip


class Held:
    """A process that took memory and does nothing with it."""

    def at(self, _seconds: float, _dice: random.Random) -> Work:
        return Work(memory=12 * GIB)


class Free:
    def at(self, _seconds: float, _dice: random.Random) -> Work:
        return Work()


@dataclass
class Device:
    """A GPU, with what has inertia."""

    job: Training | Inference | Held | Free
    pid: int | None = None
    power: float = IDLE_W
    heat: float = 41.0
    throttled: bool = False


class Node:
    """Eight GPUs: 0 to 3 train together, 4 and 5 serve, 6 is held and idle, 7 is free."""

    def __init__(
        self, fake: FakeNvml, *, training: int, inference: int, holding: int, seed: int = 1
    ) -> None:
        self.fake = fake
        self.seconds = 0.0
        self._dice = random.Random(seed)
        self._next_xid = XID_FIRST_S
        job = Training()
        self.devices = [
            *[Device(job, training) for _ in range(4)],
            *[Device(Inference(), inference) for _ in range(2)],
            Device(Held(), holding),
            Device(Free()),
        ]

    def step(self, seconds: float) -> None:
        """What holds for the coming seconds."""
        with self.fake.batch():
            for gpu, device in enumerate(self.devices):
                work = device.job.at(self.seconds, self._dice)
                self._settle(gpu, device, work, seconds)
                self._write(gpu, device, work)
            if self.seconds >= self._next_xid:
                self._next_xid += XID_EVERY_S
                self.fake.xid(5, CONTAINED_MEMORY_ERROR)
        self.seconds += seconds

    def _settle(self, gpu: int, device: Device, work: Work, seconds: float) -> None:
        cooling = 0.055 + 0.0015 * gpu
        phase = self.seconds % COOLING_FAULT_EVERY_S
        if gpu == 2 and phase > COOLING_FAULT_EVERY_S - COOLING_FAULT_S:
            cooling *= 1.4
        device.throttled = device.heat > SLOWDOWN_C - (3 if device.throttled else 0)
        target = work.power * (0.75 if device.throttled else 1.0)
        device.power += (target - device.power) * (1 - math.exp(-seconds / POWER_INERTIA_S))
        warm = AMBIENT_C + cooling * device.power + 9
        device.heat += (warm - device.heat) * (1 - math.exp(-seconds / HEAT_INERTIA_S))

    def _write(self, gpu: int, device: Device, work: Work) -> None:
        power_mw = round(device.power * 1000)
        capped = work.power >= LIMIT_W and not device.throttled
        self._write_gauges(gpu, device, work, capped=capped)
        rates = {
            "energy_mj": power_mw,
            "fi.197": work.from_gpu * MIB,
            "fi.198": work.to_gpu * MIB,
            f"fi.{POWER_CAPPED_FIELD}": 1e9 * capped,
            f"fi.{THERMAL_FIELD}": 1e9 * device.throttled,
        }
        for counter, (_, overhead) in NVLINK_COUNTERS.items():
            rates[f"fi.{counter}.{ALL_LINKS}"] = work.nvlink * 1024 * overhead
            rates[f"fi.{counter}.*"] = work.nvlink * 1024 * overhead / self.fake.model.links
        for key, per_second in rates.items():
            self.fake.rate(gpu, key, per_second)
        if device.pid is not None:
            sm = round(work.sm * 100) if work.sm else None
            self.fake.processes(gpu, Process(device.pid, work.memory, sm=sm))

    def _write_gauges(self, gpu: int, device: Device, work: Work, *, capped: bool) -> None:
        awake = work.sm > 0
        mhz = (MAX_MHZ - 240 * capped - 585 * device.throttled) if awake else IDLE_MHZ
        reasons = POWER_CAP * capped | THERMAL_SLOWDOWN * device.throttled | GPU_IDLE * (not awake)
        power_mw = round(device.power * 1000)
        readings: dict[str, Value | None] = {
            "util_gpu": 100 if work.sm > 0.25 else round(work.sm * 100),
            "util_mem": round(work.dram * 60),
            "mem_used": work.memory,
            "bar1_used": work.memory + MIB,
            "power_average_mw": power_mw,
            "power_instant_mw": round(power_mw * self._dice.uniform(0.93, 1.07)),
            "fi.185.2": round(43190 + 46000 * work.dram),
            "temp": round(device.heat),
            "temp_margin": round(87 - device.heat),
            "temp_memory": round(device.heat * 0.9 + 11),
            "clock_reasons": reasons,
            "clk.0": mhz,
            "clk.1": mhz,
            "clk.3": 1545 if awake else 765,
            "pcie_tx_kbs": round(work.from_gpu * 1024),
            "pcie_rx_kbs": round(work.to_gpu * 1024),
        }
        metrics = {
            1: 100 * min(1, work.sm * 1.02),
            2: 100 * work.sm,
            3: 100 * work.sm * 0.34,
            5: 100 * work.tensor,
            7: 100 * work.tensor,
            10: 100 * work.dram,
            12: 4 * work.sm,
            20: work.from_gpu,
            21: work.to_gpu,
            60: work.nvlink,
            61: work.nvlink,
        }
        gpm = {f"gpm.{metric}": round(value, 3) for metric, value in metrics.items()}
        self.fake.gpu(gpu, readings | gpm)

"""The collector of NVIDIA GPUs on a node of fake ones, with one clock for both."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from support.clock import FakeClock
from support.nvml import FakeNvml
from support.trees import named
from telemetryd.collectors.gpu_nvidia import GpuNvidia, GpuNvidiaConfig
from telemetryd.host import Host

_UUID = re.compile(r',uuid="[^"]*"')


class Node:
    """`fake` are its GPUs, `faults` what the collector reported: reason and text.

    `sample` lets a second pass and gives what was read, by the series as text without the prefix
    telemetryd_ and without uuid: {'gpu_busy_ratio{gpu="0"}': 1.0}.
    """

    def __init__(
        self,
        folder: Path,
        gpus: int = 2,
        model: str = "H100",
        *,
        fake: FakeNvml | None = None,
        host: Host | None = None,
        **settings: Any,
    ) -> None:
        self.clock = FakeClock()
        self.fake = fake or FakeNvml(folder, gpus=gpus, model=model)
        self.fake.advance(0)
        settings.setdefault("library", str(self.fake.library))
        self.settings = GpuNvidiaConfig(**settings)
        self.host = host or Host(clock=self.clock)
        self.faults: list[tuple[str, str]] = []
        self.collector = GpuNvidia(self.settings, self.host)
        self.collector.on_fault = lambda reason, what: self.faults.append((reason, what))

    def sample(self, after: float = 1.0) -> dict[str, float]:
        self.clock.tick(after)
        self.fake.advance(after)
        return {_short(name): value for name, value in named(self.collector.sample()).items()}

    def samples(self, count: int, after: float = 1.0) -> dict[str, float]:
        """The last of so many."""
        values: dict[str, float] = {}
        for _ in range(count):
            values = self.sample(after)
        return values

    @property
    def reasons(self) -> set[str]:
        return {reason for reason, _ in self.faults}

    def close(self) -> None:
        self.fake.release()
        self.collector.close()


def _short(name: str) -> str:
    return _UUID.sub("", name.removeprefix("telemetryd_"))

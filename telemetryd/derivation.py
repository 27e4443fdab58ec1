"""The interface of a derived quantity: readings go in, figures come out, no I/O in between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from telemetryd.batch import Batch, LatestTable
from telemetryd.duration import Bytes, Seconds
from telemetryd.metric import Metric, Point


class GpuPeaks(BaseModel):
    """What the data sheet of a GPU model says; a figure that is left out stays the built-in one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bf16_flops: float | None = Field(
        None, gt=0, description="dense bf16 operations a second, without sparsity"
    )
    memory_bytes_per_second: float | None = Field(
        None, gt=0, description="bandwidth of the GPU's memory"
    )
    link_bytes_per_second: float | None = Field(
        None, gt=0, description="bandwidth of all NVLinks, both directions together"
    )


class DerivedConfig(BaseModel):
    """What the derived quantities can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    peak_window: Seconds = Field(
        60.0, gt=0, le=86400, description="time over which a peak is the maximum"
    )
    cores: bool | None = Field(
        None,
        description="utilization of each CPU beside that of all; unset: up to 64 CPUs",
    )
    held_idle_memory: Bytes = Field(
        256 << 20,
        ge=0,
        description="a GPU with this much memory in use is held, even if no process is seen on it",
    )
    held_idle_activity: float = Field(
        0.05, gt=0, le=1, description="a GPU less active than this is idle"
    )
    held_idle_after: Seconds = Field(
        300.0,
        ge=0,
        description="a GPU that was held and idle for so long without interruption is held idle",
    )
    gpu_peaks: dict[str, GpuPeaks] = Field(
        default_factory=dict,
        description="data-sheet peaks of GPUs that the daemon does not know or has otherwise: for "
        'each shell pattern of model names a table, such as [derived.gpu_peaks."NVIDIA H100*"], '
        "with any of bf16_flops (dense), memory_bytes_per_second, and link_bytes_per_second (all "
        "NVLinks, both directions together); of several that match, the first counts",
    )


class Derivation(ABC):
    """Works out figures from the batches that carry one of `inputs`.

    What `update` returns is published with the batch it was worked out from, and is gone when
    that collector's readings are.
    """

    inputs: ClassVar[tuple[Metric, ...]]
    metrics: ClassVar[tuple[Metric, ...]]

    def __init__(self, config: DerivedConfig) -> None:
        self.config = config

    @abstractmethod
    def update(self, batch: Batch, latest: LatestTable) -> Iterable[Point]:
        """Figures for this batch; `latest` is the table before it."""

    @abstractmethod
    def forget(self, collector: str) -> None:
        """Drop what is remembered of a collector that is no longer there."""

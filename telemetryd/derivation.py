"""The interface of a derived quantity: readings go in, figures come out, no I/O in between."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar

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


class EnergyConfig(BaseModel):
    """What the node's energy figures can be told."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    estimate: bool = Field(
        True,
        description="estimate the node's input energy where no meter tells it, from what the power "
        "supplies give, otherwise from its devices",
    )
    psu_efficiency: float = Field(
        0.92, ge=0.1, le=1, description="output / input of the power supplies, for the estimate"
    )
    other_watts: float = Field(
        0.0,
        ge=0,
        description="what fans, disks, network and board draw, for the estimate; 0 makes it a "
        "lower bound",
    )
    budget_watts: float | None = Field(
        None, gt=0, description="power that the node may draw; unset: no utilization of power"
    )
    idle_watts: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="power of devices that do nothing for nobody, instead of learning it, by shell "
        'pattern of kind and device: { "gpu *" = 70, "cpu 0" = 90 }',
    )
    pue: float | None = Field(
        None, ge=1, description="power usage effectiveness of the site; unset: no facility energy"
    )
    price_per_kwh: float | None = Field(
        None, ge=0, description="price of a kWh; unset: no cost, unless price_file is there"
    )
    price_file: str | None = Field(
        None, description="file with the price of a kWh, which another program updates"
    )
    currency: str = Field("EUR", min_length=1, description="the currency of the price")
    carbon_grams_per_kwh: float | None = Field(
        None, ge=0, description="grams of CO2 equivalent for a kWh; unset: no carbon"
    )
    carbon_file: str | None = Field(
        None,
        description="file with the grams of CO2 equivalent for a kWh, which another program "
        "updates",
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
    energy: EnergyConfig = Field(
        default_factory=EnergyConfig, description="the node's energy: see [derived.energy]"
    )


class Derivation(ABC):
    """Works out figures from the batches that carry one of `inputs`.

    What `update` returns is published with the batch it was worked out from, and is gone when
    that collector's readings are. Figures that come from several collectors name a batch of their
    own (`own_batch`): nothing in return leaves what was published last, until nothing was renewed
    for two of `own_interval` seconds.
    """

    own_batch: ClassVar[str | None] = None
    own_interval: ClassVar[float] = 1.0
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

    def refresh(self) -> None:  # noqa: B027  (few have files to read)
        """Called once a minute and before the first batch, outside of the lanes: files that the
        configuration names are read here. Raises nothing."""

    def save(self) -> Mapping[str, object]:
        """What was learned and is to outlive the daemon, as JSON can hold it."""
        return {}

    def restore(self, saved: Mapping[str, object]) -> None:  # noqa: B027  (few have learned)
        """Go on from what was saved; what does not make sense is left out."""

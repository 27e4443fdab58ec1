"""[collectors.gpu_nvidia]"""

from __future__ import annotations

from pydantic import Field

from telemetryd.collector import CollectorConfig, Filters
from telemetryd.duration import Seconds


class GpuNvidiaConfig(CollectorConfig, Filters):
    """[collectors.gpu_nvidia]: `include` and `exclude` are matched with UUIDs and PCI addresses."""

    include: tuple[str, ...] = Field(
        ("*",), description="shell patterns of the UUIDs or PCI addresses of GPUs to watch"
    )
    exclude: tuple[str, ...] = Field(
        (), description="shell patterns of the UUIDs or PCI addresses of GPUs to leave alone"
    )
    library: str = Field(
        "libnvidia-ml.so.1",
        min_length=1,
        description="the driver's management library, by name or path",
    )
    slow_interval: Seconds = Field(
        30.0,
        ge=1,
        le=3600,
        description="time between two looks at what changes seldom: ECC, row remapping, link "
        "errors, fabric, MIG layout",
    )
    gpm: bool = Field(
        True,
        description="read SM, tensor and memory activity (Hopper and later); false leaves the "
        "counters to profilers, which share them",
    )
    processes: bool = Field(True, description="tell which processes use a GPU")
    max_processes: int = Field(
        64,
        ge=0,
        le=10_000,
        description="processes of a GPU with series of their own; those with the most memory "
        "come first, all are counted",
    )
    events: bool = Field(True, description="wait for XID errors, in a thread of its own")
    pcie_throughput: bool = Field(
        False,
        description="ask GPUs without GPM for their PCIe traffic; the driver takes 20 ms for each "
        "direction",
    )

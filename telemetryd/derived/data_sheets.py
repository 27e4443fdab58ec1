"""What the makers' data sheets say of GPU models.

Peaks come from here and never from clocks: what a GPU would do at the clock that it happens to
have is no capacity. Operations are dense ones (data sheets of NVIDIA like to print twice as many,
with sparsity), NVLink is both directions together, as data sheets print it. Power is that of the
GPU or board at its default limit. A model that is not here has no peaks until the configuration
gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from telemetryd.derivation import GpuPeaks


@dataclass(frozen=True, slots=True)
class DataSheet:
    """Peaks of one model; None: not known, or it has no such thing."""

    bf16_flops: float | None = None
    memory_bytes_per_second: float | None = None
    watts: float | None = None
    link_bytes_per_second: float | None = None


UNKNOWN = DataSheet()

# By shell patterns of the names that the drivers give; the first that matches counts. Drivers
# before 2021 leave out the word NVIDIA in front.
# fmt: off
_SHEETS = {
    # nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf; 40 GB: PB-10137-001, A100 whitepaper
    "*A100-SXM4-80GB":       DataSheet(312e12, 2.039e12, 400, 600e9),
    "*A100-SXM4-40GB":       DataSheet(312e12, 1.555e12, 400, 600e9),
    "*A100 80GB PCIe":       DataSheet(312e12, 1.935e12, 300, 600e9),
    "*A100-PCIE-40GB":       DataSheet(312e12, 1.555e12, 250, 600e9),
    # NVIDIA H100 Tensor Core GPU data sheet; PCIe: the version of 2022, PB-11133-001
    "NVIDIA H100 80GB HBM3": DataSheet(989e12, 3.35e12, 700, 900e9),
    "NVIDIA H100 PCIe":      DataSheet(756e12, 2.0e12, 350, 600e9),
    "NVIDIA H100 NVL":       DataSheet(835e12, 3.9e12, 400, 600e9),
    # NVIDIA H200 Tensor Core GPU data sheet
    "NVIDIA H200":           DataSheet(989e12, 4.8e12, 700, 900e9),
    "NVIDIA H200 NVL":       DataSheet(835e12, 4.8e12, 600, 900e9),
    # NVIDIA GH200 Grace Hopper Superchip data sheet: it gives the power of the module only
    "NVIDIA GH200 480GB":    DataSheet(989e12, 4.0e12, None, 900e9),
    "NVIDIA GH200 144G*":    DataSheet(989e12, 4.9e12, None, 900e9),
    # NVIDIA Blackwell and DGX B200, GB200 NVL72, DGX B300 and GB300 NVL72 data sheets
    "NVIDIA B200*":          DataSheet(2250e12, 8e12, 1000, 1800e9),
    "NVIDIA GB200*":         DataSheet(2500e12, 8e12, 1200, 1800e9),
    "NVIDIA B300*":          DataSheet(2250e12, 8e12, 1000, 1800e9),
    "NVIDIA GB300*":         DataSheet(2500e12, 8e12, 1400, 1800e9),
    # NVIDIA L40S and L4 data sheets
    "NVIDIA L40S":           DataSheet(362e12, 0.864e12, 350),
    "NVIDIA L4":             DataSheet(121e12, 0.3e12, 72),
    # AMD Instinct MI300X, MI325X and MI355X data sheets; the links are Infinity Fabric
    "*Instinct MI300X*":     DataSheet(1307e12, 5.3e12, 750, 896e9),
    "*Instinct MI325X*":     DataSheet(1307e12, 6e12, 1000, 896e9),
    "*Instinct MI355X*":     DataSheet(2500e12, 8e12, 1400, 1071e9),
}
# fmt: on


def data_sheet(model: str, configured: Mapping[str, GpuPeaks]) -> DataSheet:
    """The peaks of a model, as its driver names it: those of the first configured pattern that
    matches, the others from the table."""
    sheet = next((s for pattern, s in _SHEETS.items() if fnmatchcase(model, pattern)), UNKNOWN)
    for pattern, peaks in configured.items():
        if fnmatchcase(model, pattern):
            return replace(sheet, **peaks.model_dump(exclude_none=True))
    return sheet

"""The capacity of GPUs to compute, for utilization weighted by capacity and for FLOPs utilization.

Utilization of a fleet = sum(u * C) / sum(C), u being `gpu_sm` where there is one, else `gpu`:

    sum(
        (telemetryd_utilization_ratio{resource="gpu_sm"}
          or ignoring(resource) telemetryd_utilization_ratio{resource="gpu"})
      * on(instance, device) group_left
        label_replace(telemetryd_gpu_peak_flops, "device", "$1", "gpu", "(.*)")
    ) / sum(telemetryd_gpu_peak_flops)
"""

from __future__ import annotations

from collections.abc import Sequence

from telemetryd import gpus
from telemetryd.batch import Batch
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.data_sheets import data_sheet
from telemetryd.derived.gpu_readings import Gpu, GpuDerivation, Places, Row
from telemetryd.metric import Kind, Metric, Point, Unit

PEAK_FLOPS = Metric(
    "gpu", "peak_flops", Kind.GAUGE, Unit.NONE,
    "Dense floating-point operations a second that the data sheet of the GPU's model promises, by "
    "precision; absent for a model that is not known (derived.gpu_peaks adds it).",
    "derived", (*gpus.GPU, "precision"),
)  # fmt: skip


class PeakFlops(GpuDerivation):
    """telemetryd_gpu_peak_flops of each GPU whose model is known. MIG instances have none: data
    sheets do not speak of them."""

    inputs = (gpus.INFO,)
    metrics = (PEAK_FLOPS,)

    def new(self, collector: str, labels: tuple[str, str]) -> Gpu:  # noqa: ARG002
        return _Gpu(self.config, labels)


class _Gpu(Gpu):
    def __init__(self, config: DerivedConfig, labels: tuple[str, str]) -> None:
        super().__init__()
        self._config = config
        self._series = PEAK_FLOPS.at(*labels, "bf16")
        self._points: Sequence[Point] = ()

    def look(self, places: Places) -> None:
        super().look(places)
        sheet = data_sheet(places.label(gpus.INFO, "model"), self._config.gpu_peaks)
        flops = sheet.bf16_flops
        self._points = () if flops is None else ((self._series, flops),)

    def figures(self, values: Row, batch: Batch) -> Sequence[Point]:  # noqa: ARG002
        return self._points

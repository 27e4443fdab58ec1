"""What every destination that series are sent to can be told."""

from __future__ import annotations

from pydantic import Field

from telemetryd.collector import Filters
from telemetryd.duration import Bytes, Seconds
from telemetryd.exporter import ExporterConfig
from telemetryd.metric import Metric


class PushConfig(ExporterConfig):
    """The keys that all of them have."""

    resolution: Seconds = Field(
        10.0,
        ge=0,
        le=3600,
        description="send the last value of every so many seconds; 0 sends every one",
    )
    flush_interval: Seconds = Field(
        10.0,
        ge=0.1,
        le=3600,
        description="gather points for so long before they are written to the spool and sent "
        "together; a crash loses at most these",
    )
    batch_size: int = Field(
        5000,
        ge=1,
        le=1_000_000,
        description="most points in a request; so many are sent without waiting any longer",
    )
    queue_bytes: Bytes = Field(
        64 << 20,
        ge=1 << 20,
        description="most memory for points that wait where there is no spool on disk; then the "
        "oldest are dropped",
    )
    timeout: Seconds = Field(10.0, gt=0, le=300, description="longest wait for an answer")
    include: tuple[str, ...] = Field(
        ("*",), description="shell patterns of the names of the metrics to send"
    )
    exclude: tuple[str, ...] = Field(
        (), description="shell patterns of the names of the metrics not to send"
    )
    per_process: bool = Field(
        False,
        description="send the families with one series for each process too; those series come "
        "and go with the processes",
    )

    @property
    def flush_points(self) -> int:
        """So many points are sent without waiting for the end of `flush_interval`."""
        return self.batch_size

    def chooser(self) -> Wants:
        """Which metrics are to be sent."""
        return Wants(self)


class Wants:
    """Chooses metrics by `include`, `exclude` and `per_process`."""

    def __init__(self, config: PushConfig) -> None:
        self._per_process = config.per_process
        self._names = Filters(include=config.include, exclude=config.exclude)

    def __call__(self, metric: Metric) -> bool:
        return (self._per_process or not metric.per_process) and self._names.wants(metric.name)

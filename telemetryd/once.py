"""`telemetryd once`: two samples of everything, an interval apart, printed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from telemetryd import plugins
from telemetryd.batch import Batch
from telemetryd.config import Config
from telemetryd.exporters.prometheus import Format, Renderer
from telemetryd.host import Host
from telemetryd.instruments import Instruments
from telemetryd.pipeline import Pipeline
from telemetryd.runner import Runner, State
from telemetryd.sampling import Sampling

_SAMPLES = 2
# Beyond the interval itself; a collector that is not done by then is left out.
_PATIENCE_S = 5.0
_POLL_S = 0.01
# A collector is stuck after this long, however short the interval: nobody waits for a next tick.
_DEADLINE_NS = 1_000_000_000


def take(config: Config, host: Host) -> list[Batch]:
    """The last batches after two samples of each collector. Stuck collectors are left out."""
    instruments = Instruments()
    derivations = [derivation(config.derived) for derivation in plugins.derivation_classes()]
    pipeline = Pipeline(instruments, derivations)
    sampling = Sampling(config, host, pipeline, instruments)
    sampling.start()
    for lane in sampling.lanes:
        lane.deadline_ns = max(lane.deadline_ns, _DEADLINE_NS)
    longest = max((runner.interval for runner in sampling.runners), default=0)
    clock = host.clock
    deadline_ns = clock.mono_ns() + int((longest + _PATIENCE_S) * 1e9)
    while clock.mono_ns() < deadline_ns and not all(map(_is_done, sampling.runners)):
        for lane in sampling.lanes:
            lane.guard()
        clock.pause(_POLL_S)
    batches = pipeline.latest.live(clock.mono_ns())
    sampling.stop(timeout=0.5)
    return batches


def _is_done(runner: Runner) -> bool:
    return runner.samples >= _SAMPLES or runner.state in {State.STUCK, State.UNAVAILABLE}


def show(batches: Sequence[Batch], form: str, labels: dict[str, str]) -> str:
    """The batches as `prometheus`, `openmetrics`, `influx` or `json` text."""
    match form:
        case "prometheus":
            return Renderer().render(batches, Format.TEXT).decode()
        case "openmetrics":
            return Renderer().render(batches, Format.OPENMETRICS).decode()
        case "influx":
            from telemetryd.exporters.line_protocol import Encoder  # noqa: PLC0415

            return Encoder(labels).encode_all(batches)
        case _:
            return json.dumps([_object(batch) for batch in batches], indent=1) + "\n"


def _object(batch: Batch) -> dict[str, object]:
    return {
        "collector": batch.collector,
        "timestamp_ns": batch.wall_ns,
        "series": [
            {
                "name": series.metric.name,
                "labels": dict(zip(series.metric.labels, series.labels, strict=True)),
                "value": value,
            }
            for series, value in batch.points
        ],
    }

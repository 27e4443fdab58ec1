"""A collector at work: one sample at a time, timed, its errors caught and counted."""

from __future__ import annotations

import enum

from telemetryd.clock import Clock
from telemetryd.collector import Collector
from telemetryd.errors import Unavailable, reason_of
from telemetryd.instruments import Instruments
from telemetryd.metric import Point
from telemetryd.pipeline import Pipeline


class State(enum.Enum):
    """How a collector that the configuration wants is doing."""

    RUNNING = "running"
    FAILING = "failing"
    STUCK = "stuck"
    UNAVAILABLE = "unavailable"


class Runner:
    """Runs one collector and keeps what `self` and `doctor` report of it.

    `busy_ns` adds up the time spent in samples, `duration_ns` is that of the last finished one.
    """

    def __init__(
        self,
        name: str,
        collector: Collector,
        pipeline: Pipeline,
        instruments: Instruments,
        clock: Clock,
    ) -> None:
        self.name = name
        self.collector = collector
        self.state = State.RUNNING
        self.samples = 0
        self.overruns = 0
        self.busy_ns = 0
        self.duration_ns = 0
        self._pipeline = pipeline
        self._instruments = instruments
        self._clock = clock
        collector.on_fault = self._fault

    @property
    def up(self) -> bool | None:
        if self.samples == 0 and self.state is State.RUNNING:
            return None
        return self.state is State.RUNNING

    @property
    def interval(self) -> float:
        return self.collector.config.interval

    def sample(self) -> Sample:
        """Read once. Never raises: an error ends the sample, what came before it counts."""
        wall_ns, mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        points: list[Point] = []
        state = State.RUNNING
        try:
            points.extend(self.collector.sample())
        except Unavailable as gone:
            state = State.UNAVAILABLE
            self._instruments.warn(
                f"{self.name}/gone",
                f'msg="collector lost its source" collector={self.name} error="{gone}"',
            )
        except Exception as error:  # noqa: BLE001  (whatever a collector does, the others go on)
            state = State.FAILING
            self._fault(reason_of(error), f"{type(error).__name__}: {error}")
        return Sample(wall_ns, mono_ns, self._clock.mono_ns() - mono_ns, points, state)

    def publish(self, sample: Sample) -> None:
        """Hand a finished sample on, and take note of how it went."""
        self.state = sample.state
        self.samples += 1
        self.busy_ns += sample.duration_ns
        self.duration_ns = sample.duration_ns
        if sample.duration_ns > self.interval * 1e9:
            self.overruns += 1
        try:
            self._pipeline.publish(
                self.name, self.collector, sample.wall_ns, sample.mono_ns, sample.points
            )
        except Exception as error:  # noqa: BLE001  (points of another shape must not end the lane)
            self.state = State.FAILING
            self._fault("exception", f"cannot publish its points: {error!r}")

    def close(self) -> None:
        """Close the collector and withdraw its series."""
        try:
            self.collector.close()
        except Exception as error:  # noqa: BLE001  (closing the others matters more)
            self._fault("exception", f"close: {error!r}")
        self._pipeline.forget(self.name)

    def _fault(self, reason: str, what: str) -> None:
        self._instruments.reading_failed(self.name, reason, what)


class Sample:
    """What one run of a collector gave."""

    __slots__ = ("duration_ns", "mono_ns", "points", "state", "wall_ns")

    def __init__(
        self, wall_ns: int, mono_ns: int, duration_ns: int, points: list[Point], state: State
    ) -> None:
        self.wall_ns = wall_ns
        self.mono_ns = mono_ns
        self.duration_ns = duration_ns
        self.points = points
        self.state = state

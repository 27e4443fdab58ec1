"""A collector at work: one sample at a time, timed, its errors caught and counted."""

from __future__ import annotations

import enum
from itertools import islice

from telemetryd.clock import Clock
from telemetryd.collector import Collector
from telemetryd.errors import Unavailable, reason_of
from telemetryd.instruments import Instruments
from telemetryd.metric import Point
from telemetryd.pipeline import Pipeline

# Points beyond this many times a collector's limit are not even asked for: it may go on for ever.
_MOST_LIMITS = 20


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
        self.interval = collector.config.interval
        self.state = State.RUNNING
        self.samples = 0
        self.overruns = 0
        self.busy_ns = 0
        self.duration_ns = 0
        self._pipeline = pipeline
        self._instruments = instruments
        self._clock = clock
        self._most_points = _MOST_LIMITS * collector.config.max_series
        collector.on_fault = self._fault

    @property
    def up(self) -> bool | None:
        if self.samples == 0 and self.state is State.RUNNING:
            return None
        return self.state is State.RUNNING

    def sample(self) -> Sample:
        """Read once. Never raises: an error ends the sample, what came before it counts."""
        wall_ns, mono_ns = self._clock.wall_ns(), self._clock.mono_ns()
        points: list[Point] = []
        state = State.RUNNING
        try:
            points.extend(islice(self.collector.sample(), self._most_points + 1))
            if len(points) > self._most_points:
                points.pop()
                state = State.FAILING
                self._fault("limit", f"gave up after {len(points)} points")
        except Unavailable as gone:
            state = State.UNAVAILABLE
            self._instruments.warn(
                f"{self.name}/gone",
                f'msg="collector lost its source" collector={self.name} error="{gone}"',
            )
        except BaseException as error:  # noqa: BLE001  (whatever a collector does, the others go on)
            state = State.FAILING
            self._fault(reason_of(error), _said(error))
        return Sample(wall_ns, mono_ns, self._clock.mono_ns() - mono_ns, points, state)

    def publish(self, sample: Sample) -> None:
        """Hand a finished sample on, and take note of how it went."""
        self.state = sample.state
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
        # Last: whoever waits for a sample finds it in the table.
        self.samples += 1

    def close(self) -> None:
        """Withdraw the collector's series and close it."""
        # In this order: a close that hangs and returns late must not touch those who follow.
        self._pipeline.forget(self.name)
        try:
            self.collector.close()
        except BaseException as error:  # noqa: BLE001  (closing the others matters more)
            self._fault("exception", f"close: {_said(error)}")

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


def _said(error: BaseException) -> str:
    """The kind and the words of an error; a plugin's own may fail at saying something."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  (see above)
        return type(error).__name__

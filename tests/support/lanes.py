"""A lane on a clock that only the test moves, with collectors that hang or fail on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from support.clock import FakeClock
from support.trees import named
from telemetryd.batch import Batch
from telemetryd.collector import Collector, CollectorConfig
from telemetryd.host import Host
from telemetryd.instruments import Instruments
from telemetryd.lane import Lane
from telemetryd.metric import Kind, Metric, Point, Unit
from telemetryd.pipeline import Pipeline
from telemetryd.runner import Runner

# For what happens within milliseconds; a test that waits this long has failed.
PATIENCE_S = 20.0

CALLS = Metric("probe", "calls", Kind.COUNTER, Unit.NONE, "Samples begun.", "a test", ("probe",))


class Probe(Collector):
    """Counts its samples. The next one takes `takes` seconds of the clock. Each waits while `gate`
    is shut, as a read from a sick device would, and then raises `error`, if there is one,
    or yields what is in `extra`."""

    metrics = (CALLS,)

    def __init__(self, name: str, clock: FakeClock) -> None:
        super().__init__(CollectorConfig(), Host(clock=clock))
        self.name = name
        self.clock = clock
        self.takes = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()
        self.error: Exception | None = None
        self.extra: list[object] = []
        self.threads: list[threading.Thread] = []

    def sample(self) -> Iterator[Point]:
        self.threads.append(threading.current_thread())
        yield CALLS.at(self.name), len(self.threads)
        takes, self.takes = self.takes, 0.0
        self.clock.tick(takes)
        self.inside.set()
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        yield from self.extra  # type: ignore[misc]


class Room:
    """A lane with an interval of 1 s, its probes by name, and the batches they publish."""

    def __init__(self, *names: str) -> None:
        self.clock = FakeClock()
        self.start_ns = self.clock.mono_ns()
        self.instruments = Instruments()
        self.pipeline = Pipeline(self.instruments, ())
        self.pipeline.sinks.append(self._published)
        self.lane = Lane("1s", 1.0, self.clock, self.instruments)
        self.batches: list[Batch] = []
        self._news = threading.Condition()
        self.probes = {name: Probe(name, self.clock) for name in names}
        self.runners = {name: self.runner(probe) for name, probe in self.probes.items()}
        for runner in self.runners.values():
            self.lane.add(runner)

    def runner(self, probe: Probe) -> Runner:
        return Runner(probe.name, probe, self.pipeline, self.instruments, self.clock)

    def _published(self, batch: Batch) -> None:
        with self._news:
            self.batches.append(batch)
            self._news.notify_all()

    def batches_of(self, name: str) -> list[Batch]:
        return [batch for batch in self.batches if batch.collector == name]

    def wait(self, **batches: int) -> None:
        """Until each of these collectors has published so many batches."""
        with self._news:
            assert self._news.wait_for(
                lambda: all(len(self.batches_of(n)) >= count for n, count in batches.items()),
                PATIENCE_S,
            ), f"waited for {batches} in vain"

    def begin(self) -> None:
        """Start, and let everybody be sampled once."""
        self.lane.start()
        self.wait(**dict.fromkeys(self.probes, 1))

    def tick(self, seconds: float = 1.0, **batches: int) -> None:
        self.clock.tick(seconds)
        self.wait(**batches)

    def moments(self, name: str) -> list[float]:
        """When the samples of a collector were taken, in seconds since the start."""
        return [(batch.mono_ns - self.start_ns) / 1e9 for batch in self.batches_of(name)]

    def counted(self, name: str) -> float:
        return named(self.instruments.points()).get(name, 0)

    def get_stuck(self, name: str) -> threading.Thread:
        """Tick into a sample that hangs, let its deadline pass, and have the lane guarded."""
        probe = self.probes[name]
        probe.gate.clear()
        probe.inside.clear()
        self.clock.tick(1.0)
        assert probe.inside.wait(PATIENCE_S)
        self.clock.tick(self.lane.deadline_ns / 1e9)
        self.lane.guard()
        return probe.threads[-1]

    def end(self) -> None:
        """Let go of whatever hangs, and see every thread off."""
        for probe in self.probes.values():
            probe.gate.set()
        self.lane.stop()
        for probe in self.probes.values():
            for thread in probe.threads:
                thread.join(PATIENCE_S)
        assert self.lane.join(PATIENCE_S)


@pytest.fixture
def make() -> Iterator[Callable[..., Room]]:
    rooms: list[Room] = []

    def build(*names: str) -> Room:
        rooms.append(Room(*names))
        return rooms[-1]

    yield build
    for room in rooms:
        room.end()

"""The collectors of a configuration on their lanes: start, watch, look again, change, stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from telemetryd import plugins
from telemetryd.collector import Collector, CollectorConfig, CollectorHealth
from telemetryd.config import Config
from telemetryd.errors import Unavailable
from telemetryd.host import Host
from telemetryd.instruments import Instruments
from telemetryd.lane import Lane
from telemetryd.metric import Point
from telemetryd.pipeline import Pipeline
from telemetryd.runner import Runner, State

log = logging.getLogger("telemetryd.sampling")

# Lanes start this far apart, so that they do not all want the interpreter at the same moment.
_STAGGER_S = 0.05
# A lane that has not ticked for this long is not ticking any more, however slow its collectors.
_SILENT_INTERVALS = 3
_SILENT_S = 10.0


@dataclass(slots=True)
class Missing:
    """A collector whose hardware was not there when last looked for."""

    name: str
    config: CollectorConfig
    why: Unavailable
    samples: int = 0
    overruns: int = 0
    busy_ns: int = 0
    duration_ns: int = 0

    @property
    def up(self) -> bool | None:
        """Down if it is required; otherwise hardware that is not there is normal."""
        return False if self.config.enabled is True else None


class Sampling:
    """Owns the collectors and their threads. Its methods are called from the main thread and, for
    `look_again`, from the scheduler's; a lock orders them."""

    def __init__(
        self, config: Config, host: Host, pipeline: Pipeline, instruments: Instruments
    ) -> None:
        self._config = config
        self._host = host
        self._pipeline = pipeline
        self._instruments = instruments
        self._lock = threading.RLock()
        self._lanes: dict[str, Lane] = {}
        self._runners: dict[str, Runner] = {}
        self._missing: dict[str, Missing] = {}
        self._running = False

    @property
    def lanes(self) -> list[Lane]:
        return list(self._lanes.values())

    @property
    def runners(self) -> list[Runner]:
        return list(self._runners.values())

    @property
    def missing(self) -> list[Missing]:
        return list(self._missing.values())

    def health(self) -> Iterator[CollectorHealth]:
        yield from self.runners
        yield from self.missing

    def instrument_points(self) -> Iterator[Point]:
        return self._instruments.points()

    def start(self) -> None:
        """Open every collector and start the lanes. Missing hardware is logged once."""
        with self._lock:
            self._running = True
            for name, config in self._config.collectors.items():
                self._open(name, config)
            self._start_lanes()

    def is_ticking(self) -> bool:
        """Whether every lane has ticked as it should; a stuck collector does not stop its lane."""
        now_ns = self._host.clock.mono_ns()
        return all(
            now_ns - lane.last_tick_ns < (_SILENT_INTERVALS * lane.interval + _SILENT_S) * 1e9
            for lane in self.lanes
        )

    def look_again(self) -> None:
        """Try the collectors whose hardware was not there, or went away while they ran."""
        with self._lock:
            if not self._running:
                return
            lost = [runner for runner in self.runners if runner.state is State.UNAVAILABLE]
            for name, config in [
                *((missing.name, missing.config) for missing in self.missing),
                *((runner.name, runner.collector.config) for runner in lost),
            ]:
                if self._open(name, config, again=True):
                    log.info('msg="collector found its source" collector=%s', name)
            self._start_lanes()

    def apply(self, config: Config, host: Host) -> None:
        """Change to another configuration. Collectors that it does not change keep their state;
        the lanes pause for at most a tick."""
        with self._lock:
            self._stop_lanes(timeout=2.0)
            keep = host == self._host
            for name, runner in list(self._runners.items()):
                wanted = config.collectors.get(name)
                if not keep or wanted != runner.collector.config:
                    self._close(runner)
            self._missing.clear()
            self._config, self._host = config, host
            for name, wanted in config.collectors.items():
                if name not in self._runners:
                    self._open(name, wanted)
                else:
                    self._assign(self._runners[name])
            self._start_lanes()

    def stop(self, timeout: float) -> bool:
        """Stop the lanes and close the collectors; False if a thread is stuck in one of them."""
        with self._lock:
            self._running = False
            ended = self._stop_lanes(timeout)
            for runner in self.runners:
                self._close(runner)
            return ended

    def _open(self, name: str, config: CollectorConfig, *, again: bool = False) -> bool:
        try:
            collector = self._make(name, config)
        except Unavailable as gone:
            if name in self._runners:
                return False
            self._missing[name] = Missing(name, config, gone)
            if not again:
                level = logging.ERROR if config.enabled is True else logging.INFO
                log.log(
                    level, 'msg="collector not available" collector=%s why="%s"', name, gone.why
                )
            return False
        self._missing.pop(name, None)
        if (lost := self._runners.get(name)) is not None:
            for lane in self.lanes:
                lane.remove(lost)
            self._close(lost)
        runner = Runner(name, collector, self._pipeline, self._instruments, self._host.clock)
        collector.attach(self)
        self._runners[name] = runner
        self._assign(runner)
        return True

    def _make(self, name: str, config: CollectorConfig) -> Collector:
        try:
            return plugins.collector_class(name)(config, self._host)
        except Unavailable:
            raise
        except Exception as error:
            # Whatever a collector trips over when it starts, the others go on.
            self._instruments.reading_failed(name, "exception", repr(error))
            raise Unavailable(f"{name} failed to start: {error!r}", "see the log") from error

    def _assign(self, runner: Runner) -> None:
        """Put a runner on its lane: one for each interval, and one for each that may block."""
        name = runner.name if runner.collector.may_block else f"{runner.interval:g}s"
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(
                name, runner.interval, self._host.clock, self._instruments
            )
        lane.add(runner)

    def _close(self, runner: Runner) -> None:
        del self._runners[runner.name]
        if runner.state is State.STUCK:
            # A thread is inside it: its files stay open until that returns.
            self._pipeline.forget(runner.name)
        else:
            runner.close()

    def _start_lanes(self) -> None:
        for position, lane in enumerate(self.lanes):
            if not lane.is_started:
                lane.start(position * _STAGGER_S)

    def _stop_lanes(self, timeout: float) -> bool:
        lanes, self._lanes = self.lanes, {}
        for lane in lanes:
            lane.stop()
        deadline_ns = self._host.clock.mono_ns() + int(timeout * 1e9)
        ended = True
        for lane in lanes:
            left = (deadline_ns - self._host.clock.mono_ns()) / 1e9
            ended = lane.join(max(0.0, left)) and ended
        return ended

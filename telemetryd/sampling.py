"""The collectors of a configuration on their lanes: start, watch, look again, change, stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from telemetryd import plugins
from telemetryd.attempt import Attempt
from telemetryd.collector import CollectorConfig, CollectorHealth
from telemetryd.config import Config
from telemetryd.errors import Broken, ReadError, Unavailable, reason_of
from telemetryd.host import Host
from telemetryd.instruments import Instruments
from telemetryd.lane import Lane
from telemetryd.metric import Point
from telemetryd.pipeline import Pipeline
from telemetryd.runner import Runner, State

log = logging.getLogger("telemetryd.sampling")

_HANGS = "a device or file system hangs, or a plugin: see docs/service.md, Stopping"

# Lanes start this far apart, so that they do not all want the interpreter at the same moment.
_STAGGER_S = 0.05
# Guesses: long enough for a driver that is slow to wake up, short enough for a start, a stop.
OPENING_S, SLOW_S = 5.0, 0.5
CLOSING_S = 0.5
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
        """Down if it is required or broken; otherwise hardware that is not there is normal."""
        return False if self.config.enabled is True or isinstance(self.why, Broken) else None


class Sampling:
    """Owns the collectors and their threads. Its methods are called from several threads; a lock
    orders those that change something. None of them waits long, whatever a collector does."""

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
        self._openings: dict[str, Attempt[Runner]] = {}
        self._stuck: dict[str, Runner] = {}
        self._ending = False

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
            if self._ending:
                return
            self._stop_lanes(timeout=2.0)
            keep = host == self._host
            self._close(
                runner
                for name, runner in self._runners.items()
                if not keep or config.collectors.get(name) != runner.collector.config
            )
            self._missing.clear()
            self._config, self._host = config, host
            for runner in self.runners:
                self._assign(runner)
            self._start_lanes()
            for name, wanted in config.collectors.items():
                if name not in self._runners:
                    self._open(name, wanted)
            self._start_lanes()

    def give_up_opening(self) -> None:
        """The end is near: wait for no collector any more that is slow to open."""
        self._ending = True
        for opening in list(self._openings.values()):
            opening.give_up()

    def stop(self, timeout: float) -> bool:
        """Stop the lanes and close the collectors, for good; False if a thread is stuck in one."""
        self.give_up_opening()
        with self._lock:
            ended = self._stop_lanes(timeout)
            closed = self._close(self.runners)
            return (
                ended
                and closed
                and all(opening.is_over for opening in self._openings.values())
                and all(runner.state is not State.STUCK for runner in self._stuck.values())
            )

    def _open(self, name: str, config: CollectorConfig, *, again: bool = False) -> bool:
        if self._ending:
            return False
        try:
            runner = self._make(name, config)
        except Unavailable as gone:
            if name in self._runners:
                return False
            self._missing[name] = Missing(name, config, gone)
            if isinstance(gone, Broken):
                reason = reason_of(gone.__cause__ or gone)
                self._instruments.reading_failed(name, reason, f"opening: {gone.why}")
            elif not again:
                level = logging.ERROR if config.enabled is True else logging.INFO
                log.log(
                    level, 'msg="collector not available" collector=%s why="%s"', name, gone.why
                )
            return False
        self._missing.pop(name, None)
        if (lost := self._runners.get(name)) is not None:
            for lane in self.lanes:
                lane.remove(lost)
            self._close([lost])
        self._runners[name] = runner
        self._assign(runner)
        return True

    def _make(self, name: str, config: CollectorConfig) -> Runner:
        """Open a collector. Raises Unavailable; Broken for all but hardware that is not there."""
        stuck = self._stuck.get(name)
        if stuck is not None and stuck.state is State.STUCK:
            raise _silent("a sample of it, from before a reload, still hangs")
        if stuck is not None:
            Attempt(self._stuck.pop(name).close, f"close-{name}")
        opening = self._openings.get(name)
        if opening is not None:
            if not opening.is_over:
                raise _silent("still no answer")
            _close_late(name, opening)
        opening = Attempt(partial(self._create, name, config, self._host), f"open-{name}")
        self._openings[name] = opening
        if self._ending:  # since the check in _open
            opening.give_up()
        if not opening.wait(SLOW_S, self._host.clock):
            self._start_lanes()  # those who are open wait no longer
        if not opening.wait(OPENING_S - SLOW_S, self._host.clock):
            raise _silent(f"no answer within {OPENING_S:g} s")
        del self._openings[name]
        try:
            return opening.outcome()
        except Unavailable:
            raise
        except Exception as error:
            # Whatever a collector trips over when it starts, the others go on.
            raise Broken(repr(error), "see the log") from error

    def _create(self, name: str, config: CollectorConfig, host: Host) -> Runner:
        collector = plugins.open_collector(name, config, host)
        runner = Runner(name, collector, self._pipeline, self._instruments, host.clock)
        collector.attach(self)
        return runner

    def _assign(self, runner: Runner) -> None:
        """Put a runner on its lane: one for each interval, and one for each that may block."""
        name = runner.name if runner.collector.may_block else f"{runner.interval:g}s"
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(
                name,
                runner.interval,
                self._host.clock,
                self._instruments,
                alone=runner.collector.may_block,
            )
        lane.add(runner)

    def _close(self, runners: Iterable[Runner]) -> bool:
        """Close them and withdraw their series. False if one hangs; it is left behind."""
        closing: dict[str, Attempt[None]] = {}
        for runner in list(runners):
            del self._runners[runner.name]
            if runner.state is State.STUCK:
                # A thread is inside it: it stays open, and is not opened again, until that returns.
                self._pipeline.forget(runner.name)
                self._stuck[runner.name] = runner
            else:
                closing[runner.name] = Attempt(runner.close, f"close-{runner.name}")
        deadline_ns = self._host.clock.mono_ns() + int(CLOSING_S * 1e9)
        hanging = [
            name
            for name, attempt in closing.items()
            if not attempt.wait(self._seconds_to(deadline_ns), self._host.clock)
        ]
        for name in hanging:
            self._instruments.reading_failed(name, "timeout", "it does not close")
        return not hanging

    def _seconds_to(self, mono_ns: int) -> float:
        return max(0.0, (mono_ns - self._host.clock.mono_ns()) / 1e9)

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
            ended = lane.join(self._seconds_to(deadline_ns)) and ended
        return ended


def _close_late(name: str, opening: Attempt[Runner]) -> None:
    """Close a collector that opened after it was given up: it holds what it found."""
    try:
        runner = opening.outcome()
    except Exception:  # noqa: BLE001  (it did not open)
        return
    Attempt(runner.close, f"close-{name}")


def _silent(what: str) -> Broken:
    broken = Broken(what, _HANGS)
    broken.__cause__ = ReadError("timeout", what)
    return broken

"""A lane: one thread, one interval, a grid of absolute monotonic deadlines.

The lane runs its collectors in turn on each tick. A collector that may block has a lane of its
own, so that it can hold up nobody; should any other overrun its deadline, `guard` (called by the
daemon's main loop) abandons the thread that is stuck in it, and a fresh thread carries on without
that collector. The abandoned thread ends as soon as the read returns, and only then is the
collector sampled again: a stuck read is never doubled.
"""

from __future__ import annotations

import threading

from telemetryd.clock import Clock
from telemetryd.instruments import LANE_MISSED_TICKS, Instruments
from telemetryd.runner import Runner, State

# A collector that holds its lane longer than this share of the interval is abandoned.
DEADLINE_INTERVALS = 0.5
# The same for one that has a lane of its own, and so keeps nobody waiting.
ALONE_INTERVALS = 1.0
# A guess: long enough for a loaded machine, short enough that a slow lane is noticed.
LONGEST_DEADLINE_S = 5.0
_DUE = frozenset({State.RUNNING, State.FAILING})


class Lane:
    """Samples `runners` every `interval` seconds from `start` to `stop`; `alone`: one only."""

    def __init__(
        self,
        name: str,
        interval: float,
        clock: Clock,
        instruments: Instruments,
        *,
        alone: bool = False,
    ) -> None:
        self.name = name
        self.interval = interval
        share = ALONE_INTERVALS if alone else DEADLINE_INTERVALS
        self.deadline_ns = int(min(interval * share, LONGEST_DEADLINE_S) * 1e9)
        self.last_tick_ns = clock.mono_ns()
        self._clock = clock
        self._instruments = instruments
        self._step_ns = int(interval * 1e9)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._runners: list[Runner] = []
        self._queue: list[Runner] = []
        self._current: tuple[Runner, int] | None = None
        self._thread: threading.Thread | None = None
        self._abandoned: list[threading.Thread] = []
        self._next_ns = 0
        # Counted from the start, so that the first miss is an increase.
        instruments.count(LANE_MISSED_TICKS, name, by=0)

    @property
    def is_started(self) -> bool:
        with self._lock:  # between two threads, while the guard replaces one, it is
            return self._thread is not None

    @property
    def runners(self) -> tuple[Runner, ...]:
        return tuple(self._runners)

    def add(self, runner: Runner) -> None:
        with self._lock:
            self._runners = [*self._runners, runner]

    def remove(self, runner: Runner) -> None:
        """Sample it no more."""
        with self._lock:
            self._runners = [other for other in self._runners if other is not runner]
            self._queue = [other for other in self._queue if other is not runner]

    def start(self, delay: float = 0.0) -> None:
        """Tick now, or `delay` seconds from now, and then on the grid."""
        self._next_ns = self._clock.mono_ns() + int(delay * 1e9)
        self._spawn()

    def stop(self) -> None:
        """Ask the thread to end; it does so as soon as it is not inside a collector."""
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """Wait for the thread after `stop`, abandon it if it does not end in time. False if any
        thread is still stuck in a collector."""
        if (thread := self._thread) is not None:
            thread.join(timeout)
        with self._lock:
            if self._current is not None:
                self._abandon(self._current[0])
        return not any(thread.is_alive() for thread in self._abandoned)

    def guard(self) -> int:
        """Abandon the thread if its collector is past the deadline.

        Returns the monotonic time in nanoseconds at which to look again.
        """
        with self._lock:
            if self._current is None:
                return self._next_ns + self.deadline_ns
            runner, since_ns = self._current
            if self._clock.mono_ns() < since_ns + self.deadline_ns:
                return since_ns + self.deadline_ns
            self._abandon(runner)
            if not self._stop.is_set():
                self._spawn()
            look_again = self._next_ns + self.deadline_ns
        self._instruments.reading_failed(
            runner.name, "timeout", f"no answer within {self.deadline_ns / 1e9:g} s"
        )
        return look_again

    def _abandon(self, runner: Runner) -> None:
        runner.state = State.STUCK
        runner.overruns += 1
        self._current = None
        if self._thread is not None:
            self._abandoned = [t for t in self._abandoned if t.is_alive()]
            self._abandoned.append(self._thread)
            self._thread = None

    def _spawn(self) -> None:
        # Daemon threads: one that hangs in the kernel must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name=f"lane-{self.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            while (runner := self._take()) is not None:
                if not self._sample(runner):
                    return
            if self._clock.wait_until(self._next_ns, self._stop):
                return
            self._tick()

    def _tick(self) -> None:
        """Begin a tick: everyone who can be sampled is due, and the next deadline is set."""
        now_ns = self._clock.mono_ns()
        missed = (now_ns - self._next_ns) // self._step_ns
        with self._lock:
            self._next_ns += (missed + 1) * self._step_ns
            self._queue = [runner for runner in self._runners if runner.state in _DUE]
            self.last_tick_ns = now_ns
        if missed:
            self._instruments.ticks_missed(self.name, missed)

    def _take(self) -> Runner | None:
        with self._lock:
            if self._stop.is_set() or not self._queue:
                return None
            runner = self._queue.pop(0)
            self._current = runner, self._clock.mono_ns()
            return runner

    def _sample(self, runner: Runner) -> bool:
        """Run one collector; False if this thread was abandoned meanwhile and has to end."""
        sample = runner.sample()
        with self._lock:
            if threading.current_thread() is not self._thread:
                # What it read is old by now. It may be sampled again from the next tick on.
                runner.state = State.FAILING
                return False
            self._current = None
        runner.publish(sample)
        return True

"""A clock that moves only when a test says so."""

from __future__ import annotations

import threading

from telemetryd.clock import Clock

START_WALL_NS = 1_700_000_000_000_000_000


class FakeClock(Clock):
    """Monotonic and wall time move together with `tick`; `step_wall` moves the wall alone."""

    def __init__(self) -> None:
        self._wall = START_WALL_NS
        self._mono = 1_000_000_000_000
        self._moved = threading.Condition()

    def wall_ns(self) -> int:
        return self._wall

    def mono_ns(self) -> int:
        return self._mono

    def tick(self, seconds: float) -> None:
        with self._moved:
            self._wall += int(seconds * 1e9)
            self._mono += int(seconds * 1e9)
            self._moved.notify_all()

    def step_wall(self, seconds: float) -> None:
        self._wall += int(seconds * 1e9)

    def wait_until(self, mono_ns: int, stop: threading.Event) -> bool:
        """Wait until the test has moved the clock that far (or set `stop`)."""
        with self._moved:
            while self._mono < mono_ns and not stop.is_set():
                self._moved.wait(0.005)
        return stop.is_set()

"""The three things the daemon asks of time, in one object that tests replace."""

from __future__ import annotations

import threading
import time


class Clock:
    """Wall and monotonic time in nanoseconds, and a wait that a stop can end early.

    The grid and every rate use the monotonic clock; the wall clock only dates what is pushed.
    """

    def wall_ns(self) -> int:
        return time.time_ns()

    def mono_ns(self) -> int:
        return time.monotonic_ns()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait_until(self, mono_ns: int, stop: threading.Event) -> bool:
        """Wait until `mono_ns` or until `stop` is set; True means stop."""
        while (left := mono_ns - time.monotonic_ns()) > 0:
            if stop.wait(left / 1e9):
                return True
        return stop.is_set()

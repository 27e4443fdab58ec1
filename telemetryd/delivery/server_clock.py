"""What time it is at the destination.

A sample dated ahead of the server's clock does harm that lasts: Prometheus stores it, and then
finds everything that comes after it out of order. So bodies are compared with the server's own
time, from the Date of its last answer and the monotonic clock since: a step of our wall clock,
which dates the samples, shows at once, without asking.

The monotonic clock stands still while the machine is suspended. After that the server's time is
taken for earlier than it is until the next answer, so that what is held back then has to be asked
about, not merely waited for.
"""

from __future__ import annotations

from telemetryd.clock import Clock

# How far ahead of the server's clock a sample may be dated.
TOLERANCE_NS = 300 * 10**9


class ServerClock:
    """Time at the destination, in nanoseconds since 1970, to a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_ns: int | None = None

    def learn(self, server_ns: int) -> None:
        """The Date of an answer that has just come."""
        self._offset_ns = server_ns - self._clock.mono_ns()

    def now_ns(self) -> int | None:
        """None as long as no answer had a Date."""
        return None if self._offset_ns is None else self._clock.mono_ns() + self._offset_ns

    def skew(self) -> float | None:
        """Seconds by which our wall clock is ahead of it."""
        now_ns = self.now_ns()
        return None if now_ns is None else (self._clock.wall_ns() - now_ns) / 1e9

    def wait_ns(self, date_ns: int) -> int:
        """How long until the destination may be told of a sample read at `date_ns`."""
        now_ns = self.now_ns()
        return 0 if now_ns is None else max(date_ns - TOLERANCE_NS - now_ns, 0)

    def sound_ns(self) -> int:
        """The time by which to judge what is too old to keep: the earlier one where the clocks
        differ, so that a step of one of them costs nothing."""
        wall_ns, now_ns = self._clock.wall_ns(), self.now_ns()
        return wall_ns if now_ns is None else min(wall_ns, now_ns)

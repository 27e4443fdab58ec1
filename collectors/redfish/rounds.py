"""Readings that take longer than anybody may wait, made in a thread of their own.

A round is one pass over the BMC. It begins so long before a tick as the last one took, and half as
much again, so that its values are there, and fresh, when the tick wants them:

    tick ---------------------------------------- tick ------------- ...
                                   | round  |               | round |

A tick waits for a round that is not over, but never for long: a lane gives up a collector after 5
seconds, and a stop or a reload should not wait for a BMC either.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from telemetryd.clock import Clock
from telemetryd.errors import ReadError
from telemetryd.metric import Point

# Less than the 5 s after which a lane gives up (telemetryd.lane).
PATIENCE_S = 4.0
# Of an interval, what a round may take, and how long before a tick it may begin.
SHARE = 0.8
_MARGIN_S = 0.5
_CLOSING_S = 0.3


class Round:
    """One pass over the BMC: what it gave, and how it failed. Whoever reads sets when it has to
    be over, and when it began to read values."""

    def __init__(self, due_ns: int) -> None:
        self.due_ns = due_ns
        self.deadline_ns = 0
        self.values_ns = due_ns
        self.points: list[Point] = []
        self.faults: list[tuple[Exception, str]] = []
        self.error: Exception | None = None
        self.wanted = threading.Event()
        self.over = threading.Event()


class Rounds:
    """Runs `read` for each round, and `end` when it is closed; `abort` has to end a `read` that is
    past its deadline."""

    def __init__(
        self,
        read: Callable[[Round], None],
        end: Callable[[], None],
        abort: Callable[[], None],
        interval: float,
        clock: Clock,
    ) -> None:
        self._read = read
        self._end = end
        self._abort = abort
        self._interval_ns = int(interval * 1e9)
        self._patience_ns = int(min(PATIENCE_S, SHARE * interval) * 1e9)
        self._clock = clock
        self._is_closing = False
        self._took_ns = 0
        # Opening and the first tick share one patience, which `doctor` and a lane can bear.
        self._opened_ns: int | None = clock.mono_ns()
        self._inbox: SimpleQueue[Round | None] = SimpleQueue()
        self._round = Round(clock.mono_ns())
        self._inbox.put(self._round)
        # A daemon thread: one that hangs must not keep the process from exiting.
        self._thread = threading.Thread(target=self._work, name="redfish", daemon=True)
        self._thread.start()

    def first(self) -> Round | None:
        """The first round if it is over within our patience; it is still to be taken."""
        return self._round if self._is_over() else None

    def take(self) -> Round:
        """The round for this tick, and have the next one made. Raises ReadError if it is not
        over, or so long that its values are old."""
        now_ns = self._clock.mono_ns()
        done = self._round
        if 0 < done.deadline_ns < now_ns and not done.over.is_set():
            self._abort()
        if not self._is_over():
            raise ReadError(
                "timeout",
                "the BMC has not given all its answers yet: it is slow, or is looked through for "
                "the first time",
            )
        self._opened_ns = None
        lead_ns = self._took_ns * 3 // 2 + int(_MARGIN_S * 1e9)
        due_ns = now_ns + self._interval_ns - min(lead_ns, int(SHARE * self._interval_ns))
        self._round = Round(due_ns)
        self._inbox.put(self._round)
        if done.points and now_ns - done.values_ns > self._interval_ns:
            raise ReadError("timeout", "the BMC's answers came too late: its values are old")
        return done

    def close(self) -> None:
        """End the thread, at once if it is idle. Calling it twice is safe."""
        if not self._is_closing:
            self._is_closing = True
            self._round.wanted.set()
            self._inbox.put(None)
        self._thread.join(_CLOSING_S)

    def _is_over(self) -> bool:
        self._round.wanted.set()
        since_ns = self._clock.mono_ns() if self._opened_ns is None else self._opened_ns
        return self._clock.wait_until(since_ns + self._patience_ns, self._round.over)

    def _work(self) -> None:
        while (this := self._inbox.get()) is not None:
            self._clock.wait_until(this.due_ns, this.wanted)
            if self._is_closing:
                break
            this.values_ns = self._clock.mono_ns()
            try:
                self._read(this)
            except Exception as error:  # noqa: BLE001  (whatever it is, the tick gets it)
                this.error = error
            self._took_ns = self._clock.mono_ns() - this.values_ns
            this.over.set()
        self._end()

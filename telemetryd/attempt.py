"""A call that may hang or do worse, made in a thread that may be left behind.

Opening and closing a collector touches the same sick devices as reading it, and a plugin may do
anything at all. An Attempt makes one such call at once; whoever needs its outcome waits as long as
is sensible, and then goes on without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from telemetryd.clock import Clock

R = TypeVar("R")


class Attempt(Generic[R]):
    """`call()` in a thread called `name`."""

    def __init__(self, call: Callable[[], R], name: str) -> None:
        self.is_over = False
        self._call = call
        self._results: list[R] = []
        self._error: Exception | None = None
        self._news = threading.Event()
        # A daemon thread: one that hangs must not keep the process from exiting.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def wait(self, seconds: float, clock: Clock) -> bool:
        """Whether it is over, waiting for that no longer than `seconds` or until `give_up`."""
        clock.wait_until(clock.mono_ns() + int(seconds * 1e9), self._news)
        return self.is_over

    def give_up(self) -> None:
        """Let go whoever waits."""
        self._news.set()

    def outcome(self) -> R:
        """What the call returned or raised, once it is over; what is no Exception, such as
        SystemExit, comes as a RuntimeError."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except Exception as error:  # noqa: BLE001  (whatever it is, `outcome` raises it)
            self._error = error
        except BaseException as error:  # noqa: BLE001  (a plugin must not end the daemon)
            self._error = RuntimeError(repr(error))
        self.is_over = True
        self._news.set()

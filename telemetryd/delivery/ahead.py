"""Bodies dated ahead of the destination's clock, set aside until their time has come."""

from __future__ import annotations

from telemetryd.delivery.queue import Queue
from telemetryd.delivery.server_clock import ServerClock
from telemetryd.instruments import Instruments


class Ahead:
    """Those of `queue`, which is for the destination `name`, that the clock `server` says to hold
    back."""

    def __init__(
        self, name: str, queue: Queue, server: ServerClock, instruments: Instruments
    ) -> None:
        self._name = name
        self._queue = queue
        self._server = server
        self._instruments = instruments
        # By number, when the newest of its points was read.
        self._dates: dict[int, int] = {}
        self._soonest_ns = 0

    def __len__(self) -> int:
        return len(self._dates)

    def hold(self, number: int, newest_ns: int) -> None:
        """Set the head aside, which has this number and date."""
        self._queue.set_aside()
        self._soonest_ns = min(self._soonest_ns, newest_ns) if self._dates else newest_ns
        self._dates[number] = newest_ns
        self._instruments.warn(
            f"{self._name}/ahead",
            f'msg="points dated ahead of the destination are held back; set the clock of this '
            f'machine or that one" destination={self._name} '
            f"clock_skew={self._server.skew() or 0:.0f}s",
        )

    def wait_ns(self) -> int:
        """How long until the next one may go, should the clocks stay as they are."""
        return self._server.wait_ns(self._soonest_ns)

    def release(self) -> bool:
        """Take back those whose time has come, the oldest first in line; whether there are any."""
        if not self._dates or self.wait_ns():
            return False
        due = [number for number, date in self._dates.items() if not self._server.wait_ns(date)]
        for number in sorted(due, reverse=True):
            del self._dates[number]
            self._queue.take_back(number)  # or it was dropped meanwhile
        self._soonest_ns = min(self._dates.values(), default=0)
        return True

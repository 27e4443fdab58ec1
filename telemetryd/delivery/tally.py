"""Counts what a destination answers, and learns its time."""

from __future__ import annotations

from telemetryd.clock import Clock
from telemetryd.delivery.counts import show_block
from telemetryd.delivery.destination import Outcome, Verdict
from telemetryd.delivery.server_clock import ServerClock
from telemetryd.instruments import (
    EXPORTER_CLOCK_SKEW,
    EXPORTER_LAST_SUCCESS,
    EXPORTER_POINTS,
    EXPORTER_REJECTIONS,
    EXPORTER_REQUESTS,
    EXPORTER_RETRIES,
    Instruments,
)


class Tally:
    """That of the destination `name`, whose clock is `server`."""

    def __init__(
        self, name: str, instruments: Instruments, clock: Clock, server: ServerClock
    ) -> None:
        self._name = name
        self._instruments = instruments
        self._clock = clock
        self._server = server

    def request(self, verdict: Verdict) -> None:
        """A body was sent, or would have been."""
        self._instruments.count(EXPORTER_REQUESTS, self._name, verdict.outcome.value)
        if verdict.outcome is not Outcome.OK:
            self._instruments.count(EXPORTER_REJECTIONS, self._name, str(verdict.status))
        if verdict.outcome is not Outcome.RETRY:
            # Whether a server that is down would let us in is not known.
            show_block(self._name, self._instruments, verdict.outcome.value)
        self.learn(verdict)

    def retry(self) -> None:
        """The next request repeats one."""
        self._instruments.count(EXPORTER_RETRIES, self._name)

    def delivered(self, points: int) -> None:
        """The destination has so many more."""
        self._instruments.count(EXPORTER_POINTS, self._name, by=points)
        self._instruments.set(EXPORTER_LAST_SUCCESS, self._name, to=self._clock.wall_ns() / 1e9)

    def learn(self, verdict: Verdict) -> None:
        """What time it is there."""
        if verdict.server_ns is not None:
            self._server.learn(verdict.server_ns)
            self.skew()

    def skew(self) -> None:
        """Show how far our wall clock is ahead of the destination's, where that is known."""
        if (skew := self._server.skew()) is not None:
            self._instruments.set(EXPORTER_CLOCK_SKEW, self._name, to=skew)

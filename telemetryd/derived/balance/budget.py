"""The power of the node against what it may draw."""

from __future__ import annotations

from collections.abc import Iterator

from telemetryd.derived.utilization import Account
from telemetryd.metric import Point


class Budget:
    """`telemetryd_utilization_ratio{resource="power"}`, where a budget is configured."""

    def __init__(self, watts: float | None, peak_window: float) -> None:
        self._watts = watts
        self._account = Account("power", "all", peak_window)
        self._joules = 0.0
        self._gap_s = 0.0
        self._counted_ns: int | None = None

    def observe(
        self, watts: float | None, joules: float, gap_s: float, counted_ns: int | None, now_ns: int
    ) -> None:
        """The node's power now, and its energy as of `counted_ns`, with the time that is missing
        in it."""
        if self._watts is None or counted_ns is None:
            return
        ratio = None if watts is None else watts / self._watts
        since = self._counted_ns
        seconds = 0.0 if since is None else (counted_ns - since) / 1e9
        if seconds > 0 and gap_s == self._gap_s:
            mean = (joules - self._joules) / seconds / self._watts
            self._account.observe(ratio, seconds, now_ns, mean=mean)
        else:
            self._account.observe(ratio, 0.0, now_ns)
        self._counted_ns, self._joules, self._gap_s = counted_ns, joules, gap_s

    def points(self) -> Iterator[Point]:
        if self._counted_ns is not None:
            yield from self._account.points()

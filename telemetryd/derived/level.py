"""Utilization of what the kernel gives as a level, such as memory in use."""

from __future__ import annotations

from collections.abc import Iterator

from telemetryd.batch import Batch
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.derived.utilization import Account
from telemetryd.metric import Point


class Level:
    """An account of which only the ratio at each reading is known.

    The ratio holds from the first reading on. The integral begins with the second: between two
    readings it is the mean of both, exact for what changes evenly; readings more than
    GAP_INTERVALS apart are not joined.
    """

    __slots__ = ("_account", "_mono_ns", "_ratio")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._ratio: float | None = None
        self._mono_ns = 0

    def observe(self, ratio: float | None, batch: Batch) -> None:
        """The ratio as `batch` has it; None: not known."""
        before, seconds = self._ratio, (batch.mono_ns - self._mono_ns) / 1e9
        self._ratio, self._mono_ns = ratio, batch.mono_ns
        if ratio is None or before is None or not 0 < seconds <= GAP_INTERVALS * batch.interval:
            self._account.observe(ratio, 0, batch.mono_ns)
        else:
            self._account.observe(ratio, seconds, batch.mono_ns, mean=(before + ratio) / 2)

    def points(self) -> Iterator[Point]:
        return self._account.points()

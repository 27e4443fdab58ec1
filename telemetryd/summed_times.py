"""The times that /proc/diskstats sums over operations, which wrap at 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from operator import add, sub

from telemetryd.metric import Series


class SummedTimes:
    """Milliseconds summed over operations, which the kernel prints in 32 bits: at a depth of 100
    they wrap twice a day. Added up here from 0, exact across the wraps (block/genhd.c,
    diskstats_show).

    A time that falls by more than half its range has wrapped. A smaller step back, or one of a
    disk whose counts of operations fell as well (it was replaced or reset), adds nothing.
    """

    _RANGE = 1 << 32

    def __init__(self) -> None:
        self.reset = False
        self._series: Sequence[Series] = ()
        self._owners: Sequence[int] = ()
        self._count_owners: Sequence[int] = ()
        self._before: Sequence[int] | None = None
        self._counts: Sequence[int] = ()
        self._totals: list[int] = []
        self._kept: dict[Series, tuple[int, int]] = {}

    def arrange(
        self, series: Sequence[Series], owners: Sequence[int], count_owners: Sequence[int]
    ) -> None:
        """From now on these are the times; `owners` tells which disk each time and each count
        belongs to. Those that were there before go on."""
        if series == self._series and self._before is not None:
            return
        if self._before is not None:
            pairs = zip(self._before, self._totals, strict=True)
            self._kept = dict(zip(self._series, pairs, strict=True))
        self._series, self._owners, self._count_owners = series, owners, count_owners
        self._before = None

    def advance(self, now: Sequence[int], counts: Sequence[int]) -> list[float]:
        """The totals in seconds, with these readings in milliseconds added."""
        before = self._before
        if before is None:
            kept = [self._kept.get(one, (ms, 0)) for one, ms in zip(self._series, now, strict=True)]
            before = [ms for ms, _ in kept]
            self._totals = [total for _, total in kept]
            self._counts = counts
        steps = list(map(sub, now, before))
        self.reset = False
        if min(steps, default=0) < 0:
            steps = self._mend(steps, counts)
        self._totals = list(map(add, self._totals, steps))
        self._before, self._counts = now, counts
        return [total / 1000 for total in self._totals]

    def _mend(self, steps: Sequence[int], counts: Sequence[int]) -> list[int]:
        fallen = {
            owner
            for owner, now, before in zip(self._count_owners, counts, self._counts, strict=True)
            if now < before
        }
        self.reset = bool(fallen)
        mended = []
        for owner, step in zip(self._owners, steps, strict=True):
            wrapped = step + self._RANGE if step < -self._RANGE // 2 else step
            mended.append(0 if owner in fallen or wrapped < 0 else wrapped)
        return mended

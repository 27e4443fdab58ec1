"""Batches on their way from the lanes to a push exporter's thread, thinned out to a resolution.

Only references are kept: what is not sent is never encoded.
"""

from __future__ import annotations

import threading
from collections import deque

from telemetryd.batch import Batch


class Gather:
    """Takes batches from any thread, hands over those that are to be sent.

    With `resolution` 0 that is every batch, otherwise the last one that each collector read in
    each window of that many seconds of the monotonic clock. A collector that reads no more often
    than that anyway keeps every batch: near the edge of a window two might fall into one.

    At most `limit` points wait; beyond that the oldest batches are given up.
    """

    def __init__(self, resolution: float, limit: int) -> None:
        self._resolution = resolution
        self._window_ns = int(resolution * 1e9)
        self._limit = limit
        self._lock = threading.Lock()
        # The last batch of each collector, in a window that is still open, and that window.
        self._open: dict[str, tuple[int, Batch]] = {}
        self._ready: deque[Batch] = deque()
        self._points = 0

    @property
    def points(self) -> int:
        """How many points are ready to be sent."""
        return self._points

    def offer(self, batch: Batch) -> int:
        """Take a batch; how many points had to be given up for it."""
        with self._lock:
            if batch.interval >= self._resolution:
                return self._add(batch)
            window = batch.mono_ns // self._window_ns
            before = self._open.get(batch.collector)
            self._open[batch.collector] = window, batch
            return self._add(before[1]) if before is not None and before[0] != window else 0

    def take(self, mono_ns: int) -> list[Batch]:
        """What is ready at `mono_ns`, in the order of reading; it is no longer kept here."""
        with self._lock:
            if self._window_ns:
                self._close_windows_before(mono_ns // self._window_ns)
            return self._take()

    def take_all(self) -> list[Batch]:
        """Everything, the last batches of windows that are still open too."""
        with self._lock:
            self._ready.extend(batch for _, batch in self._open.values())
            self._open.clear()
            return self._take()

    def _close_windows_before(self, now: int) -> None:
        closed = [name for name, (window, _) in self._open.items() if window < now]
        self._ready.extend(self._open.pop(name)[1] for name in closed)

    def _take(self) -> list[Batch]:
        taken = sorted(self._ready, key=_mono_ns)
        self._ready.clear()
        self._points = 0
        return taken

    def _add(self, batch: Batch) -> int:
        self._ready.append(batch)
        self._points += len(batch.values)
        lost = 0
        while self._points > self._limit:
            oldest = len(self._ready.popleft().values)
            self._points -= oldest
            lost += oldest
        return lost


def _mono_ns(batch: Batch) -> int:
    return batch.mono_ns

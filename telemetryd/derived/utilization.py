"""Resource utilization = used / total: the ratio, its integral with the time observed, its peak.

A gauge of the last second that is scraped every 15 s shows one second in fifteen. The integral
and the observed time are counters, so that increase(integral) / increase(observed) is the mean
over any window, at any scrape interval, through any gap.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from telemetryd.metric import Kind, Metric, Point, Unit

_LABELS = ("resource", "device")
_HERE = "derived"

RATIO = Metric(
    "utilization", "", Kind.GAUGE, Unit.RATIO,
    "Used / total of a resource over the last interval, from 0 to 1; absent when it is not known. "
    "Power may be above its limit for moments (gpu_power).",
    _HERE, _LABELS,
)  # fmt: skip
SECONDS = Metric(
    "utilization", "", Kind.COUNTER, Unit.SECONDS,
    "Seconds of full use: the integral of the utilization ratio (0.5 for 10 s adds 5). Of memory, "
    "swap, filesystems, gpu_memory and gpu_power, which come as levels, it is the mean of the two "
    "ends of each interval.",
    _HERE, _LABELS,
)  # fmt: skip
OBSERVED = Metric(
    "utilization", "observed", Kind.COUNTER, Unit.SECONDS,
    "Time over which the utilization was observed: increase(telemetryd_utilization_seconds_total) "
    "/ increase of this is the mean over any window.",
    _HERE, _LABELS,
)  # fmt: skip
PEAK = Metric(
    "utilization", "peak", Kind.GAUGE, Unit.RATIO,
    "Highest utilization ratio of an interval within the last 60 s (derived.peak_window).",
    _HERE, _LABELS,
)  # fmt: skip

METRICS = (RATIO, SECONDS, OBSERVED, PEAK)


class Account:
    """The utilization of one device of one resource.

    `observe` adds an interval; `points` gives what is known now. The integral and the observed
    time start at 0 with the process.
    """

    __slots__ = ("_observed", "_peaks", "_ratio", "_seconds", "_series", "_window_ns")

    def __init__(self, resource: str, device: str, peak_window: float | None = None) -> None:
        """`peak_window` is in seconds; None leaves the peak out."""
        labels = (resource, device)
        self._series = (
            RATIO.at(*labels),
            SECONDS.at(*labels),
            OBSERVED.at(*labels),
            PEAK.at(*labels),
        )
        self._ratio: float | None = None
        self._seconds = 0.0
        self._observed = 0.0
        self._window_ns = None if peak_window is None else int(peak_window * 1e9)
        # Falling ratios with the time of each: the first is the peak of the window.
        self._peaks: deque[tuple[int, float]] = deque()

    def observe(
        self, ratio: float | None, seconds: float, mono_ns: int, mean: float | None = None
    ) -> None:
        """An interval of `seconds` that ended at `mono_ns` with this ratio; None: not known.

        `mean` is that of the interval where it differs from the ratio at its end.
        """
        self._ratio = ratio
        if ratio is not None and seconds > 0:
            self._seconds += (ratio if mean is None else mean) * seconds
            self._observed += seconds
        if self._window_ns is None:
            return
        peaks = self._peaks
        while peaks and peaks[0][0] <= mono_ns - self._window_ns:
            peaks.popleft()
        if ratio is not None:
            while peaks and peaks[-1][1] <= ratio:
                peaks.pop()
            peaks.append((mono_ns, ratio))

    def points(self) -> Iterator[Point]:
        ratio, seconds, observed, peak = self._series
        if self._ratio is not None:
            yield ratio, self._ratio
        yield seconds, self._seconds
        yield observed, self._observed
        if self._peaks:
            yield peak, self._peaks[0][1]

"""Whether a GPU's energy counter and its power reading tell the same story.

Both are worked out by the GPU, from the same sensor or from two. Over each minute the increase of
the counter is compared with the integral of the power (trapezoid between the readings). A minute
begins and ends at a reading, for both alike, and is a little longer where no reading falls on its
end.

The two do not look at the same time. The counter steps every 100 ms or so; the power is a mean
over the last second on most GPUs and a momentary value on others (NVML does not tell which); and
between two readings nobody looks at all. While the load is steady none of that matters. When it
changes it does: a step from 70 to 700 W at the edge of a minute is in the counter at once and in
the mean half a second later, 315 J of 4200 J. So the minute's own readings tell how much these
effects can amount to, and a minute in which that is more than MOST_DOUBT of the integral has no
figure:

- at its ends, by half the averaging time times the difference of the power at both ends: the
  integral of a mean over T is the energy of a minute T/2 earlier;
- in between, by half an interval for each change, as if it had come right after one reading or
  right before the next, at random.

A real drift stays until a steadier minute shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from telemetryd import gpus
from telemetryd.batch import Batch
from telemetryd.derived.gpu_readings import ABSENT, Gpu, GpuDerivation, Places, Row
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Kind, Metric, Point, Unit

WINDOW_S = 60
# Beyond this they have drifted apart.
MOST_DRIFT = 0.05
MOST_DOUBT = 0.02
# The longest that drivers are known to average power over.
_AVERAGING_S = 1.0

RATIO = Metric(
    "gpu", "energy_drift", Kind.GAUGE, Unit.RATIO,
    "Increase of the energy counter / integral of the average power - 1, over the last whole "
    "minute: 0 where they agree, below 0 where the counter has less. Absent for a minute with a "
    "gap or a reset, or in which the load changed too much to tell.",
    "derived", gpus.GPU,
)  # fmt: skip
DRIFTS = Metric(
    "gpu", "energy_drifts", Kind.COUNTER, Unit.NONE,
    "Minutes over which the energy counter and the integral of the average power differed by more "
    "than 5 %, since the daemon started.",
    "derived", gpus.GPU,
)  # fmt: skip


class GpuEnergyDrift(GpuDerivation):
    """telemetryd_gpu_energy_drift_ratio and telemetryd_gpu_energy_drifts_total of each GPU with an
    energy counter and an average power.

    Where the power of a whole module is there (Grace Hopper), the counter is the module's, and so
    is the power that it is compared with. A counter that fell (the driver was loaded again) and
    readings more than GAP_INTERVALS apart begin a new minute.
    """

    inputs = (gpus.ENERGY, gpus.POWER_AVERAGE)
    metrics = (RATIO, DRIFTS)

    def new(self, collector: str, labels: tuple[str, str]) -> Gpu:  # noqa: ARG002
        return _Gpu(labels)


class _Minute:
    """The readings since a minute began. `squares` are those of half an interval times the change
    of power over it."""

    __slots__ = ("_first", "_integral", "_last", "_squares")

    def __init__(self, mono_ns: int, joules: float, watts: float) -> None:
        self._first = self._last = (mono_ns, joules, watts)
        self._integral = 0.0
        self._squares = 0.0

    def is_recent(self, batch: Batch) -> bool:
        """Whether the last reading was so short ago that the next one can be joined to it."""
        seconds = (batch.mono_ns - self._last[0]) / 1e9
        return 0 < seconds <= GAP_INTERVALS * batch.interval

    def fits(self, joules: float, watts: float) -> bool:
        return joules >= self._last[1] and watts >= 0

    def add(self, mono_ns: int, joules: float, watts: float) -> None:
        last_ns, _, last_watts = self._last
        half_s = (mono_ns - last_ns) / 2e9
        self._integral += half_s * (last_watts + watts)
        self._squares += (half_s * (watts - last_watts)) ** 2
        self._last = (mono_ns, joules, watts)

    @property
    def is_whole(self) -> bool:
        return self._last[0] - self._first[0] >= WINDOW_S * 1_000_000_000

    def drift(self) -> float | None:
        """None: the readings do not tell."""
        (_, first_joules, first_watts), (_, last_joules, last_watts) = self._first, self._last
        doubt = max(
            _AVERAGING_S / 2 * abs(last_watts - first_watts),
            math.sqrt(self._squares),
        )
        if self._integral <= 0 or doubt > MOST_DOUBT * self._integral:
            return None
        return (last_joules - first_joules) / self._integral - 1


class _Gpu(Gpu):
    def __init__(self, labels: tuple[str, str]) -> None:
        super().__init__()
        self._series = RATIO.at(*labels), DRIFTS.at(*labels)
        self._energy_at = self._power_at = ABSENT
        self._has_module = False
        self._minute: _Minute | None = None
        self._drift: float | None = None
        # None until there is something to compare.
        self._drifts: int | None = None

    def look(self, places: Places) -> None:
        super().look(places)
        self._energy_at = places.of(gpus.ENERGY)
        module = places.of(gpus.POWER_AVERAGE, "module")
        if module != ABSENT and not self._has_module:
            # What was added up before was another power.
            self._has_module, self._minute, self._drift = True, None, None
        self._power_at = module if self._has_module else places.of(gpus.POWER_AVERAGE, "gpu")

    def figures(self, values: Row, batch: Batch) -> Iterator[Point]:
        if self._minute is not None and not self._minute.is_recent(batch):
            self._minute = self._drift = None
        joules, watts = values[self._energy_at], values[self._power_at]
        if joules is not None and watts is not None:
            self._drifts = self._drifts or 0
            self._read(batch.mono_ns, joules, watts)
        ratio, drifts = self._series
        if self._drift is not None:
            yield ratio, self._drift
        if self._drifts is not None:
            yield drifts, self._drifts

    def _read(self, mono_ns: int, joules: float, watts: float) -> None:
        minute = self._minute
        if minute is None or not minute.fits(joules, watts):
            self._minute, self._drift = _Minute(mono_ns, joules, watts), None
            return
        minute.add(mono_ns, joules, watts)
        if minute.is_whole:
            self._drift = minute.drift()
            if self._drift is not None and abs(self._drift) > MOST_DRIFT:
                self._drifts = (self._drifts or 0) + 1
            self._minute = _Minute(mono_ns, joules, watts)

"""Energy meters: watts of those that count joules, joules of those that give watts.

Power is the increase of the energy over the time between two readings, on the monotonic clock.
Energy is the trapezoid between two readings of power. A gap of more than 3 intervals is not
bridged: it gives no power, and where energy is lost by it, its length is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from telemetryd.batch import Batch, LatestTable
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.derived.steps import GAP_INTERVALS, Columns, Counters
from telemetryd.meters import ENERGY, GAP, POWER
from telemetryd.metric import Point, Series

_Meter = tuple[str, ...]


class _Integral:
    """Joules of a meter that gives only power, from 0 at its first reading."""

    __slots__ = ("_at_ns", "_watts", "joules", "series")

    def __init__(self, meter: _Meter, watts: float, mono_ns: int) -> None:
        self.series = ENERGY.at(*meter)
        self.joules = 0.0
        self._watts = watts
        self._at_ns = mono_ns

    def advance(self, watts: float, mono_ns: int, longest: float) -> float:
        """Add what lies between the last reading and this one; the seconds that could not be."""
        seconds = (mono_ns - self._at_ns) / 1e9
        mean = (self._watts + watts) / 2
        # A current that flows back would make a counter fall.
        lost = seconds > longest or self._watts < 0 or watts < 0
        if not lost:
            self.joules += mean * seconds
        self._watts, self._at_ns = watts, mono_ns
        return seconds if lost else 0.0


class _Meters:
    """The meters of one collector. One that was ever seen with both readings keeps its own two:
    a figure is not put in the place of a reading that failed."""

    def __init__(self) -> None:
        self._energies = Counters(ENERGY)
        self._powers = Columns(POWER)
        self._counting: set[_Meter] = set()
        self._metering: set[_Meter] = set()
        self._watts_of: list[Series | None] = []
        self._integrals: dict[_Meter, _Integral] = {}
        self._gaps: dict[Series, float] = {}

    def update(self, batch: Batch) -> Iterator[Point]:
        step = self._energies.advance(batch)
        powers = self._powers.of(batch)
        if self._energies.changed or self._powers.changed:
            self._look_at_meters()
        if step is not None:
            for series, joules in zip(self._watts_of, step.increases, strict=True):
                if series is not None and joules is not None and joules >= 0:
                    yield series, joules / step.seconds
        yield from self._integrate(powers, batch)

    def _look_at_meters(self) -> None:
        self._counting.update(series.labels for series in self._energies.series)
        self._metering.update(series.labels for series in self._powers.series)
        self._watts_of = [
            None if series.labels in self._metering else POWER.at(*series.labels)
            for series in self._energies.series
        ]

    def _integrate(self, powers: Sequence[float], batch: Batch) -> Iterator[Point]:
        longest = GAP_INTERVALS * batch.interval
        gaps: dict[Series, None] = {}
        for reading, watts in zip(self._powers.series, powers, strict=True):
            meter = reading.labels
            if meter in self._counting:
                continue
            gap = GAP.at(meter[0])
            gaps[gap] = None
            self._gaps.setdefault(gap, 0.0)
            integral = self._integrals.get(meter)
            if integral is None:
                integral = self._integrals[meter] = _Integral(meter, watts, batch.mono_ns)
            else:
                self._gaps[gap] += integral.advance(watts, batch.mono_ns, longest)
            yield integral.series, integral.joules
        for gap in gaps:
            yield gap, self._gaps[gap]


class MeterEnergy(Derivation):
    """The other half of each meter's pair of telemetryd_energy_joules_total and
    telemetryd_power_watts; nothing for a meter that has readings for both."""

    inputs = (ENERGY, POWER)
    metrics = (ENERGY, POWER, GAP)

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        self._meters: dict[str, _Meters] = {}

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:  # noqa: ARG002
        meters = self._meters.get(batch.collector)
        if meters is None:
            meters = self._meters[batch.collector] = _Meters()
        return meters.update(batch)

    def forget(self, collector: str) -> None:
        self._meters.pop(collector, None)

"""What the power meters of a machine report, declared once for all of them: joules, watts, gaps.

A meter has an energy counter, a power reading, or both. Its collector publishes what the hardware
gives; telemetryd.derived.energy works out the other. The four labels name the meter:
`source` is the interface (rapl, hwmon), `domain` the part that is measured, `device` the thing it
is part of, `boundary` what may be added up.
"""

from __future__ import annotations

from typing import Literal

from telemetryd.errors import ReadError
from telemetryd.metric import Kind, Metric, Unit

Boundary = Literal["component", "subcomponent", "enclosing"]
LABELS = ("source", "domain", "device", "boundary")
_HERE = "the collector of the meter, or derived from its other reading"

ENERGY = Metric(
    "energy", "", Kind.COUNTER, Unit.JOULES,
    "Energy that each meter saw since it was first read, from its energy counter or integrated "
    'from its power. Add up boundary="component" only: a "subcomponent" is inside a component or '
    'of unknown place, an "enclosing" meter contains components.',
    _HERE, LABELS,
)  # fmt: skip
POWER = Metric(
    "power", "", Kind.GAUGE, Unit.WATTS,
    "Power of each meter: its own reading, or the mean since the sample before from its energy "
    'counter. Add up boundary="component" only.',
    _HERE, LABELS,
)  # fmt: skip
GAP = Metric(
    "energy", "gap", Kind.COUNTER, Unit.SECONDS,
    "Time, summed over the meters of a source, whose energy is missing from "
    "telemetryd_energy_joules_total: a meter without an energy counter was not read for more than "
    "3 intervals, or a RAPL counter was reset or may have wrapped unseen.",
    _HERE, ("source",),
)  # fmt: skip


class EnergyCounter:
    """Joules since the first reading of a hardware counter of microjoules.

    Whole microjoules are added up, so that nothing is lost however long it runs. With `range_uj`
    the counter wraps there: the range is added once for each wrap. Without, it never wraps.
    `most_watts` is more than the meter can possibly see; a counter that wraps needs it to tell a
    wrap from a reset. `gap_seconds` is the time whose energy could not be known.
    """

    __slots__ = ("_last_ns", "_last_uj", "_most_watts", "_range_uj", "_total_uj", "gap_seconds")

    def __init__(self, range_uj: int | None = None, most_watts: int | None = None) -> None:
        self._range_uj = range_uj
        self._most_watts = most_watts
        self._total_uj = 0
        self._last_uj: int | None = None
        self._last_ns = 0
        self.gap_seconds = 0.0

    def rebase(self) -> None:
        """The next reading is a first one again; what was added up stays."""
        self._last_uj = None

    def advance(self, uj: int, mono_ns: int) -> float:
        """The joules so far, with this reading. Raises ReadError if it does not continue the one
        before it: the time between them counts as a gap, and the next reading goes on from it."""
        last_uj, last_ns = self._last_uj, self._last_ns
        self._last_uj, self._last_ns = uj, mono_ns
        if last_uj is None:
            return self._total_uj / 1e6
        step_uj, step_ns = uj - last_uj, mono_ns - last_ns
        if step_uj < 0 and self._range_uj is not None:
            step_uj += self._range_uj
        problem = self._objection(step_uj, step_ns)
        if problem is not None:
            self.gap_seconds += step_ns / 1e9
            raise ReadError("invalid", f"{problem} ({last_uj} then {uj} uJ)")
        self._total_uj += step_uj
        return self._total_uj / 1e6

    def _objection(self, step_uj: int, step_ns: int) -> str | None:
        if step_uj < 0:
            return "the energy counter went back: it was reset"
        if self._most_watts is None:
            return None
        most_uj = self._most_watts * step_ns // 1000
        if self._range_uj is not None and most_uj >= self._range_uj:
            return f"not read for {step_ns / 1e9:.1f} s: the energy counter may have wrapped unseen"
        if step_uj > most_uj:
            return f"the energy counter was reset: it would mean over {self._most_watts} W"
        return None

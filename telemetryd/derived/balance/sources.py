"""Which meter the input energy of the node is taken from.

The candidates in their order; the first that passes its checks is taken:

1. an energy counter at the AC side (Redfish PSUs, or the system's EnvironmentMetrics),
2. the power of the PSUs' inputs, integrated,
3. the system power that the BMC tells (Redfish, then IPMI DCMI),
4. PMBus and ACPI meters of the board (hwmon),
5. an estimate: what the PSUs give / configured efficiency (HPE's BMCs tell nothing else),
6. an estimate: devices and configured other watts / configured efficiency.

A source is left only after LEAVE_AFTER_S without a reading, or of readings below what the devices
use, and then for EXILE_S, so that it cannot flap. One that comes up and stands higher is taken
after it has answered for as long; in the first minutes of the daemon at once, since BMCs answer
late. One that fell silent comes back before its time only if there is no other at all.
"""

from __future__ import annotations

from collections.abc import Sequence

from telemetryd.derived.balance.candidate import EXILE_S, LEAVE_AFTER_S, Candidate, Kind

SETTLING_S = 120.0

ESTIMATE = Kind("estimate", "devices", counts_energy=True)
# In the order of preference. Several series of one kind (two PSUs) are added up.
PRIORITY: tuple[Kind, ...] = (
    Kind("redfish", "psu_input", counts_energy=True),
    Kind("redfish", "system", counts_energy=True),
    Kind("redfish", "psu_input", counts_energy=False),
    Kind("redfish", "system", counts_energy=False),
    Kind("ipmi", "system", counts_energy=False),
    Kind("hwmon", "psu_input", counts_energy=True),
    Kind("hwmon", "psu_input", counts_energy=False),
    Kind("hwmon", "system", counts_energy=True),
    Kind("hwmon", "system", counts_energy=False),
    Kind("redfish", "psu_output", counts_energy=False),
    Kind("hwmon", "psu_output", counts_energy=False),
    ESTIMATE,
)


class Choice:
    """The source that is in use. `changes` counts how often it became another, without the search
    for the best one in the daemon's first minutes."""

    def __init__(self, kinds: Sequence[Kind] = PRIORITY) -> None:
        self.candidates = {kind: Candidate(kind) for kind in kinds}
        self.current: Candidate | None = None
        self.changes = 0
        self._last: Candidate | None = None
        self._started_ns: int | None = None

    def look(self, mono_ns: int) -> bool:
        """Decide again; whether it is another source from now on."""
        if self._started_ns is None:
            self._started_ns = mono_ns
        is_settling = mono_ns - self._started_ns < SETTLING_S * 1e9
        before = current = self.current
        if current is not None and current.is_bad(mono_ns):
            current.send_away(mono_ns)
            current = None
        self.current = self._best(current, mono_ns, at_once=is_settling or current is None)
        if self.current is before:
            return False
        if self.current is not None:
            left = self._last is not None and self._last.is_sent_away(mono_ns)
            if self._last not in (None, self.current) and (left or not is_settling):
                self.changes += 1
            self._last = self.current
        return True

    def _best(self, current: Candidate | None, mono_ns: int, *, at_once: bool) -> Candidate | None:
        needed_ns = 0.0 if at_once else LEAVE_AFTER_S * 1e9
        for candidate in self.candidates.values():
            if candidate is current:
                return current
            if candidate.is_sent_away(mono_ns) or not candidate.answers(mono_ns):
                continue
            if mono_ns - (candidate.up_since_ns or mono_ns) >= needed_ns:
                return candidate
        return next((c for c in self.candidates.values() if c.may_return(mono_ns)), None)


__all__ = ["ESTIMATE", "EXILE_S", "LEAVE_AFTER_S", "PRIORITY", "SETTLING_S", "Choice", "Kind"]

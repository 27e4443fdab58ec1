"""Where in the batches of a collector the meters of the node stand, and how well PSUs convert."""

from __future__ import annotations

import fnmatch

from telemetryd.batch import Batch
from telemetryd.derived.balance.candidate import Kind
from telemetryd.meters import ENERGY, POWER
from telemetryd.metric import Series

# Power of PSUs as PMBus drivers label it (drivers/hwmon/pmbus/pmbus_core.c); what else of hwmon
# encloses components sees the system.
_PMBUS = (("pin*", "psu_input"), ("pout*", "psu_output"))
_INPUT, _OUTPUT = "psu_input", "psu_output"


def domain_of(series: Series) -> str:
    """What a meter of the node measures, under one name for all sources."""
    source, domain, _, _ = series.labels
    if source != "hwmon":
        return domain
    return next((ours for theirs, ours in _PMBUS if fnmatch.fnmatchcase(domain, theirs)), "system")


class Places:
    """`meters` has the series of each kind of source, with their positions."""

    def __init__(self, series: tuple[Series, ...]) -> None:
        self.layout = series
        self.meters: dict[Kind, tuple[list[Series], list[int]]] = {}
        supplies: dict[str, dict[str, list[int]]] = {_INPUT: {}, _OUTPUT: {}}
        for position, one in enumerate(series):
            if one.metric not in (ENERGY, POWER) or one.labels[3] != "enclosing":
                continue
            domain = domain_of(one)
            kind = Kind(one.labels[0], domain, counts_energy=one.metric is ENERGY)
            meters, positions = self.meters.setdefault(kind, ([], []))
            meters.append(one)
            positions.append(position)
            if one.metric is POWER and domain in supplies:
                supplies[domain].setdefault(one.labels[2], []).append(position)
        taken, given = supplies[_INPUT], supplies[_OUTPUT]
        both = taken.keys() & given.keys()
        self.taken = [position for supply in both for position in taken[supply]]
        self.given = [position for supply in both for position in given[supply]]


class SupplyRatio:
    """Output / input of the power supplies that meter both, over a window."""

    def __init__(self) -> None:
        self._taken = 0.0
        self._given = 0.0

    def look(self, places: Places, batch: Batch) -> None:
        """Take note of a reading; they come at even intervals."""
        self._taken += sum(batch.values[position] for position in places.taken)
        self._given += sum(batch.values[position] for position in places.given)

    def take(self) -> float | None:
        """The ratio since the last call; None without a reading, and above 1, which cannot be."""
        taken, given = self._taken, self._given
        self._taken = self._given = 0.0
        return given / taken if 0 < given <= taken else None

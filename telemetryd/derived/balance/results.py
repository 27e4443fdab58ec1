"""What closed windows add up to, as it is published."""

from __future__ import annotations

from collections.abc import Iterator

from telemetryd.derived.balance import families
from telemetryd.derived.balance.ledger import Owner, add
from telemetryd.derived.balance.split import Window
from telemetryd.metric import Point, Series


class Results:
    """Counters that start at 0 with the daemon, and the ratios of the last window."""

    def __init__(self) -> None:
        self._states = dict.fromkeys(families.STATES, 0.0)
        self._divided_j = 0.0
        self._unattributed_j = 0.0
        self._ended_j = 0.0
        self._owners: dict[Owner, float] = {}
        self._series: dict[Owner, Series] = {}
        self._excess_j = 0.0
        self._excess_s = 0.0
        self._ratios: dict[str, float] = {}
        # Owners are many and change with a window only.
        self._divided_points: list[Point] = []

    def discard(self) -> None:
        """A window came to nothing: the ratios of the last one are old."""
        self._ratios = {}

    def blame(self, window: Window) -> None:
        """Note by how much the devices exceeded the node's meter."""
        if window.is_wrong:
            self._excess_j += window.excess_j
            self._excess_s += window.seconds

    def compare(self, window: Window, psu_ratio: float | None) -> None:
        """The ratios of a window; without idle power those that do without."""
        self._ratios = {} if psu_ratio is None else {"psu": psu_ratio}
        if window.is_wrong or window.node_j <= 0:
            return
        useful_j = {"it": window.devices_j}
        if window.is_divided:
            useful_j["productive"] = window.states.get("dynamic", 0.0)
            useful_j["active"] = useful_j["productive"] + window.states.get("floor", 0.0)
        for definition, joules in useful_j.items():
            # Above 1 by an error of measurement, or of rounding.
            self._ratios[definition] = min(1.0, joules / window.node_j)

    def add(self, window: Window, present: frozenset[Owner]) -> None:
        """A window that is divided. Owners that are not `present` and got nothing in it are
        forgotten: what they got last has been published."""
        for owner in [o for o in self._owners if o not in present and o not in window.owners]:
            self._ended_j += self._owners.pop(owner)
            self._series.pop(owner)
        add(self._states, window.states, 1.0)
        add(self._owners, window.owners, 1.0)
        self._divided_j += window.node_j
        self._unattributed_j += window.unattributed_j
        for owner in self._owners:
            if owner not in self._series:
                self._series[owner] = families.OWNER_ENERGY.at(*owner)
        self._divided_points = list(self._divided())

    def meet(self, present: frozenset[Owner]) -> None:
        """Begin to count for owners that came: from 0, so that their first window is an
        increase."""
        fresh = present - self._owners.keys() if self._divided_j else frozenset[Owner]()
        if fresh:
            for owner in sorted(fresh):
                self._owners[owner] = 0.0
                self._series[owner] = families.OWNER_ENERGY.at(*owner)
            self._divided_points = list(self._divided())

    def points(self) -> Iterator[Point]:
        yield families.BOUNDARY_ERROR.at(), self._excess_j
        yield families.BOUNDARY_ERROR_TIME.at(), self._excess_s
        for definition, ratio in self._ratios.items():
            yield families.EFFICIENCY.at(definition), ratio
        yield from self._divided_points

    def _divided(self) -> Iterator[Point]:
        for state in families.STATES:
            yield families.SPLIT.at(state), self._states[state]
        yield families.WINDOW_ENERGY.at(), self._divided_j
        yield families.UNATTRIBUTED.at(), self._unattributed_j
        yield families.ENDED.at(), self._ended_j
        for owner, joules in self._owners.items():
            yield self._series[owner], joules

"""The node's input energy: what its meters say, and the one of them that is believed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from telemetryd.batch import Batch
from telemetryd.derivation import EnergyConfig
from telemetryd.derived.balance import families
from telemetryd.derived.balance.candidate import Candidate
from telemetryd.derived.balance.places import Places, SupplyRatio
from telemetryd.derived.balance.sources import ESTIMATE, Choice
from telemetryd.metric import Point

log = logging.getLogger("telemetryd.energy")

_NO_PLACES = Places(())


class Node:
    """`joules` is the input energy since the daemon started, as of `counted_ns`; `gap_s` the time
    whose energy is missing in it. When another source is taken, its own count goes on where the
    last one ended: while that one was silent, the other was read all the time."""

    def __init__(self, config: EnergyConfig) -> None:
        self._config = config
        self._choice = Choice()
        self._places: dict[str, Places] = {}
        self._ratio = SupplyRatio()
        self.joules = 0.0
        self.gap_s = 0.0
        self.counted_ns: int | None = None
        # The source that was counted last, with what it said then.
        self._counted: tuple[Candidate, float, float] | None = None
        self._other_j = 0.0
        self._lost_until_ns = 0

    @property
    def is_of_devices(self) -> bool:
        """Whether it is estimated from the devices."""
        current = self._choice.current
        return current is not None and current.kind is ESTIMATE

    @property
    def has_source(self) -> bool:
        return self._choice.current is not None

    def watts(self, mono_ns: int) -> float | None:
        """The power of the meter in use; None without one, and if its reading is stale."""
        current = self._choice.current
        return None if current is None else current.fresh_watts(mono_ns)

    def estimated_j(self, devices_j: float, seconds: float) -> float:
        """What goes into a node whose devices use so much."""
        return (devices_j + self._config.other_watts * seconds) / self._config.psu_efficiency

    def step_j(self, mono_ns: int) -> float:
        """In what steps the meter in use counts, where they are large."""
        current = self._choice.current
        return 0.0 if current is None else current.step_j(mono_ns)

    def take_psu_ratio(self) -> float | None:
        """Output / input of the power supplies since the last call, where both are metered."""
        return self._ratio.take()

    def look(self, batch: Batch, devices_w: float) -> None:
        """Take note of a batch; the devices draw `devices_w`."""
        places = self._places.get(batch.collector, _NO_PLACES)
        if places.layout is not batch.series:
            places = self._places[batch.collector] = Places(batch.series)
        values, mono_ns, interval = batch.values, batch.mono_ns, batch.interval
        for kind, (meters, positions) in places.meters.items():
            candidate = self._choice.candidates.get(kind)
            if candidate is None or (kind.is_output and not self._config.estimate):
                continue  # psys, the module of a GPU
            readings = [values[position] for position in positions]
            if kind.is_output:
                readings = [watts / self._config.psu_efficiency for watts in readings]
            if kind.counts_energy:
                candidate.count(meters, readings, mono_ns, interval)
            else:
                candidate.power(meters, readings, mono_ns, interval, devices_w or None)
        if places.taken:
            self._ratio.look(places, batch)

    def estimate(
        self, batch: Batch, devices_j: float, devices_w: float, lost_since_ns: int | None
    ) -> None:
        """The devices have used `devices_j` so far: a batch of them has come. Of one of them it is
        not known what it used since `lost_since_ns`."""
        if not self._config.estimate:
            return
        candidate = self._choice.candidates[ESTIMATE]
        since = batch.mono_ns if candidate.read_ns is None else candidate.read_ns
        self._other_j += self._config.other_watts * (batch.mono_ns - since) / 1e9
        if lost_since_ns is not None:
            lost_ns = batch.mono_ns - max(lost_since_ns, self._lost_until_ns)
            candidate.skip(lost_ns / 1e9)
            self._lost_until_ns = batch.mono_ns
        joules = (devices_j + self._other_j) / self._config.psu_efficiency
        candidate.estimate(joules, self.estimated_j(devices_w, 1.0), batch.mono_ns, batch.interval)

    def settle(self, mono_ns: int) -> bool:
        """Decide which meter to believe, and count; whether it is another from now on."""
        changed = self._choice.look(mono_ns)
        if changed:
            self._tell()
        self._count()
        return changed

    def blame(self, wrong_since_ns: int | None) -> None:
        """In the window that closed, the devices used more than the meter in use said, or not."""
        if self._choice.current is not None:
            self._choice.current.blame(wrong_since_ns)

    def forget(self, collector: str) -> None:
        self._places.pop(collector, None)

    def points(self, mono_ns: int) -> Iterator[Point]:
        yield families.SOURCE_CHANGES.at(), self._choice.changes
        if self.counted_ns is not None:
            yield families.NODE_ENERGY.at(), self.joules
            yield families.NODE_GAP.at(), self.gap_s
        current = self._choice.current
        if current is None:
            return
        watts = current.fresh_watts(mono_ns)
        if watts is not None:
            yield families.NODE_POWER.at(), watts
        estimated = "true" if self.is_of_devices or current.kind.is_output else "false"
        yield families.NODE_SOURCE.at(*_labels(current), estimated), 1

    def _count(self) -> None:
        current = self._choice.current
        if current is None or current.read_ns is None:
            return
        if self._counted is None or self._counted[0] is not current:
            if not self._take_over(current, current.read_ns):
                return
        else:
            _, joules, gap_s = self._counted
            self.joules += current.joules - joules
            self.gap_s += current.gap_s - gap_s
        self.counted_ns = current.read_ns
        self._counted = current, current.joules, current.gap_s

    def _take_over(self, current: Candidate, read_ns: int) -> bool:
        """Go on with this source; False as long as it has not come so far as the last one."""
        since = self.counted_ns
        if since is None:
            return True
        if read_ns < since:
            return False
        joules = current.joules_at(since)
        if joules is None:
            first_ns, joules = current.first_mark
            self.gap_s += (first_ns - since) / 1e9
        self.joules += current.joules - joules
        return True

    def _tell(self) -> None:
        current = self._choice.current
        if current is None:
            log.warning('msg="no meter tells the input energy of the node any more"')
        else:
            words = zip(families.NODE_SOURCE.labels, _labels(current), strict=False)
            told = " ".join(f"{name}={value}" for name, value in words)
            log.info('msg="input energy of the node" %s', told)


def _labels(source: Candidate) -> tuple[str, str, str]:
    """Source, domain, boundary."""
    boundary = "component" if source.kind is ESTIMATE else "enclosing"
    return source.kind.source, source.kind.domain, boundary

"""One device: its windows, its idle power, and what a tick of it is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from telemetryd.derived.balance import split
from telemetryd.derived.balance.activity import Activity
from telemetryd.derived.balance.cpu_share import CpuShare
from telemetryd.derived.balance.devices import Tick
from telemetryd.derived.balance.idle import IdlePower
from telemetryd.derived.balance.ledger import Ledger, Sums, add
from telemetryd.derived.balance.moments import Segment

# How long a tick of a CPU waits for the batch of owners that it belongs to.
_PATIENCE_INTERVALS = 1.5
# Segments are forgotten as ticks pass them; so many are kept if no ticks come.
_MOST_SEGMENTS = 64


class Account:
    """A GPU. Ticks go in; `ledger` has them by window; `watts` is the power of the last."""

    def __init__(self, idle: IdlePower, ledger: Ledger) -> None:
        self.idle = idle
        self.ledger = ledger
        self.watts = 0.0

    def add(self, tick: Tick, activity: Activity) -> None:
        """Energy of the device, and what it did meanwhile."""
        self.watts = tick.joules / tick.seconds
        sums = split.divide(tick, activity, self.idle.watts)
        self.ledger.tick(tick.start_ns, tick.end_ns, sums)
        if _is_idle(activity):
            self.idle.observe(self.watts, tick.seconds)


class CpuAccount:
    """A CPU package. Its ticks wait for the batch of owners that tells whose they were."""

    def __init__(self, idle: IdlePower, ledger: Ledger, shares: CpuShare) -> None:
        self.idle = idle
        self.ledger = ledger
        self.watts = 0.0
        self._shares = shares
        self._waiting: deque[Tick] = deque()
        self._segments: deque[Segment] = deque(maxlen=_MOST_SEGMENTS)

    def add(self, tick: Tick, owners_interval: float | None) -> None:
        """Energy of the package. Batches of owners come every `owners_interval` seconds; None: they
        do not."""
        self.watts = tick.joules / tick.seconds
        self._waiting.append(tick)
        patience_ns = _PATIENCE_INTERVALS * (owners_interval or 0.0) * 1e9
        while self._waiting and tick.end_ns - self._waiting[0].end_ns >= patience_ns:
            self._settle([self._waiting.popleft()])

    def settle(self, segments: Sequence[Segment]) -> None:
        """Owners have told what they did until now."""
        self._segments.extend(segments)
        # Together, so that owners, who may be many, are gone through once; but a tick that reaches
        # over the edge of a window is divided there alone.
        run: list[Tick] = []
        for tick in self._waiting:
            if run and self.ledger.has_edge_in(run[-1].start_ns, tick.end_ns):
                self._settle(run)
                run = []
            run.append(tick)
        self._settle(run)
        self._waiting.clear()

    def _settle(self, ticks: Sequence[Tick]) -> None:
        """Ticks that follow one another."""
        if not ticks:
            return
        states: dict[int, dict[str, float]] = {}
        owners = [*self._segments, _NOBODY]
        for tick in ticks:
            share = self._shares.over(tick.start_ns, tick.end_ns)
            # Who holds a package that does nothing makes no difference to its power, and on a node
            # of Kubernetes somebody always does.
            if share is not None and share < split.ACTIVE_SHARE:
                self.idle.observe(tick.joules / tick.seconds, tick.seconds)
            for number, piece, piece_share in self._pieces(tick, share):
                activity = Activity(piece_share, owners[number].is_held)
                found = split.states_of(piece, activity, self.idle.watts)
                add(states.setdefault(number, {}), found, 1.0)
        sums = Sums(seconds=sum(tick.seconds for tick in ticks))
        for number, found in states.items():
            one = owners[number]
            add(sums.states, found, 1.0)
            split.share_out(sums.owners, found, Activity(None, None, one.work, one.holding))
        self.ledger.tick(ticks[0].start_ns, ticks[-1].end_ns, sums)
        while self._segments and self._segments[0].end_ns <= ticks[-1].end_ns:
            self._segments.popleft()

    def _pieces(self, tick: Tick, share: float | None) -> Iterator[tuple[int, Tick, float | None]]:
        """A tick divided by segments, with their numbers: what it draws idle by time, the rest by
        how busy the CPUs were in each. Of time without a segment nobody tells whose it is."""
        inside: list[tuple[int, int, float]] = []
        known_ns = 0
        for number, one in enumerate(self._segments):
            overlap_ns = min(one.end_ns, tick.end_ns) - max(one.start_ns, tick.start_ns)
            if overlap_ns > 0:
                inside.append((number, overlap_ns, one.busy))
                known_ns += overlap_ns
        whole_ns = tick.end_ns - tick.start_ns
        mean = sum(ns * busy for _, ns, busy in inside) / known_ns if known_ns else 0.0
        if known_ns < whole_ns:
            inside.append((len(self._segments), whole_ns - known_ns, mean))
        if len(inside) == 1:
            yield inside[0][0], tick, share
            return
        idle_j = min(tick.joules, (self.idle.watts or 0.0) * tick.seconds)
        for number, ns, busy in inside:
            relative = busy / mean if mean > 0 else 1.0
            joules = (idle_j + (tick.joules - idle_j) * relative) * ns / whole_ns
            piece = Tick(tick.device, tick.start_ns, tick.start_ns + ns, joules)
            yield number, piece, None if share is None else share * relative


_NOBODY = Segment(0, 0)


def _is_idle(activity: Activity) -> bool:
    """Whether it surely did nothing for nobody. A GPU whose activity is not told is idle if there
    is no process on it."""
    if activity.share is None:
        return activity.is_held is False
    return activity.share < split.ACTIVE_SHARE and not activity.is_held

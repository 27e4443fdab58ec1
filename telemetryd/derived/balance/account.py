"""One device: its windows, its idle power, and what a tick of it is made of."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from telemetryd.derived.balance import split
from telemetryd.derived.balance.activity import Activity
from telemetryd.derived.balance.devices import Tick
from telemetryd.derived.balance.idle import IdlePower
from telemetryd.derived.balance.ledger import Ledger, Sums, add
from telemetryd.derived.balance.users import Stretch

# How long a tick of a CPU waits for the batch of owners that it belongs to.
_PATIENCE_INTERVALS = 1.5
_NOBODY = Stretch()


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

    def __init__(self, idle: IdlePower, ledger: Ledger) -> None:
        self.idle = idle
        self.ledger = ledger
        self.watts = 0.0
        self._waiting: deque[tuple[Tick, float | None]] = deque()
        self._last = _NOBODY

    def add(self, tick: Tick, share: float | None, owners_interval: float | None) -> None:
        """Energy of the package, and the busy share of the CPUs meanwhile. Batches of owners come
        every `owners_interval` seconds; None: they do not."""
        self.watts = tick.joules / tick.seconds
        self._waiting.append((tick, share))
        # Who holds a package that does nothing makes no difference to its power, and on a node of
        # Kubernetes somebody always does.
        if share is not None and share < split.ACTIVE_SHARE:
            self.idle.observe(self.watts, tick.seconds)
        patience_ns = _PATIENCE_INTERVALS * (owners_interval or 0.0) * 1e9
        while self._waiting and tick.end_ns - self._waiting[0][0].end_ns >= patience_ns:
            self._settle([self._waiting.popleft()], _NOBODY)

    def settle(self, stretch: Stretch) -> None:
        """Owners have told what they did until now."""
        waiting, self._waiting = self._waiting, deque()
        if waiting and waiting[0][0].start_ns < stretch.start_ns < waiting[0][0].end_ns:
            tick, share = waiting.popleft()
            before, after = _cut(tick, stretch.start_ns)
            self._settle([(before, share)], self._last)
            waiting.appendleft((after, share))
        # Together, so that owners, who may be many, are gone through once; but a tick that reaches
        # over the edge of a window is divided there alone.
        run: list[tuple[Tick, float | None]] = []
        for one in waiting:
            if run and self.ledger.has_edge_in(run[-1][0].start_ns, one[0].end_ns):
                self._settle(run, stretch)
                run = []
            run.append(one)
        self._settle(run, stretch)
        self._last = stretch

    def _settle(self, ticks: Sequence[tuple[Tick, float | None]], stretch: Stretch) -> None:
        """Ticks that follow one another."""
        if not ticks:
            return
        sums = Sums()
        for is_held, part in ((True, stretch.held), (False, 1.0 - stretch.held)):
            states: dict[str, float] = {}
            holding = stretch.holding if is_held else stretch.work
            for tick, share in ticks:
                activity = Activity(share, is_held, stretch.work, holding)
                add(states, split.states_of(tick, activity, self.idle.watts), part)
            add(sums.states, states, 1.0)
            split.share_out(sums.owners, states, Activity(None, is_held, stretch.work, holding))
        sums.seconds = sum(tick.seconds for tick, _ in ticks)
        self.ledger.tick(ticks[0][0].start_ns, ticks[-1][0].end_ns, sums)


def _is_idle(activity: Activity) -> bool:
    """Whether it surely did nothing for nobody. A GPU whose activity is not told is idle if there
    is no process on it."""
    if activity.share is None:
        return activity.is_held is False
    return activity.share < split.ACTIVE_SHARE and not activity.is_held


def _cut(tick: Tick, at_ns: int) -> tuple[Tick, Tick]:
    share = (at_ns - tick.start_ns) / (tick.end_ns - tick.start_ns)
    return (
        Tick(tick.device, tick.start_ns, at_ns, tick.joules * share),
        Tick(tick.device, at_ns, tick.end_ns, tick.joules * (1 - share)),
    )

"""The energy of one device, tick by tick, in windows that close where the node's meter was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

Owner = tuple[str, str]
_Key = TypeVar("_Key")

# A guess: longer than a sensor of GPUs may hang before its collector is given up.
_PATIENCE_NS = 10_000_000_000
_PATIENCE_INTERVALS = 2.5


@dataclass(slots=True)
class Sums:
    """What a device used over a window: joules by state, what of them is whose, and the time of
    which that is known."""

    states: dict[str, float] = field(default_factory=dict)
    owners: dict[Owner, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def joules(self) -> float:
        return sum(self.states.values())

    def add(self, other: Sums, share: float) -> None:
        """Add a share of other sums."""
        self.seconds += other.seconds * max(0.0, share)
        add(self.states, other.states, share)
        add(self.owners, other.owners, share)


def add(to: dict[_Key, float], what: Mapping[_Key, float], factor: float) -> None:
    """Add `what` times `factor`, key by key."""
    if factor <= 0:
        return
    for key, value in what.items():
        to[key] = to.get(key, 0.0) + value * factor


class Ledger:
    """Ticks of one device. `close_at` sets the end of the window; the window `is_settled` once a
    tick has reached it, and `take` gives its sums."""

    def __init__(self, begin_ns: int, interval: float) -> None:
        """`begin_ns` is when the first window begins; what was used before is left out."""
        self._open = Sums()
        self._next = Sums()
        self._begin_ns = begin_ns
        self._end_ns: int | None = None
        self.expect(interval)
        self.reached_ns: int | None = None

    def expect(self, interval: float) -> None:
        """Ticks come every `interval` seconds."""
        self._patience_ns = max(_PATIENCE_NS, int(_PATIENCE_INTERVALS * interval * 1e9))

    def tick(self, start_ns: int, end_ns: int, sums: Sums) -> None:
        """What was used between two readings."""
        self.reached_ns = end_ns
        if start_ns < self._begin_ns:
            if end_ns <= self._begin_ns:
                return
            inside = Sums()
            inside.add(sums, (end_ns - self._begin_ns) / (end_ns - start_ns))
            start_ns, sums = self._begin_ns, inside
        if self._end_ns is None or end_ns <= self._end_ns:
            self._open.add(sums, 1.0)
            return
        before = max(0.0, (self._end_ns - start_ns) / (end_ns - start_ns))
        self._open.add(sums, before)
        self._next.add(sums, 1.0 - before)

    def close_at(self, end_ns: int) -> None:
        """The window ends there; what is later belongs to the next."""
        self._end_ns = end_ns

    def has_edge_in(self, start_ns: int, end_ns: int) -> bool:
        """Whether a window begins or ends between the two."""
        return start_ns < self._begin_ns < end_ns or start_ns < (self._end_ns or 0) < end_ns

    def restart(self, begin_ns: int) -> None:
        """Another window begins there; what is here is thrown away."""
        self._open, self._next = Sums(), Sums()
        self._begin_ns, self._end_ns = begin_ns, None

    def has_reached(self, mono_ns: int) -> bool:
        return self.reached_ns is not None and self.reached_ns >= mono_ns

    def is_settled(self, now_ns: int) -> bool:
        """Whether everything up to the end is here, or cannot be expected any more."""
        if self._end_ns is None:
            return False
        return self.has_reached(self._end_ns) or now_ns - self._end_ns > self._patience_ns

    def take(self) -> Sums:
        """The sums of the window; what came after its end begins the next."""
        taken, self._open, self._next = self._open, self._next, Sums()
        self._end_ns = None
        return taken

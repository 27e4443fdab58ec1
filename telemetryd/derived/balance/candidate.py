"""One source of the node's input energy: what it told, and whether that can be believed.

What is no reading: a power of 0 W, or of more than any node takes; an energy counter that stands
still, or went up by more than that; PSUs of which some are missing, unless the others took over
their load. Between two readings of power lies the trapezoid; more than 3 intervals apart, a gap.
An energy counter has no gaps but its resets.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from telemetryd.batch import STALE_AFTER_INTERVALS
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Series

LEAVE_AFTER_S = 300.0
EXILE_S = 3600.0
# Out of the air: a rack takes as much, a node does not.
_MOST_WATTS = 100_000.0
# A power that stays the same to the last digit while that of the devices moves by this share of it
# is not measured.
_STUCK_SHARE = 0.1
# A counter that stood still between two readings so often in so long counts in steps that show.
_STILL, _STILL_NS = 3, 1_800_000_000_000
# How far apart what was counted is remembered.
_MARK_NS = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of source, by the labels `source` and `domain` of its meters."""

    source: str
    domain: str
    counts_energy: bool

    @property
    def is_output(self) -> bool:
        """Whether it is what the power supplies give, not what they take."""
        return self.domain == "psu_output"


class Candidate:
    """`joules` count from its first reading; `watts` is the last power."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.joules = 0.0
        self.watts: float | None = None
        self.read_ns: int | None = None
        self.up_since_ns: int | None = None
        self.gap_s = 0.0
        self._interval = 1.0
        self._meters: frozenset[Series] = frozenset()
        self._counters: dict[Series, float] = {}
        self._marks: deque[tuple[int, float]] = deque()
        self._stood_still_ns: deque[int] = deque(maxlen=_STILL)
        self._least_j = math.inf
        self._wrong_since_ns: int | None = None
        self._same_since_ns = 0
        self._extremes: tuple[float, float] | None = None
        self._sent_away_until_ns = 0
        self._was_wrong = False

    def count(
        self, meters: Sequence[Series], counters: Sequence[float], mono_ns: int, interval: float
    ) -> None:
        """A reading of energy counters. If one fell, it was reset, and the time since the reading
        before is a gap."""
        now = dict(zip(meters, counters, strict=True))
        since = self._since(mono_ns)
        if since is not None and not self._meters.issubset(now):
            return  # what is missing has gone on counting
        seconds = 0.0 if since is None else (mono_ns - since) / 1e9
        steps = [value - self._counters.get(one, value) for one, value in now.items()]
        joules = sum(steps)
        if since is None:
            self.watts = None
        elif min(steps) < 0 or joules > _MOST_WATTS * seconds:
            self.skip(seconds)
            self.watts = None
        elif joules == 0:
            self._stood_still_ns.append(mono_ns)
            return
        else:
            self.joules += joules
            self.watts = joules / seconds
            self._least_j = min(self._least_j, joules)
        self._counters = now
        self._answered(frozenset(now), mono_ns, interval)

    def power(
        self,
        meters: Sequence[Series],
        powers: Sequence[float],
        mono_ns: int,
        interval: float,
        devices_w: float | None = None,
    ) -> None:
        """A reading of power. `devices_w` is what all devices draw, where that is known."""
        now, watts = frozenset(meters), sum(powers)
        if not 0 < watts <= _MOST_WATTS:
            return
        since, before = self._since(mono_ns), self.watts
        if since is not None and before is not None:
            if self._lacks_some(now, watts, before):
                return
            seconds = (mono_ns - since) / 1e9
            if seconds > GAP_INTERVALS * interval:
                self.skip(seconds)
            else:
                self.joules += (before + watts) / 2 * seconds
        self._compare(watts, mono_ns, devices_w)
        self.watts = watts
        self._answered(now, mono_ns, interval)

    def estimate(self, joules: float, watts: float, mono_ns: int, interval: float) -> None:
        """An estimate of the energy so far, and of the power."""
        self.joules, self.watts = joules, watts
        self._answered(frozenset(), mono_ns, interval)

    def step_j(self, mono_ns: int) -> float:
        """In what steps its counter goes up, if they are so large that it shows (some BMCs count by
        0.01 kWh); otherwise 0."""
        stood = self._stood_still_ns
        if len(stood) < _STILL or mono_ns - stood[0] > _STILL_NS:
            return 0.0
        return self._least_j if math.isfinite(self._least_j) else 0.0

    def joules_at(self, mono_ns: int) -> float | None:
        """What it had counted at that moment; None if it does not know."""
        after: tuple[int, float] | None = None
        for mark in reversed(self._marks):
            if mark[0] <= mono_ns:
                if after is None:
                    return mark[1] if mark[0] == mono_ns else None
                share = (mono_ns - mark[0]) / (after[0] - mark[0])
                return mark[1] + share * (after[1] - mark[1])
            after = mark
        return None

    @property
    def first_mark(self) -> tuple[int, float]:
        """The first moment that `joules_at` knows, and what it had counted then."""
        return self._marks[0]

    def blame(self, wrong_since_ns: int | None) -> None:
        """Since when the devices have used more than this source says; None: they have not."""
        if wrong_since_ns is None or self._wrong_since_ns is None:
            self._wrong_since_ns = wrong_since_ns

    def is_bad(self, mono_ns: int) -> bool:
        """Without an answer, or wrong, for LEAVE_AFTER_S."""
        return self._is_wrong(mono_ns) or mono_ns - (self.read_ns or 0) > self._patience_ns

    def answers(self, mono_ns: int) -> bool:
        """Whether it can be taken: it has told a power lately, and not been wrong."""
        if self.watts is None or self.read_ns is None or self._is_wrong(mono_ns):
            return False
        return mono_ns - self.read_ns <= GAP_INTERVALS * self._interval * 1e9

    def fresh_watts(self, mono_ns: int) -> float | None:
        """The power; None if it is stale."""
        if self.read_ns is None:
            return None
        age = (mono_ns - self.read_ns) / 1e9
        return self.watts if age <= STALE_AFTER_INTERVALS * self._interval else None

    def send_away(self, mono_ns: int) -> None:
        """It is not to be taken for EXILE_S."""
        self._sent_away_until_ns = mono_ns + int(EXILE_S * 1e9)
        self._was_wrong = self._is_wrong(mono_ns)
        self._wrong_since_ns, self._extremes = None, None
        self._same_since_ns = mono_ns

    def is_sent_away(self, mono_ns: int) -> bool:
        return mono_ns < self._sent_away_until_ns

    def may_return(self, mono_ns: int) -> bool:
        """Whether it was sent away for its silence, and speaks again."""
        return self.is_sent_away(mono_ns) and not self._was_wrong and self.answers(mono_ns)

    @property
    def _patience_ns(self) -> float:
        return max(LEAVE_AFTER_S, GAP_INTERVALS * self._interval) * 1e9

    def _is_wrong(self, mono_ns: int) -> bool:
        since = self._wrong_since_ns
        if self._extremes is not None and self.watts is not None:
            low, high = self._extremes
            if high - low > _STUCK_SHARE * self.watts:
                since = min(self._same_since_ns, since or mono_ns)
        return since is not None and mono_ns - since > self._patience_ns

    def _since(self, mono_ns: int) -> int | None:
        """When it was last read. One that has been silent for longer than it would be sent away
        for begins anew: a PSU may have been pulled for good."""
        if self.read_ns is not None and mono_ns - self.read_ns > EXILE_S * 1e9:
            self.skip((mono_ns - self.read_ns) / 1e9)
            self.read_ns = None
            self._counters = {}
        return self.read_ns

    def _lacks_some(self, now: frozenset[Series], watts: float, before: float) -> bool:
        """Whether a meter is missing, and the others did not take over its load: with one PSU of
        two gone they would draw as much as both, not half."""
        if self._meters <= now:
            return False
        left = len(now & self._meters) / len(self._meters)
        return watts < (1 + left) / 2 * before

    def _compare(self, watts: float, mono_ns: int, devices_w: float | None) -> None:
        if watts != self.watts:
            self._same_since_ns, self._extremes = mono_ns, None
        if devices_w is not None:
            low, high = self._extremes or (devices_w, devices_w)
            self._extremes = min(low, devices_w), max(high, devices_w)

    def skip(self, seconds: float) -> None:
        """The energy of so much time is not known."""
        self.gap_s += seconds
        self._marks.clear()

    def _answered(self, meters: frozenset[Series], mono_ns: int, interval: float) -> None:
        last = self.read_ns
        if last is None or mono_ns - last > GAP_INTERVALS * interval * 1e9:
            self.up_since_ns = mono_ns
        self.read_ns, self._meters, self._interval = mono_ns, meters, interval
        marks = self._marks
        if len(marks) > 1 and mono_ns - marks[-2][0] < _MARK_NS:
            marks.pop()
        marks.append((mono_ns, self.joules))
        while len(marks) > 2 and mono_ns - marks[1][0] > 2 * self._patience_ns:
            marks.popleft()

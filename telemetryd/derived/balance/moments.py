"""When owners came and went between two readings of theirs, told from how busy the CPUs were.

Owners are read every 5 s, how busy the CPUs are every second. Those who were there all the time are
taken to have used the CPUs evenly; so are those who came, from some moment on, and those who left,
until some moment. CPU seconds of each of them are known: so the two moments are those at which the
busy shares come out best, in the sense of least squares. Of moments that do as well as the best,
those who left did so when it suits what they used before, otherwise it was the middle one; those
who came and used next to nothing had just come.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from telemetryd.derived.balance.cpu_share import Busy
from telemetryd.derived.balance.ledger import Owner
from telemetryd.derived.balance.sharing import evenly
from telemetryd.derived.balance.users import BEARERS, HOLDERS, Stretch

# Who used less of the time than that leaves no trace in how busy the CPUs were. A guess.
_LEAST_TRACE = 0.01
# So much of a stretch must be covered by shares. A guess.
_ENOUGH = 0.7
# The search tries so many moments over the stretch, of which the last is the latest that somebody
# comes, and looks so closely how far around the best of them the error is the same.
_STEPS, _LAST, _HALVINGS = 20, 0.999, 10
# CPUs that a newcomer keeps busy at least while it begins. A guess.
_PACE = 1.0
# Shares that are wrong by so much of all time used tell no moments apart. A guess.
_NOISE = 0.002
# Two moments are sought in turn, so often.
_TURNS = 4
# Begin and end in seconds since the beginning of the stretch, and how busy the CPUs were.
_Profile = Sequence[tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Segment:
    """A time in which the owners were the same. `busy` is how many CPUs they kept busy; `work` is
    who did, `holding` who held the packages, in parts that add up to 1 at most."""

    start_ns: int
    end_ns: int
    busy: float = 0.0
    work: Mapping[Owner, float] = field(default_factory=dict)
    holding: Mapping[Owner, float] = field(default_factory=dict)
    is_held: bool = False


class Moments:
    """Finds them. How many CPUs there are, of which the shares are, it learns while nobody comes or
    goes: what owners used / the mean share."""

    def __init__(self) -> None:
        self._cpus: float | None = None
        self._before = Stretch(0, 0)

    def segments(self, stretch: Stretch, shares: Iterable[Busy]) -> list[Segment]:
        """The segments of a stretch, in their order. `shares` are the readings that reach into it,
        the newest first."""
        came = _of_weight(stretch, stretch.came)
        left = _of_weight(stretch, stretch.left - stretch.came)
        whole_s = stretch.seconds
        inside = _inside(stretch, shares)
        expected_s = self._expected(stretch, left)
        self._before = stretch
        if not came and not left:
            self._learn(stretch, inside)
            return [_segment(stretch.start_ns, stretch.end_ns, stretch.used, stretch.holders)]
        profile = self._profile(stretch, inside)
        left_s, came_s = _moments(stretch, left, came, profile, expected_s)
        found: list[Segment] = []
        edges = sorted({0.0, left_s, came_s, whole_s})
        for begin_s, end_s in pairwise(edges):
            absent = came if end_s <= came_s else frozenset[Owner]()
            if begin_s >= left_s:
                absent = absent | left
            used: dict[Owner, float] = {}
            for owner, seconds in stretch.used.items():
                if owner not in absent:
                    there_s = left_s if owner in left else whole_s
                    there_s = whole_s - came_s if owner in came else there_s
                    used[owner] = seconds * (end_s - begin_s) / there_s
            start_ns = stretch.start_ns + round(begin_s * 1e9)
            end_ns = stretch.start_ns + round(end_s * 1e9)
            found.append(_segment(start_ns, end_ns, used, stretch.holders - absent))
        return found

    def _learn(self, stretch: Stretch, inside: _Profile) -> None:
        covered_s = sum(end_s - begin_s for begin_s, end_s, _ in inside)
        busy_s = sum((end_s - begin_s) * share for begin_s, end_s, share in inside)
        if busy_s > 0 and covered_s >= _ENOUGH * stretch.seconds:
            self._cpus = sum(stretch.used.values()) / stretch.seconds * covered_s / busy_s

    def _expected(self, stretch: Stretch, left: Collection[Owner]) -> float | None:
        """How long those who left would have taken at their pace before to use what they did."""
        before = self._before
        used = sum(before.used.get(owner, 0.0) for owner in left)
        if used <= 0 or not before.came.isdisjoint(left):
            return None
        return sum(stretch.used.get(owner, 0.0) for owner in left) / used * before.seconds

    def _profile(self, stretch: Stretch, inside: _Profile) -> _Profile:
        """Busy CPUs over the stretch; empty where that is not known."""
        covered_s = sum(end_s - begin_s for begin_s, end_s, _ in inside)
        if self._cpus is None or covered_s < _ENOUGH * stretch.seconds:
            return ()
        return [(begin_s, end_s, share * self._cpus) for begin_s, end_s, share in inside]


def _segment(
    start_ns: int, end_ns: int, used: Mapping[Owner, float], holders: Collection[Owner]
) -> Segment:
    work = _parts(used)
    holding = work  # where nobody holds the packages, those who use them bear what they draw
    if holders:
        of_holders = {owner: seconds for owner, seconds in used.items() if owner[0] in BEARERS}
        holding = _parts(of_holders) or evenly(holders)
    busy = sum(used.values()) / (end_ns - start_ns) * 1e9 if end_ns > start_ns else 0.0
    return Segment(start_ns, end_ns, busy, work, holding, is_held=bool(holders))


def _of_weight(stretch: Stretch, owners: Collection[Owner]) -> frozenset[Owner]:
    """Those of them for whom it is worth to ask when."""
    if not owners:
        return frozenset()
    least = _LEAST_TRACE * sum(stretch.used.values())
    used = stretch.used
    return frozenset(o for o in owners if o[0] in HOLDERS or used.get(o, 0.0) > least)


def _inside(stretch: Stretch, shares: Iterable[Busy]) -> _Profile:
    """What of the readings is inside the stretch."""
    origin_ns = stretch.start_ns
    return [
        (
            (max(one.start_ns, origin_ns) - origin_ns) / 1e9,
            (min(one.end_ns, stretch.end_ns) - origin_ns) / 1e9,
            one.share,
        )
        for one in shares
    ]


def _moments(
    stretch: Stretch,
    left: Collection[Owner],
    came: Collection[Owner],
    profile: _Profile,
    expected_s: float | None,
) -> tuple[float, float]:
    """When those who left did, and when those who came did, in seconds since the beginning."""
    whole_s, used = stretch.seconds, stretch.used
    all_s = sum(used.values())
    left_used = sum(used.get(owner, 0.0) for owner in left)
    came_used = sum(used.get(owner, 0.0) for owner in came)
    steady = (all_s - left_used - came_used) / whole_s
    noise = (_NOISE * all_s) ** 2
    rest = [
        (begin_s, end_s, (busy - steady) * (end_s - begin_s)) for begin_s, end_s, busy in profile
    ]
    left_s = whole_s / 2 if left else whole_s
    came_s = whole_s / 2 if came else 0.0
    for _ in range(_TURNS if left and came and profile else 1):
        if left:
            # The same as to come, if time went back.
            others = _without(rest, came_used, came_s, whole_s)
            back = [(whole_s - end_s, whole_s - begin_s, s) for begin_s, end_s, s in others]
            low, high = _search(back, left_used, whole_s, noise)
            left_s = whole_s - (low + high) / 2
            if expected_s is not None:
                left_s = min(max(expected_s, whole_s - high), whole_s - low)
        if came:
            others = _without(rest, left_used, 0.0, left_s)
            low, high = _search(others, came_used, whole_s, noise)
            came_s = min(high, max((low + high) / 2, whole_s - came_used / _PACE))
    return left_s, came_s


def _without(rest: _Profile, used: float, begin_s: float, end_s: float) -> _Profile:
    """What is left of CPU seconds if so many were used evenly between the two moments."""
    rate = used / (end_s - begin_s)
    return [(b, e, s - rate * max(0.0, min(e, end_s) - max(b, begin_s))) for b, e, s in rest]


def _search(rest: _Profile, used: float, whole_s: float, noise: float) -> tuple[float, float]:
    """Between which two moments those came who used so many CPU seconds: at those that leave the
    least error but for noise. All there are, where it is always the same."""

    def error(at: float) -> float:
        rate = used / (whole_s - at)
        total = 0.0
        for begin_s, end_s, seconds in rest:
            told = seconds
            if end_s > at:
                told -= rate * (end_s - max(begin_s, at))
            total += told * told
        return total

    # No rate is beyond all bounds.
    last_s = whole_s * _LAST
    tried = [last_s * n / _STEPS for n in range(_STEPS + 1)]
    # In each part, where as much of it was theirs as is not in those after it.
    after = 0.0
    for begin_s, end_s, seconds in sorted(rest, reverse=True):
        before = used - after
        after += seconds
        if before < used:
            at = (used * end_s - before * whole_s) / (used - before)
            tried.append(min(max(at, begin_s, 0.0), end_s, last_s))
    best = min(tried, key=error)
    most = error(best) + noise
    return _edge(error, best, 0.0, most), _edge(error, best, last_s, most)


def _edge(error: Callable[[float], float], inside: float, outside: float, most: float) -> float:
    """How far from `inside` to `outside` the error is not more than `most`."""
    if error(outside) <= most:
        return outside
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if error(middle) <= most:
            inside = middle
        else:
            outside = middle
    return inside


def _parts(used: Mapping[Owner, float]) -> dict[Owner, float]:
    total = sum(used.values())
    return {owner: seconds / total for owner, seconds in used.items()} if total > 0 else {}

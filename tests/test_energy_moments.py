"""When owners came and went between two readings of theirs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.energy_node import SYSTEM, job

from telemetryd.batch import Batch, LatestTable
from telemetryd.derived import utilization
from telemetryd.derived.balance.cpu_share import Busy, CpuShare
from telemetryd.derived.balance.ledger import Owner
from telemetryd.derived.balance.moments import Moments, Segment
from telemetryd.derived.balance.users import Stretch

SECOND = 1_000_000_000
CPUS = 64
# (owner, CPUs that it keeps busy, from when, until when)
Life = tuple[Owner, float, float, float]


def shares(*lives: Life, until: float = 5.0, late: float = 0.0) -> list[Busy]:
    """The busy shares of each second, the newest first; `late` s before the owners' readings."""
    found = []
    for number in range(round(until)):
        begin, end = number - late, number + 1 - late
        busy = sum(cpus * max(0.0, min(end, e) - max(begin, b)) for _, cpus, b, e in lives)
        found.append(Busy(round(begin * 1e9), round(end * 1e9), busy / CPUS, 0))
    return found[::-1]


def stretch(*lives: Life, before: float = 0.0) -> Stretch:
    """Five seconds; who is there at their beginning was so since `before`."""
    used = {owner: cpus * (min(e, 5.0) - max(b, 0.0)) for owner, cpus, b, e in lives}
    holders = frozenset(owner for owner, *_ in lives if owner[0] == "job")
    came = frozenset(owner for owner, _, b, _ in lives if b > before)
    left = frozenset(owner for owner, _, _, e in lives if e < 5)
    return Stretch(0, 5 * SECOND, used, holders, came, left)


def moments() -> Moments:
    """They know how many CPUs there are."""
    known = Moments()
    steady: Life = (SYSTEM, 2.0, 0.0, 5.0)
    known.segments(stretch(steady), shares(steady))
    return known


def edges(segments: list[Segment]) -> list[float]:
    return [one.end_ns / SECOND for one in segments[:-1]]


SYSTEM_LIFE: Life = (SYSTEM, 1.0, 0.0, 5.0)


@pytest.mark.parametrize("moment", [0.3, 1.0, 2.5, 3.97, 4.6])
@pytest.mark.parametrize("late", [0.0, 0.004])
@pytest.mark.parametrize("others", [1.0, 20.0])
def test_the_moment_at_which_one_left_is_found(moment: float, late: float, others: float) -> None:
    rest: Life = (SYSTEM, others, 0.0, 5.0)
    known, whole = moments(), (job(1), 8.0, 0.0, 5.0)
    known.segments(stretch(whole, rest), shares(whole, rest))
    life = (job(1), 8.0, 0.0, moment)
    found = known.segments(stretch(life, rest), shares(life, rest, late=late))
    assert edges(found) == pytest.approx([moment], abs=0.03)
    assert [one.is_held for one in found] == [True, False]


@pytest.mark.parametrize("moment", [0.3, 1.0, 2.5, 3.97])
@pytest.mark.parametrize("others", [1.0, 20.0])
def test_the_moment_at_which_one_came_is_found(moment: float, others: float) -> None:
    lives: list[Life] = [(SYSTEM, others, 0.0, 5.0), (job(1), 8.0, moment, 9.0)]
    found = moments().segments(stretch(*lives), shares(*lives))
    assert edges(found) == pytest.approx([moment], abs=0.03)
    assert [one.is_held for one in found] == [False, True]
    assert found[0].work == {SYSTEM: 1.0}
    assert found[1].holding == {job(1): 1.0}


@pytest.mark.parametrize(("left", "came"), [(1.3, 3.4), (3.4, 1.3), (2.5, 2.5), (0.6, 3.9)])
def test_one_that_left_and_one_that_came_meanwhile_are_told_apart(left: float, came: float) -> None:
    lives: list[Life] = [SYSTEM_LIFE, (job(1), 8.0, 0.0, left), (job(2), 20.0, came, 9.0)]
    found = moments().segments(stretch(*lives), shares(*lives))
    at = {owner: [one for one in found if owner in one.work] for owner in (job(1), job(2))}
    assert at[job(1)][-1].end_ns / SECOND == pytest.approx(left, abs=0.15)
    assert at[job(2)][0].start_ns / SECOND == pytest.approx(came, abs=0.15)


def test_within_the_last_second_that_shares_tell_it_was_in_the_middle() -> None:
    lives: list[Life] = [SYSTEM_LIFE, (job(1), 8.0, 4.2, 9.0)]
    found = moments().segments(stretch(*lives), shares(*lives))
    assert edges(found) == pytest.approx([4.5], abs=0.05)


def test_without_shares_one_came_in_the_middle_and_left_after_its_usual_pace() -> None:
    known = Moments()
    lives: list[Life] = [SYSTEM_LIFE, (job(1), 8.0, 1.0, 9.0)]
    assert edges(known.segments(stretch(*lives), ())) == pytest.approx([2.5], abs=0.01)
    lives = [SYSTEM_LIFE, (job(1), 8.0, 0.0, 5.0)]
    assert len(known.segments(stretch(*lives), ())) == 1
    lives = [SYSTEM_LIFE, (job(1), 8.0, 0.0, 1.25)]
    assert edges(known.segments(stretch(*lives), ())) == pytest.approx([1.25])


def test_one_that_used_next_to_nothing_since_it_came_had_just_come() -> None:
    lives: list[Life] = [SYSTEM_LIFE, (job(1), 4.0, 4.99, 9.0)]
    found = moments().segments(stretch(*lives), shares(*lives, late=0.02))
    assert edges(found)[0] > 4.9


def test_one_that_came_after_the_last_share_is_seen_by_what_the_shares_do_not_account_for() -> None:
    lives: list[Life] = [SYSTEM_LIFE, (job(1), 20.0, 4.7, 9.0)]
    found = moments().segments(stretch(*lives), shares(*lives, late=0.5))
    assert 4.5 <= edges(found)[0] <= 5


def test_the_pace_of_one_that_had_just_come_is_not_known_when_it_leaves() -> None:
    known = moments()
    lives: list[Life] = [SYSTEM_LIFE, (job(1), 8.0, 4.5, 9.0)]
    known.segments(stretch(*lives), shares(*lives))
    lives = [SYSTEM_LIFE, (job(1), 8.0, 0.0, 0.4)]
    found = known.segments(stretch(*lives), shares(*lives))
    assert edges(found) == pytest.approx([0.5], abs=0.05)


def test_a_unit_that_leaves_no_trace_is_not_asked_for() -> None:
    lives: list[Life] = [SYSTEM_LIFE, (("unit", "a.service"), 0.01, 2.0, 9.0)]
    assert len(moments().segments(stretch(*lives), shares(*lives))) == 1


life = st.tuples(st.integers(1, 6), st.floats(0, 30), st.floats(0, 5), st.floats(0, 5))


@settings(deadline=None, max_examples=150)
@given(st.lists(life, max_size=6, unique_by=lambda one: one[0]), st.lists(st.floats(0, 1)))
def test_whatever_is_told_segments_cover_the_time_and_share_out_no_more_than_there_is(
    made: list[tuple[int, float, float, float]], told: list[float]
) -> None:
    lives = [(job(number), cpus, min(b, e), max(b, e)) for number, cpus, b, e in made]
    one = stretch(*lives)
    busy = [Busy(n * SECOND, (n + 1) * SECOND, share, 0) for n, share in enumerate(told[:5])]
    found = moments().segments(one, busy[::-1])
    assert (found[0].start_ns, found[-1].end_ns) == (one.start_ns, one.end_ns)
    assert [s.end_ns for s in found[:-1]] == [s.start_ns for s in found[1:]]
    used = sum(s.busy * (s.end_ns - s.start_ns) / SECOND for s in found)
    assert used == pytest.approx(sum(one.used.values()), abs=1e-3)
    for part in found:
        for parts in (part.work, part.holding):
            assert all(share >= 0 for share in parts.values())
            assert sum(parts.values()) <= 1 + 1e-9


# The busy shares


def table(at_s: float, share: float, interval: float = 1.0) -> LatestTable:
    latest = LatestTable()
    series = (utilization.RATIO.at("cpu", "all"),)
    latest.put(Batch("cpu", 0, round(at_s * 1e9), interval, series, (share,)))
    return latest


def collected(*readings: tuple[float, float]) -> CpuShare:
    found = CpuShare()
    for at_s, share in readings:
        found.look(table(at_s, share), round(at_s * 1e9))
    return found


def over(share: CpuShare, begin_s: float, end_s: float) -> float | None:
    return share.over(round(begin_s * 1e9), round(end_s * 1e9))


def test_a_share_is_of_the_time_before_it_and_not_of_when_it_was_seen() -> None:
    shares_seen = collected((101, 0.2), (102, 0.6), (103.002, 0.8))
    assert over(shares_seen, 100, 101) == 0.2
    assert over(shares_seen, 101, 102) == 0.6
    assert over(shares_seen, 101.5, 102.5) == pytest.approx(0.7)
    assert over(shares_seen, 100, 103.002) == pytest.approx((0.2 + 0.6 + 0.8 * 1.002) / 3.002)


def test_the_last_share_holds_for_three_intervals() -> None:
    shares_seen = collected((101, 0.2))
    assert over(shares_seen, 103, 104) == 0.2
    assert over(shares_seen, 104, 105) is None
    assert over(CpuShare(), 103, 104) is None


def test_shares_of_long_ago_are_forgotten() -> None:
    shares_seen = collected(*((100 + n, 0.5) for n in range(1000)))
    assert len(list(shares_seen.between(0, 2000 * SECOND))) < 200

"""How a GPU's energy is shared out, and kept by windows: the rules alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clock import FakeClock
from support.energy_node import job

from telemetryd import gpus
from telemetryd.batch import Batch
from telemetryd.collectors.gpu_nvidia.families import INSTANCE
from telemetryd.derived.balance import activity, sharing, split
from telemetryd.derived.balance.activity import Activity, GpuActivity
from telemetryd.derived.balance.devices import Tick
from telemetryd.derived.balance.ledger import Ledger, Owner, Sums
from telemetryd.derived.balance.sharing import Slice, Use
from telemetryd.metric import Point, Series

A, B, C = job(1), job(2), ("pod", "x")


def use(
    shares: dict[Owner, float], holders: dict[str, set[Owner]], jobs: tuple[Owner, ...] = ()
) -> Use:
    rows = [(0, where, owner, False) for where, held in holders.items() for owner in held]
    rows += [(n + 1, "", owner, True) for n, owner in enumerate(shares)]
    return Use([0.0, *shares.values()], rows, jobs)


@pytest.mark.parametrize(
    ("shares", "holders", "parts"),
    [
        ({}, set(), {}),
        ({}, {A}, {A: 1}),
        ({A: 0.0}, {A}, {A: 1}),
        ({A: 0.6, B: 0.2}, {A, B}, {A: 0.75, B: 0.25}),
        ({A: 0.6}, {A, B}, {A: 1}),
        ({A: 0.0, B: 0.0}, {A, B}, {}),
        ({}, {A, B}, {}),
    ],
    ids=["nobody", "sole", "sole-idle", "two", "one-told", "nothing-told", "no-shares"],
)
def test_work_goes_by_shares_and_to_a_sole_owner_without(
    shares: dict[Owner, float], holders: set[Owner], parts: dict[Owner, float]
) -> None:
    assert sharing.by_share(use(shares, {"": holders})) == pytest.approx(parts)


@pytest.mark.parametrize(
    ("profile", "slices"),
    [("1g.10gb", 1), ("3g.40gb", 3), ("1c.3g.40gb", 3), ("1g.10gb+me", 1), ("7g.80gb", 7), ("", 1)],
)
def test_a_profile_tells_its_slices(profile: str, slices: int) -> None:
    assert sharing.slices_of_profile(profile) == slices


def test_models_have_seven_slices_but_for_some() -> None:
    assert sharing.slices_of_model("NVIDIA H100 80GB HBM3") == 7
    assert sharing.slices_of_model("NVIDIA A30") == 4


def test_instances_whose_activity_is_not_told_go_to_a_sole_owner_only() -> None:
    slices = {"1": Slice(3, None), "2": Slice(2, 0.5)}
    assert sharing.by_slice(use({}, {"1": {A}, "2": {B}}), slices) == {}
    assert sharing.by_slice(use({}, {"1": {A}}), slices) == {A: 1}
    assert sharing.share_of_slices(slices.values(), 7) is None


def test_a_job_that_holds_a_gpu_under_mig_has_the_slices_that_nobody_is_on() -> None:
    slices = {"1": Slice(3, 0.5), "2": Slice(2, 0.0)}
    held = use({}, {"1": {A}}, jobs=(B,))
    assert sharing.by_allocation(held, slices, 7) == pytest.approx({A: 3 / 7, B: 4 / 7})
    assert sharing.by_slice(held, slices) == {A: 1}


owner = st.sampled_from([A, B, C])
instances = st.sampled_from(["", "1", "2", "9"])
uses = st.builds(
    use,
    st.dictionaries(owner, st.floats(0, 2)),
    st.dictionaries(instances, st.sets(owner)),
    st.lists(owner).map(tuple),
)
did = st.none() | st.floats(0, 1)
widths = st.dictionaries(
    st.sampled_from(["1", "2", "9"]),
    st.builds(Slice, st.integers(1, 4), st.none() | st.floats(0, 1)),
)


@settings(deadline=None)
@given(uses, uses, widths, st.sampled_from([4, 7]), did, did)
def test_nobody_gets_less_than_nothing_and_all_together_no_more_than_there_is(
    before: Use,
    now: Use,
    slices: dict[str, Slice],
    most: int,
    before_share: float | None,
    now_share: float | None,
) -> None:
    stayed = sharing.part_stayed(before, now, before_share, now_share)
    assert 0 <= stayed <= 1
    both = now.with_departed(before, stayed)
    allocated = sharing.by_allocation(both, slices, most)
    for parts in (
        sharing.by_share(both),
        sharing.by_slice(both, slices),
        allocated,
        sharing.evenly(both.everybody),
        sharing.blend(allocated, sharing.evenly(now.everybody), stayed),
    ):
        assert sum(parts.values()) <= 1 + 1e-9
        assert all(part >= 0 for part in parts.values())
        assert parts.keys() <= before.everybody | now.everybody


def test_one_that_left_since_the_last_reading_had_its_share_for_a_part_of_the_time() -> None:
    before, now = use({A: 0.4, B: 0.2}, {"": {A, B}}), use({B: 0.2}, {"": {B}})
    both = now.with_departed(before, 0.25)
    assert both.shares == {A: 0.1, B: 0.2}
    assert both.everybody == {A, B}
    assert now.with_departed(now, 0.25) is now


@pytest.mark.parametrize(
    ("before", "now", "did", "does", "stayed"),
    [
        (use({A: 0.4, B: 0.2}, {"": {A, B}}), use({B: 0.2}, {"": {B}}), 0.6, 0.3, 0.25),
        (use({A: 0.4, B: 0.2}, {"": {A, B}}), use({B: 0.2}, {"": {B}}), 0.3, 0.15, 0.25),
        (use({A: 0.8}, {"": {A}}), use({}, {}), 0.8, 0.2, 0.25),
        (use({}, {"": {A}}), use({}, {}), 0.8, 0.2, 0.25),
        (use({A: 0.8}, {"": {A}}), use({}, {}), 0.8, 0.9, 1.0),
        (use({A: 0.8}, {"": {A}}), use({}, {}), 0.8, 0.0, 0.0),
        (use({}, {"": {A, B}}), use({}, {"": {B}}), 0.8, 0.4, 0.5),
        (use({A: 0.8}, {"": {A}}), use({}, {}), None, 0.4, 0.5),
        (use({}, {"": {A}}), use({}, {"": {A, B}}), 0.2, 0.8, 0.5),
    ],
    ids=[
        "one-of-two", "other-scale", "last", "no-shares", "busier", "idle", "not-told-whose",
        "no-activity", "one-came",
    ],
)  # fmt: skip
def test_how_long_one_stayed_is_told_by_how_busy_the_gpu_was(
    before: Use, now: Use, did: float | None, does: float, stayed: float
) -> None:
    assert sharing.part_stayed(before, now, did, does) == pytest.approx(stayed)


# From the batches


class Cards:
    """Batches of one GPU, a second apart."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.gpus = GpuActivity()

    def look(self, *points: Point, jobs: tuple[Owner, ...] = (), after: float = 1.0) -> Activity:
        self.clock.tick(after)
        labels = ("0", "u", "0", "nvidia", "H100", "", "", "", "5", "")
        series: list[Series] = [gpus.INFO.at(*labels)]
        series += [one for one, _ in points]
        values = (1.0, *(value for _, value in points))
        batch = Batch(
            "gpu_nvidia", self.clock.wall_ns(), self.clock.mono_ns(), 1, tuple(series), values
        )
        self.gpus.look(batch, {"5": frozenset(jobs)} if jobs else {})
        return self.gpus.activities["gpu", "0"]


def memory(owner: Owner, gpu: str = "0") -> Point:
    return gpus.OWNER_PROCESSES.at(gpu, "u", *owner), 1


def share(owner: Owner, value: float) -> Point:
    return gpus.OWNER_UTILIZATION.at("0", "u", *owner), value


def busy(value: float, gpu: str = "0") -> Point:
    return gpus.SM_ACTIVE.at(gpu, "u"), value


def test_sm_activity_stands_before_utilization() -> None:
    cards = Cards()
    assert cards.look((gpus.BUSY.at("0", "u"), 1.0)).share == 1.0
    assert cards.look((gpus.BUSY.at("0", "u"), 1.0), busy(0.2)).share == 0.2
    assert cards.look().share is None


def test_whether_somebody_holds_it_is_not_known_where_no_processes_are_told() -> None:
    cards = Cards()
    assert cards.look(busy(0)).is_held is None
    assert cards.look(busy(0), (gpus.PROCESSES.at("0", "u"), 0)).is_held is False
    assert cards.look(busy(0), (gpus.PROCESSES.at("0", "u"), 2)).is_held is True
    assert cards.look(busy(0), jobs=(A,)).is_held is True


def test_shares_of_a_moment_ago_hold_while_there_is_no_new_sample() -> None:
    cards = Cards()
    cards.look(busy(0.9), memory(A), memory(B), share(A, 0.6), share(B, 0.2))
    for _ in range(5):
        now = cards.look(busy(0.9), memory(A), memory(B))
        assert now.work == pytest.approx({A: 0.75, B: 0.25})
    assert cards.look(busy(0.9), memory(A), memory(B)).work == {}, "not for ever"


def test_compute_instances_of_one_gpu_instance_count_once() -> None:
    def instance(gpu_instance: str, compute: str, profile: str) -> Point:
        name = f"0/{gpu_instance}/{compute}"
        return INSTANCE.at(name, "u", "0", "u", profile, gpu_instance, compute), 1

    now = Cards().look(
        instance("1", "0", "1c.3g.40gb"), instance("1", "1", "1c.3g.40gb"),
        instance("2", "0", "3g.40gb"),
        busy(0.8, "0/1/0"), busy(0.8, "0/1/1"), busy(0.4, "0/2/0"),
        memory(A, "0/1/0"), memory(A, "0/1/1"), memory(B, "0/2/0"),
    )  # fmt: skip
    assert now.share == pytest.approx((3 * 0.8 + 3 * 0.4) / 7)
    assert now.work == pytest.approx({A: 2 / 3, B: 1 / 3})
    assert now.holding == pytest.approx({A: 3 / 7, B: 3 / 7})


def test_who_came_or_left_since_the_last_reading_holds_a_gpu_for_a_part_of_the_time() -> None:
    cards = Cards()
    cards.look(busy(0.0))
    now = cards.look(busy(0.6), memory(A), share(A, 0.6))
    assert (now.is_held, now.work, now.holding) == (True, {A: 1}, {A: 0.5})
    now = cards.look(busy(0.6), memory(A), share(A, 0.6))
    assert (now.is_held, now.work, now.holding) == (True, {A: 1}, {A: 1})
    now = cards.look(busy(0.15))
    assert (now.is_held, now.work) == (True, {A: 1})
    assert now.holding == pytest.approx({A: 0.25})
    assert cards.look(busy(0.0)).holding == {}


def test_what_an_inactive_gpu_draws_above_its_idle_power_is_by_shares_not_by_allocation() -> None:
    tick = Tick(("gpu", "0"), 0, 1_000_000_000, 100.0)
    did = Activity(0.02, is_held=True, work={A: 0.75, B: 0.25}, holding={A: 0.5, B: 0.5})
    assert split.divide(tick, did, 60.0).owners == {A: 30 + 30, B: 30 + 10}
    told_nothing = Activity(0.02, is_held=True, holding={A: 0.5, B: 0.5})
    assert split.divide(tick, told_nothing, 60.0).owners == {A: 50, B: 50}


def test_what_was_told_of_a_gpu_long_ago_is_not_true_of_a_tick_of_now() -> None:
    cards = Cards()
    told = cards.look(busy(0.9), memory(A))
    second = 1_000_000_000
    now_ns = cards.clock.mono_ns()
    for after, expected in ((0, told), (3, told), (4, activity.UNKNOWN)):
        start_ns = now_ns + after * second
        tick = Tick(("gpu", "0"), start_ns, start_ns + second, 100.0)
        assert cards.gpus.activity(tick) == expected


def test_activity_that_nobody_tells_of_says_nothing() -> None:
    assert activity.UNKNOWN.share is None
    assert activity.UNKNOWN.is_held is None


# The ledger


ticks = st.lists(st.tuples(st.integers(1, 100), st.floats(0, 1000)), min_size=1, max_size=40)


@settings(deadline=None)
@given(ticks, st.lists(st.integers(1, 400), max_size=5))
def test_nothing_is_lost_at_the_edges_of_windows(
    made: list[tuple[int, float]], lengths: list[int]
) -> None:
    ledger = Ledger(0, 1.0)
    edges, taken = [sum(lengths[: n + 1]) for n in range(len(lengths))], []
    now = total = 0.0
    for length, joules in made:
        start, now = now, now + length
        # An edge is known before a tick reaches over it.
        if edges and ledger._end_ns is None:
            ledger.close_at(edges[0])
        ledger.tick(int(start), int(now), Sums({"dynamic": joules}, {A: joules}, length))
        total += joules
        if edges and ledger.has_reached(edges[0]):
            taken.append(ledger.take())
            edges.pop(0)
    taken += [ledger.take(), ledger.take()]
    assert sum(one.joules for one in taken) + ledger.take().joules == pytest.approx(total)
    assert sum(one.seconds for one in taken) == pytest.approx(now)
    assert sum(one.owners.get(A, 0.0) for one in taken) == pytest.approx(total)

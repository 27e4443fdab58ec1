"""How a GPU's energy is shared out, and what is made of the owners' batches: the rules alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clock import FakeClock
from support.energy_node import SYSTEM, job

from telemetryd import gpus, owners
from telemetryd.batch import Batch
from telemetryd.collectors.gpu_nvidia.families import INSTANCE
from telemetryd.derived.balance import activity, sharing
from telemetryd.derived.balance.activity import Activity, GpuActivity
from telemetryd.derived.balance.ledger import Ledger, Owner, Sums
from telemetryd.derived.balance.sharing import Slice, Use
from telemetryd.derived.balance.users import Stretch, Users
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
widths = st.dictionaries(
    st.sampled_from(["1", "2", "9"]),
    st.builds(Slice, st.integers(1, 4), st.none() | st.floats(0, 1)),
)


@settings(deadline=None)
@given(uses, uses, widths, st.sampled_from([4, 7]))
def test_nobody_gets_less_than_nothing_and_all_together_no_more_than_there_is(
    before: Use, now: Use, slices: dict[str, Slice], most: int
) -> None:
    both = now.with_departed(before)
    for parts in (
        sharing.by_share(both),
        sharing.by_slice(both, slices),
        sharing.by_allocation(both, slices, most),
        sharing.evenly(both.everybody),
    ):
        assert sum(parts.values()) <= 1 + 1e-9
        assert all(part >= 0 for part in parts.values())
        assert parts.keys() <= before.everybody | now.everybody


def test_one_that_left_since_the_last_reading_had_half_of_its_share() -> None:
    before, now = use({A: 0.4, B: 0.2}, {"": {A, B}}), use({B: 0.2}, {"": {B}})
    both = now.with_departed(before)
    assert both.shares == {A: 0.2, B: 0.2}
    assert both.everybody == {A, B}
    assert now.with_departed(now) is now


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
    return gpus.OWNER_MEMORY.at(gpu, "u", *owner), 1


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


def test_activity_that_nobody_tells_of_says_nothing() -> None:
    assert activity.UNKNOWN.share is None
    assert activity.UNKNOWN.is_held is None


# Owners


class People:
    def __init__(self) -> None:
        self.users = Users()
        self._now = 1_000_000_000_000

    def look(
        self, seconds: dict[Owner, float], ended: tuple[Owner, ...] = (), **minors: Owner
    ) -> Stretch | None:
        self._now += 5_000_000_000
        points: list[Point] = [(owners.CPU.at(*one), value) for one, value in seconds.items()]
        points += [(owners.MEMORY.at(*one), 1) for one in seconds if one not in ended]
        points += [(owners.GPU_MINOR.at(*one, minor[1:]), 1) for minor, one in minors.items()]
        series = tuple(one for one, _ in points)
        values = tuple(value for _, value in points)
        return self.users.look(Batch("owners", 0, self._now, 5, series, values))


def test_cpu_time_is_shared_out_from_the_second_batch_on() -> None:
    people = People()
    assert people.look({SYSTEM: 100, A: 7}) is None
    stretch = people.look({SYSTEM: 101, A: 10})
    assert stretch is not None
    assert stretch.work == {SYSTEM: 0.25, A: 0.75}
    assert stretch.holding == {A: 1.0}
    assert (stretch.end_ns - stretch.start_ns, stretch.held) == (5_000_000_000, 1.0)


def test_a_newcomer_counts_from_0_and_one_that_began_again_too() -> None:
    people = People()
    people.look({SYSTEM: 100})
    stretch = people.look({SYSTEM: 101, A: 3})
    assert stretch is not None
    assert stretch.work == {SYSTEM: 0.25, A: 0.75}
    stretch = people.look({SYSTEM: 102, A: 1})
    assert stretch is not None
    assert stretch.work == {SYSTEM: 0.5, A: 0.5}


def test_one_that_was_not_among_the_first_for_a_while_goes_on_where_it_was() -> None:
    people = People()
    people.look({SYSTEM: 100, A: 5000})
    people.look({SYSTEM: 101})
    stretch = people.look({SYSTEM: 102, A: 5001})
    assert stretch is not None
    assert stretch.work == {SYSTEM: 0.5, A: 0.5}


def test_the_time_by_command_is_not_added_again() -> None:
    people = People()
    python = ("process", "python")
    people.look({SYSTEM: 1, python: 1})
    stretch = people.look({SYSTEM: 2, python: 9})
    assert stretch is not None
    assert stretch.work == {SYSTEM: 1.0}


def test_holders_that_used_nothing_hold_in_equal_parts_and_units_hold_nothing() -> None:
    people = People()
    unit = ("unit", "a.service")
    people.look({unit: 1, A: 5, C: 5})
    stretch = people.look({unit: 2, A: 5, C: 5})
    assert stretch is not None
    assert (stretch.holding, stretch.held) == ({A: 0.5, C: 0.5}, 1.0)
    alone = People()
    alone.look({unit: 1})
    stretch = alone.look({unit: 2})
    assert stretch is not None
    assert (stretch.holding, stretch.held) == ({}, 0.0)


def test_of_the_time_in_which_the_only_holder_came_or_went_half_is_held() -> None:
    people = People()
    held: list[float] = []
    for seconds, ended in (
        ({SYSTEM: 1.0}, ()), ({SYSTEM: 2.0, A: 1.0}, ()), ({SYSTEM: 3.0, A: 2.0}, ()),
        ({SYSTEM: 4.0, A: 3.0}, (A,)), ({SYSTEM: 5.0}, ()),
    ):  # fmt: skip
        stretch = people.look(seconds, ended)
        held.append(-1 if stretch is None else stretch.held)
    assert held == [-1, 0.5, 1.0, 0.5, 0.0]


def test_jobs_hold_gpus_by_minor_number_and_steps_for_their_job() -> None:
    people = People()
    people.look({A: 1}, m0=A, m3=("job", "1.batch"))
    assert people.users.gpus == {"0": frozenset({A}), "3": frozenset({A})}


def test_owners_without_number_leave_no_memory_behind() -> None:
    people = People()
    for number in range(8_000):
        people.look({SYSTEM: number, job(number): 1})
    assert len(people.users._seconds) < 6_000


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

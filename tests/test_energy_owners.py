"""What is made of the owners' batches: CPU time, who came, who left, who holds a GPU."""

from __future__ import annotations

from support.energy_node import SYSTEM, job

from telemetryd import owners
from telemetryd.batch import Batch
from telemetryd.derived.balance.ledger import Owner
from telemetryd.derived.balance.users import Stretch, Users
from telemetryd.metric import Point

A, B = job(1), job(2)
UNIT: Owner = ("unit", "a.service")
STEP_NS = 5_000_000_000


class People:
    """Batches of owners, 5 s apart."""

    def __init__(self) -> None:
        self.users = Users()
        self.now = 1_000_000_000_000

    def look(
        self, seconds: dict[Owner, float], ended: tuple[Owner, ...] = (), **minors: Owner
    ) -> Stretch | None:
        self.now += STEP_NS
        points: list[Point] = [(owners.CPU.at(*one), value) for one, value in seconds.items()]
        points += [(owners.MEMORY.at(*one), 1) for one in seconds if one not in ended]
        points += [(owners.GPU_MINOR.at(*one, minor[1:]), 1) for minor, one in minors.items()]
        series = tuple(one for one, _ in points)
        values = tuple(value for _, value in points)
        return self.users.look(Batch("owners", 0, self.now, 5, series, values))

    def see(self, seconds: dict[Owner, float], ended: tuple[Owner, ...] = ()) -> Stretch:
        stretch = self.look(seconds, ended)
        assert stretch is not None
        return stretch


def test_cpu_time_is_told_from_the_second_batch_on() -> None:
    people = People()
    assert people.look({SYSTEM: 100, A: 7}) is None
    stretch = people.see({SYSTEM: 101, A: 10})
    assert stretch.used == {SYSTEM: 1, A: 3}
    assert stretch.holders == {A}
    assert (stretch.end_ns - stretch.start_ns, stretch.end_ns) == (STEP_NS, people.now)
    assert not stretch.came | stretch.left


def test_a_newcomer_counts_from_0_and_one_that_began_again_too() -> None:
    people = People()
    people.look({SYSTEM: 100})
    assert people.see({SYSTEM: 101, A: 3}).used == {SYSTEM: 1, A: 3}
    assert people.see({SYSTEM: 102, A: 1}).used == {SYSTEM: 1, A: 1}


def test_one_that_was_not_among_the_first_for_a_while_goes_on_where_it_was() -> None:
    people = People()
    people.look({SYSTEM: 100, A: 5000})
    people.look({SYSTEM: 101})
    stretch = people.see({SYSTEM: 102, A: 5001})
    assert stretch.used == {SYSTEM: 1, A: 1}
    assert A not in stretch.came, "it was there all the time"


def test_one_that_ended_and_came_back_begins_again_though_it_has_used_more_by_then() -> None:
    people = People()
    people.look({SYSTEM: 100, UNIT: 2})
    people.see({SYSTEM: 101, UNIT: 3}, ended=(UNIT,))
    people.see({SYSTEM: 102})
    stretch = people.see({SYSTEM: 103, UNIT: 4})
    assert stretch.used == {SYSTEM: 1, UNIT: 4}
    assert stretch.came == {UNIT}


def test_one_came_if_it_was_not_there_before_and_left_when_its_memory_is_gone() -> None:
    people = People()
    people.look({SYSTEM: 1})
    assert people.see({SYSTEM: 2, A: 1}).came == {A}
    stretch = people.see({SYSTEM: 3, A: 2})
    assert (stretch.came, stretch.left) == (set(), set())
    stretch = people.see({SYSTEM: 4, A: 3}, ended=(A,))
    assert (stretch.came, stretch.left, stretch.holders) == (set(), {A}, {A})
    stretch = people.see({SYSTEM: 5})
    assert (stretch.left, stretch.holders) == (set(), set())


def test_one_whose_memory_was_never_told_has_not_left() -> None:
    people = People()
    people.look({SYSTEM: 1, A: 1, B: 1}, ended=(A,))
    assert people.see({SYSTEM: 2, A: 2, B: 2}, ended=(A,)).left == set()


def test_units_hold_nothing() -> None:
    people = People()
    people.look({UNIT: 1})
    assert people.see({UNIT: 2}).holders == set()


def test_jobs_hold_gpus_by_minor_number_and_steps_for_their_job() -> None:
    people = People()
    people.look({A: 1}, m0=A, m3=("job", "1.batch"))
    assert people.users.gpus(people.now) == {"0": frozenset({A}), "3": frozenset({A})}


def test_what_jobs_held_is_not_known_when_it_was_told_long_ago() -> None:
    people = People()
    assert people.users.gpus(people.now) == {}
    people.look({A: 1}, m0=A)
    assert people.users.gpus(people.now + 3 * STEP_NS)
    assert people.users.gpus(people.now + 4 * STEP_NS) == {}


def test_owners_without_number_leave_no_memory_behind() -> None:
    people = People()
    for number in range(8_000):
        people.look({SYSTEM: number, job(number): 1})
    assert len(people.users._seconds) < 6_000

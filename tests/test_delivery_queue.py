"""The queue in memory: bounded, oldest first, each point acknowledged or counted as dropped."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from telemetryd.delivery.queue import Body, MemoryQueue

ROOMY = 1 << 20


class Drops:
    """Counts what a queue gives up."""

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()

    def __call__(self, reason: str, points: int) -> None:
        self.by_reason[reason] += points


def body(size: int, points: int = 1) -> Body:
    return Body(b"x" * size, points)


def test_bodies_leave_in_the_order_in_which_they_came() -> None:
    queue = MemoryQueue(ROOMY, Drops())
    bodies = [body(size) for size in (1, 2, 3)]
    for one in bodies:
        queue.put(one)
    left = []
    while (head := queue.peek()) is not None:
        left.append(head)
        queue.acknowledge()
    assert left == bodies
    assert (len(queue), queue.size) == (0, 0)


def test_the_oldest_make_room_and_their_points_are_counted() -> None:
    drops = Drops()
    queue = MemoryQueue(30_000, drops)
    for points in (1, 2, 4, 8):
        queue.put(body(9_000, points))
    assert drops.by_reason == {"queue_full": 1}
    queue.put(body(19_000, 16))
    assert drops.by_reason == {"queue_full": 1 + 2 + 4}
    head = queue.peek()
    assert head is not None
    assert head.points == 8


def test_a_body_that_never_fits_is_dropped_and_the_others_stay() -> None:
    drops = Drops()
    queue = MemoryQueue(30_000, drops)
    queue.put(body(10, 1))
    queue.put(body(30_000, 2))
    assert drops.by_reason == {"queue_full": 2}
    assert len(queue) == 1


def test_many_tiny_bodies_are_bounded_too() -> None:
    queue = MemoryQueue(30_000, Drops())
    for _ in range(10_000):
        queue.put(body(1))
    assert len(queue) < 200


def test_parts_take_the_place_of_the_head() -> None:
    queue = MemoryQueue(ROOMY, Drops())
    queue.put(body(6, 6))
    queue.put(body(1, 1))
    assert queue.parts == 0
    queue.split([body(2, 2), body(4, 4)])
    assert (queue.parts, len(queue), queue.size) == (2, 3, 7)
    queue.acknowledge()
    queue.split([body(1, 1), body(3, 3)])
    assert queue.parts == 2
    queue.acknowledge()
    queue.drop("refused")
    assert (queue.parts, len(queue)) == (0, 1)


def test_parts_of_the_oldest_body_are_dropped_one_by_one_for_room() -> None:
    drops = Drops()
    queue = MemoryQueue(30_000, drops)
    queue.put(body(20_000, 20))
    queue.split([body(10_000, 10), body(10_000, 10)])
    queue.put(body(15_000, 15))
    assert drops.by_reason == {"queue_full": 10}
    assert queue.parts == 1


_steps = st.lists(
    st.tuples(st.sampled_from(["put", "acknowledge", "drop", "split"]), st.integers(1, 2_000))
)


@given(steps=_steps)
def test_no_point_is_lost_without_being_counted_and_no_bound_is_passed(
    steps: list[tuple[str, int]],
) -> None:
    drops = Drops()
    queue = MemoryQueue(5_000, drops)
    put = acknowledged = 0
    for step, size in steps:
        head = queue.peek()
        if step == "put":
            queue.put(body(size, size))
            put += size
        elif head is None:
            continue
        elif step == "acknowledge":
            acknowledged += head.points
            queue.acknowledge()
        elif step == "drop":
            queue.drop("refused")
        elif head.points > 1:
            half = head.points // 2
            queue.split([body(half, half), body(head.points - half, head.points - half)])
        assert queue.size <= 5_000
    waiting = 0
    while (head := queue.peek()) is not None:
        waiting += head.points
        queue.acknowledge()
    assert put == acknowledged + waiting + drops.by_reason.total()
    assert queue.size == 0

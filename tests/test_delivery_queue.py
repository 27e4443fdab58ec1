"""The queue in memory: bounded, oldest first, each point acknowledged or counted as dropped."""

from __future__ import annotations

from support.spools import Drops

from telemetryd.delivery.memory_queue import MemoryQueue
from telemetryd.delivery.queue import Body

ROOMY = 1 << 20


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
    assert drops.points == {"queue_full": 1}
    queue.put(body(19_000, 16))
    assert drops.points == {"queue_full": 1 + 2 + 4}
    head = queue.peek()
    assert head is not None
    assert head.points == 8


def test_a_body_that_never_fits_is_dropped_and_the_others_stay() -> None:
    drops = Drops()
    queue = MemoryQueue(30_000, drops)
    queue.put(body(10, 1))
    queue.put(body(30_000, 2))
    assert drops.points == {"queue_full": 2}
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
    assert drops.points == {"queue_full": 10}
    assert queue.parts == 1


def numbered(*sizes: int, drops: Drops | None = None) -> MemoryQueue:
    """A queue with bodies of these sizes, and as many points in each."""
    queue = MemoryQueue(ROOMY, drops or Drops())
    for size in sizes:
        queue.put(body(size, size))
    return queue


def points_left(queue: MemoryQueue) -> list[int]:
    left = []
    while (head := queue.peek()) is not None:
        left.append(head.points)
        queue.acknowledge()
    return left


def test_what_is_set_aside_lets_the_others_pass_and_comes_back_as_the_head() -> None:
    queue = numbered(1, 2, 3)
    queue.peek()
    queue.set_aside()
    assert (queue.head, queue.aside, len(queue), queue.size) == (2, (1,), 3, 6)
    assert queue.take_back(1)
    assert (queue.head, queue.aside) == (1, ())
    assert points_left(queue) == [1, 2, 3]


def test_those_set_aside_are_named_oldest_first_whatever_the_order() -> None:
    queue = numbered(1, 2, 3)
    for _ in range(2):
        queue.set_aside()
    queue.take_back(1)
    queue.set_aside()
    assert queue.aside == (1, 2)
    assert not queue.take_back(3)
    assert queue.oldest_ns == 0


def test_a_part_takes_along_what_is_left_of_its_body() -> None:
    queue = numbered(6, 1)
    queue.split([body(2, 2), body(1, 1), body(3, 3)])
    queue.peek()
    queue.acknowledge()
    queue.set_aside()
    assert (queue.parts, queue.head, len(queue)) == (0, 2, 3)
    queue.take_back(1)
    assert queue.parts == 2
    assert points_left(queue) == [1, 3, 1]


def test_a_head_that_comes_behind_one_taken_back_may_be_dropped_again() -> None:
    drops = Drops()
    queue = MemoryQueue(30_000, drops)
    for points in (1, 2):
        queue.put(body(9_000, points))
    queue.set_aside()
    queue.peek()
    queue.take_back(1)
    queue.peek()
    queue.put(body(19_000, 4))
    assert drops.points == {"queue_full": 2}
    assert points_left(queue) == [1, 4]


def test_a_head_on_its_way_is_not_dropped_for_room() -> None:
    drops = Drops()
    queue = MemoryQueue(30_000, drops)
    for points in (1, 2, 4):
        queue.put(body(9_000, points))
    queue.peek()
    queue.put(body(9_000, 8))
    assert drops.points == {"queue_full": 2}
    assert points_left(queue) == [1, 4, 8]


def test_the_oldest_give_way_first_also_when_they_are_set_aside() -> None:
    drops = Drops()
    queue = MemoryQueue(30_000, drops)
    for points in (1, 2, 4):
        queue.put(body(9_000, points))
    queue.set_aside()
    queue.put(body(9_000, 8))
    assert drops.points == {"queue_full": 1}
    assert not queue.take_back(1)


def test_what_waits_at_the_end_is_dropped_and_counted_once() -> None:
    drops = Drops()
    queue = numbered(1, 2, 4, drops=drops)
    queue.set_aside()
    queue.peek()
    queue.close()
    queue.close()
    assert drops.points == {"shutdown": 7}
    assert (len(queue), queue.size, queue.peek(), queue.oldest_ns) == (0, 0, None, None)

"""From what a lane publishes to the latest table and the sinks, with what is derived on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from support.clock import FakeClock
from support.trees import named

from telemetryd.batch import Batch, LatestTable
from telemetryd.collector import Collector, CollectorConfig
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.host import Host
from telemetryd.instruments import Instruments
from telemetryd.metric import Kind, Metric, Point, Unit
from telemetryd.pipeline import Pipeline

LEVEL = Metric("room", "level", Kind.GAUGE, Unit.NONE, "A level.", "a test", ("device",))
NOISE = Metric("room", "noise", Kind.GAUGE, Unit.NONE, "Noise.", "a test")
TWICE = Metric("room", "twice", Kind.GAUGE, Unit.NONE, "Twice the level.", "derived", ("device",))
SUM = Metric("room", "sum", Kind.GAUGE, Unit.NONE, "All levels.", "derived", ("collector",))

LEVEL_X = 'telemetryd_room_level{device="x"}'
TWICE_X = 'telemetryd_room_twice{device="x"}'
SUM_A = 'telemetryd_room_sum{collector="a"}'
NOISE_ = "telemetryd_room_noise{}"


class Levels(Collector):
    metrics = (LEVEL, NOISE)

    def sample(self) -> Iterator[Point]:
        yield from ()


class Twice(Derivation):
    inputs = (LEVEL,)
    metrics = (TWICE,)

    def __init__(self) -> None:
        super().__init__(DerivedConfig())
        self.forgotten: list[str] = []

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
        for series, value in batch.points:
            if series.metric is LEVEL:
                yield TWICE.at(*series.labels), 2 * value

    def forget(self, collector: str) -> None:
        self.forgotten.append(collector)


class Sum(Twice):
    """Yields one figure, and then fails if it is told to."""

    metrics = (SUM,)
    fails = False

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
        yield SUM.at(batch.collector), sum(v for s, v in batch.points if s.metric is LEVEL)
        if self.fails:
            raise ZeroDivisionError("of a sort")


class Room:
    """A pipeline on a fake clock, and what came out of it."""

    def __init__(self, *derivations: Derivation, interval: float = 1.0) -> None:
        self.clock = FakeClock()
        self.instruments = Instruments()
        self.pipeline = Pipeline(self.instruments, derivations)
        self.sunk: list[Batch] = []
        self.pipeline.sinks.append(self.sunk.append)
        self.collector = Levels(CollectorConfig(interval=interval), Host())

    def publish(self, *points: Point, name: str = "a") -> None:
        now = self.clock.wall_ns(), self.clock.mono_ns()
        self.pipeline.publish(name, self.collector, *now, points)

    @property
    def live(self) -> dict[str, float]:
        batches = self.pipeline.latest.live(self.clock.mono_ns())
        return named(point for batch in batches for point in batch.points)

    @property
    def counted(self) -> dict[str, float]:
        return {name: n for name, n in named(self.instruments.points()).items() if n}


def level(value: float, device: str = "x") -> Point:
    return LEVEL.at(device), value


def test_readings_and_what_is_derived_from_them_arrive_as_one_batch_of_one_moment() -> None:
    room = Room(Twice(), Sum())
    room.publish(level(3), (NOISE.at(), 1))
    assert room.live == {LEVEL_X: 3, NOISE_: 1, TWICE_X: 6, SUM_A: 3}
    (batch,) = room.sunk
    assert named(batch.points) == room.live
    assert (batch.wall_ns, batch.mono_ns) == (room.clock.wall_ns(), room.clock.mono_ns())


def test_the_layout_with_the_derived_series_is_the_same_object_while_nothing_changes() -> None:
    room = Room(Twice())
    for value in (1.0, 2.0):
        room.publish(level(value))
    first, second = room.sunk
    assert second.series is first.series
    assert second.values == (2.0, 4.0)


def test_a_derived_point_vanishes_with_the_reading_it_came_from() -> None:
    room = Room(Twice(), Sum())
    room.publish(level(3), level(4, "y"))
    room.publish(level(4, "y"))
    assert LEVEL_X not in room.live
    assert TWICE_X not in room.live
    assert room.live[SUM_A] == 4


@pytest.mark.parametrize("points", [(), ((NOISE.at(), 1.0),)], ids=["no-points", "no-input"])
def test_without_any_of_its_inputs_nothing_is_derived_and_its_names_are_free(
    points: tuple[Point, ...],
) -> None:
    room = Room(Twice())
    room.publish(level(3))
    room.publish(*points)
    assert TWICE_X not in room.live
    room.publish(level(5), name="b")
    assert room.live[TWICE_X] == 10
    assert "telemetryd_series_dropped_total" not in str(room.counted)


def test_a_batch_that_is_not_renewed_within_two_intervals_is_gone_with_what_is_derived() -> None:
    room = Room(Twice(), interval=10.0)
    room.publish(level(3))
    room.clock.tick(20.0)
    assert room.live == {LEVEL_X: 3, TWICE_X: 6}
    room.clock.tick(0.001)
    assert room.live == {}
    room.publish(level(4))
    assert room.live == {LEVEL_X: 4, TWICE_X: 8}


def test_each_collector_goes_stale_by_its_own_interval() -> None:
    room = Room()
    room.publish(level(1))
    room.collector = Levels(CollectorConfig(interval=60), Host())
    room.publish(level(2, "y"), name="slow")
    room.clock.tick(30)
    assert room.live == {'telemetryd_room_level{device="y"}': 2}


def test_forgetting_a_collector_takes_its_readings_and_what_is_derived_at_once() -> None:
    twice = Twice()
    room = Room(twice)
    room.publish(level(3))
    room.publish(level(4, "y"), name="b")
    room.pipeline.forget("a")
    assert LEVEL_X not in room.live
    assert TWICE_X not in room.live
    assert room.live['telemetryd_room_twice{device="y"}'] == 8
    assert twice.forgotten == ["a"]
    room.publish(level(5), name="b")
    assert room.live == {LEVEL_X: 5, TWICE_X: 10}, "the names are free for another"


def test_forgetting_somebody_unknown_is_no_error() -> None:
    Room(Twice()).pipeline.forget("nobody")


def test_a_derivation_that_raises_costs_only_itself() -> None:
    failing = Sum()
    failing.fails = True
    room = Room(failing, Twice())
    room.publish(level(3))
    assert room.live == {LEVEL_X: 3, TWICE_X: 6, SUM_A: 3}, "what it yielded before still counts"
    errors = 'telemetryd_collector_errors_total{collector="a",reason="exception"}'
    assert room.counted[errors] == 1
    failing.fails = False
    room.publish(level(4))
    assert room.live[SUM_A] == 4
    assert room.counted[errors] == 1


def test_a_derivation_is_only_asked_about_batches_that_carry_its_inputs() -> None:
    class Never(Twice):
        inputs = (NOISE,)

        def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
            raise AssertionError("asked")

    room = Room(Never())
    room.publish(level(3))
    assert not room.counted


def test_a_derivation_sees_the_table_as_it_was_before_the_batch() -> None:
    class Last(Twice):
        def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
            before = named(p for b in latest.live(batch.mono_ns) for p in b.points)
            yield TWICE.at("x"), before.get(LEVEL_X, -1)

    room = Room(Last())
    for value, seen in ((3, -1), (4, 3)):
        room.publish(level(value))
        assert room.live[TWICE_X] == seen


def test_derived_points_are_admitted_like_others() -> None:
    class Sloppy(Twice):
        def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
            yield TWICE.at("x"), float("nan")
            yield SUM.at("x"), 1

    room = Room(Sloppy())
    room.publish(level(3))
    assert room.live == {LEVEL_X: 3}
    dropped = 'telemetryd_series_dropped_total{collector="a/derived",reason="%s"}'
    assert room.counted == {dropped % "invalid": 1, dropped % "undeclared": 1}


def test_other_derivations_take_over_from_the_next_batch_on() -> None:
    room = Room(Twice())
    room.publish(level(3))
    room.pipeline.replace_derivations([Sum()])
    room.publish(level(3))
    assert room.live == {LEVEL_X: 3, SUM_A: 3}


def test_points_beyond_the_collectors_limit_are_not_published() -> None:
    room = Room(Twice())
    room.collector = Levels(CollectorConfig(max_series=1), Host())
    room.publish(level(3), level(4, "y"), level(5, "z"))
    assert room.live == {LEVEL_X: 3, TWICE_X: 6}
    assert room.counted == {'telemetryd_series_dropped_total{collector="a",reason="limit"}': 2}


# Figures that come from several collectors


class Total(Twice):
    """The sum over all collectors, published under a name of its own whenever `speaks`."""

    own_batch = "total"
    own_interval = 5.0
    metrics = (SUM,)

    def __init__(self) -> None:
        super().__init__()
        self.speaks = True
        self.fails = False
        self.levels: dict[str, float] = {}
        self.saw: list[tuple[str, ...]] = []
        self.refreshed = 0
        self.learned: dict[str, object] = {}

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
        self.saw.append(tuple(series.metric.quantity for series in batch.series))
        self.levels[batch.collector] = sum(v for s, v in batch.points if s.metric is LEVEL)
        if self.fails:
            raise ZeroDivisionError("of a sort")
        if self.speaks:
            yield SUM.at("all"), sum(self.levels.values())

    def forget(self, collector: str) -> None:
        self.levels.pop(collector, None)

    def refresh(self) -> None:
        self.refreshed += 1
        if self.fails:
            raise OSError("of a sort")

    def save(self) -> dict[str, object]:
        return self.learned

    def restore(self, saved: Mapping[str, object]) -> None:
        self.learned = dict(saved)


SUM_ALL = 'telemetryd_room_sum{collector="all"}'


def test_figures_of_several_collectors_are_a_batch_of_their_own() -> None:
    room = Room(Total(), Twice())
    room.publish(level(3))
    room.publish(level(4, "y"), name="b")
    assert room.live[SUM_ALL] == 7
    assert [batch.collector for batch in room.sunk] == ["a", "total", "b", "total"]
    own = room.sunk[-1]
    assert own.interval == 5.0
    assert (own.wall_ns, own.mono_ns) == (room.clock.wall_ns(), room.clock.mono_ns())
    assert room.sunk[1].series is own.series


def test_they_are_worked_out_from_readings_and_not_from_what_others_derived() -> None:
    total = Total()
    Room(total, Twice()).publish(level(3))
    assert total.saw == [("level",)]


def test_figures_that_are_not_renewed_stay_for_two_of_their_own_intervals() -> None:
    total = Total()
    room = Room(total)
    room.publish(level(3))
    total.speaks = False
    room.clock.tick(10)
    room.publish(level(5))
    assert room.live == {LEVEL_X: 5, SUM_ALL: 3}
    room.clock.tick(0.001)
    assert room.live == {LEVEL_X: 5}
    total.speaks = True
    room.publish(level(6))
    assert room.live == {LEVEL_X: 6, SUM_ALL: 6}


def test_a_fault_in_them_costs_nothing_else() -> None:
    total = Total()
    room = Room(total, Twice())
    room.publish(level(3))
    total.fails = True
    room.publish(level(4))
    assert room.live == {LEVEL_X: 4, TWICE_X: 8, SUM_ALL: 3}
    errors = 'telemetryd_collector_errors_total{collector="a",reason="exception"}'
    assert room.counted == {errors: 1}


def test_they_outlive_one_of_their_collectors_and_forget_it() -> None:
    room = Room(Total())
    room.publish(level(3))
    room.publish(level(4, "y"), name="b")
    room.pipeline.forget("a")
    assert room.live[SUM_ALL] == 7
    room.publish(level(5, "y"), name="b")
    assert room.live[SUM_ALL] == 5


def test_they_are_admitted_like_others() -> None:
    class Sloppy(Total):
        def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
            yield SUM.at("all"), float("inf")
            yield LEVEL.at("z"), 1
            yield SUM.at("b"), 1

    room = Room(Sloppy())
    room.publish(level(3))
    assert room.live == {LEVEL_X: 3, 'telemetryd_room_sum{collector="b"}': 1}
    dropped = 'telemetryd_series_dropped_total{collector="total",reason="%s"}'
    assert room.counted == {dropped % "invalid": 1, dropped % "undeclared": 1}


def test_what_was_learned_is_kept_by_name_and_given_back() -> None:
    total, other = Total(), Total()
    total.learned = {"a": 1}
    saved = Room(total, Twice()).pipeline.save()
    assert saved == {"Total": {"a": 1}}, "who learned nothing is left out"
    Room(Twice(), other).pipeline.restore({**saved, "Twice": 5, "Gone": {}})
    assert other.learned == {"a": 1}


def test_what_was_learned_stays_through_a_change_of_the_configuration() -> None:
    total, other = Total(), Total()
    total.learned = {"a": 1}
    Room(total).pipeline.replace_derivations([other])
    assert other.learned == {"a": 1}


def test_files_are_read_again_and_a_fault_there_keeps_nobody_from_theirs() -> None:
    failing, total = Total(), Total()
    failing.fails = True
    Room(failing, total).pipeline.refresh()
    assert total.refreshed == 1

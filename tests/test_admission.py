"""What is let through to be published, what is dropped, and how exactly that is counted."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetryd.admission import Admission
from telemetryd.metric import Kind, Metric, Point, Unit

GAUGE = Metric("room", "level", Kind.GAUGE, Unit.NONE, "A level.", "a test", ("device",))
OTHER = Metric("room", "other", Kind.GAUGE, Unit.NONE, "Another.", "a test")
DECLARED = frozenset({GAUGE, OTHER})


class Gate:
    """An Admission that notes what it drops, by collector and reason."""

    def __init__(self) -> None:
        self.dropped: Counter[tuple[str, str]] = Counter()
        self.named: list[str] = []
        self.admission = Admission(self._note)

    def _note(self, collector: str, reason: str, count: int, first: str) -> None:
        self.dropped[collector, reason] += count
        self.named.append(first)

    def admit(
        self,
        points: list[Point],
        collector: str = "a",
        declared: frozenset[Metric] | None = DECLARED,
        limit: int = 100,
    ) -> list[Point]:
        series, values = self.admission.admit(collector, points, declared, limit)
        return list(zip(series, values, strict=True))


@pytest.fixture
def gate() -> Gate:
    return Gate()


def levels(*devices: str) -> list[Point]:
    return [(GAUGE.at(device), float(number)) for number, device in enumerate(devices)]


def script(name: str, kind: Kind = Kind.GAUGE, text: str = "H.", *, family: str = "") -> Metric:
    """A metric of somebody else's, with the name a site script would give it."""
    return Metric.foreign(
        name, family=family or name, kind=kind, help_text=text, labels=("site",), source="site.prom"
    )


def test_what_is_declared_and_finite_passes_as_it_is(gate: Gate) -> None:
    points: list[Point] = [(GAUGE.at("x"), 1), (GAUGE.at("y"), -2.5), (OTHER.at(), 2**63)]
    assert gate.admit(points) == points
    assert [type(value) for _, value in gate.admit(points)] == [int, float, int]
    assert not gate.dropped


def test_the_layout_is_the_same_object_for_as_long_as_nothing_changes(gate: Gate) -> None:
    first, _ = gate.admission.admit("a", levels("x", "y"), DECLARED, 100)
    second, _ = gate.admission.admit("a", levels("x", "y"), DECLARED, 100)
    assert second is first
    third, _ = gate.admission.admit("a", levels("y", "x"), DECLARED, 100)
    assert third is not first
    assert third == (GAUGE.at("y"), GAUGE.at("x"))


@pytest.mark.parametrize("odd", [math.nan, True], ids=["dropped", "converted"])
def test_the_layout_stays_the_same_object_while_one_value_stays_odd(gate: Gate, odd: float) -> None:
    points = [*levels("x", "y"), (OTHER.at(), odd)]
    first, _ = gate.admission.admit("a", points, DECLARED, 100)
    second, _ = gate.admission.admit("a", points, DECLARED, 100)
    assert second is first


def test_a_series_that_comes_twice_is_published_once_and_each_repetition_counted(
    gate: Gate,
) -> None:
    points = levels("x", "y", "x", "x")
    assert gate.admit(points) == points[:2]
    assert gate.dropped == {("a", "duplicate"): 2}
    gate.admit(points)
    assert gate.dropped == {("a", "duplicate"): 4}, "counted on every sample"
    assert gate.named[0] == 'telemetryd_room_level{device="x"}'


def test_a_series_that_another_collector_publishes_is_a_duplicate(gate: Gate) -> None:
    gate.admit(levels("x"))
    assert gate.admit(levels("x", "y"), "b") == levels("x", "y")[1:]
    assert gate.dropped == {("b", "duplicate"): 1}


@pytest.mark.parametrize(
    ("labels", "values", "twin_labels", "twin_values"),
    [
        (("a", "b"), ("1", "2"), ("b", "a"), ("2", "1")),
        (("a", "b"), ("1", ""), ("a",), ("1",)),
        ((), (), ("a",), ("",)),
    ],
    ids=["other-order", "empty-label", "only-empty-labels"],
)
def test_series_that_prometheus_cannot_tell_apart_are_duplicates(
    gate: Gate,
    labels: tuple[str, ...],
    values: tuple[str, ...],
    twin_labels: tuple[str, ...],
    twin_values: tuple[str, ...],
) -> None:
    one, twin = (
        Metric.foreign("x", family="x", kind=Kind.GAUGE, help_text="", labels=names, source="s")
        for names in (labels, twin_labels)
    )
    points: list[Point] = [(one.at(*values), 1), (twin.at(*twin_values), 2)]
    assert gate.admit(points, declared=None) == points[:1]
    assert gate.dropped == {("a", "duplicate"): 1}


def test_an_undeclared_metric_is_dropped_unless_the_collector_is_open_ended(gate: Gate) -> None:
    points = [*levels("x"), (OTHER.at(), 1)]
    assert gate.admit(points, declared=frozenset({GAUGE})) == points[:1]
    assert gate.dropped == {("a", "undeclared"): 1}
    assert gate.admit([(OTHER.at(), 1)], "b", declared=None)


@pytest.mark.parametrize(
    "second",
    [
        script("runs", Kind.UNKNOWN),
        script("runs", text="Other words."),
        script("runs_total", Kind.COUNTER, family="runs"),
    ],
    ids=["type", "help", "type-of-family"],
)
def test_a_family_has_the_header_of_whoever_came_first(gate: Gate, second: Metric) -> None:
    gate.admit([(script("runs").at("x"), 1)], declared=None)
    assert gate.admit([(second.at("y"), 1)], "b", declared=None) == []
    assert gate.dropped == {("b", "conflict"): 1}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (script("runs_total"), script("runs_total", Kind.COUNTER, family="runs")),
        (script("run_sum", Kind.SUMMARY, family="run"), script("run_count")),
        (script("run_bucket", Kind.HISTOGRAM, family="run"), script("run_created")),
    ],
    ids=["total", "count", "created"],
)
def test_a_family_may_not_have_a_name_that_belongs_to_another(
    first: Metric, second: Metric
) -> None:
    for one, other in itertools.permutations((first, second)):
        gate = Gate()
        gate.admit([(one.at("x"), 1)], declared=None)
        assert gate.admit([(other.at("y"), 1)], "b", declared=None) == []
        assert gate.dropped == {("b", "conflict"): 1}


def test_beyond_its_limit_a_collectors_series_are_dropped_and_counted(gate: Gate) -> None:
    points = levels("p", "q", "r", "s", "t")
    assert gate.admit(points, limit=3) == points[:3]
    assert gate.dropped == {("a", "limit"): 2}
    assert gate.admit(points[:3], limit=3) == points[:3]
    assert gate.dropped == {("a", "limit"): 2}, "exactly the limit is within it"


def test_what_is_dropped_for_another_reason_does_not_use_up_the_limit(gate: Gate) -> None:
    points = levels("p", "p", "q", "q", "r", "s")
    assert [series.labels[0] for series, _ in gate.admit(points, limit=3)] == ["p", "q", "r"]
    assert gate.dropped == {("a", "duplicate"): 2, ("a", "limit"): 1}


class Float64(float):
    """As numpy's: a float that prints as something else."""

    def __repr__(self) -> str:
        return f"np.float64({super().__repr__()})"


@pytest.mark.parametrize(
    ("value", "published"), [(True, 1.0), (Float64(0.1), 0.1), (Float64(-0.0), -0.0)]
)
def test_subclasses_of_numbers_become_plain_numbers(
    gate: Gate, value: float, published: float
) -> None:
    ((_, plain), (_, untouched)) = gate.admit([(GAUGE.at("x"), value), (GAUGE.at("y"), 2**60 + 1)])
    assert type(plain) is float
    assert repr(plain) == repr(published)
    assert untouched == 2**60 + 1, "a neighbour keeps every digit"
    assert not gate.dropped


NOT_FINITE = [math.nan, math.inf, -math.inf, Float64("nan"), 10**400, -(10**309)]


@pytest.mark.parametrize("value", [*NOT_FINITE, "3", None, 1j, b"1"], ids=repr)
def test_a_value_that_is_no_finite_number_is_absent_and_counted(gate: Gate, value: object) -> None:
    good = levels("x", "y")
    odd = (OTHER.at(), value)
    assert gate.admit([good[0], odd, good[1]]) == good  # type: ignore[list-item]
    assert gate.dropped == {("a", "invalid"): 1}
    assert gate.admit([odd], "b") == []  # type: ignore[list-item]


def test_a_value_that_is_finite_again_is_back(gate: Gate) -> None:
    assert gate.admit([(OTHER.at(), math.nan)]) == []
    assert gate.admit([(OTHER.at(), 2.0)]) == [(OTHER.at(), 2.0)]


huge = st.sampled_from([1.7e308, -1.7e308, 10**308, -(10**308)])
numbers = huge | st.floats(allow_nan=False, allow_infinity=False) | st.integers()


@given(st.lists(numbers, min_size=1, max_size=8))
def test_finite_values_pass_even_if_their_sum_is_not(values: list[float]) -> None:
    gate = Gate()
    points = [(GAUGE.at(str(number)), value) for number, value in enumerate(values)]
    assert gate.admit(points) == points
    assert not gate.dropped


@pytest.mark.parametrize("leaves", ["forget", "empty"])
def test_the_names_of_a_collector_that_goes_are_free_for_the_one_that_was_refused_them(
    gate: Gate, leaves: str
) -> None:
    gate.admit(levels("x"))
    assert gate.admit(levels("x"), "b") == []
    if leaves == "forget":
        gate.admission.forget("a")
    else:
        gate.admit([])
    assert gate.admit(levels("x"), "b") == levels("x")
    assert gate.dropped == {("b", "duplicate"): 1}


def test_a_name_that_a_collector_yields_no_longer_is_free_too(gate: Gate) -> None:
    gate.admit(levels("x", "y"))
    assert gate.admit(levels("y"), "b") == []
    gate.admit(levels("x"))
    assert gate.admit(levels("y"), "b") == levels("y")
    assert gate.admit(levels("x", "y")) == levels("x"), "now the other one has it"


def test_the_header_of_a_family_goes_with_its_last_series(gate: Gate) -> None:
    one, other = script("runs"), script("runs", Kind.UNKNOWN)
    gate.admit([(one.at("x"), 1)], declared=None)
    gate.admission.forget("a")
    assert gate.admit([(other.at("y"), 1)], "b", declared=None) == [(other.at("y"), 1)]


def test_two_collectors_that_refuse_each_other_something_come_to_rest(gate: Gate) -> None:
    one = [*levels("x", "y"), (OTHER.at(), 1)]
    other = levels("y", "z", "x")
    gate.admission.admit("a", one, DECLARED, 2)
    gate.admission.admit("b", other, DECLARED, 2)
    layouts = [
        (
            gate.admission.admit("a", one, DECLARED, 2)[0],
            gate.admission.admit("b", other, DECLARED, 2)[0],
        )
        for _ in range(4)
    ]
    assert all(a is layouts[0][0] and b is layouts[0][1] for a, b in layouts)
    assert layouts[0] == ((GAUGE.at("x"), GAUGE.at("y")), (GAUGE.at("z"),))


def test_points_of_another_shape_raise_and_leave_nothing_taken(gate: Gate) -> None:
    with pytest.raises(AttributeError):
        gate.admit([*levels("x"), ("no series", 1)])  # type: ignore[list-item]
    assert gate.admit(levels("x"), "b") == levels("x")

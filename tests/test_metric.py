"""Names, labels and the interning of series."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetryd.metric import Kind, Metric, Unit


def metric(
    quantity: str = "level",
    kind: Kind = Kind.GAUGE,
    unit: Unit = Unit.NONE,
    labels: tuple[str, ...] = ("device",),
    subsystem: str = "room",
) -> Metric:
    return Metric(subsystem, quantity, kind, unit, "A level.", "a test", labels)


@pytest.mark.parametrize(
    ("quantity", "kind", "unit", "family", "name"),
    [
        ("time", Kind.COUNTER, Unit.SECONDS, "room_time_seconds", "room_time_seconds_total"),
        ("forks", Kind.COUNTER, Unit.NONE, "room_forks", "room_forks_total"),
        ("level", Kind.GAUGE, Unit.CELSIUS, "room_level_celsius", "room_level_celsius"),
        ("", Kind.GAUGE, Unit.RATIO, "room_ratio", "room_ratio"),
        ("", Kind.INFO, Unit.NONE, "room", "room_info"),
    ],
)
def test_names_follow_from_subsystem_quantity_unit_and_kind(
    quantity: str, kind: Kind, unit: Unit, family: str, name: str
) -> None:
    made = metric(quantity, kind, unit)
    assert (made.family, made.name) == (f"telemetryd_{family}", f"telemetryd_{name}")


@pytest.mark.parametrize("quantity", ["time per cpu", "größe", "a-b", "a\n", 'a"'])
def test_a_name_that_prometheus_refuses_is_refused(quantity: str) -> None:
    with pytest.raises(ValueError, match="not a metric name"):
        metric(quantity)


@pytest.mark.parametrize("label", ["", "0", "a-b", "a:b", "__name", "job", "instance", "é", "a\n"])
def test_a_label_that_prometheus_refuses_or_overwrites_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="label"):
        metric(labels=("device", label))


def test_a_label_is_declared_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        metric(labels=("a", "b", "a"))


def test_an_info_metric_has_no_unit() -> None:
    with pytest.raises(ValueError, match="unit"):
        metric(kind=Kind.INFO, unit=Unit.BYTES)


def test_the_same_labels_give_the_same_object() -> None:
    one = metric()
    series = one.at("x")
    assert one.at("x") is series
    assert one.at("y") is not series
    assert metric().at("x") is not series, "another metric has its own"


def test_a_series_shows_itself_as_in_a_scrape() -> None:
    assert repr(metric(labels=("a", "b")).at("1", "2")) == 'telemetryd_room_level{a="1",b="2"}'


@pytest.mark.parametrize("values", [(), ("x", "y")])
def test_a_wrong_number_of_label_values_is_refused(values: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="has labels"):
        metric().at(*values)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"caf\xe9", "caf\\udce9"),
        (b"\xff\xfe", "\\udcff\\udcfe"),
        ("naïve ☃".encode(), "naïve ☃"),
        (b"back\\slash", "back\\slash"),
    ],
)
def test_bytes_that_are_not_utf8_become_escapes(raw: bytes, shown: str) -> None:
    one = metric()
    series = one.at(raw.decode("utf-8", "surrogateescape"))
    assert series.labels == (shown,)
    assert one.at(raw.decode("utf-8", "surrogateescape")) is series


@given(st.text(st.characters(exclude_categories=())))
def test_every_label_value_can_be_encoded_afterwards(value: str) -> None:
    (label,) = metric().at(value).labels
    label.encode("utf-8")
    if not any("\ud800" <= letter <= "\udfff" for letter in value):
        assert label == value


def foreign(name: str, family: str, kind: Kind, *labels: str) -> Metric:
    return Metric.foreign(
        name, family=family, kind=kind, help_text="Théirs.", labels=labels, source="site.prom"
    )


@pytest.mark.parametrize(
    ("name", "family", "kind"),
    [
        ("site:runs_total", "site:runs", Kind.COUNTER),
        ("run_bucket", "run", Kind.HISTOGRAM),
        ("run_sum", "run", Kind.SUMMARY),
        ("run", "run", Kind.SUMMARY),
        ("run", "run", Kind.UNKNOWN),
    ],
)
def test_a_foreign_metric_keeps_its_name_and_help(name: str, family: str, kind: Kind) -> None:
    made = foreign(name, family, kind, "le")
    assert (made.name, made.family, made.kind) == (name, family, kind)
    assert made.help == "Théirs."
    assert repr(made.at("1")) == f'{name}{{le="1"}}'


@pytest.mark.parametrize(
    ("name", "family", "kind"),
    [
        ("runs", "runs", Kind.COUNTER),
        ("runs_total", "runs_total", Kind.COUNTER),
        ("run", "run", Kind.HISTOGRAM),
        ("run_bucket", "run", Kind.SUMMARY),
        ("run_sum", "run", Kind.GAUGE),
        ("un-named", "un-named", Kind.GAUGE),
    ],
)
def test_a_foreign_name_that_openmetrics_would_not_take_is_refused(
    name: str, family: str, kind: Kind
) -> None:
    with pytest.raises(ValueError, match=name):
        foreign(name, family, kind)


def test_foreign_help_that_is_not_utf8_becomes_escapes() -> None:
    made = Metric.foreign(
        "x", family="x", kind=Kind.GAUGE, help_text="caf\udce9", labels=(), source="site.prom"
    )
    assert made.help == "caf\\udce9"


@pytest.mark.parametrize(
    "one", [metric(), foreign("x", "x", Kind.GAUGE, "device")], ids=["declared", "foreign"]
)
def test_a_series_that_nobody_holds_is_not_remembered(one: Metric) -> None:
    trace = weakref.ref(one.at("gone"))
    gc.collect()
    assert trace() is None
    assert not one._interned

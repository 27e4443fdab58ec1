"""Line protocol: what is encoded is what strict receivers read, down to the last bit."""

from __future__ import annotations

import json
import math
import struct
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support import servers
from support.line_parser import RESERVED, Line, Refused, parse

from telemetryd.batch import Batch
from telemetryd.delivery.queue import Body
from telemetryd.exporters.line_protocol import Encoder, halve, tag_value
from telemetryd.metric import SUFFIXES, Kind, Metric, Point, Unit

WALL_NS = 1_700_000_000_123_456_789

READS = Metric("disk", "reads", Kind.COUNTER, Unit.NONE, "Help.", "test", ("device",))
BUSY = Metric("disk", "busy", Kind.COUNTER, Unit.SECONDS, "Help.", "test", ("device",))
INFO = Metric("gpu", "", Kind.INFO, Unit.NONE, "Help.", "test", ("uuid", "empty"))
LOAD = Metric("cpu", "load", Kind.GAUGE, Unit.NONE, "Help.", "test", ("minutes",))


def foreign(name: str, family: str, *labels: str, kind: Kind = Kind.UNKNOWN) -> Metric:
    return Metric.foreign(
        name, family=family, kind=kind, help_text="", labels=labels, source="test"
    )


def batch_of(points: list[Point], collector: str = "c", wall_ns: int = WALL_NS) -> Batch:
    return Batch(
        collector, wall_ns, 0, 1.0, tuple(s for s, _ in points), tuple(v for _, v in points)
    )


def encode(points: list[Point], **labels: str) -> str:
    return Encoder({"host": "n1", **labels}).encode_all([batch_of(points)])


# By example


def test_series_that_differ_in_their_metric_alone_share_a_line() -> None:
    points = [(READS.at("sda"), 5), (READS.at("sdb"), 6), (BUSY.at("sda"), 0.25)]
    assert encode(points, cluster="a") == (
        "telemetryd_disk,cluster=a,device=sda,host=n1 "
        f"reads_total=5,busy_seconds_total=0.25 {WALL_NS}\n"
        f"telemetryd_disk,cluster=a,device=sdb,host=n1 reads_total=6 {WALL_NS}\n"
    )


def test_an_info_metric_is_a_field_called_info_and_empty_tags_are_left_out() -> None:
    assert encode([(INFO.at("u1", ""), 1)]) == f"telemetryd_gpu,host=n1,uuid=u1 info=1 {WALL_NS}\n"


def test_a_foreign_metric_has_its_family_as_measurement() -> None:
    points = [
        (foreign("job_seconds_sum", "job_seconds", "job_name", kind=Kind.SUMMARY).at("x"), 1.5),
        (foreign("job_seconds_count", "job_seconds", "job_name", kind=Kind.SUMMARY).at("x"), 2),
        (foreign("backup_age", "backup_age").at(), 3),
        (foreign("runs_total", "runs", kind=Kind.COUNTER).at(), 4),
    ]
    assert encode(points) == (
        f"job_seconds,host=n1,job_name=x sum=1.5,count=2 {WALL_NS}\n"
        f"backup_age,host=n1 value=3 {WALL_NS}\n"
        f"runs,host=n1 total=4 {WALL_NS}\n"
    )


def test_the_host_tag_is_this_machine_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "me")
    assert ",host=me," in Encoder({}).encode_all([batch_of([(LOAD.at("1"), 1)])])
    assert ",host=you," in Encoder({"host": "you"}).encode_all([batch_of([(LOAD.at("1"), 1)])])


def test_a_label_of_the_metric_comes_before_a_configured_one() -> None:
    assert ",device=sda," in encode([(READS.at("sda"), 1)], device="configured")


def test_reserved_names_are_changed_without_meeting_others() -> None:
    metric = Metric("x", "time", Kind.GAUGE, Unit.NONE, "", "", labels=("time", "time_", "_field"))
    (line,) = parse(encode([(metric.at("a", "b", "c"), 1)]).encode())
    assert line.tags == {"host": "n1", "time__": "a", "time_": "b", "_field_": "c"}
    assert line.fields == {"time_": 1.0}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two words,a=b", "two words,a=b"),
        ("C:\\data", "C:\\data"),
        ("ends in \\", "ends in \\x5c"),
        ("a\\ b", "a\\x5c b"),
        ("a\\,b", "a\\x5c,b"),
        ("\\\\", "\\x5c\\x5c"),
        ("a\nevil v=1", "a\\nevil v=1"),
        ("\x00\r\t\x7f\x85\u2028", "\\x00\\r\\t\\x7f\\x85\\u2028"),
        ("\\\n", "\\x5c\\n"),
        ("größe µ 漢", "größe µ 漢"),
        ("\udcff", "\\udcff"),
    ],
)
def test_odd_tag_values_become_what_every_receiver_reads_alike(text: str, shown: str) -> None:
    assert tag_value(text) == shown
    (line,) = parse(encode([(LOAD.at(text), 1)]).encode())
    assert line.tags["minutes"] == shown


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    dropped: list[tuple[str, int]] = []
    encoder = Encoder({}, on_drop=lambda reason, points: dropped.append((reason, points)))
    values = (math.nan, math.inf, -math.inf, 10**400, 2.5)
    points = [(LOAD.at(str(i)), value) for i, value in enumerate(values)]
    (line,) = parse(encoder.encode_all([batch_of(points)]).encode())
    assert line.fields == {"load": 2.5}
    assert dropped == [("invalid", 4)]


def test_a_sum_that_overflows_loses_no_finite_value() -> None:
    points: list[Point] = [(LOAD.at("1"), 1.7e308), (LOAD.at("5"), 1.7e308)]
    assert encode(points).count("1.7e+308") == 2


def test_a_second_series_for_the_same_field_is_left_out_and_counted() -> None:
    dropped: list[tuple[str, int]] = []
    encoder = Encoder({}, on_drop=lambda reason, points: dropped.append((reason, points)))
    points: list[Point] = [
        (foreign("x", "x").at(), 1),
        (foreign("x", "x", "empty").at(""), 2),
    ]
    (line,) = parse(encoder.encode_all([batch_of(points)]).encode())
    assert line.fields == {"value": 1.0}
    assert dropped == [("duplicate", 1)]


def test_metrics_that_are_not_wanted_are_not_encoded() -> None:
    encoder = Encoder({"host": "n1"}, wants=lambda metric: metric is not READS)
    points: list[Point] = [(READS.at("sda"), 5), (BUSY.at("sda"), 1), (READS.at("sdb"), 7)]
    assert encoder.encode_all([batch_of(points)]) == (
        f"telemetryd_disk,device=sda,host=n1 busy_seconds_total=1 {WALL_NS}\n"
    )


def test_a_plan_is_kept_for_the_same_tuple_of_series_and_made_anew_for_another() -> None:
    asked: list[Metric] = []

    def wants(metric: Metric) -> bool:
        asked.append(metric)
        return True

    encoder = Encoder({"host": "n1"}, wants=wants)
    first = batch_of([(READS.at("sda"), 1)])
    again = Batch("c", WALL_NS + 1, 0, 1.0, first.series, (2,))
    other = batch_of([(READS.at("sdb"), 3)])
    assert "reads_total=1 " in encoder.encode_all([first])
    assert f"reads_total=2 {WALL_NS + 1}\n" in encoder.encode_all([again])
    assert len(asked) == 1
    assert "device=sdb" in encoder.encode_all([other])
    assert len(asked) == 2


def test_batches_share_bodies_and_no_body_has_more_points_than_allowed() -> None:
    encoder = Encoder({"host": "n1"}, most_points=3)
    several = [batch_of([(READS.at(f"sd{i}"), i) for i in range(7)], "a")]
    several += [batch_of([(LOAD.at("1"), 1)], "b"), batch_of([(LOAD.at("5"), 1)], "c")]
    bodies = encoder.encode(several)
    assert [body.points for body in bodies] == [3, 3, 3]
    assert [len(parse(body.data)) for body in bodies] == [3, 3, 3]


def test_a_body_and_its_parts_know_when_their_newest_point_was_read() -> None:
    batches = [batch_of([(LOAD.at("1"), 1)], wall_ns=WALL_NS + late) for late in (5, 9, 2)]
    (body,) = Encoder({}).encode(batches)
    assert body.newest_ns == WALL_NS + 9
    assert [half.newest_ns - WALL_NS for half in halve(body)] == [5, 9]


def test_an_empty_batch_makes_no_body() -> None:
    assert Encoder({}).encode([batch_of([])]) == []


def test_halving_ends_at_single_points_and_keeps_every_one() -> None:
    points: list[Point] = [(READS.at("a b"), 1), (BUSY.at("a b"), 2), (READS.at("c,=d"), 3)]
    (whole,) = Encoder({"host": "n1"}).encode([batch_of(points)])
    atoms: list[Body] = []
    waiting = [whole]
    while waiting:
        body = waiting.pop(0)
        halves = halve(body)
        assert sum(half.points for half in halves) == (body.points if halves else 0)
        waiting += halves
        atoms += [] if halves else [body]
    assert [atom.points for atom in atoms] == [1, 1, 1]
    found = [(line.tags["device"], line.fields) for atom in atoms for line in parse(atom.data)]
    assert sorted(found, key=str) == [
        ("a b", {"busy_seconds_total": 2.0}),
        ("a b", {"reads_total": 1.0}),
        ("c,=d", {"reads_total": 3.0}),
    ]


@pytest.mark.parametrize(
    "text",
    [
        b"m,host=a v=1 1",
        b"m,host= v=1 1\n",
        b"m,host=a v=1\n",
        b"m,host=a v=NaN 1\n",
        b"m,host=a v=5i 1\n",
        b"m,host=a\\ v=1 1\n",
        b"m,host=a\\\\ v=1 1\n",
        b"m,host=a v=1 1\r\n",
        b"m,b=1,a=1 v=1 1\n",
        b"m,a=1,a=2 v=1 1\n",
        b"m,time=a v=1 1\n",
        b"m,host=a v=1,v=2 1\n",
        b"m,host=a b v=1 1\n",
    ],
)
def test_the_parser_of_these_tests_is_strict(text: bytes) -> None:
    with pytest.raises(Refused):
        parse(text)


# By property

_metric_names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", fullmatch=True)
_label_names = st.sampled_from(["time", "_field", "_measurement", "host", "le"]) | st.from_regex(
    r"(?!__)[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True
).filter(lambda name: name not in {"job", "instance"})
_texts = st.text() | st.text(alphabet="\\,= \n\r\0ab\"'#")
_values = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)


@st.composite
def _points(draw: st.DrawFn) -> list[Point]:
    points: dict[object, Point] = {}
    for _ in range(draw(st.integers(1, 4))):
        labels = tuple(draw(st.lists(_label_names, max_size=3, unique=True)))
        if draw(st.booleans()):
            subsystem = draw(st.from_regex(r"[a-z_]{1,8}", fullmatch=True))
            kind = draw(st.sampled_from(Kind))
            unit = Unit.NONE if kind is Kind.INFO else draw(st.sampled_from(Unit))
            quantity = draw(st.just("time") | st.from_regex(r"[a-z_]{0,8}", fullmatch=True))
            metric = Metric(subsystem, quantity, kind, unit, "", "", labels)
        else:
            family = draw(_metric_names)
            kind = draw(st.sampled_from(Kind))
            suffix = draw(st.sampled_from(SUFFIXES.get(kind, ("",))))
            metric = foreign(family + suffix, family, *labels, kind=kind)
        for _ in range(draw(st.integers(1, 3))):
            series = metric.at(*[draw(_texts) for _ in labels])
            points[metric.name, series.labels] = series, draw(_values)
    return list(points.values())


def _visible(text: str) -> str:
    """What a tag says, told once more and one character at a time."""
    shown = []
    for here, following in zip(text, [*text[1:], ""], strict=True):
        if _is_control(here):
            shown.append(here.encode("unicode_escape").decode())
        elif here == "\\" and (following in {"", "\\", ",", "=", " "} or _is_control(following)):
            shown.append("\\x5c")
        else:
            shown.append(here)
    return "".join(shown)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Zl", "Zp"}


def _bits(value: float) -> bytes:
    return struct.pack("d", value)


_Found = dict[tuple[str, tuple[tuple[str, str], ...]], dict[str, bytes]]


def _expected(points: list[Point], labels: dict[str, str]) -> _Found:
    found: _Found = {}
    for series, value in points:
        metric = series.metric
        tags = labels | dict(zip(metric.labels, series.labels, strict=True))
        tags = {name: _visible(text) for name, text in tags.items() if text}
        # The reserved names: their case has a test of its own.
        tags = {f"{k}_" if k in RESERVED else k: v for k, v in tags.items()}
        measurement = f"telemetryd_{metric.subsystem}" if metric.subsystem else metric.family
        field = metric.name[len(measurement) :]
        field = field.removeprefix("_") or "value"
        field = f"{field}_" if field in RESERVED else field
        fields = found.setdefault((measurement, tuple(sorted(tags.items()))), {})
        fields.setdefault(field, _bits(value))
    return found


def _as_found(lines: list[Line]) -> _Found:
    return {
        (line.measurement, tuple(sorted(line.tags.items()))): {
            name: _bits(value) for name, value in line.fields.items()
        }
        for line in lines
    }


def _no_name_is_taken_twice(points: list[Point]) -> bool:
    """Whether renaming `time` to `time_` meets no other name."""
    return not any(
        {f"{name}_" for name in RESERVED} & set(series.metric.labels) for series, _ in points
    )


@given(points=_points(), labels=st.dictionaries(_label_names, _texts, max_size=3))
@settings(deadline=None)
def test_any_names_and_values_come_back_through_a_strict_parser(
    points: list[Point], labels: dict[str, str]
) -> None:
    labels = {"host": "n1", **labels}
    assume(_no_name_is_taken_twice(points))
    assume(not {f"{name}_" for name in RESERVED} & set(labels))
    lines = parse(Encoder(labels).encode_all([batch_of(points)]).encode())
    assert _as_found(lines) == _expected(points, labels)
    assert {line.time_ns for line in lines} == {WALL_NS}


@given(text=_texts)
def test_a_tag_value_is_shown_once_and_for_all(text: str) -> None:
    shown = tag_value(text)
    assert tag_value(shown) == shown
    assert len(f"x{shown}y".splitlines()) == 1
    assert not shown.endswith("\\")


# Against the real thing


@pytest.fixture(scope="module")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.influxdb(tmp_path_factory.mktemp("influxdb")) as server:
        yield server


def _stored(server: servers.Server, database: str) -> _Found:
    query = "SELECT * FROM /.*/ GROUP BY *"
    answer = server.get("/query", db=database, q=query, epoch="ns")
    assert answer.status == 200, answer.body
    # Numbers as text: JSON does not tell -0 from 0.
    (result,) = json.loads(answer.body, parse_int=float)["results"]
    found: _Found = {}
    for series in result.get("series", []):
        tags = tuple(sorted((k, v) for k, v in series.get("tags", {}).items() if v))
        fields = found.setdefault((series["name"], tags), {})
        for row in series["values"]:
            for name, value in list(zip(series["columns"], row, strict=True))[1:]:
                if value is not None:
                    fields[name] = _bits(value)
    return found


@pytest.mark.server
@given(points=_points())
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_names_and_values_come_back_from_influxdb(
    influxdb: servers.Server, points: list[Point]
) -> None:
    labels = {"host": "n1", "rack": "r 1"}
    expected = _expected(points, labels)
    tags = {name for _, pairs in expected for name, _ in pairs}
    fields = {name for names in expected.values() for name in names}
    assume(_no_name_is_taken_twice(points))
    # InfluxDB stores a tag and a field of the same name, but cannot be asked for them apart.
    assume(not tags & fields)
    for statement in ("DROP DATABASE example", "CREATE DATABASE example"):
        assert influxdb.post("/query", q=statement).status == 200
    text = Encoder(labels).encode_all([batch_of(points)])
    answer = influxdb.post("/write", text.encode(), db="example", precision="ns")
    assert (answer.status, answer.body) == (204, b"")
    assert _stored(influxdb, "example") == expected

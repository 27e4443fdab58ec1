"""How many points InfluxDB took of what it refused: by the answers of its versions, and compared
with what a real InfluxDB 1.6 has then."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import servers
from support.clock import FakeClock
from support.receiver import Receiver, Reply, Request, serving

from telemetryd.delivery.destination import Outcome
from telemetryd.delivery.queue import Body
from telemetryd.exporters.influxdb import InfluxDBConfig
from telemetryd.exporters.influxdb_partial import taken
from telemetryd.exporters.influxdb_transport import Transport


def body_of(*lines: tuple[int, int]) -> Body:
    """Lines of so many points, each with its time."""
    text = "".join(
        f"m,row={row} " + ",".join(f"f{field}=1.0" for field in range(points)) + f" {time_ns}\n"
        for row, (points, time_ns) in enumerate(lines)
    )
    return Body(text.encode(), sum(points for points, _ in lines))


def error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


# Points and time of each line: the oldest ones are in the middle.
MIXED = body_of((1, 50), (2, 10), (4, 20), (8, 60))


@pytest.mark.parametrize(
    ("answer", "stored"),
    [
        (error("partial write: points beyond retention policy dropped=2"), 9),
        (error("partial write: points beyond retention policy dropped=0"), 15),
        (error("partial write: points beyond retention policy dropped=9"), 0),
        (
            error(
                "failure writing points to database: partial write: dropped 3 points outside "
                "retention policy of duration 1h0m0s"
            ),
            8,
        ),
    ],
)
def test_of_points_beyond_the_retention_the_oldest_lines_are_not_stored(
    answer: bytes, stored: int
) -> None:
    assert taken(MIXED, answer) == stored


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ('partial write: field type conflict: input field "f0" is type float dropped=1', 7),
        ("partial write: max series per database exceeded: (1) dropped=2", 3),
        ("partial write: unable to parse 'm,a= v=1 1': missing tag value dropped=0", 7),
        ("partial write: dropped 1 points outside retention policy, an Upper Bound", 7),
        ("partial write: unable to parse 'x': y\nunable to parse 'x': y dropped=1", 1),
    ],
)
def test_where_it_is_not_told_which_lines_those_with_the_most_points_are_assumed(
    text: str, stored: int
) -> None:
    assert taken(MIXED, error(text)) == stored


def test_influxdb_3_lists_the_lines_that_are_not_stored() -> None:
    told = {
        "error": "partial write of line protocol occurred",
        "data": [
            {"original_line": "m", "line_number": 1, "error_message": "x"},
            {"original_line": "m", "line_number": 3, "error_message": "x"},
        ],
    }
    assert taken(MIXED, json.dumps(told).encode()) == 10


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"bad request",
        error("unable to parse 'x': missing fields"),
        error("partial write: something new"),
        error("partial write: " + "unable to parse 'x': y\n" * 1000)[:4096],
        b'{"error":"partial write of line protocol occurred","data":null}',
        b'{"error":"partial write of line protocol occurred","data":[1,{"line_number":"x"}]}',
        b"[" * 5000,
        json.dumps(
            {"error": "partial write of line protocol", "data": [{"line_number": 1}] * 100}
        ).encode(),
    ],
)
def test_what_is_not_told_is_not_known(answer: bytes) -> None:
    assert taken(MIXED, answer) is None


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=20),
    st.integers(0, 9),
)
def test_what_lies_before_a_moment_is_exactly_what_is_not_counted(
    lines: list[tuple[int, int]], begin: int
) -> None:
    dropped = sum(when < begin for _, when in lines)
    answer = error(f"partial write: points beyond retention policy dropped={dropped}")
    assert taken(body_of(*lines), answer) == sum(n for n, when in lines if when >= begin)


# A real InfluxDB, behind a receiver that has the newer address


@pytest.fixture(scope="module")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    with servers.influxdb(tmp_path_factory.mktemp("influxdb")) as server:
        yield server


@contextmanager
def transport(server: servers.Server, database: str) -> Iterator[Transport]:
    """To a database of its own, which keeps points for an hour."""
    query = f'CREATE DATABASE "{database}" WITH DURATION 1h'
    assert server.post("/query", q=query).status == 200

    def pass_on(request: Request) -> Reply:
        answer = server.post("/write", request.body, db=database)
        return Reply(answer.status, body=answer.body)

    with (
        serving(Receiver(pass_on)) as receiver,
        closing(
            Transport("influxdb", InfluxDBConfig(url=receiver.url, bucket="b"), FakeClock())
        ) as there,
    ):
        yield there


def stored(server: servers.Server, database: str) -> int:
    answer = server.get("/query", db=database, q="SELECT count(*) FROM m").json
    found = answer["results"][0].get("series", [{"values": [[0]]}])
    return sum(found[0]["values"][0][1:])


@pytest.mark.server
def test_it_stores_the_newer_lines_and_so_many_points_are_counted(
    influxdb: servers.Server,
) -> None:
    now_ns, hour_ns = time.time_ns(), 3600 * 10**9
    old = now_ns - 3 * hour_ns
    body = body_of((3, now_ns), (1, old), (2, now_ns - 10**9), (4, old + 1), (5, now_ns + 1))
    with transport(influxdb, "old") as there:
        verdict = there.send(body)
    assert verdict.outcome is Outcome.TOO_OLD
    assert verdict.taken == stored(influxdb, "old") == 10


@pytest.mark.server
@pytest.mark.parametrize(
    ("database", "first", "bad"),
    [
        ("types", b"m f1=1i", b"m,row=9 f1=1.0"),
        ("text", b"", b"m,row=9,empty= f1=1.0"),
    ],
)
def test_it_stores_the_lines_around_a_bad_one_and_no_point_is_counted_that_it_has_not(
    influxdb: servers.Server, database: str, first: bytes, bad: bytes
) -> None:
    now_ns = time.time_ns()
    good = "".join(f"m,row={row} f0=1.0 {now_ns}\n" for row in range(5)).encode()
    with transport(influxdb, database) as there:
        if first:
            assert there.send(Body(first + b" %d\n" % now_ns, 1)).outcome is Outcome.OK
        before = stored(influxdb, database)
        verdict = there.send(Body(good + bad + b" %d\n" % now_ns, 6))
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.taken == stored(influxdb, database) - before == 5


@pytest.mark.server
def test_a_whole_body_that_it_takes_tells_of_no_part(
    influxdb: servers.Server, tmp_path: Path
) -> None:
    with transport(influxdb, "whole") as there:
        verdict = there.send(body_of((2, time.time_ns())))
    assert (verdict.outcome, verdict.taken) == (Outcome.OK, None)
    assert stored(influxdb, "whole") == 2

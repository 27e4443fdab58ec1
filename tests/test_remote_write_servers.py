"""Remote write to a real Prometheus and a real VictoriaMetrics: what they took is read back and
compared sample by sample."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from support import servers
from support.clock import FakeClock
from support.remote_write_feed import OTHER, TARGET, VALUE, Feed, foreign
from support.remote_write_reader import samples
from support.servers import Server, eventually

from telemetryd.batch import Batch
from telemetryd.delivery.destination import Outcome
from telemetryd.delivery.queue import Body
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.exporters.remote_write import RemoteWrite, RemoteWriteConfig
from telemetryd.exporters.remote_write_transport import Transport
from telemetryd.instruments import Instruments
from telemetryd.metric import Point

pytestmark = pytest.mark.server

_S = 1_000_000_000
_ODD = 'a "b", c=d \\ ü\n漢'
_AGE = foreign("backup_age", "job", "what")

# Labels and samples (time in ms, bits of the value) of a series.
_Stored = dict[frozenset[tuple[str, str]], list[tuple[int, int]]]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.prometheus(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="module")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.victoria_metrics(tmp_path_factory.mktemp("victoria-metrics")) as server:
        yield server


def push(server: Server, readings: list[tuple[int, list[Point]]], instance: str) -> None:
    """Push what a collector read at these wall times, in two flushes, through a whole exporter."""
    config = RemoteWriteConfig(
        url=f"{server.url}/api/v1/write", resolution=0, instance=instance, flush_interval=3600
    )
    instruments = Instruments()
    for part in (readings[: len(readings) // 2], readings[len(readings) // 2 :]):
        exporter = RemoteWrite("rw", config, {"rack": "r 7"}, instruments, SpoolConfig())
        exporter.check()
        exporter.start()
        for wall_ns, points in part:
            each, values = tuple(one for one, _ in points), tuple(value for _, value in points)
            exporter.offer(Batch("c", wall_ns, time.monotonic_ns(), 1.0, each, values))
        exporter.stop(30)


def readings_of(now_ns: int) -> list[tuple[int, list[Point]]]:
    """Twenty readings of three series, the last one just now."""
    return [
        (
            now_ns - (20 - number) * _S,
            [
                (VALUE.at("0"), 0.1 * number),
                (VALUE.at(_ODD), -2.5e-9 * number),
                (_AGE.at("nightly", "db"), 123456789.125 + number),
            ],
        )
        for number in range(1, 21)
    ]


def expected(readings: list[tuple[int, list[Point]]], instance: str) -> _Stored:
    found: _Stored = {}
    for wall_ns, points in readings:
        for one, value in points:
            own = dict(zip(one.metric.labels, one.labels, strict=True))
            labels = {"__name__": one.metric.name, **TARGET, "instance": instance, "rack": "r 7"}
            labels |= {f"exported_{k}" if k in TARGET else k: v for k, v in own.items()}
            found.setdefault(frozenset(labels.items()), []).append(
                (wall_ns // 1_000_000, _bits(value))
            )
    return found


def _bits(value: float) -> int:
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def _number(bits: int) -> float:
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def stored_by_prometheus(server: Server, instance: str) -> _Stored:
    query = f'{{instance="{instance}"}}[10m]'
    answer = server.get("/api/v1/query", query=query).json
    return {
        frozenset(one["metric"].items()): [
            (round(when * 1000), _bits(float(value))) for when, value in one["values"]
        ]
        for one in answer["data"]["result"]
    }


def stored_by_victoria_metrics(server: Server, instance: str) -> _Stored:
    # Makes what was just stored visible.
    assert server.get("/internal/force_flush").status == 200
    answer = server.get("/api/v1/export", **{"match[]": f'{{instance="{instance}"}}'})
    rows = [json.loads(line) for line in answer.body.splitlines()]
    return {
        frozenset(row["metric"].items()): [
            (when, _bits(value))
            for when, value in zip(row["timestamps"], row["values"], strict=True)
        ]
        for row in rows
    }


def test_prometheus_has_every_sample(prometheus: Server) -> None:
    readings = readings_of(time.time_ns())
    push(prometheus, readings, "every")
    assert stored_by_prometheus(prometheus, "every") == expected(readings, "every")


def test_victoria_metrics_has_every_sample(victoria_metrics: Server) -> None:
    readings = readings_of(time.time_ns())
    push(victoria_metrics, readings, "every")
    wanted = expected(readings, "every")

    def all_of_it() -> _Stored:
        """What is there, once it is all visible."""
        found = stored_by_victoria_metrics(victoria_metrics, "every")
        return found if sum(map(len, found.values())) == sum(map(len, wanted.values())) else {}

    found = eventually(all_of_it)
    assert found.keys() == wanted.keys()
    for labels, stored in found.items():
        assert [when for when, _ in stored] == [when for when, _ in wanted[labels]]
        # It keeps decimal digits, not bits.
        for (_, value), (_, sent) in zip(stored, wanted[labels], strict=True):
            assert math.isclose(_number(value), _number(sent), rel_tol=1e-14)


@pytest.mark.parametrize("kind", ["prometheus", "victoria_metrics"])
def test_a_series_that_ended_is_gone_from_the_next_instant_on(
    kind: str, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(kind)
    now_ns = time.time_ns()
    both: list[Point] = [(VALUE.at("stays"), 1.0), (VALUE.at("ends"), 2.0)]
    readings = [(now_ns - 9 * _S, both), (now_ns - 6 * _S, both), (now_ns - 3 * _S, both[:1])]
    push(server, [(0, []), (0, []), (0, []), *readings], "ends")
    if kind == "victoria_metrics":
        assert server.get("/internal/force_flush").status == 200

    def rows(at_ns: int) -> set[str]:
        answer = server.get(
            "/api/v1/query",
            query='telemetryd_test_value{instance="ends"}',
            time=f"{at_ns / 1e9:.3f}",
        )
        return {one["metric"]["row"] for one in answer.json["data"]["result"]}

    eventually(lambda: rows(now_ns - 4 * _S) == {"stays", "ends"})
    assert rows(now_ns) == {"stays"}


# What Prometheus answers, and what follows from it


def send(server: Server, *bodies: Body) -> list[Any]:
    config = RemoteWriteConfig(url=f"{server.url}/api/v1/write")
    with closing(Transport("rw", config, FakeClock())) as there:
        return [there.send(body) for body in bodies]


def body_at(wall_ns: int, name: str, value: float = 1.0) -> Body:
    feed = Feed()
    feed.clock.step_wall((wall_ns - feed.clock.wall_ns()) / 1e9)
    feed.read([(OTHER.at(name), value)])
    (body,) = feed.flush()
    return body


def test_prometheus_says_when_something_comes_too_late(prometheus: Server) -> None:
    now_ns = time.time_ns()
    verdicts = send(
        prometheus,
        body_at(now_ns, "late"),
        body_at(now_ns, "late"),
        body_at(now_ns - 60 * _S, "late"),
        body_at(now_ns, "late", 2.0),
        body_at(now_ns - 7200 * _S, "too late"),
    )
    assert [one.outcome for one in verdicts] == [
        Outcome.OK,
        Outcome.OK,  # the same again does no harm
        Outcome.TOO_OLD,
        Outcome.TOO_OLD,
        Outcome.TOO_OLD,
    ]
    assert all(abs(one.server_ns - time.time_ns()) < 60 * _S for one in verdicts)


def test_prometheus_takes_what_comes_late_if_it_is_told_to_and_refuses_older(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    now_ns = time.time_ns()
    with servers.prometheus(
        tmp_path_factory.mktemp("out-of-order"),
        "storage: { tsdb: { out_of_order_time_window: 30m } }",
    ) as server:
        verdicts = send(
            server,
            body_at(now_ns, "a"),
            body_at(now_ns - 600 * _S, "a"),
            body_at(now_ns - 3600 * _S, "a"),
        )
    assert [one.outcome for one in verdicts] == [Outcome.OK, Outcome.OK, Outcome.TOO_OLD]
    # It would say so for ever, as if the fault were its own.
    assert (verdicts[2].status, verdicts[2].detail) == (500, "500 too old sample")


def test_both_take_a_write_of_nothing_and_tell_the_time(
    prometheus: Server, victoria_metrics: Server
) -> None:
    for server in (prometheus, victoria_metrics):
        config = RemoteWriteConfig(url=f"{server.url}/api/v1/write")
        with closing(Transport("rw", config, FakeClock())) as there:
            there.check()
            probe = there.probe()
        assert probe.outcome is Outcome.OK
        assert probe.server_ns is not None


def test_infinity_arrives(prometheus: Server) -> None:
    feed = Feed({**TARGET, "instance": "infinite"})
    feed.clock.step_wall((time.time_ns() - feed.clock.wall_ns()) / 1e9)
    feed.read([(VALUE.at("up"), math.inf), (VALUE.at("down"), -math.inf)])
    (body,) = feed.flush()
    assert [one.outcome for one in send(prometheus, body)] == [Outcome.OK]
    found = stored_by_prometheus(prometheus, "infinite")
    assert sorted(bits for each in found.values() for _, bits in each) == sorted(
        one.bits for one in samples(body.data)
    )

"""The remote write exporter: its configuration, and what a receiver gets while it runs."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import ValidationError
from support.clock import FakeClock
from support.receiver import OK, Receiver, Reply, serving
from support.remote_write_feed import OTHER, VALUE
from support.remote_write_reader import Sent, samples, series
from support.servers import eventually

from telemetryd import plugins
from telemetryd.batch import Batch
from telemetryd.config import Sources, check
from telemetryd.delivery.body_text import first_line
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.errors import ConfigError
from telemetryd.exporters.remote_write import RemoteWrite, RemoteWriteConfig
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog
from telemetryd.metric import Point

NAME = "far"


class Bench:
    """An exporter that pushes to `receiver` by a clock that only the test moves. After a failure
    it waits not at all."""

    def __init__(self, receiver: Receiver, **config: Any) -> None:
        self.clock = FakeClock()
        self.instruments = Instruments(QuietLog(logging.getLogger("test")))
        self.exporter = RemoteWrite(
            NAME,
            RemoteWriteConfig(
                url=f"{receiver.url}/api/v1/write", **{"resolution": 0, "instance": "n1", **config}
            ),
            {"cluster": "c1"},
            self.instruments,
            SpoolConfig(),
            clock=self.clock,
            random=lambda: 0.0,
        )

    def read(self, *points: Point, seconds: float = 1.0, collector: str = "c") -> None:
        """Time passes, and a collector reads."""
        self.clock.tick(seconds)
        each, values = tuple(one for one, _ in points), tuple(value for _, value in points)
        self.exporter.offer(
            Batch(collector, self.clock.wall_ns(), self.clock.mono_ns(), 1.0, each, values)
        )

    def rows(self, count: int) -> None:
        self.read(*((VALUE.at(str(row)), float(row)) for row in range(count)))

    def count(self, name: str, label: str = NAME) -> float:
        """A counter of this destination's; `label` is the value of its last label."""
        return next(
            value
            for one, value in self.instruments.points()
            if one.metric.name == f"telemetryd_exporter_{name}" and one.labels[-1] == label
        )

    def delivered(self, points: int) -> bool:
        return self.count("points_total") == points


@contextmanager
def pushing(bench: Bench) -> Iterator[Bench]:
    bench.exporter.start()
    try:
        yield bench
    finally:
        bench.exporter.stop(10)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with serving(Receiver(welcomes_probes=True)) as found:
        yield found


def arrived(receiver: Receiver) -> list[Sent]:
    return [sample for body in receiver.bodies for sample in samples(body)]


def test_samples_arrive_with_their_labels_and_the_moment_of_their_reading(
    receiver: Receiver,
) -> None:
    bench = Bench(receiver, job="nodes")
    with pushing(bench):
        bench.read((VALUE.at("a"), 2.5))
        ms = bench.clock.wall_ns() // 1_000_000
        bench.clock.tick(10)
        eventually(lambda: bench.delivered(1))
    (sent,) = arrived(receiver)
    assert dict(sent.labels) == {
        "__name__": "telemetryd_test_value",
        "cluster": "c1",
        "instance": "n1",
        "job": "nodes",
        "row": "a",
    }
    assert (sent.value, sent.ms) == (2.5, ms)


def test_the_target_is_this_machine_unless_told_otherwise(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "me")
    bench = Bench(receiver, instance=None)
    with pushing(bench):
        bench.read((VALUE.at("a"), 1.0))
    (sent,) = arrived(receiver)
    assert dict(sent.labels)["job"] == "telemetryd"
    assert dict(sent.labels)["instance"] == "me"


def test_only_metrics_that_are_included_and_not_excluded_are_sent(receiver: Receiver) -> None:
    bench = Bench(receiver, include=("telemetryd_test_*",), exclude=("*_other",))
    with pushing(bench):
        bench.read((VALUE.at("a"), 1.0), (OTHER.at("a"), 2.0))
    assert [one.name for one in arrived(receiver)] == ["telemetryd_test_value"]


def test_no_request_has_more_series_than_it_may_and_the_limit_is_2000(receiver: Receiver) -> None:
    bench = Bench(receiver)
    with pushing(bench):
        bench.rows(4500)
        bench.clock.tick(10)
        eventually(lambda: bench.delivered(4500))
    assert [len(series(body)) for body in receiver.bodies] == [2000, 2000, 500]


def test_after_an_outage_everything_arrives_in_order(receiver: Receiver) -> None:
    receiver.script(*[Reply(503)] * 3, Reply(reset=True), OK)
    bench = Bench(receiver, batch_size=10)
    with pushing(bench):
        for _ in range(5):
            bench.rows(10)
            bench.clock.tick(10)
        eventually(lambda: bench.delivered(50))
    found = [sample for body in receiver.bodies[4:] for sample in samples(body)]
    times = [one.ms for one in found if dict(one.labels)["row"] == "3"]
    assert times == sorted(times)
    assert len({(one.labels, one.ms) for one in found}) == 50


def test_a_series_that_is_refused_is_found_and_the_others_arrive(receiver: Receiver) -> None:
    def judge(request):
        bad = any(dict(one.labels)["row"] == "7" for one in samples(request.body))
        return Reply(400, body=b"label value not liked") if bad else OK

    receiver.script(judge)
    bench = Bench(receiver)
    with pushing(bench):
        bench.rows(100)
        bench.clock.tick(10)
        eventually(lambda: bench.delivered(99))
    assert bench.count("dropped_points_total", "refused") == 1
    assert len(receiver.requests) <= 1 * (2 * 7 + 2)


def test_what_is_refused_is_logged_as_the_series_that_it_is(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.script(Reply(400, body=b"not liked"))
    bench = Bench(receiver)
    with pushing(bench):
        bench.rows(1)
        bench.clock.tick(10)
        eventually(lambda: bench.count("dropped_points_total", "refused") == 1)
    (line,) = [line for line in caplog.messages if "points dropped" in line]
    assert 'first=\'telemetryd_test_value{cluster="c1",' in line
    assert 'row="0"} 0.0 2023-11-14T22:13:21.000Z' in line


def test_of_a_body_that_is_no_remote_write_the_log_has_its_begin() -> None:
    assert first_line("remote_write", b"\x0a\xff" + b"x" * 10_000, 10) == "\n\\xffxxxxx"


def test_what_comes_too_late_is_dropped_at_once_and_with_that_reason(receiver: Receiver) -> None:
    receiver.script(Reply(400, body=b"out of order sample"), OK)
    bench = Bench(receiver)
    with pushing(bench):
        bench.rows(100)
        bench.clock.tick(10)
        eventually(lambda: bench.count("dropped_points_total", "too_old") == 100)
    assert len(receiver.requests) == 1


def test_a_body_that_is_too_large_is_halved(receiver: Receiver) -> None:
    receiver.script(
        lambda request: Reply(413) if len(series(request.body)) > 30 else OK,
    )
    bench = Bench(receiver)
    with pushing(bench):
        bench.rows(100)
        bench.clock.tick(10)
        eventually(lambda: bench.delivered(100))
    got = [dict(one.labels)["row"] for body in receiver.bodies for one in samples(body)
           if len(series(body)) <= 30]  # fmt: skip
    assert got == [str(row) for row in range(100)]


def test_a_series_that_ends_gets_its_marker_and_it_is_no_point(receiver: Receiver) -> None:
    bench = Bench(receiver)
    with pushing(bench):
        bench.rows(2)
        bench.rows(1)
        bench.clock.tick(10)
        eventually(lambda: bench.delivered(3))
    stale = [one for one in arrived(receiver) if one.is_stale]
    assert [dict(one.labels)["row"] for one in stale] == ["1"]


def test_a_collector_of_which_not_every_batch_is_sent_is_not_silent(receiver: Receiver) -> None:
    bench = Bench(receiver, resolution=60)
    with pushing(bench):
        bench.read((VALUE.at("a"), 1.0))
        bench.read((OTHER.at("a"), 2.0), seconds=15, collector="d")
        bench.clock.tick(60)
        eventually(lambda: bench.delivered(2))
    assert not any(one.is_stale for one in arrived(receiver))


def test_stopping_sends_what_is_left_and_ends_no_series(receiver: Receiver) -> None:
    bench = Bench(receiver)
    bench.exporter.start()
    bench.rows(3)
    bench.clock.tick(5)
    bench.exporter.stop(10)
    assert [one.is_stale for one in arrived(receiver)] == [False] * 3
    bench.exporter.stop(10)


# Configuration


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:9090", 'write http:// or https://, host and port, such as "http://prom'),
        ("ftp://host/write", "write http:// or https://"),
        ("http:///api/v1/write", "write http:// or https://"),
        ("http://host name/write", "write http:// or https://"),
        ("http://me:secret@host/write", "username and password_file"),
        ("http://host:9090", "the whole address with its path"),
        ("http://host/", "the whole address with its path"),
        ("http://host/write#x", "nothing behind a #"),
        ("http://host:0/write", "port 0"),
        ("http://host:99999/write", "Port out of range"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as raised:
        RemoteWriteConfig(url=url)
    assert raised.value.error_count() == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"username": "u"}, "need each other"),
        ({"password_file": "/p"}, "need each other"),
        ({"username": "u:v", "password_file": "/p"}, "cannot have a colon"),
        ({"username": "u", "password_file": "/p", "token_file": "/t"}, "choose one"),
        ({"token_file": "/t", "header_files": {"authorization": "/h"}}, "choose one"),
        ({"headers": {"X A": "v"}}, "'X A' is not the name of a header"),
        ({"headers": {"X-A:": "v"}}, "is not the name of a header"),
        ({"headers": {"Content-type": "v"}}, "Content-type is set by telemetryd itself"),
        ({"header_files": {"Host": "/f"}}, "Host is set by telemetryd itself"),
        ({"headers": {"Authorization": "v"}}, "is a secret"),
        ({"headers": {"X-A": "a\r\nb: c"}}, "plain ASCII"),
        ({"headers": {"X-A": "ü"}}, "plain ASCII"),
        ({"headers": {"X-A": ""}}, "not empty"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "stands here twice"),
        ({"headers": {"X-A": "1"}, "header_files": {"x-a": "/f"}}, "leave one out"),
        ({"key_file": "/k"}, "key_file needs cert_file"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"job": ""}, "at least 1 character"),
        ({"bucket": "b"}, "Extra inputs"),
    ],
)
def test_what_cannot_be_meant_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words) as raised:
        RemoteWriteConfig(url="http://h/write", **config)
    assert raised.value.error_count() == 1


def test_two_destinations_of_this_kind_can_have_names_of_their_own() -> None:
    sources = Sources()
    tables = {name: {"type": "remote_write", "url": f"http://{name}/w"} for name in ("a", "b")}
    sources.merge("file", {"exporters": tables})
    exporters = check(sources).exporters
    assert [exporters[name].url for name in tables] == ["http://a/w", "http://b/w"]
    assert plugins.push_exporter_class(exporters["a"].kind("a")) is RemoteWrite


def test_a_bad_header_is_told_with_its_key() -> None:
    sources = Sources()
    table = {"url": "http://h/w", "headers": {"Host": "x"}}
    sources.merge("f.toml", {"exporters": {"remote_write": table}})
    with pytest.raises(ConfigError, match=r"exporters\.remote_write\.headers.*leave it out"):
        check(sources)


def test_its_libraries_are_imported_only_when_an_exporter_is_made() -> None:
    code = (
        "import sys, telemetryd.exporters.remote_write\n"
        "print([m for m in ('urllib3', 'cramjam') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"

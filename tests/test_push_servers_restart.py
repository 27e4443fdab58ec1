"""The daemon pushes to a real Prometheus and a real VictoriaMetrics, which are killed and restarted
meanwhile: in the end each of them has every sample that one has which was never away."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support import servers
from support.daemon import Daemon, eventually, running
from support.pushing import COLLECTORS, Taker, destination, spool
from support.receiver import Receiver, serving
from support.remote_write_reader import samples
from support.servers import Server

pytestmark = pytest.mark.server

# Labels and samples (time in ms, value) of a series.
Stored = dict[frozenset[tuple[str, str]], set[tuple[int, float]]]
# What the two protocols say of the same machine in labels of their own.
_OWN = {"job", "instance", "host", "db"}
_DAY = "24h"


def _labels(labels: dict[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in labels.items() if name not in _OWN)


def sent(bodies: list[bytes]) -> Stored:
    found: Stored = {}
    for body in bodies:
        for one in samples(body):
            assert not one.is_stale
            found.setdefault(_labels(dict(one.labels)), set()).add((one.ms, one.value))
    return found


def of_prometheus(server: Server) -> Stored:
    answer = server.get("/api/v1/query", query=f'{{job="telemetryd"}}[{_DAY}]').json
    return {
        _labels(one["metric"]): {(round(at * 1000), float(value)) for at, value in one["values"]}
        for one in answer["data"]["result"]
    }


def of_victoria_metrics(server: Server, which: str) -> Stored:
    assert server.get("/internal/force_flush").status == 200
    answer = server.get("/api/v1/export", **{"match[]": which})
    rows = [json.loads(line) for line in answer.body.splitlines()]
    return {
        _labels(row["metric"]): set(zip(row["timestamps"], row["values"], strict=True))
        for row in rows
    }


def _same(found: Stored, wanted: Stored, digits: int | None = None) -> None:
    """The same series with the same samples; the values to so many digits."""
    assert found.keys() == wanted.keys()
    for labels, each in wanted.items():
        assert dict(found[labels]).keys() == dict(each).keys(), labels
        for at, value in each:
            got = dict(found[labels])[at]
            close = got == value if digits is None else got == pytest.approx(value, rel=10**-digits)
            assert close, (labels, at, struct.pack("<d", value), struct.pack("<d", got))


def _whole(server: Server, which: str, wanted: Stored) -> Stored | None:
    """What VictoriaMetrics has, as soon as there is as much as is wanted."""
    found = of_victoria_metrics(server, which)
    missing = sum(map(len, wanted.values())) - sum(map(len, found.values()))
    return found if missing <= 0 else None


@contextmanager
def _taker() -> Iterator[tuple[Taker, str]]:
    taker = Taker()
    with serving(Receiver(taker)) as receiver:
        yield taker, receiver.url


@dataclass
class Receivers:
    """A real Prometheus and a real VictoriaMetrics, which come back with all that they had, and one
    receiver that is never away."""

    folder: Path
    always: str
    ports: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[tuple[Server, Server]]:
        folders = [self.folder / name for name in ("prometheus", "victoria")]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        with (
            servers.prometheus(folders[0], port=self.ports.get("prometheus")) as first,
            servers.victoria_metrics(folders[1], port=self.ports.get("victoria")) as second,
        ):
            self.ports = {"prometheus": first.port, "victoria": second.port}
            yield first, second

    @property
    def config(self) -> str:
        prometheus, victoria = (f"http://127.0.0.1:{port}" for port in self.ports.values())
        return "".join(
            [
                COLLECTORS,
                spool(self.folder / "spool"),
                destination("remote_write", "always", f"{self.always}/w"),
                destination("remote_write", "first", f"{prometheus}/api/v1/write"),
                destination("remote_write", "second", f"{victoria}/api/v1/write"),
                destination("influxdb", "lines", victoria),
            ]
        )


def test_restarts_of_the_receivers_cost_no_sample(tmp_path: Path) -> None:
    with _taker() as (taker, url):
        receivers = Receivers(tmp_path, url)
        with receivers.running():
            pass  # their ports are known now
        with running(tmp_path, receivers.config) as daemon:
            taker.wait_for_more(3)  # nobody else is there yet
            for _ in range(2):
                with receivers.running() as (prometheus, _):
                    _wait_for_more_of_everybody(daemon)
                    prometheus.process.kill()
            with receivers.running() as (prometheus, victoria):
                _wait_for_more_of_everybody(daemon)
                assert daemon.stop() == 0
                assert _dropped_till_nothing_waits(tmp_path, receivers.config) == {}
                wanted = sent(taker.taken)
                assert sum(map(len, wanted.values())) > 500
                _same(of_prometheus(prometheus), wanted)
                for which in ('{job="telemetryd"}', '{host!="",job=""}'):
                    # What it has just stored may take a moment to be seen, and it keeps some 15
                    # decimal digits.
                    found = servers.eventually(lambda which=which: _whole(victoria, which, wanted))
                    _same(found, wanted, digits=12)


def _wait_for_more_of_everybody(daemon: Daemon) -> None:
    before = _successes(daemon.values())
    eventually(
        lambda: _are_more(_successes(daemon.values()), before),
        "everybody has got something in this life",
    )


def _of(values: dict[str, float], name: str) -> dict[str, float]:
    return {series: value for series, value in values.items() if series.startswith(name)}


def _successes(values: dict[str, float]) -> dict[str, float]:
    return _of(values, "telemetryd_exporter_points_total")


def _are_more(now: dict[str, float], before: dict[str, float]) -> bool:
    return all(value > before[series] for series, value in now.items())


def _dropped_till_nothing_waits(folder: Path, config: str) -> dict[str, float]:
    """Start once more, until everything is sent; what was given up."""
    with running(folder, config) as daemon:

        def is_empty() -> bool:
            waiting = _of(daemon.values(), "telemetryd_spool_records")
            return not any(n for name, n in waiting.items() if "always" not in name)

        eventually(is_empty, "everything is sent")
        dropped = _of(daemon.values(), "telemetryd_exporter_dropped_points_total")
        assert daemon.stop() == 0
    return {name: points for name, points in dropped.items() if points}

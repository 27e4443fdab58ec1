"""The daemon pushes to a real Prometheus and a real VictoriaMetrics, which are killed and restarted
meanwhile: in the end each of them has every sample that one has which was never away."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import servers
from support.daemon import eventually, running
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


def _if_whole(found: Stored, count: int) -> Stored | None:
    return found if sum(map(len, found.values())) >= count else None


@contextmanager
def _taker() -> Iterator[tuple[Taker, str]]:
    taker = Taker()
    with serving(Receiver(taker)) as receiver:
        yield taker, receiver.url


def test_restarts_of_the_receivers_cost_no_sample(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("prometheus", "victoria")}
    for folder in folders.values():
        folder.mkdir()
    with _taker() as (taker, url):
        with servers.prometheus(folders["prometheus"]) as one:
            ports = {"prometheus": one.port}
        with servers.victoria_metrics(folders["victoria"]) as one:
            ports["victoria"] = one.port
        prometheus, victoria = (f"http://127.0.0.1:{port}" for port in ports.values())
        config = "".join(
            [
                COLLECTORS,
                spool(tmp_path / "spool"),
                destination("remote_write", "always", f"{url}/w"),
                destination("remote_write", "first", f"{prometheus}/api/v1/write"),
                destination("remote_write", "second", f"{victoria}/api/v1/write"),
                destination("influxdb", "lines", victoria),
            ]
        )
        with running(tmp_path, config) as daemon:
            taker.wait_for_more(3)  # nobody else is there yet
            for life in range(3):
                with (
                    servers.prometheus(folders["prometheus"], port=ports["prometheus"]) as first,
                    servers.victoria_metrics(folders["victoria"], ports["victoria"]) as second,
                ):
                    successes = _successes(daemon.values())
                    eventually(
                        lambda: _are_more(_successes(daemon.values()), successes),  # noqa: B023
                        "everybody has got something in this life",
                    )
                    if life < 2:
                        first.process.kill()
                        continue
                    assert daemon.stop() == 0
                    assert _dropped_till_nothing_waits(tmp_path, config) == {}
                    wanted = sent(taker.taken)
                    assert sum(map(len, wanted.values())) > 500
                    _same(of_prometheus(first), wanted)
                    # VictoriaMetrics keeps some 15 decimal digits.
                    # What it has just stored may take a moment to be seen.
                    for which in ('{job="telemetryd"}', '{host!="",job=""}'):
                        count = sum(map(len, wanted.values()))
                        found = servers.eventually(
                            lambda: _if_whole(of_victoria_metrics(second, which), count)  # noqa: B023
                        )
                        _same(found, wanted, digits=12)


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

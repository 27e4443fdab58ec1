"""`once` and `doctor` beside collectors and exporters that do anything at all."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.lanes import CALLS, PATIENCE_S

from telemetryd import doctor, once, plugins, sampling
from telemetryd.batch import Batch
from telemetryd.collector import Collector, CollectorConfig
from telemetryd.config import load
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.errors import Unavailable
from telemetryd.exporter import ExporterConfig, PushExporter
from telemetryd.host import Host
from telemetryd.metric import Point

DEFAULTS = load([], {})
HANGING = threading.Event()


@pytest.fixture
def kinds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type[Collector]]]:
    """Collectors by name, beside Fine; what hangs does so until the end of the test."""
    HANGING.clear()
    kinds: dict[str, type[Collector]] = {"fine": Fine}
    monkeypatch.setattr(plugins, "collector_class", lambda name: kinds[name])
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.3)
    yield kinds
    HANGING.set()


class Fine(Collector):
    metrics = (CALLS,)

    def sample(self) -> Iterator[Point]:
        yield CALLS.at("fine"), 1


class HangsSampling(Fine):
    def sample(self) -> Iterator[Point]:
        HANGING.wait(PATIENCE_S)
        yield from ()


class HangsClosing(Fine):
    def close(self) -> None:
        HANGING.wait(PATIENCE_S)


class HangsOpening(Fine):
    def __init__(self, settings: CollectorConfig, host: Host) -> None:
        super().__init__(settings, host)
        HANGING.wait(PATIENCE_S)


class RaisesClosing(Fine):
    def close(self) -> None:
        raise RuntimeError("stays open")


class Exits(Fine):
    def sample(self) -> Iterator[Point]:
        yield CALLS.at("exits"), 1
        sys.exit(3)


class ForgetsSuper(Fine):
    def __init__(self, settings: CollectorConfig, host: Host) -> None:
        pass


class IsGone(Fine):
    def sample(self) -> Iterator[Point]:
        raise Unavailable("unplugged", "plug it in")


def _examined(kind: str) -> doctor.Finding:
    everything = dataclasses.replace(DEFAULTS, collectors={kind: CollectorConfig()})
    return next(f for f in doctor.examine(everything, Host()) if f.name == kind)


@pytest.mark.parametrize(
    ("kind", "state", "why"),
    [
        (Fine, "ok", "1 series"),
        (HangsOpening, "stuck", "no answer within 0.3 s"),
        (HangsSampling, "stuck", "no answer within 0.3 s"),
        (HangsClosing, "stuck", "no answer within 0.3 s"),
        (RaisesClosing, "failing", "stays open"),
        (Exits, "failing", "SystemExit(3)"),
        (ForgetsSuper, "failing", "config"),
        (IsGone, "missing", "unplugged"),
    ],
)
def test_doctor_has_a_finding_whatever_a_collector_does(
    kinds: dict[str, type[Collector]], kind: type[Collector], state: str, why: str
) -> None:
    kinds["it"] = kind
    finding = _examined("it")
    assert finding.state == state
    assert why in finding.why


class Outlet(PushExporter):
    def start(self) -> None: ...
    def offer(self, batch: Batch) -> None: ...
    def stop(self, timeout: float) -> None: ...
    def check(self) -> None:
        raise RuntimeError("never thought of that")


class HangingOutlet(Outlet):
    def check(self) -> None:
        HANGING.wait(PATIENCE_S)


@pytest.mark.parametrize(
    ("kind", "state"), [(Outlet, "failing"), (HangingOutlet, "stuck")], ids=["raises", "hangs"]
)
@pytest.mark.usefixtures("kinds")
def test_doctor_has_a_finding_whatever_an_exporter_does(
    monkeypatch: pytest.MonkeyPatch, kind: type[PushExporter], state: str
) -> None:
    monkeypatch.setattr(plugins, "push_exporter_class", lambda _: kind)
    monkeypatch.setattr(doctor, "_EXPORTER_PATIENCE_S", 0.3)
    settings = dataclasses.replace(DEFAULTS, collectors={}, exporters={"it": ExporterConfig()})
    *_, finding = doctor.examine(settings, Host())
    assert (finding.state, finding.is_bad) == (state, True)


def _spool_finding(monkeypatch: pytest.MonkeyPatch, **spool: object) -> doctor.Finding:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setattr(plugins, "push_exporter_class", lambda _: Outlet)
    settings = dataclasses.replace(
        DEFAULTS,
        collectors={},
        exporters={"it": ExporterConfig()},
        spool=SpoolConfig.model_validate(spool),
    )
    (found,) = [one for one in doctor.examine(settings, Host()) if one.name == "spool"]
    return found


def test_doctor_says_where_what_is_pushed_waits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_OF_THE_SERVICE", str(tmp_path / "absent"))
    (tmp_path / "file").write_text("")
    found = _spool_finding(monkeypatch)
    assert (found.state, found.remedy) == ("missing", "set spool.directory")
    assert _spool_finding(monkeypatch, enabled=False).state == "off"
    place = tmp_path / "a" / "b"
    found = _spool_finding(monkeypatch, directory=str(place))
    assert (found.state, found.why) == ("ok", f"in {place}")
    found = _spool_finding(monkeypatch, directory=str(tmp_path / "file" / "spool"))
    assert found.state == "failing"
    monkeypatch.setattr(doctor, "_OF_THE_SERVICE", str(tmp_path))
    assert _spool_finding(monkeypatch).why == f"in {tmp_path}/spool, as the service"
    found = _spool_finding(monkeypatch, directory="/proc/spool")
    assert found.state == "failing"


def test_doctor_says_nothing_of_a_spool_where_nothing_is_pushed() -> None:
    settings = dataclasses.replace(DEFAULTS, collectors={}, exporters={})
    assert [one.name for one in doctor.examine(settings, Host()) if one.kind == "delivery"] == []


@pytest.mark.parametrize("kind", [HangsOpening, HangsSampling, HangsClosing, IsGone, Exits])
def test_once_prints_the_others_whatever_a_collector_does(
    kinds: dict[str, type[Collector]], monkeypatch: pytest.MonkeyPatch, kind: type[Collector]
) -> None:
    monkeypatch.setattr(sampling, "OPENING_S", 0.5)
    monkeypatch.setattr(sampling, "SLOW_S", 0.2)
    kinds["it"] = kind
    both = dict.fromkeys(("it", "fine"), CollectorConfig(interval=0.05))
    started = time.monotonic()
    batches = once.take(dataclasses.replace(DEFAULTS, collectors=both), Host())
    assert "fine" in {batch.collector for batch in batches}
    assert time.monotonic() - started < 4

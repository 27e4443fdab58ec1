"""What the endpoint answers, and in which format: the Accept headers of real scrapers."""

from __future__ import annotations

import gzip
from collections.abc import Mapping

import pytest
from prometheus_client.exposition import choose_encoder

from telemetryd import __version__
from telemetryd.batch import Batch
from telemetryd.exporters.prometheus import Format
from telemetryd.metric import Kind, Metric, Unit
from telemetryd.web import Request, Response
from telemetryd.web.app import App, accepts_gzip, negotiate

LEVEL = Metric("room", "level", Kind.GAUGE, Unit.NONE, "A level.", "a test")

OPENMETRICS_1 = "application/openmetrics-text;version=1.0.0"
OPENMETRICS_0 = "application/openmetrics-text;version=0.0.1"
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
)
# What `prometheus` 2.42 of Debian 12 sends; taken from the wire.
PROMETHEUS_2_42 = f"{OPENMETRICS_1},{OPENMETRICS_0};q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
UTF8 = "escaping=allow-utf-8"
# What acceptHeader in scrape/scrape.go of Prometheus 3 makes of the default scrape_protocols, of
# those with native histograms, and of [PrometheusText0.0.4].
PROMETHEUS_3 = (
    f"{OPENMETRICS_1};{UTF8};q=0.6,{OPENMETRICS_0};q=0.5,"
    f"text/plain;version=1.0.0;{UTF8};q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_NATIVE = (
    f"{PROTOBUF};q=0.7,{OPENMETRICS_1};{UTF8};q=0.6,{OPENMETRICS_0};q=0.5,"
    f"text/plain;version=1.0.0;{UTF8};q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_TEXT = "text/plain;version=0.0.4;q=0.6,*/*;q=0.5"
# Prometheus that puts text first.
PROMETHEUS_3_TEXT_FIRST = (
    f"text/plain;version=1.0.0;{UTF8};q=0.6,text/plain;version=0.0.4;q=0.5,"
    f"{OPENMETRICS_1};{UTF8};q=0.4,*/*;q=0.3"
)
VICTORIAMETRICS = "text/plain;version=0.0.4;q=1,*/*;q=0.1"

TEXT, OPENMETRICS = Format.TEXT, Format.OPENMETRICS


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (PROMETHEUS_2_42, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_3_NATIVE, OPENMETRICS),
        (PROMETHEUS_3_TEXT, TEXT),
        (PROMETHEUS_3_TEXT_FIRST, TEXT),
        (VICTORIAMETRICS, TEXT),
    ],
    ids=["2.42", "3", "3-native", "3-text", "3-text-first", "victoriametrics"],
)
def test_a_scraper_gets_the_format_it_likes_best(accept: str, form: Format) -> None:
    assert negotiate(accept) is form


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("  application/openmetrics-text ; version=1.0.0 ; q=1.0  ", OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=2.0.0,application/openmetrics-text", OPENMETRICS),
        (f"{OPENMETRICS_1};q=0", TEXT),
        (f"{OPENMETRICS_1};q=0.0,text/plain;q=0", TEXT),
        (f"{OPENMETRICS_1};q=0.4,text/plain;q=0.5", TEXT),
        (f"{OPENMETRICS_1};q=0.5,text/plain;q=0.5", OPENMETRICS),
        (f"{OPENMETRICS_1};q=much", TEXT),
        (f"{OPENMETRICS_1};q=nan", TEXT),
        (f"{OPENMETRICS_1};q=", TEXT),
        (f"{OPENMETRICS_1};q=-1", TEXT),
        (PROTOBUF, TEXT),
        (",,;;=,=;q,/", TEXT),
        ("\x00\xff;q=\xff", TEXT),
    ],
)
def test_odd_wishes_are_understood_or_answered_in_text(accept: str, form: Format) -> None:
    assert negotiate(accept) is form


@pytest.mark.parametrize("accept", [PROMETHEUS_2_42, PROMETHEUS_3, "", "*/*", PROMETHEUS_3_TEXT])
def test_prometheus_client_would_choose_the_same_format(accept: str) -> None:
    _, content_type = choose_encoder(accept)
    ours = negotiate(accept)
    assert content_type.split(";")[0] == ours.value.split(";")[0]


@pytest.mark.parametrize(
    ("wish", "wanted"),
    [
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("br;q=1.0, GZip;q=0.8, *;q=0.1", True),
        ("*", True),
        ("*;q=0, gzip", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000", False),
        ("gzip;q=0, *", False),
        ("*;q=0", False),
        ("gzip;q=much", False),
        ("gzipped", False),
        (",;=", False),
    ],
)
def test_gzip_is_used_when_it_is_accepted(wish: str, wanted: bool) -> None:
    assert accepts_gzip(wish) is wanted


class Daemon:
    """Just enough of one for an App."""

    def __init__(self) -> None:
        self.is_ready = True
        self.batches = [Batch("c", 0, 0, 1.0, (LEVEL.at(),), (20.5,))]
        self.app = App(lambda: self.batches, lambda: self.is_ready)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        return self.app(Request("GET", path, "", headers or {}))


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


PAGE = b"# HELP telemetryd_room_level A level.\n# TYPE telemetryd_room_level gauge\n"


def test_metrics_are_text_unless_something_else_is_asked_for(daemon: Daemon) -> None:
    response = daemon.get("/metrics")
    assert response.status == 200
    assert response.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert response.body == PAGE + b"telemetryd_room_level 20.5\n"
    assert dict(response.headers) == {"Vary": "Accept, Accept-Encoding"}


def test_prometheus_gets_openmetrics_in_gzip(daemon: Daemon) -> None:
    response = daemon.get("/metrics", {"accept": PROMETHEUS_2_42, "accept-encoding": "gzip"})
    assert response.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert dict(response.headers)["Content-Encoding"] == "gzip"
    assert gzip.decompress(response.body) == PAGE + b"telemetryd_room_level 20.5\n# EOF\n"


def test_every_scrape_shows_what_is_live_at_that_moment(daemon: Daemon) -> None:
    daemon.get("/metrics")
    daemon.batches = [Batch("c", 1, 1, 1.0, daemon.batches[0].series, (21.5,))]
    assert b"telemetryd_room_level 21.5\n" in daemon.get("/metrics").body
    daemon.batches = []
    assert daemon.get("/metrics").body == b""
    assert daemon.get("/metrics", {"accept": OPENMETRICS_1}).body == b"# EOF\n"


def test_metrics_are_not_found_while_the_exporter_is_switched_off(daemon: Daemon) -> None:
    daemon.app.serves_metrics = False
    response = daemon.get("/metrics")
    assert response.status == 404
    assert b"exporters.prometheus" in response.body
    assert daemon.get("/-/healthy").status == 200
    daemon.app.serves_metrics = True
    assert daemon.get("/metrics").status == 200


def test_ready_waits_for_the_first_samples_and_healthy_does_not(daemon: Daemon) -> None:
    daemon.is_ready = False
    assert daemon.get("/-/ready").status == 503
    assert daemon.get("/-/healthy").status == 200
    daemon.is_ready = True
    assert daemon.get("/-/ready").status == 200


def test_the_front_page_names_the_others(daemon: Daemon) -> None:
    response = daemon.get("/")
    assert response.status == 200
    assert __version__.encode() in response.body
    for path in ("/metrics", "/-/healthy", "/-/ready"):
        assert path.encode() in response.body
        assert daemon.get(path).status == 200


@pytest.mark.parametrize("path", ["/metrics/", "//metrics", "/METRICS", "/-/", "/%2e", ""])
def test_anything_else_is_not_found(daemon: Daemon, path: str) -> None:
    assert daemon.get(path).status == 404

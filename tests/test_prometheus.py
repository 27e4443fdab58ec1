"""The Prometheus exporter, with prometheus-client as the oracle: both of its parsers must find in
our pages what they find in its own rendering of the same data."""

from __future__ import annotations

import dataclasses
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric as OracleMetric
from prometheus_client.exposition import generate_latest as oracle_text
from prometheus_client.openmetrics.exposition import generate_latest as oracle_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.trees import FIXTURES

from telemetryd.batch import Batch
from telemetryd.config import load
from telemetryd.exporters.prometheus import Format, Renderer
from telemetryd.host import Host
from telemetryd.metric import Kind, Metric, Point, Unit
from telemetryd.once import take

PARSERS: dict[Format, Callable[[str], Iterable[OracleMetric]]] = {
    Format.TEXT: parse_text,
    Format.OPENMETRICS: parse_openmetrics,
}
ORACLES: dict[Format, Callable[[object], bytes]] = {
    Format.TEXT: oracle_text,
    Format.OPENMETRICS: oracle_openmetrics,
}
FORMATS = pytest.mark.parametrize("form", Format, ids=lambda form: form.name.lower())
Labels = tuple[tuple[str, str], ...]
Parsed = list[tuple[str, str, str, str, list[tuple[str, Labels, bytes]]]]


@dataclasses.dataclass
class Page:
    """The same families, for us and for the oracle."""

    points: list[Point] = dataclasses.field(default_factory=list)
    families: list[OracleMetric] = dataclasses.field(default_factory=list)

    def collect(self) -> list[OracleMetric]:
        return self.families

    def add(self, metric: Metric, labels: Sequence[str], value: float) -> None:
        self.points.append((metric.at(*labels), value))
        pairs = dict(zip(metric.labels, clean_row(labels), strict=True))
        self.families[-1].add_sample(metric.name, pairs, value)


def clean(text: str) -> str:
    """What a name that is not UTF-8 becomes."""
    return text.encode("utf-8", "backslashreplace").decode()


def clean_row(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(clean, row))


def batch_of(points: Sequence[Point], collector: str = "c") -> Batch:
    series, values = zip(*points, strict=True) if points else ((), ())
    return Batch(collector, 0, 0, 1.0, series, values)


def parsed(page: bytes, form: Format) -> Parsed:
    """What the oracle's parser finds, down to the bits of each value."""
    return [
        (
            family.name,
            family.type,
            family.unit,
            family.documentation,
            [
                (one.name, tuple(sorted(one.labels.items())), struct.pack(">d", float(one.value)))
                for one in family.samples
            ],
        )
        for family in PARSERS[form](page.decode("utf-8"))
    ]


def assert_same(page: Page) -> None:
    for form in Format:
        ours = Renderer().render([batch_of(page.points)], form)
        assert parsed(ours, form) == parsed(ORACLES[form](page), form)


awkward = st.sampled_from(['"', "\\", "\n", "\\n", "}", "{", ",", "=", " ", "#", "\r", "\0", ""])
any_text = st.lists(awkward | st.characters(exclude_categories=()), max_size=6).map("".join)
utf8_text = st.lists(awkward | st.characters(), max_size=12).map("".join)
finite = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**300), 10**300)
positive = st.floats(0, allow_infinity=False) | st.integers(0, 10**300)
VALUES = {Kind.COUNTER: positive, Kind.GAUGE: finite, Kind.INFO: st.just(1)}
words = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)


@st.composite
def pages(draw: st.DrawFn) -> Page:
    page = Page()
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(sorted(VALUES, key=str)))
        unit = Unit.NONE if kind is Kind.INFO else draw(st.sampled_from(Unit))
        names = tuple(draw(st.lists(words, max_size=3, unique=True)))
        names = tuple(f"l_{name}" for name in names)
        quantity = draw(words)
        metric = Metric(f"s{number}", quantity, kind, unit, draw(utf8_text), "a test", names)
        page.families.append(OracleMetric(metric.family, metric.help, kind.value, unit.value))
        rows = st.tuples(*[any_text] * len(names))
        for row in draw(st.lists(rows, min_size=1, max_size=4, unique_by=clean_row)):
            page.add(metric, row, draw(VALUES[kind]))
    return page


@given(pages())
@settings(max_examples=150, deadline=None)
def test_both_parsers_find_what_they_find_in_the_oracles_own_rendering(page: Page) -> None:
    assert_same(page)


def foreign(family: str, suffix: str, kind: Kind, *labels: str) -> Metric:
    return Metric.foreign(
        family + suffix, family=family, kind=kind, help_text="By a script.",
        labels=labels, source="site.prom",
    )  # fmt: skip


@st.composite
def foreign_pages(draw: st.DrawFn) -> Page:
    """A histogram, a summary, an untyped value and a gauge as a site script would write them."""
    page = Page()
    sites = draw(st.lists(any_text, min_size=1, max_size=3, unique_by=clean))
    counts, sums = st.integers(0, 10**15), st.floats(0, 1e300)

    page.families.append(OracleMetric("run_seconds", "By a script.", "histogram"))
    bucket = foreign("run_seconds", "_bucket", Kind.HISTOGRAM, "site", "le")
    for site in sites:
        bounds = sorted(draw(st.sets(st.floats(0, 1e300, exclude_min=True), max_size=3)))
        levels = sorted(draw(st.lists(counts, min_size=len(bounds) + 1, max_size=len(bounds) + 1)))
        for bound, level in zip([*map(repr, bounds), "+Inf"], levels, strict=True):
            page.add(bucket, (site, bound), level)
        page.add(foreign("run_seconds", "_sum", Kind.HISTOGRAM, "site"), (site,), draw(sums))
        page.add(foreign("run_seconds", "_count", Kind.HISTOGRAM, "site"), (site,), levels[-1])

    page.families.append(OracleMetric("wait", "By a script.", "summary"))
    for site in sites:
        for quantile in ("0.5", "0.99"):
            metric = foreign("wait", "", Kind.SUMMARY, "site", "quantile")
            page.add(metric, (site, quantile), draw(sums))
        page.add(foreign("wait", "_sum", Kind.SUMMARY, "site"), (site,), draw(sums))
        page.add(foreign("wait", "_count", Kind.SUMMARY, "site"), (site,), draw(counts))

    for family, kind, values in (
        ("oddity", Kind.UNKNOWN, finite),
        ("backup_age", Kind.GAUGE, finite),
    ):
        page.families.append(OracleMetric(family, "By a script.", kind.value))
        for site in sites:
            page.add(foreign(family, "", kind, "site"), (site,), draw(values))
    return page


@given(foreign_pages())
@settings(max_examples=50, deadline=None)
def test_the_families_of_site_scripts_are_the_oracles_too(page: Page) -> None:
    assert_same(page)


QUOTING = Metric("room", "level", Kind.COUNTER, Unit.BYTES, 'A "b" \\ c\nd.', "a test", ("x", "y"))
SAMPLE = r'telemetryd_room_level_bytes_total{x="\"q\"",y="\\n\n"} 3'


@pytest.mark.parametrize(
    ("form", "lines"),
    [
        (
            Format.TEXT,
            [
                r'# HELP telemetryd_room_level_bytes_total A "b" \\ c\nd.',
                "# TYPE telemetryd_room_level_bytes_total counter",
                SAMPLE,
                "# HELP odd By a script.",
                "# TYPE odd untyped",
                "odd -0.5",
            ],
        ),
        (
            Format.OPENMETRICS,
            [
                r"# HELP telemetryd_room_level_bytes A \"b\" \\ c\nd.",
                "# TYPE telemetryd_room_level_bytes counter",
                "# UNIT telemetryd_room_level_bytes bytes",
                SAMPLE,
                "# HELP odd By a script.",
                "# TYPE odd unknown",
                "odd -0.5",
                "# EOF",
            ],
        ),
    ],
    ids=["text", "openmetrics"],
)
def test_a_page_is_written_letter_by_letter_as_its_format_says(
    form: Format, lines: list[str]
) -> None:
    odd = foreign("odd", "", Kind.UNKNOWN)
    page = Renderer().render([batch_of([(QUOTING.at('"q"', "\\n\n"), 3), (odd.at(), -0.5)])], form)
    assert page.decode().splitlines() == lines
    assert page.endswith(b"\n")


def test_a_help_text_that_is_not_utf8_does_not_cost_the_page() -> None:
    metric = Metric.foreign(
        "x", family="x", kind=Kind.GAUGE, help_text="caf\udce9", labels=(), source="site.prom"
    )
    for form in Format:
        page = Renderer().render([batch_of([(metric.at(), 1)])], form)
        assert rb"# HELP x caf\\udce9" in page


RATIO = Metric("share", "", Kind.GAUGE, Unit.RATIO, "A share.", "a test", ("device",))
BYTES = Metric("disk", "read", Kind.COUNTER, Unit.BYTES, "Bytes read.", "a test", ("device",))


@FORMATS
def test_the_lines_of_a_family_stand_together_whichever_collectors_they_come_from(
    form: Format,
) -> None:
    batches = [
        batch_of([(RATIO.at("cpu"), 0.5), (BYTES.at("sda"), 1)], "cpu"),
        batch_of([(BYTES.at("sdb"), 2), (RATIO.at("sdb"), 0.25)], "disk"),
    ]
    families = {
        family.name: [one.labels["device"] for one in family.samples]
        for family in PARSERS[form](Renderer().render(batches, form).decode())
    }
    assert families == {
        "telemetryd_share_ratio": ["cpu", "sdb"],
        "telemetryd_disk_read_bytes": ["sda", "sdb"],
    }


def test_an_empty_table_is_an_empty_page() -> None:
    assert Renderer().render([], Format.TEXT) == b""
    assert Renderer().render([batch_of([])], Format.OPENMETRICS) == b"# EOF\n"


def test_a_page_is_planned_once_for_the_same_layouts() -> None:
    renderer = Renderer()
    before = batch_of([(RATIO.at("a"), 0.5)])
    renderer.render([before], Format.TEXT)
    plan = renderer._plans[Format.TEXT]
    after = Batch("c", 1, 1, 1.0, before.series, (0.75,))
    assert renderer.render([after], Format.TEXT).endswith(b'{device="a"} 0.75\n')
    assert renderer._plans[Format.TEXT] is plan
    renderer.render([after], Format.OPENMETRICS)
    assert renderer._plans[Format.TEXT] is plan, "the formats do not push each other out"


def test_a_page_is_planned_anew_when_a_layout_changes_or_batches_change_places() -> None:
    renderer = Renderer()
    one, other = batch_of([(RATIO.at("a"), 0.5)], "x"), batch_of([(RATIO.at("b"), 0.25)], "y")
    renderer.render([one, other], Format.TEXT)
    for batches, lines in (
        ([other, one], [b'"b"} 0.25', b'"a"} 0.5']),
        ([other], [b'"b"} 0.25']),
        ([batch_of([(RATIO.at("c"), 0.125)], "x"), other], [b'"c"} 0.125', b'"b"} 0.25']),
    ):
        page = renderer.render(batches, Format.TEXT)
        assert page.splitlines()[2:] == [b"telemetryd_share_ratio{device=" + line for line in lines]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "host",
    [Host(), Host(*(str(FIXTURES / "host" / tree) for tree in ("proc", "sys", "root")))],
    ids=["this-machine", "fixture-host"],
)
def test_promtool_has_nothing_to_say_about_a_real_scrape(host: Host) -> None:
    config = load([], environ={})
    quick = {
        name: settings.model_copy(update={"interval": 0.1})
        for name, settings in config.collectors.items()
    }
    batches = take(dataclasses.replace(config, collectors=quick), host)
    page = Renderer().render(batches, Format.TEXT)
    assert b"telemetryd_cpu_time_seconds_total{" in page
    check = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, timeout=60, check=False
    )
    assert (check.returncode, check.stdout + check.stderr) == (0, b"")

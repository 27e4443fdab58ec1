"""The reader of the text format: what it takes, and what it refuses with which words."""

from __future__ import annotations

import pytest

from telemetryd.errors import ReadError
from telemetryd.exposition import Family, Page, Sample, parse
from telemetryd.metric import Kind

HISTOGRAM = "# TYPE site_h histogram\n"
SUMMARY = "# TYPE site_s summary\n"


def page_of(text: str) -> Page:
    return parse(text.encode())


def values_of(family: Family) -> list[tuple[str, float]]:
    """By the labels, as `x=1,y=2`."""
    return [
        (",".join("=".join(pair) for pair in sample.labels), sample.value)
        for sample in family.samples
    ]


def test_a_family_has_its_type_help_line_and_samples_with_sorted_labels() -> None:
    page = page_of(
        "# HELP site_a Second\\nline, and a backslash: \\\\.\n# TYPE site_a gauge\n"
        'site_a{y="2",x="C:\\\\dir \\"quoted\\"\\n",z=""} 1.5\r\n\n# A comment.\nsite_b 2'
    )
    assert page == Page(
        (
            Family(
                "site_a",
                Kind.GAUGE,
                "Second\nline, and a backslash: \\.",
                1,
                (Sample("site_a", (("x", 'C:\\dir "quoted"\n'), ("y", "2")), 1.5),),
            ),
            Family("site_b", Kind.UNKNOWN, "", 6, (Sample("site_b", (), 2.0),)),
        ),
        (),
    )


def test_a_counter_is_called_without_total_as_openmetrics_does() -> None:
    (family,) = page_of("# TYPE site_a_total counter\nsite_a_total 1\n").families
    assert (family.name, family.kind) == ("site_a", Kind.COUNTER)
    assert [sample.name for sample in family.samples] == ["site_a_total"]
    assert set(family.reserved) == {"site_a", "site_a_total", "site_a_created"}


def test_a_counter_without_total_keeps_its_name_and_is_of_no_known_type() -> None:
    runs, other = page_of(
        "# HELP site_runs Runs.\n# TYPE site_runs counter\n"
        'site_runs 3\nsite_b 1\nsite_runs{x="1"} 4\n'
    ).families
    assert (runs.name, runs.kind, runs.help) == ("site_runs", Kind.UNKNOWN, "Runs.")
    assert {sample.name for sample in runs.samples} == {"site_runs"}
    assert values_of(runs) == [("", 3), ("x=1", 4)]
    assert other.name == "site_b"


def test_declarations_in_a_block_and_samples_in_any_order_belong_together() -> None:
    page = page_of(
        "# HELP site_h Waits.\n# HELP site_g A level.\n"
        "# TYPE site_h histogram\n# TYPE site_g gauge\n"
        'site_g{x="1"} 1\n'
        'site_h_count{q="a"} 3\nsite_h_bucket{q="a",le="+Inf"} 3\n'
        'site_h_count{q="b"} 2\nsite_h_bucket{q="b",le="+Inf"} 2\n'
        'site_g{x="2"} 2\n'
        'site_h_bucket{le="10",q="a"} 2\nsite_h_bucket{le="9",q="a"} 1\n'
        'site_h_sum{q="a"} 30\nsite_h_sum{q="b"} 20\n'
    )
    families = {family.name: family for family in page.families}
    assert page.faults == ()
    assert values_of(families["site_g"]) == [("x=1", 1), ("x=2", 2)]
    assert families["site_g"].line == 2
    assert families["site_h"].help == "Waits."
    assert values_of(families["site_h"]) == [
        ("le=9,q=a", 1),
        ("le=10,q=a", 2),
        ("le=+Inf,q=a", 3),
        ("q=a", 3),
        ("q=a", 30),
        ("le=+Inf,q=b", 2),
        ("q=b", 2),
        ("q=b", 20),
    ]


def test_created_times_are_left_out_beside_their_family_only() -> None:
    page = page_of(
        "# TYPE a_total counter\na_total 1\n# TYPE a_created gauge\na_created 1.7e9\n"
        "# TYPE b gauge\nb 1\n# TYPE b_created gauge\nb_created 1.7e9\n"
    )
    assert [family.name for family in page.families] == ["a", "b", "b_created"]
    assert page.faults == ()


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        (b"site_a 1\nsite_b{\n", "parse", "line 2: "),
        (b"site_a 1\n\nsite_b{x='1'} 1\n", "parse", "line 3: "),
        (b'site_a{__x="x"} 1\n', "parse", 'line 1: Invalid labels: __x="x"'),
        (b"# TYPE site_a gouge\nsite_a 1\n", "parse", "line 1: 'gouge' is not a type"),
        (b"# TYPE site_a\nsite_a 1\n", "parse", "line 1: '' is not a type"),
        (b"# TYPE site_a info\nsite_a 1\n", "parse", "line 1: 'info' is not a type"),
        (b"site_a 1\n# TYPE site_a gauge\nsite_a 2\n", "parse", "site_a comes twice or too late"),
        (b'site_a 1\nsite_b{x="\xff"} 1\n', "parse", "line 2: not UTF-8"),
        (b"site_a " + b"x" * 1000, "parse", "line 1: "),
        (b'site_a{x="' + b"a" * 20000 + b'"} 1\n', "limit", "line 1: longer than 16384"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_not_in_the_format_is_refused_with_the_line(
    text: bytes, reason: str, said: str
) -> None:
    with pytest.raises(ReadError) as refused:
        parse(text)
    assert refused.value.reason == reason
    assert said in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("site_a 1 1700000000000\n", "invalid", "site_a: has timestamps"),
        ('site_a 1\nsite_a{x=""} 1\n', "duplicate", "site_a{} twice"),
        ('site_a{x="1",y="2"} 1\nsite_a{y="2",x="1"} 3\n', "duplicate", "twice"),
        (HISTOGRAM + 'site_h_bucket{le="1"} 3\n', "invalid", 'no bucket le="+Inf"'),
        (HISTOGRAM + "site_h_sum 3\nsite_h_count 1\n", "invalid", 'no bucket le="+Inf"'),
        (HISTOGRAM + 'site_h_bucket{le="+Inf"} NaN\n', "invalid", "cannot be nan"),
        (HISTOGRAM + 'site_h_bucket{le="+Inf"} 1.5\n', "invalid", "cannot be 1.5"),
        (HISTOGRAM + 'site_h_bucket{le="x"} 1\n', "invalid", "no sound le"),
        (HISTOGRAM + 'site_h_bucket{le="inf"} 1\n', "invalid", "no sound le"),
        (HISTOGRAM + "site_h_bucket 1\n", "invalid", "no sound le"),
        (HISTOGRAM + "site_h 1\n", "invalid", "a histogram has no site_h"),
        (
            HISTOGRAM + 'site_h_bucket{le="1"} 3\nsite_h_bucket{le="+Inf"} 2\n',
            "invalid",
            "do not grow",
        ),
        (
            HISTOGRAM + 'site_h_bucket{le="+Inf"} 2\nsite_h_sum 1\nsite_h_count 3\n',
            "invalid",
            "a count unlike",
        ),
        (
            HISTOGRAM + 'site_h_bucket{le="-1"} 1\nsite_h_bucket{le="+Inf"} 2\n'
            "site_h_sum 1\nsite_h_count 2\n",
            "invalid",
            "a sum in spite of negative buckets",
        ),
        (SUMMARY + 'site_s{quantile="50"} 2\n', "invalid", "no sound quantile"),
        (SUMMARY + "site_s 2\n", "invalid", "no sound quantile"),
    ],
)
def test_a_family_that_openmetrics_refuses_is_left_out_alone_and_its_line_is_told(
    text: str, reason: str, said: str
) -> None:
    page = page_of(text + "site_good 1\n")
    assert [family.name for family in page.families] == ["site_good"]
    (fault,) = page.faults
    assert fault.reason == reason
    assert str(fault).startswith("line 1: site_")
    assert said in str(fault)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999", "1" + "0" * 400])
def test_a_sample_that_is_not_finite_is_left_out_alone(value: str) -> None:
    page = page_of(f'# TYPE site_a gauge\nsite_a{{x="1"}} {value}\nsite_a{{x="2"}} 2\n')
    assert values_of(page.families[0]) == [("x=2", 2)]
    (fault,) = page.faults
    assert fault.reason == "invalid"
    assert 'site_a{x="1"} cannot be ' in str(fault)


@pytest.mark.parametrize(
    "text",
    [
        "# TYPE site_a_total counter\nsite_a_total -1\n",
        SUMMARY + 'site_s{quantile="0.5"} NaN\n',
        SUMMARY + "site_s_count 0.5\n",
    ],
)
def test_a_value_impossible_for_its_type_is_left_out(text: str) -> None:
    page = page_of(text)
    assert page.families == ()
    assert [fault.reason for fault in page.faults] == ["invalid"]

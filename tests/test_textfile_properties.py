"""Whatever the files of site scripts say, the scrape is valid."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.textfiles import FOLDER, collector, faults_of, pages_of
from support.trees import write_tree

from telemetryd.exporters.prometheus import Format

names = st.sampled_from(
    ["a", "a_total", "a_bucket", "a_sum", "a_count", "a_created", "b", "b_total", "a_total_total"]
)
label_rows = st.sampled_from(
    [
        "",
        '{x="1"}',
        '{x="2",y="é\\n"}',
        '{le="1"}',
        '{le="+Inf"}',
        '{x="1",le="+Inf"}',
        '{quantile="0.5"}',
        '{x="",quantile="1"}',
        '{le="-1"}',
    ]
)
numbers = st.sampled_from(["0", "1", "2", "2.0", "0.5", "-1", "NaN", "+Inf", "1e300", "3 4"])
comments = st.builds(
    "# {} {}".format,
    st.just("TYPE"),
    st.builds(
        "{} {}".format,
        names,
        st.sampled_from(["counter", "gauge", "histogram", "summary", "untyped"]),
    ),
) | st.builds('# HELP {} say "{}\\\\ \\n'.format, names, st.sampled_from(["", "x"]))
samples = st.builds("{}{} {}".format, names, label_rows, numbers)
histograms = st.builds(
    '# TYPE {0} histogram\n{0}_count 2\n{0}_bucket{{le="1"}} {1}\n{0}_bucket{{le="+Inf"}} 2\n'
    "{0}_sum 3".format,
    names,
    st.sampled_from(["1", "3"]),
)
files = st.lists(st.one_of(comments, samples, samples, histograms), max_size=12).map("\n".join)


def canonical(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, value) for key, value in labels.items() if value))


@settings(deadline=None, max_examples=200)
@given(st.lists(files, min_size=1, max_size=3))
@example(['# TYPE a histogram\na_bucket{le="-1"} 1\na_bucket{le="+Inf"} 2\na_sum 3\na_count 2'])
@example(["# TYPE a counter\na 1\n# TYPE a_total counter\na_total 2"])
@example(
    [
        '# TYPE a summary\na_sum{x="1"} 1\na_sum{x="2"} 1',
        '# TYPE a summary\na_count{x="1"} 1',
    ]
)
@example(["# TYPE a_total counter\na_total 2", "a_created 5"])
def test_whatever_the_files_say_both_formats_stay_valid_and_say_nothing_else(
    texts: list[str],
) -> None:
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place)
        write_tree(tree, {f"{FOLDER}{i}.prom": text for i, text in enumerate(texts)})
        watch = collector(tree)
        faults = faults_of(watch)
        points = list(watch.sample())
    assert len({series for series, _ in points}) == len(points)
    written = [tuple(line.rpartition(" ")[::2]) for text in texts for line in text.split("\n")]
    pages = pages_of([one for one in points if not one[0].metric.name.startswith("telemetryd_")])
    found = {
        form: {
            (sample.name, canonical(sample.labels), sample.value)
            for family in (parse_openmetrics if form is Format.OPENMETRICS else parse_text)(page)
            for sample in family.samples
        }
        for form, page in pages.items()
    }
    assert found[Format.TEXT] == found[Format.OPENMETRICS]
    for name, labels, value in found[Format.TEXT]:
        assert any(
            line.startswith(name)
            and all(f'{key}="' in line for key, _ in labels)
            and float(number) == value
            for line, number in written
            if line and not line.startswith("#")
        )
    if not faults:
        told = {line for line, _ in written if line and not line.startswith("#")}
        left_out = sum(line.startswith("a_created") for line in told)
        assert len(told) - left_out <= len(found[Format.TEXT]) <= len(told)

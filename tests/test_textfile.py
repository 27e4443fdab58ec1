"""The textfile collector on folders with one defect each, and the format it reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    write_to_textfile,
)
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from support.clock import START_WALL_NS, FakeClock
from support.textfiles import FOLDER, collector, faults_of, ok, pages_of, site
from support.trees import values_of, write_tree

from telemetryd import exposition
from telemetryd.collectors import textfile
from telemetryd.errors import ReadError, Unavailable
from telemetryd.exporters.prometheus import Format
from telemetryd.metric import Kind

SCRIPT = """# A comment.
# HELP site_raid_disks Disks of each array.\\nSecond line, and a backslash: \\\\.
# TYPE site_raid_disks gauge
site_raid_disks{array="md0",state="active"} 4
site_raid_disks{state="failed",array="md0"} 0

# TYPE site_backups_total counter
site_backups_total 17
# TYPE site_wait_seconds histogram
site_wait_seconds_bucket{le="0.1"} 3
site_wait_seconds_bucket{le="+Inf"} 5
site_wait_seconds_sum 2.5
site_wait_seconds_count 5
# TYPE site_size_bytes summary
site_size_bytes{quantile="0.5"} 1.5e3
site_size_bytes_sum 3000
site_size_bytes_count 2
site_untyped{path="C:\\\\dir",text="line\\nbreak \\"quoted\\""} -1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / FOLDER
    path.mkdir(parents=True)
    return path


def test_every_type_is_published_as_the_script_wrote_it(tmp_path: Path, folder: Path) -> None:
    (folder / "site.prom").write_text(SCRIPT)
    watch = collector(tmp_path)
    faults = faults_of(watch)
    points = list(watch.sample())
    values = {repr(series): value for series, value in points}
    assert site(values) == {
        'site_raid_disks{array="md0",state="active"}': 4,
        'site_raid_disks{array="md0",state="failed"}': 0,
        "site_backups_total{}": 17,
        'site_wait_seconds_bucket{le="0.1"}': 3,
        'site_wait_seconds_bucket{le="+Inf"}': 5,
        "site_wait_seconds_sum{}": 2.5,
        "site_wait_seconds_count{}": 5,
        'site_size_bytes{quantile="0.5"}': 1500,
        "site_size_bytes_sum{}": 3000,
        "site_size_bytes_count{}": 2,
        'site_untyped{path="C:\\dir",text="line\nbreak "quoted""}': -1,
    }
    kinds = {series.metric.family: series.metric.kind for series, _ in points}
    assert kinds["site_raid_disks"] is Kind.GAUGE
    assert kinds["site_backups"] is Kind.COUNTER
    assert kinds["site_wait_seconds"] is Kind.HISTOGRAM
    assert kinds["site_size_bytes"] is Kind.SUMMARY
    assert kinds["site_untyped"] is Kind.UNKNOWN
    helps = {series.metric.family: series.metric.help for series, _ in points}
    assert helps["site_raid_disks"] == ("Disks of each array.\nSecond line, and a backslash: \\.")
    assert values[ok("site.prom")] == 1
    assert faults == []


def test_what_the_client_library_writes_is_read_and_its_created_times_are_left_out(
    tmp_path: Path, folder: Path
) -> None:
    registry = CollectorRegistry()
    Counter("site_jobs", "Jobs.", ["queue"], registry=registry).labels("a").inc(3)
    Gauge("site_level", "A level.", registry=registry).set(0.25)
    waits = Histogram("site_wait", "Waits.", ["queue"], registry=registry, buckets=(1, 10))
    waits.labels("a").observe(5)
    waits.labels("b").observe(50)
    Summary("site_size", "Sizes.", registry=registry).observe(7)
    write_to_textfile(str(folder / "site.prom"), registry)
    watch = collector(tmp_path)
    faults = faults_of(watch)
    points = list(watch.sample())
    values = {repr(series): value for series, value in points}
    assert values['site_jobs_total{queue="a"}'] == 3
    assert values["site_level{}"] == 0.25
    assert values['site_wait_bucket{le="10.0",queue="a"}'] == 1
    assert values['site_wait_sum{queue="b"}'] == 50
    assert values["site_size_count{}"] == 1
    assert not any("_created" in name for name in values)
    assert values[ok("site.prom")] == 1
    assert faults == []
    for form, page in pages_of(points).items():
        parsed = parse_openmetrics(page) if form is Format.OPENMETRICS else parse_text(page)
        kinds = {family.name: family.type for family in parsed}
        assert kinds["site_jobs"] == "counter"
        assert kinds["site_wait"] == "histogram"
        assert kinds["site_size"] == "summary"


def test_the_age_of_each_file_is_shown_by_the_wall_clock(tmp_path: Path, folder: Path) -> None:
    (folder / "a.prom").write_text("site_up 1\n")
    os.utime(folder / "a.prom", ns=(0, START_WALL_NS - 90_500_000_000))
    clock = FakeClock()
    watch = collector(tmp_path, clock)
    values = values_of(watch)
    assert values['telemetryd_textfile_age_seconds{file="a.prom"}'] == 90.5
    assert values['telemetryd_textfile_mtime_seconds{file="a.prom"}'] == START_WALL_NS / 1e9 - 90.5
    clock.step_wall(-100)
    assert values_of(watch)['telemetryd_textfile_age_seconds{file="a.prom"}'] == -9.5


def test_only_files_whose_names_match_are_read(tmp_path: Path, folder: Path) -> None:
    for name in ("a.prom", "b.prom", "b.prom.1234", "notes.txt"):
        (folder / name).write_text(f"site_{name[0]} 1\n")
    assert site(values_of(collector(tmp_path))) == {"site_a{}": 1, "site_b{}": 1}
    chosen = collector(tmp_path, include=["*"], exclude=["*.prom", "*.1234"])
    assert site(values_of(chosen)) == {"site_n{}": 1}


def test_an_empty_folder_has_nothing_to_say(tmp_path: Path, folder: Path) -> None:
    assert values_of(collector(tmp_path)) == {}


def test_without_its_folder_the_collector_is_unavailable_also_later(
    tmp_path: Path, folder: Path
) -> None:
    watch = collector(tmp_path)
    folder.rmdir()
    with pytest.raises(Unavailable, match=r"there is no folder .*textfile; create it"):
        values_of(watch)
    with pytest.raises(Unavailable, match="there is no folder"):
        collector(tmp_path)
    with pytest.raises(Unavailable, match=r"there is no folder .*elsewhere"):
        collector(tmp_path, directory="/elsewhere")
    folder.write_text("not a folder")
    with pytest.raises(Unavailable, match="there is no folder"):
        collector(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_makes_the_collector_unavailable(
    tmp_path: Path, folder: Path
) -> None:
    folder.chmod(0)
    with pytest.raises(Unavailable, match="permission denied; let the daemon's user read"):
        collector(tmp_path)
    folder.chmod(0o700)


# --- changes ----------------------------------------------------------------------------------


def test_a_file_is_parsed_again_only_when_it_has_changed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr(
        textfile, "parse", lambda data: parsed.append(data) or exposition.parse(data)
    )
    write_tree(folder, {"a.prom": "site_a 1\n", "b.prom": "site_b 1\n"})
    watch = collector(tmp_path)
    before = list(watch.sample())
    after = list(watch.sample())
    assert parsed == [b"site_a 1\n", b"site_b 1\n"]
    assert all(a is b for (a, _), (b, _) in zip(before, after, strict=True))
    write_tree(folder, {"new": "site_b 2\n"})
    (folder / "new").rename(folder / "b.prom")
    changed = list(watch.sample())
    assert parsed[2:] == [b"site_b 2\n"]
    assert all(a is b for (a, _), (b, _) in zip(before, changed, strict=True))
    assert {repr(series): value for series, value in changed}["site_b{}"] == 2


def test_a_file_written_just_now_is_read_once_more_as_it_may_change_within_its_timestamp(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr(
        textfile, "parse", lambda data: parsed.append(data) or exposition.parse(data)
    )
    (folder / "a.prom").write_text("site_a 1\n")
    os.utime(folder / "a.prom", ns=(0, START_WALL_NS))
    clock = FakeClock()
    watch = collector(tmp_path, clock)
    for _ in range(4):
        values_of(watch)
        clock.tick(15)
    assert len(parsed) == 2


def test_a_file_that_is_gone_takes_its_series_along(tmp_path: Path, folder: Path) -> None:
    write_tree(folder, {"a.prom": "site_a 1\n", "b.prom": "site_b 1\n"})
    watch = collector(tmp_path)
    assert len(site(values_of(watch))) == 2
    (folder / "a.prom").unlink()
    values = values_of(watch)
    assert site(values) == {"site_b{}": 1}
    assert ok("a.prom") not in values


def test_a_file_that_turns_bad_is_absent_and_not_as_it_was_and_comes_back(
    tmp_path: Path, folder: Path
) -> None:
    write_tree(folder, {"a.prom": "site_a 1\nsite_c 1\n", "b.prom": "site_b 1\n"})
    watch = collector(tmp_path)
    faults = faults_of(watch)
    values_of(watch)
    write_tree(folder, {"a.prom": "site_a 2\nsite_c one\n"})
    for _ in range(2):
        values = values_of(watch)
        assert site(values) == {"site_b{}": 1}
        assert (values[ok("a.prom")], values[ok("b.prom")]) == (0, 1)
    assert [reason for reason, _ in faults] == ["parse", "parse"], "counted at each sample"
    assert f"{folder}/a.prom: line 2: " in faults[0][1]
    write_tree(folder, {"a.prom": "site_a 3\n"})
    values = values_of(watch)
    assert site(values) == {"site_a{}": 3, "site_b{}": 1}
    assert values[ok("a.prom")] == 1


# --- what is no file --------------------------------------------------------------------------


def test_a_pipe_a_folder_or_a_link_is_refused_and_holds_up_nothing(
    tmp_path: Path, folder: Path
) -> None:
    os.mkfifo(folder / "pipe.prom")
    (folder / "folder.prom").mkdir()
    (tmp_path / "secret").write_text("site_secret 1\n")
    (folder / "link.prom").symlink_to(tmp_path / "secret")
    (folder / "dangling.prom").symlink_to(tmp_path / "nothing")
    (folder / "good.prom").write_text("site_good 1\n")
    watch = collector(tmp_path)
    faults = faults_of(watch)
    values = values_of(watch)
    assert site(values) == {"site_good{}": 1}
    assert [reason for reason, _ in faults] == ["invalid"] * 4
    assert all("not a regular file" in what for _, what in faults)
    assert values[ok("pipe.prom")] == 0


def test_a_pipe_that_takes_the_place_of_a_file_while_we_look_is_not_waited_for(
    folder: Path,
) -> None:
    (folder / "a.prom").write_text("site_a 1\n")
    status = (folder / "a.prom").lstat()
    (folder / "a.prom").unlink()
    os.mkfifo(folder / "a.prom")
    with pytest.raises(ReadError, match="not a regular file"):
        exposition.read(str(folder / "a.prom"), status, 100)


def test_a_file_that_cannot_be_read_is_tried_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.prom").write_text("site_a 1\n")

    def denied(path: str, *rest: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    watch = collector(tmp_path)
    faults = faults_of(watch)
    with monkeypatch.context() as patched:
        patched.setattr(textfile, "read", denied)
        assert site(values_of(watch)) == {}
    assert [reason for reason, _ in faults] == ["permission"]
    assert site(values_of(watch)) == {"site_a{}": 1}


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, folder: Path) -> None:
    write_tree(folder, {"a.prom": b"site_a 1\n", "b.prom": b"site_b 10\n"})
    watch = collector(tmp_path, max_bytes=9)
    faults = faults_of(watch)
    assert site(values_of(watch)) == {"site_a{}": 1}
    assert faults == [("limit", f"{folder}/b.prom: longer than 9 bytes (max_bytes)")]


def test_a_file_name_that_is_not_utf8_becomes_a_valid_label(tmp_path: Path, folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.prom")).write_text("site_a 1\n")
    values = values_of(collector(tmp_path))
    assert values[ok("caf\\udce9.prom")] == 1
    assert values["site_a{}"] == 1


# --- what it may not say ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("telemetryd_cpu_load 1\n", "names in telemetryd_ are the daemon's own"),
        ('{"site.a"} 1\n', "'site.a' is not a metric name"),
        ("# TYPE site_s summary\nsite_s 1\n", "no sound quantile"),
    ],
)
def test_a_family_that_cannot_be_published_is_absent_alone_and_its_line_is_told(
    tmp_path: Path, folder: Path, text: str, said: str
) -> None:
    (folder / "a.prom").write_text(text + "site_good 1\n")
    watch = collector(tmp_path)
    faults = faults_of(watch)
    values = values_of(watch)
    assert site(values) == {"site_good{}": 1}
    assert values[ok("a.prom")] == 0
    assert [one for one, _ in faults] == ["invalid"]
    assert said in faults[0][1]
    assert f"{folder}/a.prom: line 1: " in faults[0][1]


SUMMARY = "# TYPE site_s summary\n"


@pytest.mark.parametrize(
    ("first", "second", "reason", "said"),
    [
        (
            "# HELP site_a One.\nsite_a 1\n",
            '# HELP site_a Two.\nsite_a{x="1"} 1\n',
            "conflict",
            "unknown site_a and unknown site_a of a.prom have another help text",
        ),
        (
            "# TYPE site_a gauge\nsite_a 1\n",
            '# TYPE site_a counter\nsite_a{x="1"} 1\n',
            "conflict",
            "unknown site_a and gauge site_a of a.prom",
        ),
        (
            "# TYPE site_a_total counter\nsite_a_total 1\n",
            'site_a{x="1"} 1\n',
            "conflict",
            "unknown site_a and counter site_a of a.prom",
        ),
        (
            SUMMARY + "site_s_sum 1\nsite_s_count 1\n",
            '# TYPE site_s_count gauge\nsite_s_count{x="1"} 1\n',
            "conflict",
            "gauge site_s_count and summary site_s of a.prom",
        ),
        ('site_a{x="1"} 1\n', 'site_a{x="1"} 2\n', "duplicate", 'site_a{x="1"} is in a.prom too'),
        (
            SUMMARY + 'site_s_sum{x="1"} 1\n',
            SUMMARY + 'site_s_sum{x="2"} 1\nsite_s{quantile="0.5",x="1"} 1\n',
            "duplicate",
            'site_s{x="1"} is in a.prom too',
        ),
    ],
)
def test_of_two_files_that_clash_the_first_is_published(
    tmp_path: Path, folder: Path, first: str, second: str, reason: str, said: str
) -> None:
    write_tree(folder, {"a.prom": first, "b.prom": second + "site_good 1\n"})
    watch = collector(tmp_path)
    faults = faults_of(watch)
    values = values_of(watch)
    alone = site(values)
    assert alone.pop("site_good{}") == 1
    assert (values[ok("a.prom")], values[ok("b.prom")]) == (1, 0)
    assert [one for one, _ in faults] == [reason]
    assert said in faults[0][1]
    assert f"{folder}/b.prom: line 1: " in faults[0][1]
    (folder / "b.prom").unlink()
    assert site(values_of(watch)) == alone
    write_tree(folder, {"b.prom": second})
    (folder / "a.prom").unlink()
    assert values_of(watch)[ok("b.prom")] == 1


def test_one_family_may_come_from_several_files(tmp_path: Path, folder: Path) -> None:
    header = "# HELP site_a Same.\n# TYPE site_a gauge\n"
    write_tree(
        folder, {"a.prom": header + 'site_a{x="1"} 1\n', "b.prom": header + 'site_a{x="2"} 2\n'}
    )
    points = list(collector(tmp_path).sample())
    values = {repr(series): value for series, value in points}
    assert site(values) == {'site_a{x="1"}': 1, 'site_a{x="2"}': 2}
    assert pages_of(points)[Format.TEXT].count("# TYPE site_a gauge") == 1

"""The documents say what the code does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.plugin import install_plugin
from support.trees import host_at, values_of, write_tree

from telemetryd import catalogue, config_reference, plugins
from telemetryd.collector import CollectorConfig
from telemetryd.config import load
from telemetryd.delivery.spool_config import SpoolConfig

ROOT = Path(__file__).parent.parent


def test_the_metric_reference_is_fresh() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == catalogue.as_markdown(), "run `make docs`"


def test_the_configuration_reference_is_fresh() -> None:
    written = (ROOT / "docs/configuration.md").read_text()
    assert written == config_reference.as_markdown(), "run `make docs`"


def test_the_readme_has_a_line_for_every_collector_and_destination() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in (*plugins.COLLECTORS, *plugins.PUSH_EXPORTERS):
        assert f"| `{name}` |" in readme


def test_every_metric_that_a_document_names_exists() -> None:
    names = {str(entry["name"]) for entry in catalogue.as_json()}
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for word in re.findall(r"\btelemetryd_[a-z_]+[a-z]\b(?![*<{.])", file.read_text()):
            known = word in names or any(name.startswith(word + "_") for name in names)
            assert known, f"{file.name}: {word}"


def examples(language: str) -> list[tuple[str, str]]:
    """What stands in the fences of this language, and in which document."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [(one.name, text) for one in documents for text in fence.findall(one.read_text())]


@pytest.mark.parametrize(("document", "text"), examples("toml"))
def test_every_toml_example_is_accepted(document: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text(text)
    load([str(file)], environ={}, strict=True)


def test_the_guides_have_examples_for_every_kind_of_destination() -> None:
    found = "".join(text for name, text in examples("toml") if name == "scale.md")
    for kind in plugins.PUSH_EXPORTERS:
        assert f"[exporters.{kind}]" in found


@pytest.mark.parametrize(
    ("document", "text"), [one for one in examples("yaml") if "storage:" in one[1]]
)
def test_prometheus_accepts_the_configurations_for_it(
    document: str, text: str, tmp_path: Path
) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    file = tmp_path / "prometheus.yml"
    file.write_text(text)
    done = subprocess.run(
        [program, "check", "config", "--syntax-only", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{document}: {done.stdout}{done.stderr}"


def test_a_receiver_takes_points_as_old_as_the_spool_keeps_them() -> None:
    windows = [
        re.findall(r"out_of_order_time_window: (\d+)h", text)
        for name, text in examples("yaml")
        if name == "scale.md"
    ]
    hours = [int(hour) for found in windows for hour in found]
    assert hours
    assert min(hours) * 3600 >= SpoolConfig().age


@pytest.fixture
def example() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_collector_that_contributing_shows_runs_as_it_stands(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(example.splitlines()) <= 25
    install_plugin(tmp_path, {"humidity": example}, {"humidity": "humidity:Humidity"})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "humidity" not in sys.modules
    load([], environ={})
    assert "humidity" not in sys.modules, "a plugin that nobody names is not loaded"

    file = tmp_path / "t.toml"
    file.write_text('[collectors.humidity]\ninterval = "10s"\n')
    assert load([str(file)], environ={}).collectors["humidity"].interval == 10
    path = "sys/bus/iio/devices/iio:device0/in_humidityrelative_input"
    write_tree(tmp_path, {path: "45100\n"})
    collector = plugins.collector_class("humidity")(CollectorConfig(), host_at(tmp_path))
    assert values_of(collector) == {'telemetryd_rack_humidity_ratio{sensor="iio:device0"}': 0.451}

"""The documents say what the code does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from support.plugin import install_plugin
from support.trees import host_at, values_of, write_tree

from telemetryd import catalogue, config_reference, plugins
from telemetryd.collector import CollectorConfig
from telemetryd.config import load

ROOT = Path(__file__).parent.parent


def test_the_metric_reference_is_fresh() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == catalogue.as_markdown(), "run `make docs`"


def test_the_configuration_reference_is_fresh() -> None:
    written = (ROOT / "docs/configuration.md").read_text()
    assert written == config_reference.as_markdown(), "run `make docs`"


def test_the_readme_has_a_line_for_every_collector() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in plugins.COLLECTORS:
        assert f"| `{name}` |" in readme


def test_every_metric_that_a_document_names_exists() -> None:
    names = {str(entry["name"]) for entry in catalogue.as_json()}
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for word in re.findall(r"\btelemetryd_[a-z_]+[a-z]\b(?![*<{.])", file.read_text()):
            known = word in names or any(name.startswith(word + "_") for name in names)
            assert known, f"{file.name}: {word}"


def test_the_toml_examples_of_the_readme_are_accepted(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert examples
    for position, text in enumerate(examples):
        file = tmp_path / f"{position}.toml"
        file.write_text(text)
        load([str(file)], environ={})


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

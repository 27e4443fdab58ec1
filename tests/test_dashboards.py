"""The dashboards: they are what the code says, and ask for what the daemon exports."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from support.daemon import ROOT
from support.promql import grouping_labels, selectors

from telemetryd import catalogue

FOLDER = ROOT / "dashboards"
BOARD: dict[str, Any] = json.loads((FOLDER / "node.json").read_text())
CATALOGUE = {str(entry["name"]): set(entry["labels"]) for entry in catalogue.as_json()}  # type: ignore[call-overload]
OF_PROMETHEUS = {"job", "instance"}
# Labels that an expression makes itself.
_MADE = re.compile(r'label_(?:join|replace)\(.*?, "([a-z_]+)"')
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels() -> Iterator[dict[str, Any]]:
    """All panels but the rows, those inside closed rows too."""
    for panel in BOARD["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


@dataclass(frozen=True)
class Target:
    """A query of a panel."""

    panel: str
    ref: str
    expr: str
    legend: str

    def __str__(self) -> str:
        return f"{self.panel} {self.ref}"


TARGETS = [
    Target(panel["title"], target["refId"], target["expr"], target.get("legendFormat", ""))
    for panel in panels()
    for target in panel["targets"]
]
every_target = pytest.mark.parametrize("target", TARGETS, ids=str)


def test_the_json_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "build.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_panel_cannot_ask_for_a_metric_or_label_that_does_not_exist() -> None:
    series = runpy.run_path(str(FOLDER / "promql.py"))["series"]
    assert series("telemetryd_cpu_tasks", state="!=blocked").endswith(', state!="blocked"}')
    with pytest.raises(ValueError, match="telemetryd_cpu_task"):
        series("telemetryd_cpu_task")
    with pytest.raises(ValueError, match="mode"):
        series("telemetryd_cpu_tasks", mode="running")


@every_target
def test_every_metric_and_label_that_is_asked_for_is_exported(target: Target) -> None:
    known: set[str] = set(OF_PROMETHEUS)
    for name, labels in selectors(target.expr):
        assert name in CATALOGUE
        assert set(labels) <= CATALOGUE[name] | OF_PROMETHEUS
        # Of the node that is chosen, and no other.
        assert set(labels) >= OF_PROMETHEUS
        known |= CATALOGUE[name]
    assert selectors(target.expr)
    made = set(_MADE.findall(target.expr))
    assert grouping_labels(target.expr) <= known | made
    assert set(re.findall(r"{{(\w+)}}", target.legend)) <= known | made


def test_every_panel_says_what_it_shows_in_which_unit() -> None:
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] == "table":
            continue
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


@pytest.mark.parametrize(
    ("endings", "unit"),
    [
        (("_ratio",), "percentunit"),
        (("_bytes",), "bytes"),
        (("_bytes_per_second",), "Bps"),
        (("_celsius",), "celsius"),
        (("_hertz",), "hertz"),
        (("_volts",), "volt"),
        (("_rpm",), "rotrpm"),
    ],
)
def test_a_gauge_that_is_shown_as_it_is_has_its_unit(endings: tuple[str, ...], unit: str) -> None:
    for panel in panels():
        if panel["type"] == "table":
            continue
        for target in panel["targets"]:
            name = target["expr"].partition("{")[0]
            if name.endswith(endings) and target["expr"].endswith("}"):
                assert panel["fieldConfig"]["defaults"]["unit"] == unit, panel["title"]


def test_a_share_of_a_resource_is_the_integral_by_the_time_observed() -> None:
    # The gauge is one interval in each scrape. Fill levels do not jump, so it will do for them.
    for target in TARGETS:
        assert "telemetryd_bandwidth_utilization_ratio" not in target.expr
        if "telemetryd_utilization_ratio" in target.expr:
            assert 'resource="filesystem"' in target.expr


def test_the_viewer_chooses_prometheus_and_node() -> None:
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["datasource"]["query"] == "prometheus"
    assert variables["instance"]["query"]["query"].startswith("label_values(telemetryd_build_info")
    for panel in panels():
        assert panel["datasource"] == _SOURCE
        assert all(target["datasource"] == _SOURCE for target in panel["targets"])


def test_the_address_of_the_dashboard_stays() -> None:
    assert BOARD["uid"] == "telemetryd-node"


def test_no_two_panels_stand_in_the_same_place_or_have_the_same_number() -> None:
    numbers = [panel["id"] for panel in [*panels(), *BOARD["panels"]] if panel["type"] != "row"]
    assert len(set(numbers)) == len(list(panels()))
    for group in (BOARD["panels"], *(panel.get("panels", []) for panel in BOARD["panels"])):
        cells = [
            (x, y)
            for place in (panel["gridPos"] for panel in group)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(cells) == len(set(cells))
        assert all(x < 24 for x, _ in cells)

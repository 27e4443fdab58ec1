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
BOARDS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))
}
CATALOGUE = {str(entry["name"]): set(entry["labels"]) for entry in catalogue.as_json()}  # type: ignore[call-overload]
OF_PROMETHEUS = {"job", "instance"}
# Labels that an expression makes itself.
_MADE = re.compile(r'label_(?:join|replace)\(.*?, "([a-z_]+)"')
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels of a dashboard but the rows, those inside closed rows too."""
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


@dataclass(frozen=True)
class Target:
    """A query of a panel."""

    board: str
    panel: str
    ref: str
    expr: str
    legend: str

    def __str__(self) -> str:
        return f"{self.board}: {self.panel} {self.ref}"


TARGETS = [
    Target(name, panel["title"], target["refId"], target["expr"], target.get("legendFormat", ""))
    for name, board in BOARDS.items()
    for panel in panels(board)
    for target in panel["targets"]
]
every_target = pytest.mark.parametrize("target", TARGETS, ids=str)
every_board = pytest.mark.parametrize("name", BOARDS)
# The variables of each dashboard, and whether many values may be chosen at once.
VARIABLES = {
    "node": {"datasource": False, "job": False, "instance": False},
    "gpu": {"datasource": False, "job": False, "instance": True, "gpu": True},
    "energy": {"datasource": False, "job": False, "instance": True},
    "delivery": {"datasource": False, "job": False, "instance": True, "destination": True},
}


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


@every_board
def test_every_panel_says_what_it_shows_in_which_unit(name: str) -> None:
    for panel in panels(BOARDS[name]):
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
    for panel in (panel for board in BOARDS.values() for panel in panels(board)):
        if panel["type"] == "table":
            continue
        for target in panel["targets"]:
            metric, *more = target["expr"].split("{")
            if metric.endswith(endings) and len(more) == 1 and more[0].endswith("}"):
                assert panel["fieldConfig"]["defaults"]["unit"] == unit, panel["title"]


def test_a_share_of_a_resource_is_the_integral_by_the_time_observed() -> None:
    # The gauge is one interval in each scrape. Fill levels do not jump, so it will do for them.
    for target in TARGETS:
        assert "telemetryd_bandwidth_utilization_ratio" not in target.expr
        if "telemetryd_utilization_ratio" in target.expr:
            assert 'resource="filesystem"' in target.expr


def test_every_dashboard_has_variables_and_every_one_is_built() -> None:
    assert set(VARIABLES) == set(BOARDS)
    built = re.findall(r'"(\w+)\.json"', (FOLDER / "build.py").read_text())
    assert set(built) == set(BOARDS)


@every_board
def test_the_viewer_chooses_prometheus_and_node(name: str) -> None:
    board = BOARDS[name]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables) == list(VARIABLES[name])
    assert variables["datasource"]["query"] == "prometheus"
    for variable, is_many in VARIABLES[name].items():
        assert bool(variables[variable].get("multi")) == is_many
        assert bool(variables[variable].get("includeAll")) == is_many
    for panel in panels(board):
        assert panel["datasource"] == _SOURCE
        assert all(target["datasource"] == _SOURCE for target in panel["targets"])


def test_a_dashboard_of_many_nodes_names_the_node_in_every_line() -> None:
    for target in TARGETS:
        is_of_one = VARIABLES[target.board]["instance"] is False
        legend = set(re.findall(r"{{(\w+)}}", target.legend))
        of_one_node = {"gpu", "device", "destination"} & legend
        assert is_of_one or "instance" in legend or not of_one_node, str(target)
        assert ('instance="$instance"' in target.expr) == is_of_one


def test_a_choice_of_gpus_takes_their_instances_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    series = runpy.run_path(str(FOLDER / "gpu_promql.py"))["series"]
    assert series("telemetryd_gpu_lost") == (
        'telemetryd_gpu_lost{job="$job", instance=~"$instance", gpu=~"$gpu(/.*)?"}'
    )
    with pytest.raises(ValueError, match="telemetryd_gpu_loss"):
        series("telemetryd_gpu_loss")
    for target in TARGETS:
        if target.board == "gpu":
            for metric, labels in selectors(target.expr):
                own = {"gpu", "device"} & CATALOGUE[metric]
                assert own <= set(labels), str(target)


def test_a_choice_of_destinations_is_kept_to() -> None:
    for target in TARGETS:
        if target.board == "delivery":
            for _, labels in selectors(target.expr):
                assert "destination" in labels, str(target)


def test_every_instrument_of_delivery_has_a_panel() -> None:
    shown = {metric for target in TARGETS for metric, _ in selectors(target.expr)}
    declared = {name for name in CATALOGUE if re.match(r"telemetryd_(exporter|spool)_", name)}
    assert declared
    assert declared <= shown


def test_the_address_of_a_dashboard_stays() -> None:
    addresses = {name: board["uid"] for name, board in BOARDS.items()}
    assert addresses == {name: f"telemetryd-{name}" for name in VARIABLES}


@every_board
def test_no_two_panels_stand_in_the_same_place_or_have_the_same_number(name: str) -> None:
    board = BOARDS[name]
    every = [*panels(board), *board["panels"]]
    numbers = [panel["id"] for panel in every if panel["type"] != "row"]
    assert len(set(numbers)) == len(list(panels(board)))
    for group in (board["panels"], *(panel.get("panels", []) for panel in board["panels"])):
        cells = [
            (x, y)
            for place in (panel["gridPos"] for panel in group)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ]
        assert len(cells) == len(set(cells))
        assert all(x < 24 for x, _ in cells)

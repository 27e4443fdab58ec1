"""Every expression of the dashboards and alerts returns data from real daemons.

Real Prometheus scrapes two real daemons each second: see dashboards_machine.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from support.promql import operands
from support.servers import eventually
from support.watched_host import (
    DESTINATIONS,
    FIXTURE,
    HERE,
    JOB,
    ONLY_HERE,
    Watched,
    watched,
)
from test_alerts import ALERTS
from test_dashboards import BOARDS, Target, every_board, every_target

pytestmark = pytest.mark.server
# What Grafana would fill in; and a subquery that looks back a week finds no step in these seconds.
_WINDOWS = {
    "$__rate_interval": "15s",
    "$__range": "1m",
    "[1w:15m]": "[1m:1s]",
    "$gpu": "[^/]+",
    "$job": JOB,
    "$destination": ".*",
    " offset 5h": "",
}
# What grows once in a window of a minute grows in this.
_LONG_WINDOWS = {"$__rate_interval": "3m", "$__range": "3m"} | {
    name: window for name, window in _WINDOWS.items() if "__" not in name
}
# The energy of GPUs is judged by the minute; that of the node grows from the second minute on.
_PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched(tmp_path_factory.mktemp("watched")) as both:
        yield both


def data(nodes: Watched, expr: str, windows: Mapping[str, str] = _WINDOWS) -> list[dict[str, Any]]:
    """What an expression returns once it has figures; fails if that never happens."""
    for variable, window in windows.items():
        expr = expr.replace(variable, window)

    def figures() -> list[dict[str, Any]]:
        return [one for one in nodes.query(expr) if math.isfinite(float(one["value"][1]))]

    found: list[dict[str, Any]] = eventually(figures, _PATIENCE_S)
    return found


@every_target
def test_every_panel_shows_figures_under_the_names_of_its_legend(
    nodes: Watched, target: Target
) -> None:
    node = HERE if any(one in target.expr for one in ONLY_HERE) else FIXTURE
    windows = _LONG_WINDOWS if target.board == "energy" else _WINDOWS
    found = data(nodes, target.expr.replace("$instance", node), windows)
    for label in re.findall(r"{{(\w+)}}", target.legend):
        assert all(label in one["metric"] for one in found), label


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_watches_data_that_is_there(nodes: Watched, name: str) -> None:
    rule = next(rule for rule in nodes.rules() if rule["name"] == name)
    for operand in operands(rule["query"]):
        assert data(nodes, operand)


def test_prometheus_evaluates_every_alert_without_an_error(nodes: Watched) -> None:
    def all_evaluated() -> bool:
        return all(rule["health"] != "unknown" for rule in nodes.rules())

    eventually(all_evaluated, _PATIENCE_S)
    # It sorts the groups.
    assert sorted(rule["name"] for rule in nodes.rules()) == sorted(ALERTS)
    assert {rule.get("lastError", "") for rule in nodes.rules()} == {""}


@every_board
def test_the_variables_offer_the_nodes(nodes: Watched, name: str) -> None:
    queries = {
        one["name"]: one["query"]["query"]
        for one in BOARDS[name]["templating"]["list"]
        if one["type"] == "query"
    }
    offered = {}
    for variable, query in queries.items():
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", query)
        assert found is not None
        selector = found[1].replace("$instance", ".*")
        offered[variable] = {one["metric"][found[2]] for one in data(nodes, selector)}
    assert (
        offered
        == {
            "node": {"job": {JOB}, "instance": {FIXTURE, HERE}},
            "gpu": {"job": {JOB}, "instance": {FIXTURE}, "gpu": {"0", "1", "2", "3"}},
            "energy": {"job": {JOB}, "instance": {FIXTURE, HERE}},
            "delivery": {"job": {JOB}, "instance": {FIXTURE}, "destination": set(DESTINATIONS)},
        }[name]
    )

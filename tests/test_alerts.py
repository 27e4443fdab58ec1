"""The alert rules: they fire when they should and not otherwise, and each has a runbook section."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from support.daemon import ROOT
from support.promql import grouping_labels, operands, selectors
from test_dashboards import CATALOGUE, OF_PROMETHEUS, TARGETS

from telemetryd.delivery.counts import show_from_start
from telemetryd.instruments import SPOOL_DROPPED, Instruments

FOLDER = ROOT / "dashboards"
TEXT = (FOLDER / "alerts.yaml").read_text()
CASES = (FOLDER / "alerts_test.yaml").read_text()
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
# The text of each alert, by its name.
_, *_PARTS = re.split(r"^ +- alert: ", TEXT, flags=re.MULTILINE)
ALERTS = {part.partition("\n")[0]: part for part in _PARTS}
SECTIONS = re.findall(r"^## (\w+)$", RUNBOOK, flags=re.MULTILINE)
every_alert = pytest.mark.parametrize("name", ALERTS)
# Their groups, in order.
_, *_GROUPS = re.split(r"^  - name: ", TEXT, flags=re.MULTILINE)
GROUPS = {
    part.partition("\n")[0]: re.findall(r"^ +- alert: (\w+)$", part, flags=re.MULTILINE)
    for part in _GROUPS
}
DELIVERY_ALERTS = GROUPS["telemetryd-delivery"]
GPU_ALERTS = GROUPS["telemetryd-gpu"]
ENERGY_ALERTS = GROUPS["telemetryd-energy"]
# XIDs that the hardware or the driver is to blame for, and those that programs cause or that mend
# themselves: nobody is called for them.
CRITICAL_XIDS = {"48", "62", "64", "74", "79", "95", "119", "120"}
WARNING_XIDS = {"94"}
HARMLESS_XIDS = ("13", "31", "43", "63", "92")


def expression(name: str) -> str:
    found = re.search(r"^ +expr: (?:\|\n)?(.*?)^ +for:", ALERTS[name], re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    done = subprocess.run(
        [program, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", "alerts.yaml")


def test_every_alert_fires_when_it_should_and_is_quiet_when_it_should_be() -> None:
    promtool("test", "rules", "alerts_test.yaml")


@every_alert
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(name: str) -> None:
    cases = re.findall(rf"alertname: {name}\b(.*?)(?=alertname:|- name:|\Z)", CASES, re.DOTALL)
    # The last is that absent data fires nothing.
    assert any("exp_labels" in case for case in cases)
    assert sum("exp_labels" not in case for case in cases) >= 2


@every_alert
def test_every_metric_and_label_of_an_alert_is_exported(name: str) -> None:
    expr = expression(name)
    known = set(OF_PROMETHEUS)
    for metric, labels in selectors(expr):
        of_metric = CATALOGUE[metric] if metric != "up" else set()
        assert set(labels) <= of_metric | OF_PROMETHEUS
        known |= of_metric
    assert selectors(expr)
    assert grouping_labels(expr) <= known
    assert set(re.findall(r"\$labels\.(\w+)", ALERTS[name])) <= known


@every_alert
def test_every_alert_says_how_long_how_bad_what_and_what_to_do(name: str) -> None:
    text = ALERTS[name]
    assert re.search(r"^ +for: \d+[sm]$", text, re.MULTILINE)
    assert re.search(r"^ +severity: .*(info|warning|critical)", text, re.MULTILINE)
    assert re.search(r"^ +summary: .", text, re.MULTILINE)
    assert re.search(r"^ +description: .", text, re.MULTILINE)
    # The anchor that GitHub, GitLab and Gitea give to the heading.
    assert f"runbook_url: docs/runbook.md#{name.lower()}\n" in text


def test_there_is_a_section_of_the_runbook_for_each_alert() -> None:
    assert list(GROUPS) == [
        "telemetryd",
        "telemetryd-delivery",
        "telemetryd-gpu",
        "telemetryd-energy",
    ]
    assert len(GROUPS["telemetryd"]) == 10
    assert all(name.startswith("Gpu") for name in GPU_ALERTS)
    assert list(ALERTS) == [name for group in GROUPS.values() for name in group] == SECTIONS


def test_alerts_are_on_the_xids_of_the_hardware_and_no_others() -> None:
    alerted = {name: set(re.findall(r'xid=~?"([\d|]+)"', text)) for name, text in ALERTS.items()}
    found = {name: set("|".join(xids).split("|")) for name, xids in alerted.items() if xids}
    assert found == {"GpuXidCritical": CRITICAL_XIDS, "GpuXidWarning": WARNING_XIDS}
    assert TEXT.count("telemetryd_gpu_xid") == len(found)


def test_the_dashboard_counts_the_xids_that_alerts_are_on() -> None:
    (tile,) = (target for target in TARGETS if target.panel == "XIDs of the hardware")
    (xids,) = re.findall(r'xid=~"([\d|]+)"', tile.expr)
    assert set(xids.split("|")) == CRITICAL_XIDS | WARNING_XIDS


@pytest.mark.parametrize("xid", HARMLESS_XIDS)
def test_each_xid_of_a_program_has_a_case_that_stays_quiet(xid: str) -> None:
    case = next(case for case in CASES.split("- name: ") if case.startswith(f"XID {xid},"))
    assert f'xid="{xid}"' in case
    assert "exp_alerts" not in case
    assert {"GpuXidCritical", "GpuXidWarning"} <= set(re.findall(r"alertname: (\w+)", case))


@pytest.mark.parametrize("name", GPU_ALERTS)
def test_every_alert_on_a_gpu_names_it_and_its_node(name: str) -> None:
    # A GPU that is missing has no name.
    labels = ("instance",) if name == "GpuMissing" else ("gpu", "uuid", "instance")
    description = ALERTS[name].partition("description:")[2]
    for label in labels:
        assert f"{{{{ $labels.{label} }}}}" in description
    summary = ALERTS[name].partition("summary:")[2].partition("description:")[0]
    assert "{{ $labels.instance }}" in summary


@pytest.mark.parametrize("name", DELIVERY_ALERTS)
def test_every_alert_on_delivery_names_the_node_and_the_destination(name: str) -> None:
    annotations = ALERTS[name].partition("annotations:")[2]
    for label in ("instance", "destination"):
        assert f"{{{{ $labels.{label} }}}}" in annotations


def test_every_reason_to_give_points_up_has_one_alert() -> None:
    # Those that the spool counts in request bodies are left to the alert on those.
    (left_out,) = re.findall(r'reason!~"([a-z|]+)"', ALERTS["PushDropping"])
    instruments = Instruments()
    show_from_start("there", instruments, 0)
    counted = [series for (series, _) in instruments.points() if series.metric is SPOOL_DROPPED]
    assert counted == [SPOOL_DROPPED.at("there", reason) for reason in left_out.split("|")]
    assert "reason" not in expression("SpoolDropping")


@pytest.mark.parametrize("name", ENERGY_ALERTS)
def test_an_alert_on_energy_cannot_fire_for_want_of_a_series(name: str) -> None:
    # Nodes without a meter, a budget or owners are no fault: only what was there can be missed.
    assert "absent" not in expression(name)
    (quiet,) = (one for one in CASES.split("- name: ") if one.startswith("a node without a meter"))
    assert f"alertname: {name}," in quiet
    assert "exp_alerts" not in quiet


@every_alert
def test_a_section_of_the_runbook_says_what_it_means_how_to_check_and_what_to_do(name: str) -> None:
    section = re.split(rf"^## {name}$", RUNBOOK, flags=re.MULTILINE)[1]
    section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
    for heading in ("**What it means.**", "**Check.**", "**Do.**", "**Harmless when**"):
        assert heading in section
    assert "```console\n$ " in section


def test_utilization_in_an_alert_is_the_integral_by_the_time_observed() -> None:
    assert "_utilization_ratio" not in TEXT
    assert "_peak_ratio" not in TEXT


def test_an_expression_falls_apart_into_the_vectors_that_it_filters() -> None:
    expr = """(
        a_b{c="and or"} / d_e > 0.5
        and on (job, instance) sum by (x) (f_g) == 0
        or absent(h_i)
      ) unless (j_k >= 4) <= 8 * 1024"""
    assert operands(expr) == ['a_b{c="and or"} / d_e', "sum by (x) (f_g)", "h_i", "j_k"]

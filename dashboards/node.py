"""The dashboard of one node: what is used and what is wasted, then the details."""

from __future__ import annotations

import node_compute
import node_hardware
import node_network
import node_overview
import node_storage
import node_telemetry
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard
from layout import place
from panels import SOURCE

# Links to it and bookmarks hold as long as this stays.
UID = "telemetryd-node"
TAG = "telemetryd"


def build() -> dashboard.Dashboard:
    builder = (
        builders.Dashboard("telemetryd / Node")
        .uid(UID)
        .description(
            "One node: how well its resources, links and joules are used, what it waits for, and "
            "the state of its hardware. From telemetryd, through Prometheus."
        )
        .tags([TAG, "node"])
        .timezone("browser")
        .time("now-3h", "now")
        .refresh("30s")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
        .with_variable(_labels("job", "Job", "telemetryd_build_info"))
        .with_variable(_labels("instance", "Node", 'telemetryd_build_info{job="$job"}'))
        .link(
            builders.DashboardLink("Other telemetryd dashboards")
            .type(dashboard.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
            .include_vars(True)
        )
    )
    return place(
        builder,
        node_overview.TOP,
        [
            node_overview.USED_AND_WASTED,
            node_compute.CPU,
            node_compute.MEMORY,
            node_storage.DISKS,
            node_storage.FILESYSTEMS,
            node_network.INTERFACES,
            node_network.TRANSPORT,
            node_hardware.SENSORS,
            node_hardware.SYSTEM,
            node_telemetry.TELEMETRYD,
        ],
    )


def _labels(name: str, label: str, selector: str) -> builders.QueryVariable:
    """A variable with the values that a label has, looked up when the time range changes, so that
    a node that is gone now can be chosen in the past."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": f"label_values({selector}, {name})", "refId": f"variable-{name}"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    )

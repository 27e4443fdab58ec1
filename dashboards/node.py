"""The dashboard of one node: what is used and what is wasted, then the details."""

from __future__ import annotations

import node_compute
import node_hardware
import node_network
import node_overview
import node_storage
import node_telemetry
from board import begin, labels
from grafana_foundation_sdk.models import dashboard
from layout import place

UID = "telemetryd-node"


def build() -> dashboard.Dashboard:
    builder = (
        begin(
            "telemetryd / Node",
            UID,
            "node",
            "One node: how well its resources, links and joules are used, what it waits for, and "
            "the state of its hardware. From telemetryd, through Prometheus.",
            hands_over=True,
        )
        .with_variable(labels("job", "Job", "telemetryd_build_info"))
        .with_variable(labels("instance", "Node", 'telemetryd_build_info{job="$job"}'))
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

"""The dashboard of energy, of one node or many: where it went, for whom, and what it cost."""

from __future__ import annotations

import energy_meters
import energy_overview
import energy_owners
from board import begin, labels
from grafana_foundation_sdk.models import dashboard
from layout import place

UID = "telemetryd-energy"


def build() -> dashboard.Dashboard:
    nodes = labels("instance", "Node", 'telemetryd_node_energy_joules_total{job="$job"}')
    builder = (
        begin(
            "telemetryd / Energy",
            UID,
            "energy",
            "Energy of one node or of many: how much went in, what became of it, who used it, "
            "what it cost, and whether its meters can be trusted. From telemetryd, through "
            "Prometheus.",
            # The others show one node, and would not know what to do with many.
            hands_over=False,
        )
        .with_variable(labels("job", "Job", "telemetryd_node_energy_joules_total"))
        .with_variable(nodes.multi(True).include_all(True).all_value(".*"))
        # What a window of energy is worth shows over hours.
        .time("now-12h", "now")
        .refresh("1m")
    )
    return place(
        builder,
        energy_overview.TOP,
        [
            energy_overview.WHERE_IT_WENT,
            energy_owners.OWNERS,
            energy_overview.MONEY,
            energy_meters.METERS,
            energy_meters.IDLE_POWER,
            energy_owners.RESOURCES,
        ],
    )

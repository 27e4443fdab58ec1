"""The dashboard of what nodes push: what arrives, what waits, what is lost, and why."""

from __future__ import annotations

import delivery_overview
import delivery_sending
import delivery_spool
from board import begin, labels
from grafana_foundation_sdk.models import dashboard
from layout import place

UID = "telemetryd-delivery"
_OF_ALL = "telemetryd_exporter_points_total"


def build() -> dashboard.Dashboard:
    nodes = labels("instance", "Node", f'{_OF_ALL}{{job="$job"}}')
    destinations = labels("destination", "Destination", f'{_OF_ALL}{{job="$job"}}')
    builder = (
        begin(
            "telemetryd / Delivery",
            UID,
            "delivery",
            "What nodes push to their destinations: how much arrives, how much waits and for how "
            "long, what was lost, refused or put in quarantine, and why. From telemetryd, through "
            "Prometheus.",
            # The others show one node, and would not know what to do with many.
            hands_over=False,
        )
        .with_variable(labels("job", "Job", _OF_ALL))
        .with_variable(nodes.multi(True).include_all(True).all_value(".*"))
        .with_variable(destinations.multi(True).include_all(True).all_value(".*"))
    )
    return place(
        builder,
        delivery_overview.TOP,
        [
            delivery_spool.WAITING,
            delivery_sending.SENDING,
            delivery_sending.REFUSALS,
            delivery_spool.SPOOL,
        ],
    )

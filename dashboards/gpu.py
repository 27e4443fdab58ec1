"""The dashboard of GPUs, of one node or many: which are wasted, then the details."""

from __future__ import annotations

import gpu_health
import gpu_links
import gpu_overview
import gpu_power
import gpu_sharing
import gpu_work
from board import begin, labels
from gpu_promql import ALL_GPUS
from grafana_foundation_sdk.models import dashboard
from layout import place

UID = "telemetryd-gpu"


def build() -> dashboard.Dashboard:
    nodes = labels("instance", "Node", 'telemetryd_gpu_info{job="$job"}')
    gpus = labels("gpu", "GPU", 'telemetryd_gpu_info{job="$job", instance=~"$instance"}')
    builder = (
        begin(
            "telemetryd / GPUs",
            UID,
            "gpu",
            "GPUs of one node or of many: how well they are used, which are held and do nothing, "
            "what holds them back, their power, their links and their health. From telemetryd, "
            "through Prometheus.",
            # The others show one node, and would not know what to do with many.
            hands_over=False,
        )
        .with_variable(labels("job", "Job", "telemetryd_gpu_info"))
        .with_variable(nodes.multi(True).include_all(True).all_value(".*"))
        .with_variable(gpus.multi(True).include_all(True).all_value(ALL_GPUS))
    )
    return place(
        builder,
        gpu_overview.TOP,
        [
            gpu_overview.USED_AND_WASTED,
            gpu_work.WORK,
            gpu_work.MEMORY,
            gpu_power.POWER,
            gpu_power.CLOCKS,
            gpu_power.TEMPERATURE,
            gpu_links.LINKS,
            gpu_health.HEALTH,
            gpu_sharing.MIG,
            gpu_sharing.PROCESSES,
        ],
    )

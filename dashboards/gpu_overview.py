"""The GPUs at a glance, and which of them are wasted."""

from __future__ import annotations

from gpu_promql import (
    DEVICE,
    GPU,
    WHOLE,
    activity,
    by_gpu,
    increase,
    joules,
    rate,
    series,
    unused_seconds,
    used,
)
from grafana_foundation_sdk.models import dashboard
from layout import Row
from panels import (
    ACT,
    GOOD,
    NEUTRAL,
    NONE_IS_GOOD,
    WATCH,
    Column,
    Query,
    graph,
    grid,
    tile,
    timeline,
)
from promql import NOW, SHOWN

ROWS = {"instance": "Node", "gpu": "GPU"}
# The XIDs that stand for a fault of the hardware or the driver, as in alerts.yaml.
HARDWARE_XIDS = "=~48|62|64|74|79|94|95|119|120"
# Little use is what is bad here.
_USED: tuple[tuple[float | None, str], ...] = ((None, ACT), (0.05, WATCH), (0.5, GOOD))
_TO_NODE = {
    "title": "This node",
    "url": "/d/telemetryd-node?var-datasource=${datasource}&var-job=${job}"
    "&var-instance=${__value.raw}&${__url_time_range}",
}
_HOUR_S = 3600
_HELD_IDLE = "telemetryd_gpu_held_idle_seconds_total"


def _by_capacity(window: str) -> str:
    """The mean utilization with each GPU counted by what it could do; where no GPU's peak is
    known, all count the same."""
    busy = by_gpu(activity(window, WHOLE))
    peak = series("telemetryd_gpu_peak_flops", precision="bf16")
    return (
        f"sum({busy} * on (job, instance, gpu) {peak})"
        f" / sum({peak} and on (job, instance, gpu) {busy})"
        f" or avg({busy})"
    )


_OF_LIMIT = by_gpu(used("gpu_power", NOW, WHOLE))
_POWER_LIMIT = series("telemetryd_gpu_power_limit_watts", limit="enforced")

TOP = (
    tile(
        "GPUs",
        "GPUs that are read now; MIG instances do not count. Fewer than the machines have: see "
        "`Lost` beside it, and the collectors on the dashboard of the node.",
        "none",
        Query(f"count({series('telemetryd_gpu_info')})", "GPUs"),
        NEUTRAL,
    ),
    tile(
        "Used, by capacity",
        "Share of what all GPUs together could do that was used, the mean of the last 5 minutes: "
        "busy multiprocessors where the GPU tells, else the time with a kernel, each GPU counted "
        "by its data-sheet peak in bf16 (all the same where none is known). Low: GPUs are paid "
        "for and rest. A GPU that is divided into MIG instances may not be in it.",
        "percentunit",
        Query(_by_capacity(NOW), "used"),
        _USED,
        decimals=1,
    ),
    tile(
        "Held and idle",
        "GPUs and MIG instances that a process holds, or that have memory in use, and that have "
        "done nothing for a while. Anything above 0 keeps others from a GPU for nothing.",
        "none",
        Query(f"sum({series('telemetryd_gpu_held_idle')})", "held and idle"),
        NONE_IS_GOOD,
    ),
    tile(
        "Lost",
        "GPUs that were here and do not answer any more. Should be 0: each needs a reset, a "
        "reboot or an engineer.",
        "none",
        Query(f"sum({series('telemetryd_gpu_lost')})", "lost"),
        NONE_IS_GOOD,
    ),
    tile(
        "Power",
        "Power of all GPUs together, the mean of the last 5 minutes, from their energy.",
        "watt",
        Query(f"sum({joules(NOW, a_second=True)})", "power"),
        NEUTRAL,
        nothing="not measured",
        decimals=0,
    ),
    tile(
        "Power of the limits",
        "Power of all GPUs together as a share of the limits in force, the mean of the last 5 "
        "minutes. Near 100 %: the limits hold the clocks down.",
        "percentunit",
        Query(
            f"sum({_OF_LIMIT} * on (job, instance, gpu) {_POWER_LIMIT})"
            f" / sum({_POWER_LIMIT} and on (job, instance, gpu) {_OF_LIMIT})",
            "of the limits",
        ),
        NEUTRAL,
        nothing="no limit known",
        decimals=1,
    ),
    tile(
        "XIDs of the hardware",
        "Errors of hardware and driver that GPUs reported over the time shown (XID "
        f"{HARDWARE_XIDS[2:].replace('|', ', ')}). Should be 0: an alert says what to do. Faults "
        "of programs are not in it; `Health` has all.",
        "none",
        Query(
            f"sum({increase('telemetryd_gpu_xid_errors_total', SHOWN, xid=HARDWARE_XIDS)})",
            "XIDs",
        ),
        NONE_IS_GOOD,
        decimals=0,
    ),
    tile(
        "Closest to its limit",
        "Degrees that the hottest GPU may still get warmer before it slows itself down.",
        "celsius",
        Query(f"bottomk(1, {series('telemetryd_gpu_temperature_margin_celsius')})", GPU),
        ((None, ACT), (5, WATCH), (10, GOOD)),
        nothing="no limit known",
        decimals=0,
        is_named=True,
    ),
)

_TABLE = grid(
    "GPUs over the time shown",
    "How well each GPU and MIG instance was used over the whole time shown. Means are integral / "
    "observed time, so that no second between two scrapes is missed. Little use with much memory "
    "or much time held and idle: somebody keeps it without need. Much use with little tensor "
    "activity: it works, but not with what it is fastest at.",
    ROWS,
    [
        Column(by_gpu(activity(SHOWN)), "Used", "percentunit", _USED, is_bar=True),
        Column(by_gpu(used("gpu", SHOWN)), "With a kernel", "percentunit"),
        Column(by_gpu(used("gpu_tensor", SHOWN)), "Tensor cores", "percentunit"),
        Column(by_gpu(used("gpu_memory", SHOWN)), "Memory", "percentunit"),
        Column(
            by_gpu(f"{unused_seconds(SHOWN)} / {_HOUR_S}"),
            "Unused hours",
            "none",
        ),
        Column(increase(_HELD_IDLE, SHOWN), "Held and idle", "s"),
        Column(by_gpu(joules(SHOWN, a_second=True)), "Mean power", "watt"),
        Column(by_gpu(joules(SHOWN)), "Energy", "joule"),
        Column(series("telemetryd_gpu_processes"), "Processes", "none"),
        Column(
            series("telemetryd_gpu_lost"),
            "State",
            "none",
            NONE_IS_GOOD,
            names={"0": "answers", "1": "lost"},
        ),
    ],
    height=10,
).override_by_name(ROWS["instance"], [dashboard.DynamicConfigValue("links", [_TO_NODE])])

USED_AND_WASTED = Row(
    "Used and wasted",
    (
        _TABLE,
        timeline(
            "Which GPUs are wasted",
            "How busy each GPU and MIG instance was: red below 5 %, orange below half, green "
            "above. A row that stays red is a GPU that nobody needs, or one that somebody holds "
            "and does not use.",
            "percentunit",
            Query(activity(), DEVICE),
            _USED,
            height=10,
        ),
        graph(
            "GPUs' worth of work",
            "How many whole GPUs the work would have filled, how many went unused, and how many "
            "of those were held by somebody: the gap between the first and the number of GPUs is "
            "what could still be had.",
            "short",
            Query(f"sum({activity(device=WHOLE)})", "used"),
            Query(f"sum(1 - {activity(device=WHOLE)})", "unused"),
            Query(f"sum({rate(_HELD_IDLE, gpu=WHOLE)})", "held and idle"),
            Query(f"count({series('telemetryd_gpu_info')})", "GPUs"),
            dashed="/^GPUs$/",
        ),
        graph(
            "GPU hours lost an hour",
            "Hours of GPUs that went by unused, and those in which somebody held the GPU, for "
            "each hour: 8 for a node of eight that rests. The price of a GPU hour times this is "
            "what waste costs.",
            "none",
            Query(f"sum({unused_seconds('1h', WHOLE)}) / {_HOUR_S}", "unused"),
            Query(
                f"sum({increase(_HELD_IDLE, '1h', gpu=WHOLE)}) / {_HOUR_S}",
                "held and idle",
            ),
        ),
        graph(
            "Held and idle",
            "Share of time in which each GPU was held by a process, or had memory in use, and did "
            "nothing. A line at 100 % for hours is a forgotten notebook or a job that hangs.",
            "percentunit",
            Query(rate(_HELD_IDLE), GPU),
            highest=1,
        ),
    ),
    is_open=True,
)

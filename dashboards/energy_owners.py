"""For whom the energy was used: jobs, pods, containers and units, and what else they used."""

from __future__ import annotations

from energy_promql import (
    OWNER,
    OWNER_NAME,
    STEP,
    by_owner,
    increase,
    kwh,
    named,
    of_top,
    rate,
    series,
    total,
)
from layout import Row
from panels import Column, Query, graph, grid
from promql import SHOWN, WINDOW

_MOST, _MOST_DRAWN = 25, 10
_ENERGY = "telemetryd_owner_energy_joules_total"
_UNATTRIBUTED = "telemetryd_owner_energy_unattributed_joules_total"
_INPUT = "telemetryd_node_energy_split_input_joules_total"
_CPU = "telemetryd_owner_cpu_seconds_total"
_MEMORY = "telemetryd_owner_memory_bytes"
_GPU_MEMORY = "telemetryd_gpu_owner_memory_bytes"
_GPU_SHARE = "telemetryd_gpu_owner_utilization_ratio"
_ROWS = {"owner_kind": "Kind", "owner": "Owner", "name": "Name", "user": "User"}
_HOUR_S = 3600

_POWER = total(rate(_ENERGY), OWNER)
_GPUS_USED = total(f"avg_over_time({series(_GPU_SHARE)}[{WINDOW}])", OWNER)
# The same time again, by command.
_NOT_AGAIN = "!=process"


def _column(expr: str, title: str, unit: str, *, is_bar: bool = False, by: str = OWNER) -> Column:
    """Figures of the owners that used the most energy, with their names."""
    return Column(named(of_top(total(expr, by), _MOST)), title, unit, is_bar=is_bar)


_COST = (
    f"{increase(_ENERGY, SHOWN)} * on (job, instance) group_left ()"
    f" ({total(increase('telemetryd_node_energy_cost_total', SHOWN), 'job, instance')}"
    f" / {total(increase('telemetryd_node_energy_joules_total', SHOWN), 'job, instance')})"
)

_TABLE = grid(
    "Owners over the time shown",
    f"The {_MOST} owners to whom most of the energy went: jobs, pods, containers and units, over "
    "all nodes that are chosen. `system` is the kernel and what belongs to nobody, `other` those "
    "beyond max_owners. Much energy with little CPU time and no GPU: it holds devices for nothing. "
    "What an owner used before Prometheus first saw its counter is not in it: the first minute or "
    "two. Names need scontrol or the kubelet.",
    _ROWS,
    [
        Column(named(by_owner(_MOST, SHOWN)), "Energy", "joule"),
        Column(kwh(f"({named(by_owner(_MOST, SHOWN))})"), "Energy in kWh", "kwatth"),
        Column(
            named(
                f"{by_owner(_MOST, SHOWN)} / on () group_left () {total(increase(_INPUT, SHOWN))}"
            ),
            "Share",
            "percentunit",
            is_bar=True,
        ),
        _column(_COST, "Cost", "none"),
        _column(f"{increase(_CPU, SHOWN)} / {_HOUR_S}", "CPU hours", "none"),
        _column(f"max_over_time({series(_MEMORY)}[{SHOWN}])", "Most memory", "bytes"),
        _column(f"max_over_time({series(_GPU_MEMORY)}[{SHOWN}])", "Most GPU memory", "bytes"),
    ],
    height=11,
)

OWNERS = Row(
    "For whom",
    (
        _TABLE,
        graph(
            "Power by owner",
            f"Mean power of the {_MOST_DRAWN} owners with the most energy in the time shown, of "
            "all others, and what is nobody's. Adds up to the input. A flat band at low height "
            "for days is a job that was forgotten.",
            "watt",
            Query(of_top(_POWER, _MOST_DRAWN, at_end=True), OWNER_NAME),
            Query(
                f"{total(rate(_ENERGY))} - sum({of_top(_POWER, _MOST_DRAWN, at_end=True)})",
                "all others",
            ),
            Query(total(rate(_UNATTRIBUTED)), "nobody's"),
            width=16,
            height=11,
            is_stacked=True,
            step=STEP,
        ),
        graph(
            "Power by kind of owner",
            "The same by job, pod, container, unit, the system and nobody. Much of `unit` on "
            "nodes for jobs: a service eats into them. Much of nobody's: devices are free, or "
            "several share a GPU whose driver does not tell them apart.",
            "watt",
            Query(total(rate(_ENERGY), "owner_kind"), "{{owner_kind}}"),
            Query(total(rate(_UNATTRIBUTED)), "nobody"),
            height=11,
            is_stacked=True,
            step=STEP,
        ),
        graph(
            "Nobody's",
            "Share of the energy that was nobody's, or of which it cannot be told whose it was. "
            "High on nodes that are free. High on nodes at work: owners are not told apart.",
            "percentunit",
            Query(
                f"{total(increase(_UNATTRIBUTED), 'instance')}"
                f" / {total(increase(_INPUT), 'instance')}",
                "{{instance}}",
            ),
            highest=1,
            step=STEP,
        ),
        graph(
            "Sum of all owners",
            "Owners and what is nobody's, as a share of the input that was divided: 100 %. Below "
            "that for a moment an owner has just come, and Prometheus does not count what its "
            "counter began with. Off for long: report it.",
            "percentunit",
            Query(
                f"({total(increase(_ENERGY), 'instance')}"
                f" + {total(increase(_UNATTRIBUTED), 'instance')})"
                f" / {total(increase(_INPUT), 'instance')}",
                "{{instance}}",
            ),
            step=STEP,
        ),
        graph(
            "Owners",
            "Owners that there are, and those beyond max_owners, whose figures are in `other`. "
            "Above 0 for long: raise collectors.owners.max_owners.",
            "none",
            Query(series("telemetryd_owner_found"), "{{instance}}"),
            Query(series("telemetryd_owner_dropped"), "{{instance}} beyond max_owners"),
            dashed="/beyond/",
        ),
    ),
)

RESOURCES = Row(
    "What owners used",
    (
        graph(
            "CPUs",
            f"CPUs' worth of time of the {_MOST_DRAWN} owners that used the most. A job at one CPU "
            "of the many that it was given runs on one thread. `system` high: interrupts, or the "
            "kernel at work for somebody.",
            "short",
            Query(
                f"topk({_MOST_DRAWN}, {total(rate(_CPU, owner_kind=_NOT_AGAIN), OWNER)})",
                OWNER_NAME,
            ),
            width=12,
        ),
        graph(
            "Memory",
            f"Memory of the {_MOST_DRAWN} owners with the most, file cache included. One that only "
            "grows ends with the kernel killing it.",
            "bytes",
            Query(f"topk({_MOST_DRAWN}, {total(series(_MEMORY), OWNER)})", OWNER_NAME),
            width=12,
        ),
        graph(
            "GPU memory",
            f"GPU memory of the {_MOST_DRAWN} owners with the most, over their GPUs and MIG "
            "instances. Much of it and a share of 0 beside it: the GPU is held for nothing.",
            "bytes",
            Query(f"topk({_MOST_DRAWN}, {total(series(_GPU_MEMORY), OWNER)})", OWNER_NAME),
            width=12,
        ),
        graph(
            "GPUs",
            "GPUs' worth of multiprocessors that each owner used, as the driver samples it: 8 for "
            "a job that fills eight. Far below the number of GPUs that it holds: it waits for "
            "data, or for its other processes. Not under MIG.",
            "short",
            Query(
                f"topk({_MOST_DRAWN}, {_GPUS_USED})",
                OWNER_NAME,
            ),
            width=12,
        ),
    ),
)

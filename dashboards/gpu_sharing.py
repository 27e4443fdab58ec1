"""Who shares the GPUs: MIG instances and processes."""

from __future__ import annotations

from gpu_overview import ROWS
from gpu_promql import DEVICE, GPU, INSTANCES, by_gpu, series, used
from layout import Row
from panels import FILLING, Column, Query, graph, grid
from promql import SHOWN

_INSTANCE = series("telemetryd_gpu_instance_info")
_MOST = 50


def _of_instance(expr: str) -> str:
    return f"({expr}) * on (job, instance, gpu) group_left (parent, profile) {_INSTANCE}"


MIG = Row(
    "MIG instances",
    (
        grid(
            "MIG instances",
            "The instances that GPUs are divided into, how busy they were over the time shown, "
            "and their memory. Compute instances of one GPU instance share its memory and report "
            "the same. An instance that was not busy at all could be another size, or go.",
            {**ROWS, "parent": "Part of GPU", "profile": "Profile"},
            [
                Column(
                    _of_instance(by_gpu(used("gpu_sm", SHOWN, INSTANCES))),
                    "Busy",
                    "percentunit",
                    is_bar=True,
                ),
                Column(
                    _of_instance(by_gpu(used("gpu_memory", SHOWN, INSTANCES))),
                    "Memory in use",
                    "percentunit",
                    FILLING,
                    is_bar=True,
                ),
                Column(
                    _of_instance(series("telemetryd_gpu_memory_used_bytes", gpu=INSTANCES)),
                    "Used",
                    "bytes",
                ),
                Column(
                    _of_instance(series("telemetryd_gpu_memory_total_bytes", gpu=INSTANCES)),
                    "Memory",
                    "bytes",
                ),
                Column(_INSTANCE, "", is_hidden=True),
            ],
        ),
        graph(
            "Busy multiprocessors of each instance",
            "Share of an instance's multiprocessors that were busy.",
            "percentunit",
            Query(used("gpu_sm", device=INSTANCES), DEVICE),
            highest=1,
        ),
        graph(
            "Memory of each instance",
            "Share of an instance's memory that is in use. Near 100 % a program may fail though "
            "the GPU as a whole has memory left.",
            "percentunit",
            Query(used("gpu_memory", device=INSTANCES), DEVICE),
            highest=1,
        ),
        graph(
            "Memory of the instances of a GPU",
            "Memory in use by all instances of each GPU, each byte counted once, and what they "
            "have in all. Far less than the GPU's own memory: a part of it is given to nobody.",
            "bytes",
            Query(series("telemetryd_gpu_mig_memory_used_bytes"), GPU),
            Query(series("telemetryd_gpu_mig_memory_total_bytes"), f"{GPU} in all"),
            dashed="/in all$/",
        ),
    ),
)

_PROCESS = {**ROWS, "pid": "Process", "command": "Command"}

PROCESSES = Row(
    "Processes",
    (
        grid(
            "Processes",
            "The processes with the most memory on GPUs, and their share of the multiprocessors. "
            "Much memory without any share for hours: it holds the GPU for nothing. Not pushed "
            "to InfluxDB by default.",
            _PROCESS,
            [
                Column(
                    f"topk({_MOST}, {series('telemetryd_gpu_process_memory_bytes')})",
                    "Memory",
                    "bytes",
                ),
                Column(
                    f"topk({_MOST}, {series('telemetryd_gpu_process_utilization_ratio')})",
                    "Multiprocessors",
                    "percentunit",
                ),
            ],
        ),
        graph(
            "Processes on each GPU",
            "Processes that hold a context. More than one on a GPU that should belong to one job: "
            "somebody else uses it too.",
            "short",
            Query(series("telemetryd_gpu_processes"), GPU),
            width=12,
        ),
        graph(
            "Multiprocessors by process",
            "Share of the multiprocessors that the busiest ten processes used lately.",
            "percentunit",
            Query(
                f"topk(10, {series('telemetryd_gpu_process_utilization_ratio')})",
                f"{GPU} {{{{pid}}}} {{{{command}}}}",
            ),
            width=12,
        ),
    ),
)

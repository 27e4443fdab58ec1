"""What the GPUs work on, and what their memory holds."""

from __future__ import annotations

from gpu_promql import DEVICE, GPU, carried, link_used, mean, series, used
from layout import Row
from panels import Query, graph

WORK = Row(
    "Work",
    (
        graph(
            "Busy multiprocessors",
            "Share of a GPU's multiprocessors that were busy. This is how full a GPU was; low "
            "beside a high `Time with a kernel`: kernels too small for the GPU, or that wait. "
            "Needs Hopper or later.",
            "percentunit",
            Query(used("gpu_sm"), DEVICE),
            width=12,
            highest=1,
        ),
        graph(
            "Time with a kernel",
            "Share of time in which at least one kernel ran: what nvidia-smi calls utilization. "
            "100 % does not say that the GPU was full. Absent under MIG.",
            "percentunit",
            Query(used("gpu"), DEVICE),
            width=12,
            highest=1,
        ),
        graph(
            "Tensor cores",
            "Share of time in which the tensor cores worked. Training of large models should show "
            "30 % and more; near 0 under load: the arithmetic is not done where it is fastest "
            "(number format, shapes, attention kernels).",
            "percentunit",
            Query(used("gpu_tensor"), DEVICE),
            highest=1,
        ),
        graph(
            "Memory bandwidth",
            "Share of the memory's bandwidth that was used. Near 100 %: the work is bound by "
            "memory, as generating tokens often is. Needs a GPU whose data sheet is known.",
            "percentunit",
            Query(link_used("gpu_memory"), DEVICE),
            highest=1,
        ),
        graph(
            "Occupancy",
            "Warps that were resident, of those that the multiprocessors could hold. Low beside "
            "busy multiprocessors is no fault of itself: some fast kernels need few.",
            "percentunit",
            Query(mean("telemetryd_gpu_sm_occupancy_ratio"), GPU),
            highest=1,
        ),
        graph(
            "Busiest interval of a minute",
            "The highest share of any single interval in the last minute, beside the means above: "
            "much higher means work in bursts, with the GPU waiting between them.",
            "percentunit",
            Query(
                series("telemetryd_utilization_peak_ratio", resource="=~gpu|gpu_sm"),
                f"{DEVICE} {{{{resource}}}}",
            ),
            highest=1,
        ),
        graph(
            "Graphics or compute engine",
            "Share of time in which the engine was active, however little of it.",
            "percentunit",
            Query(mean("telemetryd_gpu_graphics_active_ratio"), GPU),
            highest=1,
        ),
        graph(
            "Video encoder and decoder",
            "Share of time in which the video engines worked. A decoder near 100 % holds up a "
            "pipeline that reads video.",
            "percentunit",
            Query(used("gpu_encoder"), f"{DEVICE} encoder"),
            Query(used("gpu_decoder"), f"{DEVICE} decoder"),
            highest=1,
        ),
    ),
)

MEMORY = Row(
    "Memory",
    (
        graph(
            "Memory in use",
            "Share of each GPU's memory that is in use. Full is often meant: many programs take "
            "all of it at the start. Full beside an idle GPU is memory that somebody forgot.",
            "percentunit",
            Query(used("gpu_memory"), DEVICE),
            width=12,
            highest=1,
        ),
        graph(
            "Bytes in use",
            "Memory in use on each GPU and MIG instance, without what the driver keeps for "
            "itself. Steps that only go up until a job dies are a leak.",
            "bytes",
            Query(series("telemetryd_gpu_memory_used_bytes"), GPU),
            width=12,
        ),
        graph(
            "Free",
            "Memory that is free. A job that needs more than this ends with an error.",
            "bytes",
            Query(series("telemetryd_gpu_memory_free_bytes"), GPU),
        ),
        graph(
            "Kept by the driver",
            "Memory that driver and firmware keep for themselves. Much more on one GPU than on "
            "its neighbours: another ECC or MIG setting.",
            "bytes",
            Query(series("telemetryd_gpu_memory_reserved_bytes"), GPU),
        ),
        graph(
            "Read or written",
            "Share of time in which the memory was read or written at all, by the driver's "
            "samples; how much of its bandwidth was used is under `Work`.",
            "percentunit",
            Query(mean("telemetryd_gpu_memory_busy_ratio"), GPU),
            highest=1,
        ),
        graph(
            "Bytes read and written",
            "Traffic of each GPU's memory, both directions together.",
            "Bps",
            Query(carried("gpu_memory"), DEVICE),
        ),
    ),
)

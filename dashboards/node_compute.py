"""CPU and memory of a node."""

from __future__ import annotations

from layout import Row
from panels import Query, graph
from promql import increase, rate, series, used

_CPUS = f"count({series('telemetryd_cpu_time_seconds_total', mode='idle')})"
_BUSY = rate("telemetryd_cpu_time_seconds_total", mode="!=idle")

CPU = Row(
    "CPU",
    (
        graph(
            "Time by mode",
            "What the CPUs did, as a share of all of their time. iowait is a guess of the "
            "kernel's; time of virtual guests is inside user.",
            "percentunit",
            Query(f"sum by (mode) ({_BUSY}) / scalar({_CPUS})", "{{mode}}"),
            width=12,
            highest=1,
            is_stacked=True,
        ),
        graph(
            "Load and tasks",
            "Tasks that run or want to, those blocked in I/O, and the load averages, beside the "
            "number of CPUs. Far more tasks that can run than CPUs: they wait for each other.",
            "short",
            Query(series("telemetryd_cpu_tasks"), "{{state}}"),
            Query(series("telemetryd_cpu_load"), "load {{minutes}} min"),
            Query(_CPUS, "CPUs"),
            width=12,
            dashed="/^CPUs$/",
        ),
        graph(
            "Each CPU",
            "Busy share of each CPU: one that is full while the others rest is a program with one "
            "thread, or interrupts that all go to one place. Off by default above 64 CPUs.",
            "percentunit",
            Query(used("cpu_core"), "CPU {{device}}"),
            width=12,
            highest=1,
        ),
        graph(
            "Frequency",
            "Frequency at which the CPUs run: the mean, the slowest and the fastest.",
            "hertz",
            Query(f"avg({series('telemetryd_cpu_frequency_hertz')})", "mean"),
            Query(f"min({series('telemetryd_cpu_frequency_hertz')})", "slowest"),
            Query(f"max({series('telemetryd_cpu_frequency_hertz')})", "fastest"),
            width=12,
        ),
        graph(
            "Thermal throttling",
            "Times that cores, and whole packages, were slowed down because they were too hot.",
            "short",
            Query(
                f"sum by (scope) ({increase('telemetryd_cpu_thermal_throttles_total')})",
                "{{scope}}",
            ),
        ),
        graph(
            "Scheduling",
            "Context switches and interrupts a second.",
            "cps",
            Query(rate("telemetryd_cpu_context_switches_total"), "context switches"),
            Query(rate("telemetryd_cpu_interrupts_total"), "interrupts"),
        ),
        graph(
            "Programs started",
            "Processes and threads started a second.",
            "cps",
            Query(rate("telemetryd_cpu_forks_total"), "started"),
        ),
    ),
)


def _level(name: str, legend: str) -> Query:
    return Query(series(f"telemetryd_memory_{name}_bytes"), legend)


MEMORY = Row(
    "Memory",
    (
        graph(
            "What memory holds",
            "Memory by what it is used for. Caches give way to programs; the kernel's estimate of "
            "what programs can still have is `available`.",
            "bytes",
            _level("anonymous", "programs"),
            Query(
                f"{series('telemetryd_memory_cached_bytes')}"
                f" + {series('telemetryd_memory_buffers_bytes')}",
                "page cache",
            ),
            Query(
                f"{series('telemetryd_memory_slab_reclaimable_bytes')}"
                f" + {series('telemetryd_memory_slab_unreclaimable_bytes')}",
                "kernel objects",
            ),
            Query(
                f"{series('telemetryd_memory_page_tables_bytes')}"
                f" + {series('telemetryd_memory_kernel_stack_bytes')}",
                "page tables and stacks",
            ),
            Query(
                f"{series('telemetryd_memory_hugepages')}"
                f" * {series('telemetryd_memory_hugepage_size_bytes')}",
                "hugepage pool",
            ),
            _level("free", "free"),
            width=12,
            is_stacked=True,
        ),
        graph(
            "What is left",
            "Memory that programs can still have, free swap, and what waits to be written to disk.",
            "bytes",
            _level("available", "available"),
            _level("swap_free", "free swap"),
            _level("dirty", "to be written"),
            _level("total", "memory in all"),
            width=12,
            dashed="/in all$/",
        ),
        graph(
            "Swap traffic",
            "Bytes a second into and out of memory. Anything but quiet means that programs "
            "together need more memory than there is.",
            "Bps",
            Query(rate("telemetryd_memory_swapped_bytes_total"), "{{direction}}"),
        ),
        graph(
            "Page faults that wait for a disk",
            "Major faults a second: each stopped a program until a page was read.",
            "cps",
            Query(rate("telemetryd_memory_major_page_faults_total"), "major faults"),
        ),
        graph(
            "OOM kills",
            "Programs killed because memory ran out, on the machine or within a control group.",
            "short",
            Query(increase("telemetryd_memory_oom_kills_total"), "killed"),
        ),
        graph(
            "Promised memory",
            "Memory promised to programs beside the limit, which binds only if "
            "vm.overcommit_memory is 2.",
            "bytes",
            _level("committed", "promised"),
            _level("commit_limit", "limit"),
            dashed="/^limit$/",
        ),
        graph(
            "Hugepages in the pool",
            "Pages of the hugepage pool: all, those not handed out, and those promised.",
            "short",
            Query(series("telemetryd_memory_hugepages"), "all"),
            Query(series("telemetryd_memory_hugepages_free"), "not handed out"),
            Query(series("telemetryd_memory_hugepages_reserved"), "promised"),
        ),
        graph(
            "Memory found bad",
            "Memory taken out of use because the hardware reported it bad. Should be 0.",
            "bytes",
            _level("hardware_corrupted", "bad"),
        ),
    ),
)

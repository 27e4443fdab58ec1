"""The node at a glance, and what of it is used and wasted."""

from __future__ import annotations

from layout import Row
from panels import (
    ACT,
    FILLING,
    GOOD,
    NEUTRAL,
    NONE_IS_GOOD,
    WATCH,
    Column,
    Query,
    graph,
    grid,
    tile,
)
from promql import NOW, SHOWN, increase, link_used, rate, series, used

# Cores would repeat what `cpu` says of all of them.
_RESOURCES = "!=cpu_core"
_LINKS = f'label_join({link_used(SHOWN)}, "resource", " ", "link", "direction")'
_RESOURCES_AND_LINKS = f"{used(_RESOURCES, SHOWN)} or {_LINKS}"
_METER = "{{source}} {{domain}} {{device}} ({{boundary}})"
# A board may leave nonsense in a limit that it does not use.
TEMPERATURE_LEFT = (
    f"(({series('telemetryd_thermal_temperature_limit_celsius', limit='crit')} >= 40) <= 150)"
    f" - ignoring (limit) {series('telemetryd_thermal_temperature_celsius')}"
)

TOP = (
    tile(
        "Failing collectors",
        "Collectors of this node whose last sample failed or is stuck, or whose hardware is "
        "required and missing. No data: the daemon itself is not scraped.",
        "none",
        Query(f"sum(1 - {series('telemetryd_collector_up')})", "failing"),
        NONE_IS_GOOD,
    ),
    tile(
        "CPU used",
        "Busy share of all CPUs, the mean of the last 5 minutes. Steal counts as busy, waiting "
        "for I/O does not.",
        "percentunit",
        Query(used("cpu", NOW), "CPU"),
        FILLING,
        decimals=1,
    ),
    tile(
        "Memory used",
        "Share of memory that is not available to new programs, the mean of the last 5 minutes.",
        "percentunit",
        Query(used("memory", NOW), "memory"),
        FILLING,
        decimals=1,
    ),
    tile(
        "Fullest filesystem",
        "The filesystem with the least room left, as df shows it.",
        "percentunit",
        Query(
            f"topk(1, {series('telemetryd_utilization_ratio', resource='filesystem')})",
            "{{device}}",
        ),
        FILLING,
        decimals=1,
        is_named=True,
    ),
    tile(
        "Busiest disk",
        "The disk that had I/O in flight for the greatest share of the last 5 minutes. Busy is "
        "not saturated: NVMe serves many operations at once.",
        "percentunit",
        Query(f"topk(1, {used('disk', NOW)})", "{{device}}"),
        NEUTRAL,
        decimals=1,
        is_named=True,
    ),
    tile(
        "Fullest link",
        "The link and direction that carried the greatest share of its capacity over the last "
        "5 minutes. Needs a link whose speed is known; virtual machines seldom say theirs.",
        "percentunit",
        Query(f"topk(1, {link_used(NOW)})", "{{device}} {{direction}}"),
        FILLING,
        nothing="speed not known",
        decimals=1,
        is_named=True,
    ),
    tile(
        "Power of components",
        "Sum of the meters that may be added up (boundary component), the mean of the last 5 "
        "minutes. Meters that contain others stand in the panels below.",
        "watt",
        Query(
            "sum(" + rate("telemetryd_energy_joules_total", NOW, boundary="component") + ")",
            "components",
        ),
        NEUTRAL,
        nothing="no meter",
        decimals=0,
    ),
    tile(
        "Closest to its limit",
        "Degrees that the sensor closest to its critical limit has left. Sensors without such a "
        "limit, or with one that makes no sense, do not count.",
        "celsius",
        Query(f"bottomk(1, {TEMPERATURE_LEFT})", "{{chip}} {{label}}"),
        ((None, ACT), (5, WATCH), (15, GOOD)),
        nothing="no limit known",
        decimals=0,
        is_named=True,
    ),
    grid(
        "Machine",
        "What the machine says it is.",
        {
            "hostname": "Host name",
            "kernel": "Kernel",
            "architecture": "Architecture",
            "os": "Operating system",
            "vendor": "Maker",
            "product": "Model",
            "cpu": "CPU",
        },
        [Column(series("telemetryd_system_info"), "", is_hidden=True)],
        width=18,
        height=3,
    ),
    tile(
        "Machine up for",
        "Time since the machine booted, by its own clock.",
        "s",
        Query(
            f"{series('telemetryd_system_time_seconds')}"
            f" - {series('telemetryd_system_boot_time_seconds')}",
            "up",
        ),
        NEUTRAL,
        height=3,
    ),
    tile(
        "telemetryd up for",
        "Time since the daemon started. Its own counters, such as the integral of utilization and "
        "joules, start at 0 then.",
        "s",
        Query(f"time() - {series('telemetryd_process_start_time_seconds')}", "up"),
        NEUTRAL,
        height=3,
    ),
)

USED_AND_WASTED = Row(
    "Used and wasted",
    (
        grid(
            "Resources over the time shown",
            "Mean share of each resource and link that was used over the whole time shown, what "
            "was left unused, and the highest share of any single interval (CPU and memory). "
            "Means are integral / observed time, so that no second between two scrapes is missed.",
            {"resource": "Resource", "device": "Device"},
            [
                Column(
                    _RESOURCES_AND_LINKS,
                    "Used",
                    "percentunit",
                    FILLING,
                    is_bar=True,
                ),
                Column(f"1 - ({_RESOURCES_AND_LINKS})", "Not used", "percentunit"),
                Column(
                    f"max_over_time({series('telemetryd_utilization_peak_ratio')}[{SHOWN}])",
                    "Peak",
                    "percentunit",
                ),
            ],
            width=12,
        ),
        grid(
            "Energy over the time shown",
            "Energy that each meter counted over the time shown, and its mean and highest power. "
            "Only meters of boundary component may be added up: a subcomponent is inside one, an "
            "enclosing meter contains them.",
            {
                "source": "Source",
                "domain": "Meter",
                "device": "Device",
                "boundary": "Boundary",
            },
            [
                Column(increase("telemetryd_energy_joules_total", SHOWN), "Energy", "joule"),
                Column(rate("telemetryd_energy_joules_total", SHOWN), "Mean power", "watt"),
                Column(
                    f"max_over_time({series('telemetryd_power_watts')}[{SHOWN}])",
                    "Highest power",
                    "watt",
                ),
            ],
            width=12,
        ),
        graph(
            "CPU",
            "Busy share of all CPUs: the mean of each point's window, the busiest second of the "
            "last minute, and the share that a hypervisor took away.",
            "percentunit",
            Query(used("cpu"), "used"),
            Query(series("telemetryd_utilization_peak_ratio", resource="cpu"), "peak of a minute"),
            Query("avg(" + rate("telemetryd_cpu_time_seconds_total", mode="steal") + ")", "stolen"),
            highest=1,
            dashed="/^peak/",
        ),
        graph(
            "Memory and swap",
            "Share of memory that is not available to new programs, its peak, and the share of "
            "swap in use.",
            "percentunit",
            Query(used("=~memory|swap"), "{{resource}}"),
            Query(
                series("telemetryd_utilization_peak_ratio", resource="memory"),
                "peak of a minute",
            ),
            highest=1,
            dashed="/^peak/",
        ),
        graph(
            "Disks",
            "Share of time in which each disk had I/O in flight. 100 % is busy, not saturated: "
            "look at latency and queue for that.",
            "percentunit",
            Query(used("disk"), "{{device}}"),
            highest=1,
        ),
        graph(
            "Filesystems",
            "Used share of each filesystem, as df shows it.",
            "percentunit",
            Query(used("filesystem"), "{{device}}"),
            highest=1,
        ),
        graph(
            "Links",
            "Share of its capacity that each link carried, receiving and transmitting apart: "
            "links are full duplex. Absent where the capacity is not known.",
            "percentunit",
            Query(link_used(), "{{device}} {{direction}}"),
            highest=1,
        ),
        graph(
            "Power",
            "Power of each meter: the mean of each point's window, from its energy. Only meters "
            "of boundary component may be added up.",
            "watt",
            Query(rate("telemetryd_energy_joules_total"), _METER),
        ),
        graph(
            "Pressure",
            "Share of time in which tasks stood still for want of a resource: some of them, or "
            "all at once (full). What is used is not wasted as long as nobody waits for it. "
            "Needs a kernel with PSI.",
            "percentunit",
            Query(rate("telemetryd_pressure_stalled_seconds_total"), "{{resource}} {{kind}}"),
            width=12,
        ),
        graph(
            "Bytes on links",
            "Bytes a second on each link and direction, and what it could carry.",
            "Bps",
            Query(rate("telemetryd_bandwidth_bytes_total"), "{{device}} {{direction}}"),
            Query(
                series("telemetryd_bandwidth_capacity_bytes_per_second", direction="receive"),
                "{{device}} capacity",
            ),
            width=12,
            dashed="/capacity$/",
        ),
    ),
    is_open=True,
)

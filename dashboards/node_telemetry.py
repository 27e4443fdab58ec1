"""telemetryd itself on a node."""

from __future__ import annotations

from layout import Row
from panels import ACT, GOOD, Column, Query, graph, grid
from promql import SHOWN, increase, rate, series

TELEMETRYD = Row(
    "telemetryd itself",
    (
        grid(
            "Collectors",
            "How each collector is doing: its last sample, what all of its samples cost over the "
            "time shown, and how many took longer than their interval.",
            {"collector": "Collector"},
            [
                Column(
                    series("telemetryd_collector_up"),
                    "State",
                    "none",
                    ((None, ACT), (1, GOOD)),
                    names={"0": "failing", "1": "fine"},
                ),
                Column(series("telemetryd_collector_duration_seconds"), "Last sample took", "s"),
                Column(
                    f"{increase('telemetryd_collector_busy_seconds_total', SHOWN)}"
                    f" / {increase('telemetryd_collector_samples_total', SHOWN)}",
                    "Mean sample took",
                    "s",
                ),
                Column(increase("telemetryd_collector_overruns_total", SHOWN), "Overruns"),
            ],
            width=12,
        ),
        graph(
            "Failed readings",
            "Readings that failed a second, by collector and reason. The daemon's log names the "
            "file and the remedy.",
            "cps",
            Query(rate("telemetryd_collector_errors_total"), "{{collector}}: {{reason}}"),
            width=12,
        ),
        graph(
            "CPU of the daemon",
            "CPU time that the daemon uses, in shares of one CPU.",
            "percentunit",
            Query(rate("telemetryd_process_cpu_seconds_total"), "{{mode}}"),
            is_stacked=True,
        ),
        graph(
            "Memory of the daemon",
            "Memory of the daemon that is resident.",
            "bytes",
            Query(series("telemetryd_process_resident_memory_bytes"), "resident"),
        ),
        graph(
            "Files and threads of the daemon",
            "File descriptors that the daemon holds, and its threads. Steady growth is a leak.",
            "short",
            Query(series("telemetryd_process_open_files"), "files"),
            Query(series("telemetryd_process_threads"), "threads"),
        ),
        graph(
            "Time in samples",
            "Time that each collector spends reading, a second.",
            "s",
            Query(rate("telemetryd_collector_busy_seconds_total"), "{{collector}}"),
        ),
        graph(
            "Missed ticks",
            "Ticks of a sampling grid that were skipped because the one before was not over.",
            "short",
            Query(increase("telemetryd_lane_missed_ticks_total"), "{{lane}}"),
        ),
        graph(
            "Points not published",
            "Points that were read but not published, by collector and reason.",
            "cps",
            Query(rate("telemetryd_series_dropped_total"), "{{collector}}: {{reason}}"),
        ),
        graph(
            "Answers to requests",
            "HTTP requests that the daemon answered a second, by status; 499: the client went "
            "away.",
            "reqps",
            Query(rate("telemetryd_web_requests_total"), "{{code}}"),
        ),
        graph(
            "Points pushed",
            "Points a second that each destination acknowledged, and those given up.",
            "cps",
            Query(rate("telemetryd_exporter_points_total"), "{{destination}}"),
            Query(
                rate("telemetryd_exporter_dropped_points_total"), "{{destination}} lost: {{reason}}"
            ),
        ),
        graph(
            "Waiting to be pushed",
            "What waits for each destination: on disk, or in memory where there is no spool.",
            "bytes",
            Query(series("telemetryd_spool_size_bytes"), "{{destination}}"),
        ),
        graph(
            "Since the last push",
            "Time since each destination last acknowledged points.",
            "s",
            Query(
                f"time() - {series('telemetryd_exporter_last_success_timestamp_seconds')}",
                "{{destination}}",
            ),
        ),
        graph(
            "Push requests",
            "Requests a second to each destination: taken, to be tried again, refused for good.",
            "reqps",
            Query(rate("telemetryd_exporter_requests_total"), "{{destination}} {{outcome}}"),
        ),
        graph(
            "Configuration in force",
            "1 if the configuration in force is the one last asked for, 0 if that was refused and "
            "the one before goes on.",
            "none",
            Query(series("telemetryd_config_last_reload_successful"), "in force"),
            highest=1,
        ),
    ),
)

"""Sensors of a node, and the machine as a whole."""

from __future__ import annotations

from layout import Row
from node_overview import TEMPERATURE_LEFT
from panels import Query, graph
from promql import increase, series

_SENSOR = "{{chip}} {{device}} {{sensor}} {{label}}"

SENSORS = Row(
    "Temperatures, fans and meters",
    (
        graph(
            "Temperatures",
            "What each sensor of the board, and each thermal zone, reads.",
            "celsius",
            Query(series("telemetryd_thermal_temperature_celsius"), _SENSOR),
            Query(series("telemetryd_thermal_zone_temperature_celsius"), "zone {{zone}} {{type}}"),
            width=12,
            is_signed=True,
        ),
        graph(
            "Degrees left",
            "Degrees from each sensor's reading to its critical limit. Hardware slows down or "
            "switches off at 0. Sensors without a sensible limit are left out.",
            "celsius",
            Query(TEMPERATURE_LEFT, _SENSOR),
            Query(
                f"{series('telemetryd_thermal_zone_limit_celsius', limit='critical')}"
                f" - ignoring (limit) {series('telemetryd_thermal_zone_temperature_celsius')}",
                "zone {{zone}} {{type}}",
            ),
            width=12,
            is_signed=True,
        ),
        graph(
            "Fans",
            "Speed of each fan.",
            "rotrpm",
            Query(series("telemetryd_thermal_fan_rpm"), _SENSOR),
        ),
        graph(
            "Voltages",
            "What each voltage sensor reads.",
            "volt",
            Query(series("telemetryd_thermal_voltage_volts"), _SENSOR),
            is_signed=True,
        ),
        graph(
            "Energy that no meter saw",
            "Time for which the energy of a meter is missing: it was not read for long, was reset, "
            "or may have wrapped unseen.",
            "s",
            Query(increase("telemetryd_energy_gap_seconds_total"), "{{source}}"),
        ),
    ),
)

SYSTEM = Row(
    "Clock, limits and site files",
    (
        graph(
            "Clock's error",
            "What the kernel still has to correct, what the time daemon thinks it is off, and the "
            "most that it can be off. 16 s stands for not known: no time daemon is at work.",
            "s",
            Query(series("telemetryd_system_clock_offset_seconds"), "to be corrected"),
            Query(series("telemetryd_system_clock_estimated_error_seconds"), "estimated"),
            Query(series("telemetryd_system_clock_max_error_seconds"), "at most"),
            is_signed=True,
        ),
        graph(
            "Clock beside Prometheus",
            "How far the node's clock is ahead of the Prometheus server's. A reading is up to a "
            "second old when it is scraped, which shows as up to -1 s.",
            "s",
            Query(
                f"{series('telemetryd_system_time_seconds')}"
                f" - timestamp({series('telemetryd_system_time_seconds')})",
                "ahead",
            ),
            is_signed=True,
        ),
        graph(
            "Clock synchronised",
            "1 while a time daemon keeps the clock within a known error.",
            "none",
            Query(series("telemetryd_system_clock_synchronized"), "synchronised"),
            highest=1,
        ),
        graph(
            "Threads and file handles",
            "Share of the kernel's limits that is used.",
            "percentunit",
            Query(
                f"{series('telemetryd_system_threads')}"
                f" / {series('telemetryd_system_threads_limit')}",
                "threads",
            ),
            Query(
                f"{series('telemetryd_system_threads')} / {series('telemetryd_system_pid_limit')}",
                "process numbers",
            ),
            Query(
                f"{series('telemetryd_system_file_handles')}"
                f" / {series('telemetryd_system_file_handles_limit')}",
                "file handles",
            ),
        ),
        graph(
            "Age of site files",
            "Time since each file of the textfile folder was written. One that only grows belongs "
            "to a script that has stopped.",
            "s",
            Query(series("telemetryd_textfile_age_seconds"), "{{file}}"),
        ),
        graph(
            "Site files that are refused",
            "1 for a file of which all or a part is not published: the daemon's log says why.",
            "none",
            Query(f"1 - {series('telemetryd_textfile_ok')}", "{{file}}"),
            highest=1,
        ),
    ),
)

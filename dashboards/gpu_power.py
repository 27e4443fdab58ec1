"""Power, clocks and temperatures of the GPUs."""

from __future__ import annotations

from gpu_promql import DEVICE, GPU, increase, joules, mean, rate, series, used
from layout import Row
from panels import Query, graph
from promql import WINDOW

_HOUR_S = 3600
_MARGIN = series("telemetryd_gpu_temperature_margin_celsius")
_THROTTLED = rate("telemetryd_gpu_throttled_seconds_total")
# Reasons that mean a fault of cooling or of the power supply.
_FAULTS = "=~hardware_thermal|software_thermal|hardware_power_brake"

POWER = Row(
    "Power and energy",
    (
        graph(
            "Power",
            "Mean power of each GPU over each point's window, from its energy. A busy GPU far "
            "below its neighbours does less work, or is held back.",
            "watt",
            Query(joules(WINDOW, a_second=True), DEVICE),
            width=12,
        ),
        graph(
            "Power beside its limit",
            "What the driver reports: its average of about a second, the moment, and the limit in "
            "force. At the limit the clocks go down. A limit below its neighbours' was set by "
            "somebody.",
            "watt",
            Query(
                series("telemetryd_gpu_power_average_watts", scope="gpu"),
                f"{GPU} average",
            ),
            Query(series("telemetryd_gpu_power_instant_watts", scope="gpu"), f"{GPU} moment"),
            Query(series("telemetryd_gpu_power_limit_watts", limit="enforced"), f"{GPU} limit"),
            width=12,
            dashed="/limit$/",
        ),
        graph(
            "Share of the limit",
            "Power as a share of the limit in force. At 100 % for long: work is bound by power.",
            "percentunit",
            Query(used("gpu_power"), DEVICE),
        ),
        graph(
            "Energy an hour",
            "Energy that each GPU takes in an hour at the pace of each point's window. What a GPU "
            "takes while it is unused is wasted.",
            "joule",
            Query(f"{joules(WINDOW, a_second=True)} * {_HOUR_S}", DEVICE),
        ),
        graph(
            "Parts and wholes",
            "Power of the memory inside the GPU, and of the module that contains the GPU and its "
            "CPU, where the driver tells. Not to be added to the GPU's.",
            "watt",
            Query(
                series("telemetryd_gpu_power_average_watts", scope="!=gpu"),
                f"{GPU} {{{{scope}}}}",
            ),
        ),
        graph(
            "Energy beside the integral of power",
            "How far the GPU's energy counter is ahead of the integral of its power over the last "
            "minute that could be judged. Beyond 5 % one of the two is wrong, and figures of "
            "energy should not be trusted.",
            "percentunit",
            Query(series("telemetryd_gpu_energy_drift_ratio"), GPU),
            width=12,
            is_signed=True,
        ),
        graph(
            "Minutes with a drift",
            "Minutes in which the two were more than 5 % apart. One now and then is no harm; "
            "several in an hour are a meter that is wrong.",
            "short",
            Query(increase("telemetryd_gpu_energy_drifts_total"), GPU),
            width=12,
        ),
    ),
)

CLOCKS = Row(
    "Clocks, and what holds them down",
    (
        graph(
            "What holds the clocks down",
            "Share of time in which each reason held the clocks down, over all GPUs that are "
            "chosen, as the driver counts it. The software power cap under full load is normal; "
            "thermal reasons and the power brake are not.",
            "percentunit",
            Query(
                f"avg by (reason) ({rate('telemetryd_gpu_throttled_seconds_total')})", "{{reason}}"
            ),
            width=12,
            highest=1,
        ),
        graph(
            "Held down by heat or by the power supply",
            "Share of time in which each GPU was slowed down because it was too hot, or because "
            "the power supply asked for it. Should be 0.",
            "percentunit",
            Query(
                rate("telemetryd_gpu_throttled_seconds_total", reason=_FAULTS),
                f"{GPU} {{{{reason}}}}",
            ),
            width=12,
            highest=1,
        ),
        graph(
            "Reasons in force",
            "Share of the GPUs for which each reason is in force, by scrapes. `gpu_idle`, "
            "`application_clocks` and `display_clocks` are no faults.",
            "percentunit",
            Query(f"avg by (reason) ({mean('telemetryd_gpu_throttle_active')})", "{{reason}}"),
            highest=1,
        ),
        graph(
            "Clock of the multiprocessors",
            "Clock of each GPU, and the highest that it can be. Low under load: see the reasons.",
            "hertz",
            Query(series("telemetryd_gpu_clock_hertz", clock="sm"), GPU),
            Query(f"max({series('telemetryd_gpu_clock_max_hertz', clock='sm')})", "highest"),
            dashed="/^highest$/",
        ),
        graph(
            "Other clocks",
            "Mean clocks of memory, graphics and video over all GPUs that are chosen.",
            "hertz",
            Query(f"avg by (clock) ({series('telemetryd_gpu_clock_hertz')})", "{{clock}}"),
        ),
        graph(
            "Performance state",
            "0 is the highest, 15 the lowest. Anything but 0 under load is held down.",
            "none",
            Query(series("telemetryd_gpu_performance_state"), GPU),
        ),
    ),
)

TEMPERATURE = Row(
    "Temperatures",
    (
        graph(
            "Temperatures",
            "Temperature of each GPU and of its memory. One far above its neighbours: its air or "
            "its heat sink.",
            "celsius",
            Query(series("telemetryd_gpu_temperature_celsius"), f"{GPU} {{{{sensor}}}}"),
            width=12,
            is_signed=True,
        ),
        graph(
            "Degrees left",
            "Degrees that each GPU may still get warmer before it slows itself down. Around 0 it "
            "does.",
            "celsius",
            Query(_MARGIN, GPU),
            width=12,
            is_signed=True,
        ),
        graph(
            "Degrees left until the GPU switches off",
            "Degrees from each GPU's reading to the point where it switches itself off.",
            "celsius",
            Query(
                f"{_MARGIN} - ignoring (limit)"
                f" {series('telemetryd_gpu_temperature_limit_margin_celsius', limit='shutdown')}",
                GPU,
            ),
            width=12,
            is_signed=True,
        ),
        graph(
            "Fans",
            "Speed that each fan is meant to have. At 100 % it can cool no more. GPUs that are "
            "cooled by the machine's fans have none.",
            "percentunit",
            Query(series("telemetryd_gpu_fan_speed_ratio"), f"{GPU} fan {{{{fan}}}}"),
            width=12,
        ),
    ),
)

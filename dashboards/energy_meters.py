"""The meters: what each of them says, how they agree, and what is learned from them."""

from __future__ import annotations

from energy_promql import METER_NAME, STEP, increase, rate, series, total
from layout import Row
from panels import NEUTRAL, Query, graph, timeline

_METERS = "telemetryd_energy_joules_total"
_ENERGY = "telemetryd_node_energy_joules_total"
_DEVICE = "{{instance}} {{device_kind}} {{device}}"

METERS = Row(
    "Meters",
    (
        timeline(
            "Meter in use",
            "Which meter each node's input is taken from. A bar that ends: that meter stopped to "
            "answer, or said less than the devices use. `estimate`: no meter of the whole node is "
            "left.",
            "none",
            Query(
                series("telemetryd_node_energy_source_info"),
                "{{instance}} {{source}} {{domain}}",
            ),
            NEUTRAL,
            width=12,
        ),
        graph(
            "Changes of the meter in use",
            "Times that the input began to be taken from another meter. One after a start is "
            "normal. Several a day: a BMC that comes and goes, and jumps in the power that are "
            "none.",
            "none",
            Query(increase("telemetryd_node_energy_source_changes_total"), "{{instance}}"),
            width=12,
            step=STEP,
        ),
        graph(
            "Parts",
            "Mean power of each component over each point's window: these may be added up. One "
            "that falls to 0, or is missing, is in `overhead` instead.",
            "watt",
            Query(rate(_METERS, boundary="component"), METER_NAME),
            width=12,
            is_stacked=True,
            step=STEP,
        ),
        graph(
            "Wholes",
            "Mean power of meters that contain others: power supplies, BMC, modules. Not to be "
            "added up. Two meters of the same whole should agree within some percent.",
            "watt",
            Query(rate(_METERS, boundary="enclosing"), METER_NAME),
            width=12,
            step=STEP,
        ),
        graph(
            "Parts beside the whole",
            "All components of a node together, and its input. The input must be above: where the "
            "two touch or cross, the meter of the whole leaves something out, or lies. The gap is "
            "fans, power supplies, board.",
            "watt",
            Query(
                total(rate(_METERS, boundary="component"), "instance"), "{{instance}} components"
            ),
            Query(rate(_ENERGY), "{{instance}} input"),
            width=12,
            dashed="/input$/",
            step=STEP,
        ),
        graph(
            "Energy above the meter",
            "Power by which the devices exceeded the meter of the whole, in windows in which they "
            "did so by more than 2 %. Should be 0: such windows say nothing of overhead and "
            "efficiency.",
            "watt",
            Query(rate("telemetryd_energy_boundary_error_joules_total"), "{{instance}}"),
            step=STEP,
        ),
        graph(
            "Time above the meter",
            "Share of the time that such windows took. Above 0: look for what the meter does not "
            "see, such as GPUs with power supplies of their own.",
            "percentunit",
            Query(rate("telemetryd_energy_boundary_error_seconds_total"), "{{instance}}"),
            step=STEP,
        ),
        graph(
            "Energy that no meter saw",
            "Time for which the energy of a meter is missing, summed over the meters of a source: "
            "it was not read for long, was reset, or may have wrapped unseen. Should be 0; a "
            "steady growth is a BMC that answers too seldom.",
            "s",
            Query(increase("telemetryd_energy_gap_seconds_total"), "{{instance}} {{source}}"),
            step=STEP,
        ),
    ),
)

IDLE_POWER = Row(
    "Idle power",
    (
        graph(
            "Idle power of each device",
            "What each device draws when it does nothing for nobody: learned, or as configured. "
            "It divides work from floor. One far above the same model's: something runs on it "
            "that is not seen, or its clocks do not fall. Absent: never seen idle and free for "
            "five minutes, and then there is no split; set derived.energy.idle_watts.",
            "watt",
            Query(series("telemetryd_energy_idle_power_watts"), _DEVICE),
            width=12,
        ),
        graph(
            "Idle power of all devices",
            "What the devices of each node draw while they do nothing. It is paid around the "
            "clock: switch off nodes that are free for long.",
            "watt",
            Query(total(series("telemetryd_energy_idle_power_watts"), "instance"), "{{instance}}"),
            width=12,
            is_stacked=True,
        ),
    ),
)

"""Energy at a glance: where it went, how well it was used, and what it cost."""

from __future__ import annotations

from energy_promql import (
    STEP,
    WORKING,
    increase,
    kwh,
    of_devices,
    rate,
    series,
    share,
    total,
)
from grafana_foundation_sdk.models import dashboard
from layout import Row
from panels import (
    ACT,
    GOOD,
    NEUTRAL,
    WATCH,
    Column,
    Query,
    graph,
    grid,
    tile,
)
from promql import NOW, SHOWN, WINDOW

_ENERGY = "telemetryd_node_energy_joules_total"
_SPLIT = "telemetryd_node_energy_split_joules_total"
_INPUT = "telemetryd_node_energy_split_input_joules_total"
_FACILITY = "telemetryd_node_facility_energy_joules_total"
_COST = "telemetryd_node_energy_cost_total"
_CARBON = "telemetryd_node_carbon_grams_total"
_SOURCE = "telemetryd_node_energy_source_info"
_HOUR_S = 3600
_UNKNOWN = "not known yet"
_UNCONFIGURED = "not configured"

# Little use is what is bad here.
_PRODUCTIVE: tuple[tuple[float | None, str], ...] = ((None, ACT), (0.2, WATCH), (0.4, GOOD))
_OF_DEVICES: tuple[tuple[float | None, str], ...] = ((None, WATCH), (0.7, GOOD))
_HELD: tuple[tuple[float | None, str], ...] = ((None, GOOD), (0.1, WATCH), (0.3, ACT))
_TO_NODE = {
    "title": "This node",
    "url": "/d/telemetryd-node?var-datasource=${datasource}&var-job=${job}"
    "&var-instance=${__value.raw}&${__url_time_range}",
}

TOP = (
    tile(
        "Power",
        "Power that goes into all nodes that are chosen, the mean of the last 5 minutes, from "
        "their energy. Nodes without a meter are missing in it; estimated ones are too low.",
        "watt",
        Query(total(rate(_ENERGY, NOW)), "power"),
        NEUTRAL,
        nothing="not measured",
        decimals=0,
    ),
    tile(
        "Energy",
        "Energy that went into them over the time shown.",
        "kwatth",
        Query(kwh(total(increase(_ENERGY, SHOWN))), "energy"),
        NEUTRAL,
        nothing="not measured",
        decimals=2,
    ),
    tile(
        "Meters in use",
        "Which meter the energy is taken from, and on how many nodes. `estimate`: no meter of the "
        "whole node answers, and what its devices use stands for it, which is a lower bound.",
        "none",
        Query(f"count by (source, domain) ({series(_SOURCE)})", "{{source}} {{domain}}"),
        NEUTRAL,
        nothing="none",
        is_named=True,
    ),
    tile(
        "Productive",
        "Share of the energy over the time shown that did work: what active devices drew above "
        "their idle power. 40 % and more is good for nodes with GPUs, as fans, power supplies "
        "and idle power take the rest. Low: nodes are free, or held without need; the next "
        "panels tell which.",
        "percentunit",
        Query(share("dynamic", SHOWN), "productive"),
        _PRODUCTIVE,
        nothing=_UNKNOWN,
        decimals=1,
    ),
    tile(
        "Of the devices",
        "Share of the energy over the time shown that went to GPUs, CPUs and memory (`it`, the "
        "inverse of ITUE); the rest went to fans, power supplies and board. Low under load: fans "
        "at full speed, or a device without a meter.",
        "percentunit",
        Query(of_devices(SHOWN), "devices"),
        _OF_DEVICES,
        nothing=_UNKNOWN,
        decimals=1,
    ),
    tile(
        "Held and idle",
        "Power of devices that somebody holds and that do nothing, the mean of the last 5 "
        "minutes. Anything far above 0 for hours is paid for and of use to nobody: see the "
        "owners below.",
        "watt",
        Query(total(rate(_SPLIT, NOW, state="allocated_idle")), "held and idle"),
        NEUTRAL,
        nothing=_UNKNOWN,
        decimals=0,
    ),
    tile(
        "Cost",
        "What the energy over the time shown cost at the configured price, with the site's PUE "
        "where one is configured. Set derived.energy.price_per_kwh or price_file to have it.",
        "none",
        Query(f"sum by (currency) ({increase(_COST, SHOWN)})", "{{currency}}"),
        NEUTRAL,
        nothing=_UNCONFIGURED,
        decimals=2,
        is_named=True,
    ),
    tile(
        "Carbon",
        "Carbon dioxide equivalent of the energy over the time shown, at the configured grams "
        "for a kWh. Set derived.energy.carbon_grams_per_kwh or carbon_file to have it.",
        "massg",
        Query(total(increase(_CARBON, SHOWN)), "CO2e"),
        NEUTRAL,
        nothing=_UNCONFIGURED,
        decimals=0,
    ),
)

_NODES = grid(
    "Nodes over the time shown",
    "What went into each node, and how well it was used. Productive low and held and idle high: "
    "somebody keeps it without need. Productive low and free high: it is not needed. Divided far "
    "below 100 %: the split was not known for a part of the time (idle power not learned yet, "
    "gaps of the meter), and the shares speak of the rest.",
    {"instance": "Node"},
    [
        Column(kwh(increase(_ENERGY, SHOWN)), "Energy", "kwatth"),
        Column(rate(_ENERGY, SHOWN), "Mean power", "watt"),
        Column(
            f"max_over_time({series('telemetryd_node_power_watts')}[{SHOWN}])",
            "Highest power",
            "watt",
        ),
        Column(
            share("dynamic", SHOWN, "instance"),
            "Productive",
            "percentunit",
            _PRODUCTIVE,
            is_bar=True,
        ),
        Column(of_devices(SHOWN, "instance"), "Devices", "percentunit"),
        Column(share("allocated_idle", SHOWN, "instance"), "Held and idle", "percentunit", _HELD),
        Column(share("unallocated", SHOWN, "instance"), "Free", "percentunit"),
        Column(f"{increase(_INPUT, SHOWN)} / {increase(_ENERGY, SHOWN)}", "Divided", "percentunit"),
        Column(increase(_COST, SHOWN), "Cost", "none"),
    ],
).override_by_name("Node", [dashboard.DynamicConfigValue("links", [_TO_NODE])])

WHERE_IT_WENT = Row(
    "Where it went",
    (
        graph(
            "Power by what became of it",
            "All of the input, in five parts. `dynamic` is the work. `floor` is what active "
            "devices would have drawn idle. `allocated_idle`: held by somebody, and idle. "
            "`unallocated`: idle and free. `overhead`: fans, power supplies, board. A thick "
            "`allocated_idle` is waste that an owner can end; a thick `unallocated` is capacity "
            "that nobody asks for. Worked out in windows of a minute and more, so that the last "
            "minutes may be missing.",
            "watt",
            Query(total(rate(_SPLIT), "state"), "{{state}}"),
            width=12,
            height=10,
            is_stacked=True,
            step=STEP,
        ),
        graph(
            "Shares",
            "The same as shares of the input; they add up to 100 %. Not to 100 %: windows were "
            "lost between two scrapes, or a node has just started.",
            "percentunit",
            Query(
                f"{total(increase(_SPLIT), 'state')}"
                f" / on () group_left () {total(increase(_INPUT))}",
                "{{state}}",
            ),
            width=12,
            height=10,
            highest=1,
            is_stacked=True,
            step=STEP,
        ),
        _NODES,
        graph(
            "Efficiency",
            "Useful / input energy, from the counters. `productive`: only the work is useful. "
            "`active`: with the idle power of what works. `it`: all devices, whatever they do. "
            "`it` high and `productive` low: the devices are on and do nothing. `active` far "
            "above `productive`: they work, but at low load.",
            "percentunit",
            Query(share("dynamic"), "productive"),
            Query(share(WORKING), "active"),
            Query(of_devices(), "it"),
            width=12,
            highest=1,
            step=STEP,
        ),
        graph(
            "Efficiency of the last window, by node",
            "As each node works it out when a window closes. `psu` is output / input of its power "
            "supplies, where both are metered: below 90 % they are old, or run at little load.",
            "percentunit",
            Query(
                f"avg_over_time({series('telemetryd_energy_efficiency_ratio')}[{WINDOW}])",
                "{{instance}} {{definition}}",
            ),
            width=12,
            highest=1,
            step=STEP,
        ),
        graph(
            "Power of each node",
            "Mean power that goes into each node over each point's window. One far above its "
            "neighbours at the same work: its fans, or its power limits. One at 0 has no meter "
            "any more.",
            "watt",
            Query(rate(_ENERGY), "{{instance}}"),
            step=STEP,
        ),
        graph(
            "Power of the budget",
            "Power as a share of derived.energy.budget_watts, where one is set. Above 90 % for "
            "long the circuit has no reserve left, and an alert says so.",
            "percentunit",
            Query(
                f"{increase('telemetryd_utilization_seconds_total', resource='power')} / "
                f"{increase('telemetryd_utilization_observed_seconds_total', resource='power')}",
                "{{instance}}",
            ),
            step=STEP,
        ),
        graph(
            "Held and idle by node",
            "Share of each node's energy that went to devices that somebody held and did not use. "
            "Above 30 % for hours: somebody keeps a node for nothing, and an alert says so.",
            "percentunit",
            Query(share("allocated_idle", by="instance"), "{{instance}}"),
            highest=1,
            step=STEP,
        ),
    ),
    is_open=True,
)

MONEY = Row(
    "Money and carbon",
    (
        graph(
            "Cost an hour",
            "What an hour costs at the pace of each point's window. Rises with the power and with "
            "the price: the panel of the price tells which. Absent without a configured price.",
            "none",
            Query(
                f"sum by (instance, currency) ({rate(_COST)}) * {_HOUR_S}",
                "{{instance}} {{currency}}",
            ),
            is_stacked=True,
            step=STEP,
        ),
        graph(
            "Cost of what was held and idle, an hour",
            "The part of it that went to devices that somebody held and did not use, in "
            "proportion. What could be saved by giving them back.",
            "none",
            Query(
                f"sum by (instance, currency) ({rate(_COST)}) * {_HOUR_S}"
                f" * on (instance) group_left () {share('allocated_idle', by='instance')}",
                "{{instance}} {{currency}}",
            ),
            is_stacked=True,
            step=STEP,
        ),
        graph(
            "Price of a kWh",
            "Cost / energy of the node, so that a PUE is in it: what a kWh that goes into the node "
            "costs. A flat line where it should follow the market: the program that writes "
            "price_file has stopped.",
            "none",
            Query(
                f"sum by (instance, currency) ({increase(_COST)})"
                f" / on (instance) group_left () {kwh(total(increase(_ENERGY), 'instance'))}",
                "{{instance}} {{currency}}",
            ),
            step=STEP,
        ),
        graph(
            "Carbon an hour",
            "Carbon dioxide equivalent of an hour at the pace of each point's window. Work that "
            "can wait is better done where this is low. Absent without a configured intensity.",
            "massg",
            Query(f"{total(rate(_CARBON), 'instance')} * {_HOUR_S}", "{{instance}}"),
            is_stacked=True,
            step=STEP,
        ),
        graph(
            "Grams for a kWh",
            "Carbon / energy of the node, with the PUE. A flat line where it should follow the "
            "grid: the program that writes carbon_file has stopped.",
            "massg",
            Query(
                f"{total(increase(_CARBON), 'instance')}"
                f" / {kwh(total(increase(_ENERGY), 'instance'))}",
                "{{instance}}",
            ),
            step=STEP,
        ),
        graph(
            "Power of the site",
            "Power of the nodes times the configured PUE: what the site takes for them, with "
            "cooling and distribution. The gap to the nodes' own is what a better site saves. "
            "Absent without a PUE.",
            "watt",
            Query(total(rate(_FACILITY)), "with cooling and distribution"),
            Query(total(rate(_ENERGY)), "nodes"),
            step=STEP,
        ),
    ),
)

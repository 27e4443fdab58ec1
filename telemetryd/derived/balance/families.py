"""Names of the node's energy figures (docs/energy.md has the formulas)."""

from __future__ import annotations

from telemetryd.metric import Kind, Metric, Unit

_HERE = "derived"

NODE_ENERGY = Metric(
    "node", "energy", Kind.COUNTER, Unit.JOULES,
    "Energy that went into the node since the daemon started, from the meter that "
    "telemetryd_node_energy_source_info names.",
    _HERE,
)  # fmt: skip
NODE_GAP = Metric(
    "node", "energy_gap", Kind.COUNTER, Unit.SECONDS,
    "Time whose energy is missing from telemetryd_node_energy_joules_total: its meter was not read "
    "for more than 3 intervals, its counter was reset, or no meter told anything.",
    _HERE,
)  # fmt: skip
NODE_POWER = Metric(
    "node", "power", Kind.GAUGE, Unit.WATTS,
    "Power that goes into the node: the reading of its meter, or the mean since the reading "
    "before; absent while the meter does not answer.",
    _HERE,
)  # fmt: skip
NODE_SOURCE = Metric(
    "node", "energy_source", Kind.INFO, Unit.NONE,
    "Which meter the input energy of the node comes from, what it measures, and whether it is an "
    'estimate (estimated="true").',
    _HERE, ("source", "domain", "boundary", "estimated"),
)  # fmt: skip
SOURCE_CHANGES = Metric(
    "node", "energy_source_changes", Kind.COUNTER, Unit.NONE,
    "Times that the input energy of the node began to be taken from another meter, without the "
    "search for the best one in the daemon's first two minutes.",
    _HERE,
)  # fmt: skip
SPLIT = Metric(
    "node", "energy_split", Kind.COUNTER, Unit.JOULES,
    "Where the input energy of the node went, over closed windows: `dynamic` (work), `floor` (what "
    "busy devices would draw idle), `allocated_idle` (idle, but held by somebody), `unallocated` "
    "(idle and free), `overhead` (all that is no GPU, CPU or memory). The states add up to the "
    "node's input energy.",
    _HERE, ("state",),
)  # fmt: skip
WINDOW_ENERGY = Metric(
    "node", "energy_split_input", Kind.COUNTER, Unit.JOULES,
    "Input energy of the node over the windows that telemetryd_node_energy_split_joules_total was "
    "worked out for; the rest was not divided (the idle power not known yet, a gap, a device that "
    "could not be read).",
    _HERE,
)  # fmt: skip
BOUNDARY_ERROR = Metric(
    "energy", "boundary_error", Kind.COUNTER, Unit.JOULES,
    "Energy by which the devices exceeded the node's meter in windows in which they did so by more "
    "than 2 %: that meter leaves out part of the node, or lies.",
    _HERE,
)  # fmt: skip
BOUNDARY_ERROR_TIME = Metric(
    "energy", "boundary_error", Kind.COUNTER, Unit.SECONDS,
    "Length of the windows in which the devices exceeded the node's meter by more than 2 %.",
    _HERE,
)  # fmt: skip
EFFICIENCY = Metric(
    "energy", "efficiency", Kind.GAUGE, Unit.RATIO,
    "Useful / input energy over the last closed window: `productive` = dynamic / node input, "
    "`active` = (dynamic + floor) / node input, `it` = devices / node input, `psu` = output / "
    "input of the power supplies.",
    _HERE, ("definition",),
)  # fmt: skip
IDLE_POWER = Metric(
    "energy", "idle_power", Kind.GAUGE, Unit.WATTS,
    "Power of a device that does nothing for nobody: the 5th percentile of what was seen then, or "
    "as configured; absent until it is known.",
    _HERE, ("device_kind", "device"),
)  # fmt: skip
FACILITY_ENERGY = Metric(
    "node", "facility_energy", Kind.COUNTER, Unit.JOULES,
    "Input energy of the node times the configured power usage effectiveness (PUE) of the site.",
    _HERE,
)  # fmt: skip
COST = Metric(
    "node", "energy_cost", Kind.COUNTER, Unit.NONE,
    "Cost of the input energy (with PUE, where one is configured) at the configured price for a "
    "kWh, in its currency.",
    _HERE, ("currency",),
)  # fmt: skip
CARBON = Metric(
    "node", "carbon", Kind.COUNTER, Unit.GRAMS,
    "Carbon dioxide equivalent of the input energy (with PUE, where one is configured) at the "
    "configured grams for a kWh.",
    _HERE,
)  # fmt: skip
OWNER_ENERGY = Metric(
    "owner", "energy", Kind.COUNTER, Unit.JOULES,
    "Energy of the node that went to each owner, over closed windows: what its GPUs used, CPU by "
    "CPU time, overhead in proportion. With telemetryd_owner_energy_ended_joules_total and "
    "telemetryd_owner_energy_unattributed_joules_total it adds up to "
    "telemetryd_node_energy_split_input_joules_total.",
    _HERE, ("owner_kind", "owner"),
)  # fmt: skip
ENDED = Metric(
    "owner", "energy_ended", Kind.COUNTER, Unit.JOULES,
    "Energy of the node that went to owners that are gone, once their own series are.",
    _HERE,
)  # fmt: skip
UNATTRIBUTED = Metric(
    "owner", "energy_unattributed", Kind.COUNTER, Unit.JOULES,
    "Energy of the node that nobody owned (free devices), or of which it cannot be told whose it "
    "was, over closed windows.",
    _HERE,
)  # fmt: skip

STATES = ("dynamic", "floor", "allocated_idle", "unallocated", "overhead")

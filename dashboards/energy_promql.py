"""Expressions over the energy of the nodes that the dashboard's variables choose; see promql.py."""

from __future__ import annotations

from promql import SHOWN, WINDOW, chosen

_NODES = ('job="$job"', 'instance=~"$instance"')

JOULES_PER_KWH = 3.6e6
# The split and what rests on it grow once in a window of a minute or more (a BMC answers every 30
# seconds), not with each scrape. Points at least this far apart make $__rate_interval 5 minutes.
STEP = "75s"
# States of what was used for somebody, and those of the work itself.
FOR_SOMEBODY = "=~dynamic|floor|allocated_idle"
WORKING = "=~dynamic|floor"
OWNER = "owner_kind, owner"
OWNER_NAME = "{{owner_kind}} {{owner}}"
METER_NAME = "{{instance}} {{source}} {{domain}} {{device}}"

_SPLIT = "telemetryd_node_energy_split_joules_total"
_INPUT = "telemetryd_node_energy_split_input_joules_total"
_OF_OWNERS = "telemetryd_owner_energy_joules_total"


def series(name: str, **labels: str) -> str:
    """The series of a metric on the nodes that are chosen. Raises ValueError as promql.series."""
    return chosen(_NODES, name, **labels)


def rate(name: str, window: str = WINDOW, **labels: str) -> str:
    """The increase a second of a counter: watts of joules."""
    return f"rate({series(name, **labels)}[{window}])"


def increase(name: str, window: str = WINDOW, **labels: str) -> str:
    """The increase of a counter over the window."""
    return f"increase({series(name, **labels)}[{window}])"


def kwh(joules: str) -> str:
    """Kilowatt-hours, in brackets."""
    return f"({joules} / {JOULES_PER_KWH:.0f})"


def total(expr: str, by: str = "") -> str:
    """The sum over all nodes, or for each value of the labels `by`."""
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


def share(state: str, window: str = WINDOW, by: str = "") -> str:
    """The share of the input energy that went to the states, in brackets: by the counters, so that
    a window without an end in it changes nothing."""
    part = total(increase(_SPLIT, window, state=state), by)
    return f"({part} / {total(increase(_INPUT, window), by)})"


def of_devices(window: str = WINDOW, by: str = "") -> str:
    """The share of the input energy that went to devices at all."""
    return share("!=overhead", window, by)


def by_owner(most: int, window: str, *, at_end: bool = False) -> str:
    """Joules of the owners that used the most. `at_end`: of all that is shown, for each point."""
    moment = " @ end()" if at_end else ""
    joules = f"increase({series(_OF_OWNERS)}[{window}]{moment})"
    return f"topk({most}, {total(joules, OWNER)})"


def of_top(expr: str, most: int, *, at_end: bool = False) -> str:
    """Series by owner, of those that used the most energy in what is shown."""
    return f"{expr} and on ({OWNER}) {by_owner(most, SHOWN, at_end=at_end)}"


def named(expr: str) -> str:
    """Series by owner with the name and the user that are known of him, where any are. Of several
    names the one that stood longest: a job has its number for one until the scheduler answers."""
    known = f"count_over_time({series('telemetryd_owner_info')}[{SHOWN}])"
    known = f"max by ({OWNER}, name, user) ({known})"
    one = f"topk by ({OWNER}) (1, {known}) ^ 0"
    return f"({expr}) * on ({OWNER}) group_left (name, user) ({one}) or on ({OWNER}) ({expr})"

"""What became of the energy of a device in one tick, and of the node's in one closed window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from telemetryd.derived.balance.activity import Activity
from telemetryd.derived.balance.devices import Device, Tick
from telemetryd.derived.balance.ledger import Owner, Sums, add

# Below this share a device counts as not active (docs/energy.md).
ACTIVE_SHARE = 0.05
# Where no activity is told (MIG before Hopper): this much above its idle power counts as active.
_ACTIVE_POWER = 1.2
# Devices may exceed the node's meter by so much before it is an error of the boundary; and so much
# of a window may be unknown of a device.
TOLERANCE = 0.02
# The share of a sum that may be lost to rounding.
_ROUNDING = 1e-9
# Energy that cannot be divided, because the idle power is not known yet.
UNKNOWN = "unknown"


def divide(tick: Tick, activity: Activity, idle_watts: float | None) -> Sums:
    """The energy of a tick by state, and whose it is."""
    sums = Sums(states_of(tick, activity, idle_watts), {}, tick.seconds)
    held_j = sums.states.get("allocated_idle", 0.0)
    if held_j > 0 and idle_watts is not None and activity.work:
        # What it drew above its idle power was somebody's doing, little as it was: also the end of
        # an owner's work, if the activity of the moment after is all that is told.
        idle_j = min(held_j, idle_watts * tick.seconds)
        add(sums.owners, activity.holding, idle_j)
        add(sums.owners, activity.work, held_j - idle_j)
    else:
        share_out(sums.owners, sums.states, activity)
    return sums


def states_of(tick: Tick, activity: Activity, idle_watts: float | None) -> dict[str, float]:
    """The energy of a tick by state."""
    if idle_watts is None:
        return {UNKNOWN: tick.joules}
    if is_active(tick, activity, idle_watts):
        floor_j = min(tick.joules, idle_watts * tick.seconds)
        return {"floor": floor_j, "dynamic": tick.joules - floor_j}
    return {"allocated_idle" if activity.is_held else "unallocated": tick.joules}


def share_out(owners: dict[Owner, float], states: Mapping[str, float], activity: Activity) -> None:
    """Give energy to those whose it is."""
    add(owners, activity.work, states.get("dynamic", 0.0))
    add(owners, activity.holding, states.get("floor", 0.0) + states.get("allocated_idle", 0.0))


def is_active(tick: Tick, activity: Activity, idle_watts: float) -> bool:
    if activity.share is not None:
        return activity.share >= ACTIVE_SHARE
    return tick.joules > _ACTIVE_POWER * idle_watts * tick.seconds


@dataclass(slots=True)
class Window:
    """One closed window: joules by state, which add up to `node_j`; of owners; and what the
    devices had above the node's meter, if that was an error of the boundary."""

    seconds: float
    node_j: float
    devices_j: float
    states: dict[str, float] = field(default_factory=dict)
    owners: dict[Owner, float] = field(default_factory=dict)
    excess_j: float = 0.0

    @property
    def is_wrong(self) -> bool:
        """Whether the devices exceeded the node's meter by more than can be explained."""
        return self.excess_j > 0

    @property
    def is_divided(self) -> bool:
        return UNKNOWN not in self.states

    @property
    def unattributed_j(self) -> float:
        """What of it is nobody's. What rounding leaves, of either sign, is nothing: a counter to
        which that is added falls now and then."""
        rest_j = self.node_j - sum(self.owners.values())
        return rest_j if rest_j > _ROUNDING * self.node_j else 0.0


def close(seconds: float, node_j: float, devices: Mapping[Device, Sums]) -> Window:
    """A window of `node_j` joules, divided.

    What the devices have above the node's meter by less than TOLERANCE is an error of measurement:
    all of them are scaled down to it. Overhead is shared out in proportion.
    """
    devices_j = sum(sums.joules for sums in devices.values())
    window = Window(seconds, node_j, devices_j)
    if devices_j > node_j * (1 + TOLERANCE):
        window.excess_j = devices_j - node_j
    scale = min(1.0, node_j / devices_j) if devices_j > 0 else 1.0
    for sums in devices.values():
        add(window.states, sums.states, scale)
        add(window.owners, sums.owners, scale)
    overhead_j = max(0.0, node_j - devices_j * scale)
    window.states["overhead"] = overhead_j
    if devices_j * scale > 0:
        add(window.owners, dict(window.owners), overhead_j / (devices_j * scale))
    return window


def is_complete(seconds: float, devices: Mapping[Device, Sums]) -> bool:
    """Whether every device was read over the whole window."""
    return all(sums.seconds >= seconds * (1 - TOLERANCE) for sums in devices.values())

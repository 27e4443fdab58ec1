"""EnergyBalance: the node's input energy, what became of it, and for whom."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from telemetryd import gpus, meters, owners
from telemetryd.batch import Batch, LatestTable
from telemetryd.derivation import Derivation, DerivedConfig
from telemetryd.derived import utilization
from telemetryd.derived.balance import activity, families, split
from telemetryd.derived.balance.account import Account, CpuAccount
from telemetryd.derived.balance.activity import Activity, GpuActivity
from telemetryd.derived.balance.bill import Bill
from telemetryd.derived.balance.budget import Budget
from telemetryd.derived.balance.cpu_share import CpuShare
from telemetryd.derived.balance.devices import Device, Meters, Tick
from telemetryd.derived.balance.idle import IdlePower
from telemetryd.derived.balance.ledger import Ledger, Owner, Sums
from telemetryd.derived.balance.moments import Moments, Segment
from telemetryd.derived.balance.node import Node
from telemetryd.derived.balance.results import Results
from telemetryd.derived.balance.users import Users
from telemetryd.metric import Metric, Point, Series

WINDOW_S = 60.0
# Readings come on a grid, a moment earlier or later.
_SLACK_S = 0.5
_EVERY_NS = 1_000_000_000


@dataclass(slots=True)
class _Window:
    """The window that is open: where it began, and where it ends once that is known."""

    begin_ns: int
    begin_j: float
    gap_s: float
    end_ns: int | None = None
    end_j: float = 0.0


class _Collector:
    """What the batches of one collector have for us, by the series that they had last."""

    def __init__(self) -> None:
        self.layout: tuple[Series, ...] | None = None
        self.meters: Meters | None = None
        self.gpus: GpuActivity | None = None
        self.has_owners = False

    def look(self, batch: Batch) -> None:
        if batch.series is self.layout:
            return
        self.layout = batch.series
        metrics = {one.metric for one in batch.series}
        if self.meters is None and not metrics.isdisjoint((meters.ENERGY, meters.POWER)):
            self.meters = Meters()
        if self.gpus is None and gpus.INFO in metrics:
            self.gpus = GpuActivity()
        self.has_owners = owners.CPU in metrics


class EnergyBalance(Derivation):
    """Its figures are a batch of their own, `energy`, at most once a second: they come from the
    batches of several collectors."""

    own_batch: ClassVar[str | None] = "energy"
    # The longest interval of a node's meter.
    own_interval: ClassVar[float] = 30.0
    inputs: ClassVar[tuple[Metric, ...]] = (
        meters.ENERGY, meters.POWER, gpus.INFO, gpus.BUSY, gpus.SM_ACTIVE, gpus.PROCESSES,
        owners.CPU,
    )  # fmt: skip
    metrics: ClassVar[tuple[Metric, ...]] = (
        families.NODE_ENERGY, families.NODE_GAP, families.NODE_POWER, families.NODE_SOURCE,
        families.SOURCE_CHANGES, families.SPLIT, families.WINDOW_ENERGY, families.BOUNDARY_ERROR,
        families.BOUNDARY_ERROR_TIME, families.EFFICIENCY, families.IDLE_POWER,
        families.FACILITY_ENERGY, families.COST, families.CARBON, families.OWNER_ENERGY,
        families.ENDED, families.UNATTRIBUTED, *utilization.METRICS,
    )  # fmt: skip

    def __init__(self, config: DerivedConfig) -> None:
        super().__init__(config)
        self._node = Node(config.energy)
        self._bill = Bill(config.energy)
        self._budget = Budget(config.energy.budget_watts, config.peak_window)
        self._users = Users()
        self._results = Results()
        self._cpu = CpuShare()
        self._moments = Moments()
        self._collectors: dict[str, _Collector] = {}
        self._accounts: dict[Device, Account | CpuAccount] = {}
        # By uuid where a device is but a number, which may change.
        self._idle: dict[str, IdlePower] = {}
        self._learned: dict[str, Mapping[str, object]] = {}
        self._used_j = 0.0
        self._window: _Window | None = None
        self._published_ns: int | None = None

    def update(self, batch: Batch, latest: LatestTable) -> Iterator[Point]:
        """Take note of a batch; figures at most once a second."""
        mono_ns, node = batch.mono_ns, self._node
        self._cpu.look(latest, mono_ns)
        known = self._collectors.get(batch.collector)
        if known is None:
            known = self._collectors[batch.collector] = _Collector()
        known.look(batch)
        if known.has_owners:
            self._settle(batch)
        if known.gpus is not None:
            known.gpus.look(batch, self._users.gpus(mono_ns))
        if known.meters is not None:
            self._account(known.meters, batch)
        counted_ns = node.counted_ns
        if node.settle(mono_ns):
            self._drop_window()
        self._budget.observe(node.watts(mono_ns), node.joules, node.gap_s, node.counted_ns, mono_ns)
        self._bill.add_up(node.joules)
        self._turn_windows(mono_ns, is_new=node.counted_ns != counted_ns)
        if self._published_ns is None or mono_ns - self._published_ns >= _EVERY_NS:
            self._published_ns = mono_ns
            yield from self._points(mono_ns)

    def forget(self, collector: str) -> None:
        self._collectors.pop(collector, None)
        self._node.forget(collector)
        self._users.forget(collector)

    def refresh(self) -> None:
        self._bill.read_files()

    def save(self) -> Mapping[str, object]:
        """The idle powers that were learned, by device."""
        learned = {name: saved for name, idle in self._idle.items() if (saved := idle.save())}
        return {**self._learned, **learned}

    def restore(self, saved: Mapping[str, object]) -> None:
        self._learned = {name: bins for name, bins in saved.items() if isinstance(bins, dict)}

    @property
    def _begin_ns(self) -> int:
        return 0 if self._window is None else self._window.begin_ns

    def _account(self, metering: Meters, batch: Batch) -> None:
        """Add the energy of the devices whose meters are in this batch, and what the node's own
        meters among them say."""
        for tick in metering.ticks(batch):
            self._used_j += tick.joules
            account = self._accounts.get(tick.device)
            identity = self._identity(tick.device)
            if account is None or account.idle is not self._idle.get(identity):
                account = self._open(tick.device, identity, batch.interval)
            if isinstance(account, CpuAccount):
                account.add(tick, self._users.interval)
            else:
                account.add(tick, self._activity(tick))
        devices_w = sum(account.watts for account in self._accounts.values())
        self._node.look(batch, devices_w)
        self._used_j += metering.bridged_j
        if metering:
            self._node.estimate(batch, self._used_j, devices_w, metering.lost_since_ns)

    def _settle(self, batch: Batch) -> None:
        """Tell the CPU packages who used them."""
        stretch = self._users.look(batch)
        found: list[Segment] | None = None
        if stretch is not None:
            shares = self._cpu.between(stretch.start_ns, stretch.end_ns)
            found = self._moments.segments(stretch, shares)
        for account in self._accounts.values():
            if isinstance(account, CpuAccount):
                account.ledger.expect(batch.interval)
                if found is not None:
                    account.settle(found)

    def _identity(self, device: Device) -> str:
        """What a device is known by for days."""
        uuids = (one.gpus.uuids.get(device) for one in self._collectors.values() if one.gpus)
        return next(filter(None, uuids), " ".join(device))

    def _open(self, device: Device, identity: str, interval: float) -> Account | CpuAccount:
        idle = self._idle_of(identity, " ".join(device))
        ledger = Ledger(self._begin_ns, max(interval, self._users.interval or 0.0))
        is_cpu = device[0] == "cpu"
        account = CpuAccount(idle, ledger, self._cpu) if is_cpu else Account(idle, ledger)
        self._accounts[device] = account
        return account

    def _activity(self, tick: Tick) -> Activity:
        for one in self._collectors.values():
            if one.gpus is not None and tick.device in one.gpus.activities:
                return one.gpus.activity(tick)
        return activity.UNKNOWN

    def _idle_of(self, identity: str, name: str) -> IdlePower:
        idle = self._idle.get(identity)
        if idle is None:
            patterns = self.config.energy.idle_watts.items()
            found = (watts for pattern, watts in patterns if fnmatch.fnmatchcase(name, pattern))
            idle = self._idle[identity] = IdlePower(next(found, None))
            idle.restore(self._learned.get(identity, {}))
        return idle

    def _turn_windows(self, now_ns: int, *, is_new: bool) -> None:
        """Begin, end and close windows at the readings of the node's meter, the last of which
        `is_new`."""
        node, window = self._node, self._window
        if not node.has_source or (window is not None and node.gap_s != window.gap_s):
            self._drop_window()
        elif window is not None and window.end_ns is not None:
            if all(one.ledger.is_settled(now_ns) for one in self._accounts.values()):
                self._close(window, window.end_ns)
        elif is_new and node.counted_ns is not None:
            if window is None:
                self._begin(node.counted_ns)
            elif self._is_long_enough(window, node.counted_ns):
                window.end_ns, window.end_j = node.counted_ns, node.joules
                for account in self._accounts.values():
                    account.ledger.close_at(node.counted_ns)

    def _is_long_enough(self, window: _Window, end_ns: int) -> bool:
        """Whether it may end there: a step of the counter must not be much of it."""
        if end_ns - window.begin_ns < (WINDOW_S - _SLACK_S) * 1e9:
            return False
        least_j = self._node.step_j(end_ns) / split.TOLERANCE
        return self._node.joules - window.begin_j >= least_j

    def _begin(self, begin_ns: int) -> None:
        self._window = _Window(begin_ns, self._node.joules, self._node.gap_s)
        self._node.take_psu_ratio()
        for account in self._accounts.values():
            account.ledger.restart(begin_ns)

    def _drop_window(self) -> None:
        if self._window is not None:
            self._window = None
            self._results.discard()

    def _close(self, window: _Window, end_ns: int) -> None:
        seconds = (end_ns - window.begin_ns) / 1e9
        silent = [d for d, a in self._accounts.items() if not a.ledger.has_reached(end_ns)]
        sums = {device: account.ledger.take() for device, account in self._accounts.items()}
        for device in silent:
            del self._accounts[device]
        self._divide(window, seconds, sums)
        self._window = _Window(end_ns, window.end_j, self._node.gap_s)

    def _divide(self, window: _Window, seconds: float, sums: Mapping[Device, Sums]) -> None:
        node_j = window.end_j - window.begin_j
        if self._node.is_of_devices:
            # As of the edges of the window; the counter has each device as of its last reading.
            node_j = self._node.estimated_j(sum(one.joules for one in sums.values()), seconds)
        closed = split.close(seconds, node_j, sums)
        is_complete = bool(sums) and split.is_complete(seconds, sums)
        psu_ratio = self._node.take_psu_ratio()
        self._results.blame(closed)
        if closed.is_wrong or is_complete:
            self._node.blame(window.begin_ns if closed.is_wrong else None)
        if not is_complete:
            self._results.discard()
            return
        self._results.compare(closed, psu_ratio)
        if closed.is_divided:
            self._results.add(closed, self._present())

    def _present(self) -> frozenset[Owner]:
        found = (one.gpus.holders for one in self._collectors.values() if one.gpus is not None)
        return self._users.present.union(*found)

    def _points(self, mono_ns: int) -> Iterator[Point]:
        yield from self._node.points(mono_ns)
        self._results.meet(self._present())
        yield from self._results.points()
        if self._node.counted_ns is not None:
            yield from self._bill.points()
        yield from self._budget.points()
        for device, account in self._accounts.items():
            if account.idle.watts is not None:
                yield families.IDLE_POWER.at(*device), account.idle.watts

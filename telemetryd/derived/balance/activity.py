"""What the devices do, and for whom: a share of activity, and how their energy is shared out.

A GPU's come in the batches of its collector, by the name that its meter has: NVML's index, or the
PCI address, by which hwmon calls a card. The last word holds until the next, for three intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from telemetryd import gpus
from telemetryd.batch import Batch
from telemetryd.derived.balance import sharing
from telemetryd.derived.balance.devices import Device, Tick
from telemetryd.derived.balance.ledger import Owner
from telemetryd.derived.balance.sharing import Parts, Slice, Use
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Series

# Driver samples of who used how much come about once a second, and now and then a second has none.
# A guess.
_SHARES_HOLD_NS = 5_000_000_000
# By name: its collector is not to be loaded where there is no such GPU.
_INSTANCE = "telemetryd_gpu_instance_info"
_LEVELS = (gpus.SM_ACTIVE, gpus.BUSY, gpus.PROCESSES)


@dataclass(frozen=True, slots=True)
class Activity:
    """`share` is from 0 to 1, None where nobody tells; `is_held`: somebody has the device, None
    where nobody tells; `work` is whose its dynamic energy is, `holding` whose the rest. Their
    parts add up to 1 at most."""

    share: float | None = None
    is_held: bool | None = None
    work: Mapping[Owner, float] = field(default_factory=dict)
    holding: Mapping[Owner, float] = field(default_factory=dict)


UNKNOWN = Activity()


class _Gpu:
    """Where in a batch the readings of a GPU and its MIG instances stand, and who used it."""

    def __init__(self, device: Device, uuid: str, model: str) -> None:
        self.device = device
        self.uuid = uuid
        self.slices = sharing.slices_of_model(model)
        # By MIG instance, "" being the whole.
        self.levels: dict[str, dict[object, int]] = {"": {}}
        self.instances: dict[str, int] = {}
        self.owners: list[tuple[int, str, Owner, bool]] = []
        self.use: Use | None = None
        self.shares_ns = 0
        self.share: float | None = None

    def look(self, batch: Batch, jobs: frozenset[Owner]) -> Activity:
        values, before = batch.values, self.use
        use = Use(values, self.owners, jobs)
        if use.shares:
            self.shares_ns = batch.mono_ns
        elif batch.mono_ns - self.shares_ns <= _SHARES_HOLD_NS:
            use.keep_shares(before or use)
        self.use = use
        slices = {
            name: Slice(width, self._share(name, values)) for name, width in self.instances.items()
        }
        share = self._share("", values)
        if share is None:
            share = sharing.share_of_slices(slices.values(), self.slices)
        processes = self.levels[""].get(gpus.PROCESSES)
        is_held: bool | None = None
        if processes is not None:
            is_held = values[processes] > 0
        both, holding = use, self._holding(use, slices)
        if before is not None and use.holders != before.holders:
            stayed = sharing.part_stayed(before, use, self.share, share)
            both = use.with_departed(before, stayed)
            holding = sharing.blend(self._holding(before, slices), holding, stayed)
        if both.holders:
            is_held = True
        self.share = share
        work = sharing.by_slice(both, slices) if slices else sharing.by_share(both)
        return Activity(share, is_held, work, holding)

    def _holding(self, use: Use, slices: Mapping[str, Slice]) -> Parts:
        if slices:
            return sharing.by_allocation(use, slices, self.slices)
        return sharing.evenly(use.everybody)

    def _share(self, name: str, values: tuple[float, ...]) -> float | None:
        levels = self.levels[name]
        place = levels.get(gpus.SM_ACTIVE, levels.get(gpus.BUSY))
        return None if place is None else values[place]


class GpuActivity:
    """The GPUs of one collector. `minors` are their numbers, by which jobs hold them."""

    def __init__(self) -> None:
        self._layout: tuple[Series, ...] | None = None
        self._gpus: dict[str, _Gpu] = {}
        self.minors: dict[str, Device] = {}
        # Of those whose name is but a number.
        self.uuids: dict[Device, str] = {}
        self.activities: dict[Device, Activity] = {}
        self._holds_until_ns = 0.0

    def look(self, batch: Batch, holding: Mapping[str, frozenset[Owner]]) -> None:
        """Take note of a batch of GPU readings. `holding` are the jobs that hold a GPU, by its
        minor number."""
        if batch.series is not self._layout:
            self._layout = batch.series
            self._look(batch.series)
        self._holds_until_ns = batch.mono_ns + GAP_INTERVALS * batch.interval * 1e9
        jobs = {device: holding[minor] for minor, device in self.minors.items() if minor in holding}
        nobody: frozenset[Owner] = frozenset()
        self.activities = {
            gpu.device: gpu.look(batch, jobs.get(gpu.device, nobody)) for gpu in self._gpus.values()
        }

    def activity(self, tick: Tick) -> Activity:
        """What the device of a tick did; not known if that was told long ago."""
        is_old = tick.start_ns > self._holds_until_ns
        return UNKNOWN if is_old else self.activities.get(tick.device, UNKNOWN)

    @property
    def holders(self) -> frozenset[Owner]:
        return frozenset(o for gpu in self._gpus.values() if gpu.use for o in gpu.use.everybody)

    def _look(self, series: tuple[Series, ...]) -> None:
        before, self._gpus, self.minors, self.uuids = self._gpus, {}, {}, {}
        for one in series:
            if one.metric is gpus.INFO:
                self._identify(one, before)
        for one in series:
            if one.metric.name == _INSTANCE:
                self._divide(one)
        for position, one in enumerate(series):
            metric = one.metric
            if metric not in _LEVELS and metric not in sharing.OWNED:
                continue
            name, _, instance = one.labels[0].partition("/")
            gpu = self._gpus.get(name)
            if gpu is None:
                continue
            instance = instance.partition("/")[0]
            if metric in sharing.OWNED:
                is_share = metric is gpus.OWNER_UTILIZATION
                owner = one.labels[2], one.labels[3]
                gpu.owners.append((position, instance, owner, is_share))
            elif instance in gpu.levels:
                gpu.levels[instance][metric] = position

    def _identify(self, info: Series, before: Mapping[str, _Gpu]) -> None:
        facts = dict(zip(info.metric.labels, info.labels, strict=True))
        name = facts["gpu"]
        is_number = facts["vendor"] == "nvidia"
        device = "gpu", name if is_number else facts["pci"]
        gpu = self._gpus[name] = _Gpu(device, facts["uuid"], facts["model"])
        known = before.get(name)
        if known is not None and known.uuid == gpu.uuid:
            gpu.use, gpu.shares_ns, gpu.share = known.use, known.shares_ns, known.share
        if is_number:
            self.uuids[device] = gpu.uuid
        if facts["minor"]:
            self.minors[facts["minor"]] = device

    def _divide(self, info: Series) -> None:
        """A compute instance: what it does is told of the GPU instance that it is part of."""
        facts = dict(zip(info.metric.labels, info.labels, strict=True))
        gpu = self._gpus.get(facts["parent"])
        if gpu is not None:
            gpu.instances[facts["gpu_instance"]] = sharing.slices_of_profile(facts["profile"])
            gpu.levels.setdefault(facts["gpu_instance"], {})

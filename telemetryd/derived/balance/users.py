"""Who the owners in the batches of `owners` are: their CPU time from batch to batch, and the GPUs
that a job holds without a process on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from telemetryd import owners
from telemetryd.batch import Batch
from telemetryd.derived.balance.ledger import Owner
from telemetryd.derived.balance.sharing import evenly
from telemetryd.metric import Series

# They hold a CPU package; the machine's own units do not.
_HOLDERS = frozenset({owners.JOB, owners.POD, owners.CONTAINER})
# Owners that are not there now are remembered: one that comes back among the first goes on counting
# where it was. So many more than there are.
_MORE = 5_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """Who used the CPUs from one batch of owners to the next: `work` by CPU time, `holding` by that
    of those who hold the packages. `held` is for how much of the time somebody held them."""

    start_ns: int = 0
    end_ns: int = 0
    work: Mapping[Owner, float] = field(default_factory=dict)
    holding: Mapping[Owner, float] = field(default_factory=dict)
    held: float = 0.0


class Users:
    """The owners of one collector. `interval` is None until it has told anything."""

    def __init__(self) -> None:
        self._layout: tuple[Series, ...] | None = None
        self._collector = ""
        self._cpu: list[tuple[int, Owner]] = []
        self._seconds: dict[Owner, float] = {}
        self._read_ns: int | None = None
        self._holders: frozenset[Owner] = frozenset()
        # Those of them that have not ended.
        self._living: frozenset[Owner] = frozenset()
        self.interval: float | None = None
        self.present: frozenset[Owner] = frozenset()
        # Jobs by the minor number of a GPU that they hold.
        self.gpus: dict[str, frozenset[Owner]] = {}

    def look(self, batch: Batch) -> Stretch | None:
        """Take note of a batch of owners: what they did since the one before."""
        before = self._living
        if batch.series is not self._layout:
            self._layout, self._collector = batch.series, batch.collector
            self._look(batch.series)
        values, known, since = batch.values, self._seconds, self._read_ns
        used: dict[Owner, float] = {}
        for position, owner in self._cpu:
            seconds = values[position]
            # One that was not there before counts from 0, as its counter does; so does one that
            # ended and began again.
            last = known.get(owner, 0.0)
            if seconds != last:
                known[owner] = seconds
                used[owner] = seconds - last if seconds > last else seconds
        self._read_ns, self.interval = batch.mono_ns, batch.interval
        if since is None or since >= batch.mono_ns:
            return None
        time_of_holders = {owner: s for owner, s in used.items() if owner[0] in _HOLDERS}
        holding = _shares(time_of_holders) or evenly(self._holders)
        held = self._held(before)
        return Stretch(since, batch.mono_ns, _shares(used), holding, held)

    def forget(self, collector: str) -> None:
        if collector == self._collector:
            self.__init__()  # type: ignore[misc]

    def _held(self, before: frozenset[Owner]) -> float:
        """Half, if all of them came or went meanwhile: it is not known when."""
        if before & self._living:
            return 1.0
        return 0.5 if self._holders or before else 0.0

    def _look(self, series: tuple[Series, ...]) -> None:
        self._cpu = []
        jobs: dict[str, set[Owner]] = {}
        with_memory: set[Owner] = set()
        for position, one in enumerate(series):
            if one.metric is owners.CPU and one.labels[0] != owners.PROCESS:
                self._cpu.append((position, (one.labels[0], one.labels[1])))
            elif one.metric is owners.MEMORY:
                with_memory.add((one.labels[0], one.labels[1]))
            elif one.metric is owners.GPU_MINOR:
                kind, name, minor = one.labels
                # Steps are told of CPU time only: of a GPU it is not known which step has it.
                job = name.partition(".")[0] if kind == owners.JOB else name
                jobs.setdefault(minor, set()).add((kind, job))
        self.gpus = {minor: frozenset(found) for minor, found in jobs.items()}
        self.present = frozenset(owner for _, owner in self._cpu)
        self._holders = frozenset(owner for owner in self.present if owner[0] in _HOLDERS)
        # One that ended is shown once more, but not its memory.
        self._living = self._holders & with_memory if with_memory else self._holders
        for gone in [owner for owner in self._seconds if owner not in self.present]:
            if len(self._seconds) <= len(self.present) + _MORE:
                break
            del self._seconds[gone]


def _shares(seconds: Mapping[Owner, float]) -> dict[Owner, float]:
    total = sum(seconds.values())
    return {owner: used / total for owner, used in seconds.items()} if total > 0 else {}

"""Who the owners in the batches of `owners` are: their CPU time from batch to batch, and the GPUs
that a job holds without a process on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from telemetryd import owners
from telemetryd.batch import Batch
from telemetryd.derived.balance.ledger import Owner
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Series

# They hold a CPU package; the machine's own units do not.
HOLDERS = frozenset({owners.JOB, owners.POD, owners.CONTAINER})
# They bear what it draws idle while it is held: a command may be inside one of them.
BEARERS = HOLDERS | {owners.PROCESS}
# Owners that are not there now are remembered: one that comes back among the first goes on counting
# where it was. So many more than there are.
_MORE = 5_000


@dataclass(frozen=True, slots=True)
class Stretch:
    """What happened from one batch of owners to the next: CPU seconds that each of them `used`;
    `came` were not there at its beginning, `left` not at its end; `holders` are those who held the
    packages for all of it or a part."""

    start_ns: int
    end_ns: int
    used: Mapping[Owner, float] = field(default_factory=dict)
    holders: frozenset[Owner] = frozenset()
    came: frozenset[Owner] = frozenset()
    left: frozenset[Owner] = frozenset()

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


class Users:
    """The owners of one collector. `interval` is None until it has told anything."""

    def __init__(self) -> None:
        self._layout: tuple[Series, ...] | None = None
        self._collector = ""
        self._cpu: list[tuple[int, Owner]] = []
        self._seconds: dict[Owner, float] = {}
        self._read_ns: int | None = None
        self._holders: frozenset[Owner] = frozenset()
        self._with_memory: frozenset[Owner] = frozenset()
        self._came: frozenset[Owner] = frozenset()
        self._left: frozenset[Owner] = frozenset()
        self._gpus: dict[str, frozenset[Owner]] = {}
        self.interval: float | None = None
        self.present: frozenset[Owner] = frozenset()

    def look(self, batch: Batch) -> Stretch | None:
        """Take note of a batch of owners: what they did since the one before."""
        if batch.series is not self._layout:
            self._layout, self._collector = batch.series, batch.collector
            self._look(batch.series)
        else:
            self._came = self._left = frozenset()
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
        return Stretch(since, batch.mono_ns, used, self._holders, self._came, self._left)

    def gpus(self, mono_ns: int) -> Mapping[str, frozenset[Owner]]:
        """Jobs by the minor number of a GPU that they hold; nothing once that is long ago."""
        if self._read_ns is None or self.interval is None:
            return {}
        is_old = mono_ns - self._read_ns > GAP_INTERVALS * self.interval * 1e9
        return {} if is_old else self._gpus

    def forget(self, collector: str) -> None:
        if collector == self._collector:
            self.__init__()  # type: ignore[misc]

    def _look(self, series: tuple[Series, ...]) -> None:
        self._cpu = []
        jobs: dict[str, set[Owner]] = {}
        with_memory: set[Owner] = set()
        for position, one in enumerate(series):
            if one.metric is owners.CPU:
                self._cpu.append((position, (one.labels[0], one.labels[1])))
            elif one.metric is owners.MEMORY:
                with_memory.add((one.labels[0], one.labels[1]))
            elif one.metric is owners.GPU_MINOR:
                kind, name, minor = one.labels
                # Steps are told of CPU time only: of a GPU it is not known which step has it.
                job = name.partition(".")[0] if kind == owners.JOB else name
                jobs.setdefault(minor, set()).add((kind, job))
        self._gpus = {minor: frozenset(found) for minor, found in jobs.items()}
        present = frozenset(owner for _, owner in self._cpu)
        # Should one that ended come back, it begins again.
        for ended in self._left - present:
            self._seconds.pop(ended, None)
        # One that is remembered was but not among the first.
        self._came = present - self.present - self._seconds.keys()
        # One that ended is shown once more, but not its memory.
        self._left = (present & self._with_memory) - with_memory if with_memory else frozenset()
        self.present, self._with_memory = present, frozenset(with_memory)
        self._holders = frozenset(owner for owner in present if owner[0] in HOLDERS)
        for gone in [owner for owner in self._seconds if owner not in self.present]:
            if len(self._seconds) <= len(self.present) + _MORE:
                break
            del self._seconds[gone]

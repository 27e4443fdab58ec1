"""Who uses a GPU: the clients that processes have open under /dev/dri, from their fdinfo.

Documentation/gpu/drm-usage-stats.rst. A client is one open of a card or render node; duplicated
and inherited descriptors are the same client, and belong to the process of lowest number that
holds it: the parent, of those that forked. A client without memory and without engine time has
only been opened (ROCm opens every GPU that it is allowed), and holds nothing.

Engine time. For each class of engines (render, compute, copy, video) a driver counts the
nanoseconds that a client kept it busy, or cycles beside all cycles (xe), and how many engines the
class has. The utilization of a process is that of the class it used most: classes work at the same
time, so that their sum could exceed 1. The GPU is as busy as its busiest class, all clients
together; what a client did that came and went between two looks is not seen.

A counter may fall for a moment: the document asks to stay with the larger value. Nothing is
derived meanwhile. One that is still below at the next look has begun again.

All processes are looked through, which is slow: a listing of descriptors each, a readlink each;
only those of a GPU are opened. That is why it has an interval of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from telemetryd.drm.fdinfo import Client, Counter, parse_client
from telemetryd.host import Host

_DRI = "/dev/dri/"
_DELETED = " (deleted)"
# Looks further apart than this many intervals do not belong together: nobody was looking.
_GAP_INTERVALS = 3
# A class without a pause can exceed the time by what passes between the kernel's clock and ours.
# A guess; more than this is no rounding but another way to count (amdgpu adds up parallel queues).
_ROUNDING = 0.01


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What a process uses of a GPU: bytes, and the share of the class that it used most."""

    pid: str
    command: str
    memory: int | None
    utilization: float | None


@dataclass(frozen=True, slots=True)
class Use:
    """Who uses a GPU. `processes` counts all of them, `all` has those that could be looked at and
    are still there, `shown` the first of them, which are those with the most memory.

    `processes` and `busy` are None where not all processes could be looked at, and `busy` also
    where the time of a client is not known.
    """

    processes: int | None
    busy: float | None
    shown: tuple[ProcessUse, ...]
    all: tuple[ProcessUse, ...] = ()


@dataclass(slots=True)
class _Mark:
    """A counter as it was when it was last looked at. `fell`: what came after was below it."""

    busy: int
    total: int | None
    at_ns: int
    fell: bool = False


_Marks = dict[tuple[str, str], dict[str, _Mark]]  # of each client (GPU, id), by class


@dataclass(slots=True)
class _Seen:
    """What one look found of a GPU."""

    owners: dict[str, list[tuple[Client, int]]] = field(default_factory=dict)
    told: bool = True


class ClientWatch:
    """Looks at the clients of some GPUs now and again.

    `counts_all` says of a process whether the driver counts all that it does on the GPU; of one
    that it does not, no utilization is known.
    """

    def __init__(
        self,
        host: Host,
        interval: float,
        most: int,
        counts_all: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._host = host
        self._gap_ns = int(_GAP_INTERVALS * interval * 1e9)
        self._most = most
        self._counts_all = counts_all
        self._marks: _Marks = {}
        # Of each GPU that was looked at in full: when, and the total cycles of its classes.
        self._looks: dict[str, tuple[int, dict[str, int]]] = {}
        self.denied: PermissionError | None = None

    def look(
        self, nodes: Mapping[str, str | None], fault: Callable[[Exception, str], None]
    ) -> dict[str, Use]:
        """The use of each GPU, by PCI address. `nodes` has the nodes to look for with the address
        of their GPU, or None where the client itself tells it.

        Processes that end meanwhile are normal. Of those that may not be looked at, the first is
        remembered in `denied`. What cannot be understood is reported.
        """
        self.denied = None
        gpus = sorted({pci for pci in nodes.values() if pci is not None})
        seen = {pci: _Seen() for pci in gpus}
        known: set[tuple[str, str]] = set()
        for pid in self._pids():
            for fd, node in self._descriptors(pid, nodes):
                self._open(pid, fd, nodes[node], seen, known, fault)
        now_ns = self._host.clock.mono_ns()
        marks: _Marks = {}
        uses = {pci: self._use(pci, seen[pci], now_ns, marks) for pci in gpus}
        self._marks = marks
        # Of a GPU that was left out, what its clients do meanwhile is not known.
        self._looks = {pci: look for pci, look in self._looks.items() if pci in seen}
        return uses

    def _pids(self) -> list[str]:
        return sorted(filter(str.isdecimal, self._host.names(self._host.procfs)), key=int)

    def _descriptors(self, pid: str, nodes: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
        folder = self._host.proc(pid, "fd")
        try:
            fds = os.listdir(folder)
        except PermissionError as error:
            self.denied = self.denied or error
            return
        except OSError:
            return  # it ended
        for fd in fds:
            try:
                target = os.readlink(os.path.join(folder, fd))
            except PermissionError as error:
                self.denied = self.denied or error
                return
            except OSError:
                continue
            if target.startswith(_DRI):
                node = target[len(_DRI) :].removesuffix(_DELETED)
                if node in nodes:
                    yield fd, node

    def _open(
        self,
        pid: str,
        fd: str,
        pci: str | None,
        seen: dict[str, _Seen],
        known: set[tuple[str, str]],
        fault: Callable[[Exception, str], None],
    ) -> None:
        path = self._host.proc(pid, "fdinfo", fd)
        try:
            text = self._host.read(path)
            at_ns = self._host.clock.mono_ns()
            client = parse_client(text)
        except PermissionError as error:
            self.denied = self.denied or error
            return
        except OSError:
            return
        except ValueError as error:
            fault(error, path)
            client = None
        if client is None:
            if pci is not None:
                seen[pci].told = False
            return
        pci = pci or client.pci
        if pci in seen and (pci, client.id) not in known:
            known.add((pci, client.id))
            seen[pci].owners.setdefault(pid, []).append((client, at_ns))

    def _use(self, pci: str, seen: _Seen, now_ns: int, marks: _Marks) -> Use:
        complete = seen.told and self.denied is None
        by_class: dict[str, float | None] = {}
        found: list[ProcessUse] = []
        totals: dict[str, int] = {}
        count = 0
        last = self._looks.get(pci)
        if last is not None and now_ns - last[0] > self._gap_ns:
            last = None
        for pid, clients in seen.owners.items():
            own: dict[str, float | None] = {}
            for client, at_ns in clients:
                shares = self._shares(pci, client, at_ns, last, marks)
                _add(own, shares)
                _add(by_class, shares)
                for name, counter in client.engines.items():
                    if counter.total is not None:
                        totals[name] = max(totals.get(name, 0), counter.total)
                if not client.engines:
                    by_class[""] = None
            held = [client for client, _ in clients if not client.is_idle_open]
            if held:
                count += 1
                found.append(self._process(pid, held, own))
        if complete:
            self._looks[pci] = (now_ns, totals)
        else:
            self._looks.pop(pci, None)
        busy = _busiest(by_class, nobody=0.0) if complete and last is not None else None
        named = self._named(found)
        return Use(count if complete else None, busy, named[: self._most], named)

    def _process(
        self, pid: str, held: list[Client], shares: Mapping[str, float | None]
    ) -> ProcessUse:
        known = [client.memory for client in held if client.memory is not None]
        memory = sum(known) if len(known) == len(held) else None
        utilization = _busiest(shares) if self._counts_all(pid) else None
        return ProcessUse(pid, "", memory, utilization)

    def _named(self, found: list[ProcessUse]) -> tuple[ProcessUse, ...]:
        """With their names, those with the most memory first."""
        found.sort(key=lambda one: (-(one.memory or 0), int(one.pid)))
        named = []
        for one in found:
            try:
                command = self._host.text(self._host.proc(one.pid, "comm"))
            except OSError:
                continue  # it ended
            named.append(ProcessUse(one.pid, command, one.memory, one.utilization))
        return tuple(named)

    def _shares(
        self,
        pci: str,
        client: Client,
        at_ns: int,
        last: tuple[int, dict[str, int]] | None,
        marks: _Marks,
    ) -> dict[str, float | None]:
        """The share of each class that a client used since the last look; None: not known."""
        before = self._marks.get((pci, client.id), {})
        after = marks.setdefault((pci, client.id), {})
        shares: dict[str, float | None] = {}
        for name, counter in client.engines.items():
            mark = before.get(name)
            if mark is not None and at_ns - mark.at_ns > self._gap_ns:
                mark = None
            if mark is None and last is not None:
                # Not there at the last look, when it would have been seen: it began at 0.
                mark = _Mark(0, last[1].get(name), last[0])
            after[name] = _Mark(counter.busy, counter.total, at_ns)
            if mark is None:
                shares[name] = None
            elif counter.busy < mark.busy:
                shares[name] = None
                if not mark.fell:
                    after[name] = mark
                    mark.fell = True
            else:
                shares[name] = _share(mark, counter, at_ns)
        return shares


def _share(mark: _Mark, counter: Counter, at_ns: int) -> float | None:
    used = counter.busy - mark.busy
    if counter.total is None:
        span = at_ns - mark.at_ns
    elif mark.total is not None:
        span = counter.total - mark.total
    else:
        return None if used else 0.0
    return used / span / counter.capacity if span > 0 and counter.capacity > 0 else None


def _add(sums: dict[str, float | None], shares: Mapping[str, float | None]) -> None:
    for name, share in shares.items():
        before = sums.get(name, 0.0)
        sums[name] = None if before is None or share is None else before + share


def _busiest(shares: Mapping[str, float | None], nobody: float | None = None) -> float | None:
    """The share of the busiest class; None if that of a class is not known.

    A share is at most 1. Two clocks may make a little more of it; what exceeds that counts in
    some other way, and says nothing.
    """
    most = nobody
    for share in shares.values():
        if share is None or share > 1 + _ROUNDING:
            return None
        most = share if most is None else max(most, share)
    return min(most, 1.0) if most is not None else None

"""Who uses a GPU: the processes with a context on it, their memory and their share of it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ctypes import byref, c_uint, c_ulonglong, c_void_p, create_string_buffer

from telemetryd.collectors.gpu_nvidia.driver import (
    INSUFFICIENT_SIZE,
    OK,
    UNSUPPORTED,
    Driver,
    Function,
)
from telemetryd.collectors.gpu_nvidia.identity import Identity
from telemetryd.collectors.gpu_nvidia.mig import Instances
from telemetryd.collectors.gpu_nvidia.reading import Reading
from telemetryd.gpu_owners import owner_on_gpu, owner_points
from telemetryd.gpus import (
    OWNER_UTILIZATION,
    PROCESS_MEMORY,
    PROCESS_UTILIZATION,
    PROCESSES,
)
from telemetryd.host import Host
from telemetryd.metric import Point, Series
from telemetryd.owners import Owner

# nvmlProcessInfo_v2_t and nvmlProcessUtilizationSample_t
_PROCESS = struct.Struct("=I4xQII")
_SAMPLE = struct.Struct("=I4xQIIII")
_ROOM = 16
# More than any driver lists; a length beyond it is nonsense, and not to be believed with memory.
_MOST_ROOM = 1 << 16
_NOT_KNOWN = 0xFFFFFFFFFFFFFFFF
_NO_INSTANCE = 0xFFFFFFFF
_HIGHEST = 100
# A sample cannot be newer than now; the rest is for clocks that are read a moment apart.
_SLACK_US = 1_000_000
_Labels = tuple[str, str]


class _List:
    """One of the driver's lists of processes, in a buffer that grows with it."""

    def __init__(self, function: Function, handle: c_void_p) -> None:
        self._function = function
        self._handle = handle
        self._count = c_uint()
        self._make_room(_ROOM)

    def fill(self) -> int:
        """Get the list from the driver. Returns NVML's code."""
        code = self._ask()
        if code == INSUFFICIENT_SIZE:
            self._make_room(_more(self._count.value, self._room))
            code = self._ask()
        self._filled = self._count.value if code == OK else 0
        return code

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        """Process, memory, GPU instance, compute instance."""
        return _PROCESS.iter_unpack(memoryview(self._buffer)[: self._filled * _PROCESS.size])

    def _ask(self) -> int:
        self._count.value = self._room
        return self._function(self._handle, byref(self._count), self._buffer)

    def _make_room(self, room: int) -> None:
        self._room = room
        self._filled = 0
        self._buffer = create_string_buffer(room * _PROCESS.size)


class Processes:
    """The processes of one GPU and its MIG instances.

    Their number is that of the lists that the driver gave. Names come from /proc/PID/comm, read
    once for each process; its owner from telemetryd.owners, once, or anew each time where commands
    may be owners, since a process may take another name. At most `most` processes have
    series of their own; owners are added up over all of them.
    """

    def __init__(
        self,
        driver: Driver,
        host: Host,
        handle: c_void_p,
        identity: Identity,
        most: int,
        instances: Instances,
    ) -> None:
        self._host = host
        self._handle = handle
        self._labels: _Labels = identity.labels
        self._most = most
        self._instances = instances
        self._lists = [
            _List(function, handle)
            for kind in ("Compute", "Graphics")
            if (function := _list_function(driver, kind)) is not None
        ]
        self._series: dict[tuple[int, _Labels], tuple[Series, Series]] = {}
        self._owners: dict[int, Owner] = {}
        self._share = driver.function("nvmlDeviceGetProcessUtilization")
        self._samples = create_string_buffer(_ROOM * _SAMPLE.size)
        self._sample_count = c_uint()
        self._since_us = 0

    def readings(self) -> Iterator[Reading]:
        yield Reading("processes", self._read if self._lists else None)
        share = None if self._share is None else self._read_shares
        yield Reading("process utilization", share)

    def _read(self, points: list[Point]) -> int:
        code = self._fill()
        if code != OK:
            self._series.clear()
            self._owners.clear()
            return code
        memory: dict[tuple[int, _Labels], int | None] = {}
        for one in self._lists:
            for process, used, gpu_instance, compute_instance in one:
                labels = self._labels
                if gpu_instance != _NO_INSTANCE:
                    known = self._instances.labels_of(gpu_instance, compute_instance)
                    labels = known or labels
                if used == _NOT_KNOWN:
                    memory.setdefault((process, labels), None)
                else:
                    memory[process, labels] = max(used, memory.get((process, labels)) or 0)
        counts = dict.fromkeys(self._instances.labels, 0)
        counts[self._labels] = 0
        for _, labels in memory:
            counts[labels] += 1
        if self._instances.all:
            counts[self._labels] = len({process for process, _ in memory})
        points += [(PROCESSES.at(*labels), count) for labels, count in counts.items()]
        self._choose(memory)
        for key, series in self._series.items():
            if (held := memory[key]) is not None:
                points.append((series[0], held))
        points += self._by_owner(memory)
        return OK

    def _by_owner(self, memory: dict[tuple[int, _Labels], int | None]) -> Iterator[Point]:
        """Processes and memory of each owner, and on the way whose each process is."""
        known = {} if self._host.ownership.commands else self._owners
        self._owners = {
            process: known.get(process) or owner_on_gpu(self._host, process)
            for process in dict.fromkeys(process for process, _ in memory)
        }
        held: dict[_Labels, dict[Owner, list[int | None]]] = {}
        for (process, labels), used in memory.items():
            of_instance = held.setdefault(labels, {})
            of_instance.setdefault(self._owners[process], []).append(used)
        for labels, by_owner in held.items():
            yield from owner_points(labels, by_owner)

    def _fill(self) -> int:
        """Get both lists. Each has processes that the other has not, so that none will do if one
        fails; a list that the GPU does not have is not asked for again."""
        refused = []
        code = OK
        for one in self._lists:
            code = one.fill()
            if code in UNSUPPORTED:
                refused.append(one)
            elif code != OK:
                return code
        if len(refused) == len(self._lists):
            return code
        if refused:
            self._lists = [one for one in self._lists if one not in refused]
        return OK

    def _choose(self, memory: dict[tuple[int, _Labels], int | None]) -> None:
        """Keep the series of those that are shown, and forget the others."""
        if len(memory) <= self._most and memory.keys() == self._series.keys():
            return
        shown = sorted(memory, key=lambda key: -(memory[key] or 0))[: self._most]
        self._series = {key: self._series.get(key) or self._named(*key) for key in shown}

    def _named(self, process: int, labels: _Labels) -> tuple[Series, Series]:
        try:
            command = self._host.text(self._host.proc(str(process), "comm"))
        except OSError:
            command = ""  # it is gone, or in a namespace that we do not see
        own = (*labels, str(process), command)
        return PROCESS_MEMORY.at(*own), PROCESS_UTILIZATION.at(*own)

    def _read_shares(self, points: list[Point]) -> int:
        code = self._ask_for_shares()
        if code == INSUFFICIENT_SIZE:
            room = _more(self._sample_count.value, len(self._samples) // _SAMPLE.size)
            self._samples = create_string_buffer(room * _SAMPLE.size)
            code = self._ask_for_shares()
        if code != OK:
            return code
        newest: dict[int, tuple[int, int]] = {}
        latest_us = self._host.clock.wall_ns() // 1000 + _SLACK_US
        filled = memoryview(self._samples)[: self._sample_count.value * _SAMPLE.size]
        for process, at_us, share, _, _, _ in _SAMPLE.iter_unpack(filled):
            # The driver has been seen to hand out figures of many thousand percent.
            if share > _HIGHEST or at_us > latest_us:
                continue
            if at_us > newest.get(process, (0, 0))[0]:
                newest[process] = at_us, share
            self._since_us = max(self._since_us, at_us)
        for (process, _), series in self._series.items():
            if (sample := newest.get(process)) is not None:
                points.append((series[1], sample[1] / 100))
        shares: dict[Owner, int] = {}
        for process, (_, share) in newest.items():
            if (owner := self._owners.get(process)) is not None:
                shares[owner] = shares.get(owner, 0) + share
        points += [
            (OWNER_UTILIZATION.at(*self._labels, owner.kind, owner.name), share / 100)
            for owner, share in shares.items()
        ]
        return OK

    def _ask_for_shares(self) -> int:
        assert self._share is not None
        # If the wall clock was set back, the samples to come would look old.
        self._since_us = min(self._since_us, self._host.clock.wall_ns() // 1000)
        self._sample_count.value = len(self._samples) // _SAMPLE.size
        since = c_ulonglong(self._since_us)
        return self._share(self._handle, self._samples, byref(self._sample_count), since)


def _more(wanted: int, room: int) -> int:
    return min(2 * max(wanted, room), _MOST_ROOM)


def _list_function(driver: Driver, kind: str) -> Function | None:
    """The newest version of the list whose entries are laid out like _PROCESS."""
    name = f"nvmlDeviceGet{kind}RunningProcesses"
    return driver.function(f"{name}_v3") or driver.function(f"{name}_v2")

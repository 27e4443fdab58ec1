"""CPU time by command, for the commands that the configuration names.

From /proc/PID/stat (proc_pid_stat(5)). The same time is in the figures of units, jobs and so on:
commands are another way to look at it. What a process used after it was last read is not seen.
"""

from __future__ import annotations

import fnmatch
import heapq
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

from telemetryd.host import Host
from telemetryd.metric import Point
from telemetryd.owners import CPU, PROCESS

_Process = tuple[int, bytes]


class Commands:
    """Seconds of CPU time of each command that fits one of `patterns`, at most `most` of them."""

    def __init__(self, patterns: Sequence[str], most: int, host: Host) -> None:
        self._patterns = patterns
        self._most = most
        self._folder = host.proc()
        self._host = host
        self._tick = 1 / os.sysconf("SC_CLK_TCK")
        self._last: dict[_Process, int] | None = None
        self._ticks: dict[str, int] = {}
        self._fits: dict[bytes, str | None] = {}
        self.dropped = 0

    def sample(self) -> Iterator[Point]:
        """Raises OSError if the processes cannot be listed."""
        seen: dict[_Process, int] = {}
        alive: dict[str, int] = defaultdict(int)
        names: set[bytes] = set()
        for name in os.listdir(self._folder):
            if not name.isdecimal():
                continue
            try:
                data = self._host.read(f"{self._folder}/{name}/stat")
                command, _, rest = data.partition(b"(")[2].rpartition(b")")
                words = rest.split(None, 20)
                # state is the first of them; then come utime, stime and starttime.
                ticks, process = int(words[11]) + int(words[12]), (int(name), words[19])
            except (OSError, ValueError, IndexError):
                continue  # it has ended since
            seen[process] = ticks
            names.add(command)
            if command not in self._fits:
                self._fits[command] = self._shown(command)
            if (named := self._fits[command]) is not None:
                before = ticks if self._last is None else self._last.get(process, 0)
                alive[named] += max(0, ticks - before)
        self._last = seen
        self._fits = {command: self._fits[command] for command in names}
        self._ticks = {command: self._ticks.get(command, 0) + new for command, new in alive.items()}
        self.dropped = max(0, len(self._ticks) - self._most)
        first = heapq.nlargest(self._most, self._ticks, key=self._ticks.__getitem__)
        for shown in first if self.dropped else self._ticks:
            yield CPU.at(PROCESS, shown), self._ticks[shown] * self._tick

    def _shown(self, command: bytes) -> str | None:
        text = os.fsdecode(command)
        fits = any(fnmatch.fnmatchcase(text, pattern) for pattern in self._patterns)
        return text if fits else None

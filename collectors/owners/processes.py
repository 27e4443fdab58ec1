"""Processes that belong to their command: CPU time and memory, for the commands that
`host.ownership` names.

From /proc/PID/stat (proc_pid_stat(5)). What such a process used is moved from the owner of its
control group to its command, so that no second counts twice. The time of a process is told in
ticks, that of a group in microseconds: a command is given no more than its group used, and the
difference the next time. What a process used after it was last read stays with its group; where
that has no owner, with the system.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Container

from telemetryd.collectors.owners.cpu_time import Report
from telemetryd.collectors.owners.groups import Tree
from telemetryd.host import Host
from telemetryd.owners import SYSTEM, Owner, command_of, groups_of, split_stat

# Fields of /proc/PID/stat, counted from the state.
_USER, _SYSTEM, _STARTED, _RESIDENT = 11, 12, 19, 21
_GONE = (FileNotFoundError, ProcessLookupError)
# When a process began, and its ticks then.
_Mark = tuple[bytes, int]


class Commands:
    """`memory` has the commands that there are with the resident memory of their processes."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._patterns = host.ownership.commands
        self._folder = host.proc()
        self._tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")
        # By the number of a process; None if it was there and could not be read.
        self._marks: dict[str, _Mark | None] | None = None
        # What commands used and were not given yet, by whose it still is.
        self._due: dict[Owner, dict[Owner, int]] = {}
        self.memory: dict[Owner, int] = {}

    def look(self, tree: Tree, fault: Report) -> bool:
        """Read the processes, whose groups are in `tree`; whether the commands are others than
        before. If the processes cannot be listed there are none."""
        try:
            names = list(filter(str.isdecimal, os.listdir(self._folder)))
        except OSError as error:
            fault(error, self._folder)
            self.memory, are_others = {}, bool(self.memory)
            return are_others
        before, marks = self._marks, self._marks or {}
        seen: dict[str, _Mark | None] = {}
        memory: dict[Owner, int] = defaultdict(int)
        trouble: tuple[Exception, str] | None = None
        for name in names:
            path = f"{self._folder}/{name}/stat"
            try:
                command, fields = split_stat(self._host.read(path))
                mark = fields[_STARTED], int(fields[_USER]) + int(fields[_SYSTEM])
                resident = int(fields[_RESIDENT]) * self._page
                owner = command_of(command, fields, self._patterns)
                if owner is not None:
                    # One that was not there has begun since, but for those of the first look.
                    last = mark if before is None else marks.get(name, (mark[0], 0))
                    self._charge(owner, name, mark, last, tree)
                    memory[owner] += resident
                seen[name] = mark
            except _GONE:
                continue
            except (OSError, ValueError) as error:
                trouble = error, path
                seen[name] = marks.get(name)
        if trouble is not None:
            fault(*trouble)
        are_others = memory.keys() != self.memory.keys()
        self._marks, self.memory = seen, dict(memory)
        return are_others

    def _charge(self, owner: Owner, name: str, mark: _Mark, last: _Mark | None, tree: Tree) -> None:
        """Let it be due to `owner` what the process used since `last`. Raises OSError."""
        if last is None:
            return
        ticks = mark[1] - last[1] if mark[0] == last[0] else mark[1]
        if ticks > 0:
            due = self._due.setdefault(self._base(name, tree), {})
            due[owner] = due.get(owner, 0) + ticks * self._tick_ns

    def _base(self, name: str, tree: Tree) -> Owner:
        """Whose the time of a process is by its control group. Raises OSError."""
        for controllers, path in groups_of(self._host, int(name)):
            if tree.files.controller in controllers.split(","):
                return tree.owner_at(path) or SYSTEM
        return SYSTEM

    def take(self, used: dict[Owner, int], known: Container[Owner]) -> None:
        """Move what is due from owners of groups, and the system, to commands, as far as they used
        it. What is due by or to one that is no longer known is not there any more."""
        left: dict[Owner, dict[Owner, int]] = {}
        for base, all_due in self._due.items():
            due = {owner: ns for owner, ns in all_due.items() if owner in known}
            wanted = sum(due.values())
            if not wanted or not (base is SYSTEM or base in known):
                continue
            there = min(wanted, used.get(base, 0))
            for owner, ns in due.items():
                given = ns * there // wanted
                if given:
                    used[owner] = used.get(owner, 0) + given
                    used[base] -= given
                if given < ns:
                    left.setdefault(base, {})[owner] = ns - given
        self._due = left

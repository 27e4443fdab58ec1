"""From what control groups used to what their owners used, in nanoseconds.

The CPU time of a group has that of all groups below it in it, also of those that are gone. What a
group used itself is the rest without those below it: no second counts twice, and of a group that
ended between two readings nothing is lost. What it used after its last reading shows in the group
above; it is its own if no other ended there, else the group above keeps it. Of one that ended with
all groups above it, as the last job of Slurm does on version 1, it shows in nothing but the whole.

What no owner used is the busy time of /proc/stat without what owners used. The root group of
version 2 would tell the same, but counts the time of virtual guests twice before Linux 5.16
(kernel/cgroup/rstat.c), and in a container it is not the machine's.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Callable

from telemetryd.collectors.owners.groups import Group, Tree, whose
from telemetryd.errors import ReadError
from telemetryd.host import Attribute, Host
from telemetryd.owners import Owner

Report = Callable[[Exception, str], None]
_GONE = frozenset({errno.ENOENT, errno.ENODEV})
_FIRST = b"usage_usec "
# user, nice, system, irq, softirq, steal; guests are inside user and nice (proc_stat(5)).
_BUSY = (1, 2, 3, 6, 7, 8)
# The two clocks are not read at one moment, and one of them may count by ticks: owners may seem
# to have used more than the machine. A guess: as far as a thousand CPUs drift in a millisecond.
_MOST_DEBT_NS = 10**9


def used_since(tree: Tree, step_ns: int, fault: Report) -> dict[Owner, int]:
    """What each owner used since the last call, `step_ns` ago. Groups that are gone by now are
    lost to the tree."""
    used: dict[Owner, int] = defaultdict(int)
    unit = tree.files.cpu_ns
    head = len(_FIRST) if unit > 1 else 0
    for group in reversed(tree.groups):  # each before those above it
        try:
            usage = _usage(group, head)
            if usage == group.usage and not group.below_ns and not group.ended:
                group.own_rate = 0.0
                continue  # idle, as most are
            delta_ns = _advance(group, usage, unit)
        except (OSError, ValueError, ReadError) as error:
            if isinstance(error, OSError) and error.errno in _GONE:
                tree.lose(group)
            else:
                fault(error, group.path)
            continue
        if group.above is not None:
            group.above.below_ns += delta_ns
        own_ns = delta_ns
        if group.below_ns or group.debt_ns:
            own_ns = _without_others(group, delta_ns)
        if group.ended:
            own_ns -= _inherited(group, own_ns, step_ns, used)
        elif step_ns:
            group.own_rate = own_ns / step_ns
        if group.owner is not None:
            used[group.owner] += own_ns
    return used


def _usage(group: Group, head: int) -> int:
    """The CPU time of the group in the kernel's unit. Raises OSError, ValueError."""
    file = group.cpu
    assert file is not None
    try:
        data = file.read()
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        # It is gone; there may be a new one of its name, such as of a service that restarted.
        data = file.read()
        group.usage, group.is_new = None, True
        if group.above is not None:
            group.above.ended |= whose(group)
    if not group.keeps_open:
        file.close()
    if not head:
        return int(data)
    if not data.startswith(_FIRST):
        raise ValueError(f"does not begin with {_FIRST.decode()}")
    return int(data[head : data.index(b"\n")])


def _advance(group: Group, usage: int, unit: int) -> int:
    """What the group and those below it used since its last reading, in nanoseconds.
    Raises ReadError if the reading does not continue the last one."""
    before, group.usage = group.usage, usage
    if before is None:
        if not group.is_new:
            return group.below_ns  # of what it used itself this is the beginning
        before, group.is_new = 0, False
    if usage < before:
        raise ReadError("invalid", "the CPU time went back")
    return (usage - before) * unit


def _without_others(group: Group, delta_ns: int) -> int:
    """What the group used itself of `delta_ns`. Those below were read a moment earlier: a little
    less may be left than nothing, which the next time makes good."""
    own_ns = delta_ns - group.below_ns - group.debt_ns
    group.below_ns = 0
    group.debt_ns = max(0, -own_ns)
    return max(0, own_ns)


def _inherited(group: Group, own_ns: int, step_ns: int, used: dict[Owner, int]) -> int:
    """What an owner that ended below used to its end: what there is beyond the usual."""
    ended, group.ended = group.ended, {}
    if len(ended) > 1:
        return 0
    rest_ns = max(0, own_ns - int(group.own_rate * step_ns))
    used[next(iter(ended))] += rest_ns
    return rest_ns


class Rest:
    """The CPU time that no owner used."""

    def __init__(self, host: Host) -> None:
        self._stat = Attribute(host.proc("stat"))
        self._tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
        self._busy_ns: int | None = None
        self._owned_ns = 0
        self._debt_ns = 0
        self._rate = 0.0

    def advance(self, used: dict[Owner, int], ended: dict[Owner, float], step_ns: int) -> int:
        """Nanoseconds since the last call that did not fail, now that owners used `used`. `ended`
        are those of whom nothing is left: only one, and it is given what is more than usual, up to
        its own usual. Raises OSError, ValueError."""
        self._owned_ns += sum(used.values())
        words = self._stat.read().split(None, 9)
        if words[:1] != [b"cpu"]:
            raise ValueError("does not begin with cpu")
        busy_ns = sum(int(words[i]) for i in _BUSY) * self._tick_ns
        rest_ns = 0
        if self._busy_ns is not None and busy_ns >= self._busy_ns:
            rest_ns = busy_ns - self._busy_ns - self._owned_ns - self._debt_ns
            self._debt_ns = min(_MOST_DEBT_NS, max(0, -rest_ns))
            rest_ns = max(0, rest_ns)
            if len(ended) == 1:
                ((owner, rate),) = ended.items()
                extra_ns = max(0, rest_ns - int(self._rate * step_ns))
                inherited_ns = min(extra_ns, int(rate * step_ns))
                used[owner] = used.get(owner, 0) + inherited_ns
                rest_ns -= inherited_ns
            elif step_ns:
                self._rate = rest_ns / step_ns
        self._busy_ns = busy_ns
        self._owned_ns = 0
        return rest_ns

    def close(self) -> None:
        self._stat.close()


def memory_of(tree: Tree, fault: Report) -> dict[Owner, int]:
    """Memory of each owner in bytes, without that of the owners below it."""
    held: dict[Owner, int] = {}
    for group in reversed(tree.groups):
        below, group.memory_below = group.memory_below, 0
        total = _memory(group, fault)
        # They are read a moment apart: should those below seem to hold more, nothing is known.
        if total is not None and total >= below and group.owner is not None:
            held[group.owner] = held.get(group.owner, 0) + total - below
        if group.above is not None:
            group.above.memory_below += below if total is None else total
    return held


def _memory(group: Group, fault: Report) -> int | None:
    """What the group and those below it hold; None if that is not known."""
    file = group.memory
    if file is None:
        return None
    try:
        total = int(file.read())
    except (OSError, ValueError) as error:
        if not (isinstance(error, OSError) and error.errno in _GONE):
            fault(error, file.path)
        elif error.errno == errno.ENOENT:
            group.memory = None  # the controller is not switched on here, or the group is gone
        return None
    if not group.keeps_open:
        file.close()
    return total

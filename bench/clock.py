"""What another process costs: CPU time in nanoseconds, its split, memory; and how busy others are.

Linux gives every process a CPU clock that others may read: the id is ~pid << 3 | which, where
which is 0 for user + system as sampled by the timer tick, 1 for user as sampled, 2 for the
scheduler's own account in nanoseconds (include/linux/posix-timers_types.h). /proc/PID/stat knows
only ticks of 10 ms.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

_OF_ALL = re.compile(r"/(libc|libm|ld-linux[^/]*)\.so")
_SAMPLED, _SAMPLED_USER, _EXACT = 0, 1, 2


def _read(pid: int, which: int) -> int:
    return time.clock_gettime_ns((~pid << 3) | which)


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time of a process in nanoseconds. `total` is exact; `sampled` and `user` are what the
    timer tick found, and good for nothing but the share of user mode over a long time."""

    total: int
    sampled: int
    user: int

    @classmethod
    def of(cls, pid: int) -> Cpu:
        """Raises OSError if there is no such process."""
        return cls(_read(pid, _EXACT), _read(pid, _SAMPLED), _read(pid, _SAMPLED_USER))

    def since(self, before: Cpu) -> Cpu:
        return Cpu(
            self.total - before.total, self.sampled - before.sampled, self.user - before.user
        )


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process in KiB, from /proc/PID/smaps, proc_pid_smaps(5).

    `rss` is resident, in `pss` a shared page is divided by those who share it, `private` would be
    free again without the process. `alone` is the most that its pss can be: what it would be if
    nobody shared more with it than the C library, which all have. It does not depend on how many
    other Python programs run now.
    """

    rss: int
    pss: int
    private: int
    alone: int

    @classmethod
    def of(cls, pid: int) -> Memory:
        """Raises OSError if there is no such process."""
        rss = pss = private = alone = 0
        is_shared_by_all = False
        with open(f"/proc/{pid}/smaps") as lines:
            for line in lines:
                name, _, rest = line.partition(" ")
                match name:
                    case "Rss:":
                        rss += (resident := int(rest.split()[0]))
                    case "Pss:":
                        pss += (share := int(rest.split()[0]))
                        alone += share if is_shared_by_all else resident
                    case "Private_Clean:" | "Private_Dirty:":
                        private += int(rest.split()[0])
                    case _ if not name.endswith(":"):  # the mapping's addresses
                        is_shared_by_all = _OF_ALL.search(rest) is not None
        return cls(rss, pss, private, alone)


@dataclass(frozen=True, slots=True)
class Machine:
    """CPU time of the whole machine in seconds, from the first line of /proc/stat."""

    total: float
    idle: float
    stolen: float

    @classmethod
    def now(cls) -> Machine:
        with open("/proc/stat") as lines:
            times = [int(word) for word in lines.readline().split()[1:9]]
        ticks = os.sysconf("SC_CLK_TCK")
        return cls(sum(times) / ticks, (times[3] + times[4]) / ticks, times[7] / ticks)

    def others(self, before: Machine, ours_ns: int) -> float:
        """Share of all CPUs that neither idled nor worked for those who used `ours_ns`."""
        total = self.total - before.total
        busy = total - (self.idle - before.idle)
        return max(0.0, busy - ours_ns / 1e9) / total if total else 0.0


def wait_until(mono: float) -> None:
    """Sleep until this moment of the monotonic clock, in seconds."""
    while (left := mono - time.monotonic()) > 0:
        time.sleep(left)

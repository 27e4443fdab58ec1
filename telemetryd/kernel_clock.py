"""What the kernel knows of its clock's accuracy, by adjtimex(2).

Asked with no mode set, which changes nothing and needs no privilege. Python has no call for it,
so it goes through the C library; importing ctypes costs memory, so import this module only where
the clock is wanted.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

# linux/timex.h
_STA_NANO = 0x2000
# NTP_PHASE_LIMIT in kernel/time/ntp.c: the maximum error grows by 500 us a second up to this, and
# only whoever disciplines the clock brings it down.
_UNKNOWN_ERROR_US = 16_000_000


class _Timex(ctypes.Structure):
    """struct timex of 64-bit ABIs (linux/timex.h), up to the last field that is read."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        # The kernel writes 208 bytes in all.
        ("rest", ctypes.c_byte * 256),
    )


@dataclass(frozen=True, slots=True)
class KernelClock:
    """Accuracy of the wall clock, in seconds."""

    synchronized: bool
    offset: float
    max_error: float
    estimated_error: float

    @classmethod
    def of(cls, *, offset: int, maxerror: int, esterror: int, status: int) -> KernelClock:
        """From the fields of struct timex: errors in microseconds, the offset in what `status`
        says.

        Synchronized is what systemd and timedatectl call so (ntp_synced in systemd's
        time-util.c): somebody keeps the maximum error below its ceiling. Not the flag STA_UNSYNC:
        time daemons leave it set to keep the kernel's hands off the hardware clock.
        """
        return cls(
            synchronized=maxerror < _UNKNOWN_ERROR_US,
            offset=offset / (1e9 if status & _STA_NANO else 1e6),
            max_error=maxerror / 1e6,
            estimated_error=esterror / 1e6,
        )


_libc = ctypes.CDLL(None, use_errno=True)


def read_kernel_clock() -> KernelClock:
    """The clock of the machine we run on. Raises OSError, such as EPERM under a system call
    filter (systemd's ProtectClock=)."""
    timex = _Timex()
    if _libc.adjtimex(ctypes.byref(timex)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return KernelClock.of(
        offset=timex.offset,
        maxerror=timex.maxerror,
        esterror=timex.esterror,
        status=timex.status,
    )

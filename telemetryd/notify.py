"""What systemd is told of us, and for how long we may be silent: sd_notify(3).

Each call sends one datagram to the socket named in NOTIFY_SOCKET, a path or, with a leading `@`,
an abstract name. Without one (a terminal, a container) it does nothing. A message that cannot be
sent is never a reason to stop sampling: the call returns False, and the unit's timeouts do the
rest.
"""

from __future__ import annotations

import os
import socket
import time

# systemd reads its socket at once, unless it is itself in trouble; no lane may wait for that.
_TIMEOUT = 1.0


def notify(*assignments: str) -> bool:
    """Send `assignments`, such as "READY=1" or "STATUS=...". Returns whether they were taken."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(_TIMEOUT)
            sender.sendto("\n".join(assignments).encode(errors="replace"), address)
    except OSError:
        return False
    return True


def ready(text: str = "") -> bool:
    """Started, or done with a reload."""
    return notify("READY=1", *_status(text))


def reloading() -> bool:
    """A reload begins; `ready` ends it. The clock reading is what Type=notify-reload (systemd 253)
    asks for; older ones ignore it."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(text: str = "") -> bool:
    return notify("STOPPING=1", *_status(text))


def status(text: str) -> bool:
    """The line that `systemctl status` shows."""
    return notify(*_status(text))


def watchdog() -> bool:
    """All is well. To be sent at least twice in each `watchdog_interval`."""
    return notify("WATCHDOG=1")


def watchdog_interval() -> float | None:
    """Seconds without a `watchdog` after which systemd restarts us: the unit's WatchdogSec.
    None if nobody watches, or watches another process: sd_watchdog_enabled(3)."""
    try:
        period = int(os.environ.get("WATCHDOG_USEC", "0"))
        watched = int(os.environ.get("WATCHDOG_PID", "0")) or os.getpid()
    except ValueError:
        return None
    return period / 1e6 if period > 0 and watched == os.getpid() else None


def _status(text: str) -> list[str]:
    """One line of status: a line break in it would begin another assignment."""
    return ["STATUS=" + " ".join(text.split())] if text else []

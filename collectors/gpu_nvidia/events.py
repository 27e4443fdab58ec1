"""XID errors as the driver reports them, from a thread of its own.

An event wakes the thread; between two samples any number may come. The counters belong to the
collector's life and not to the library's: they go on when it is opened again. The thread waits in
short turns, because the library may be closed only when nobody is inside.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref, c_ulonglong, c_void_p, cast

from telemetryd.clock import Clock
from telemetryd.collectors.gpu_nvidia.driver import (
    FUNCTION_NOT_FOUND,
    OK,
    TIMEOUT,
    Driver,
    Function,
    NvmlError,
)
from telemetryd.collectors.gpu_nvidia.families import XID_ERRORS, XID_LAST
from telemetryd.metric import Point, Series

# What XIDs mean: docs.nvidia.com/deploy/xid-errors. These are counted from the start, so that the
# first one is an increase; others are from when they come.
KNOWN = (13, 31, 43, 48, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120)
_XID = 0x8  # nvmlEventTypeXidCriticalError
_TURN_MS = 200
_PAUSE_S = 1.0
# So many errors in a row and the library is gone; opening it again starts another thread.
_PATIENCE = 5

Labels = tuple[str, str]


class XidCounts:
    """What was counted so far. Written by the thread, read by the lane."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[Series, float] = {}

    def expect(self, labels: Labels) -> None:
        """Count the known XIDs of a GPU from now on. One that has got another index goes on from
        where it was."""
        gpu, uuid = labels
        with self._lock:
            moved = [old for old in self._values if old.labels[1] == uuid and old.labels[0] != gpu]
            for old in moved:
                self._values[old.metric.at(gpu, *old.labels[1:])] = self._values.pop(old)
            for xid in KNOWN:
                self._values.setdefault(XID_ERRORS.at(*labels, str(xid)), 0)

    def add(self, labels: Labels, xid: int, at_s: float) -> None:
        count = XID_ERRORS.at(*labels, str(xid))
        with self._lock:
            self._values[count] = self._values.get(count, 0) + 1
            self._values[XID_LAST.at(*labels, str(xid))] = at_s

    def points(self) -> list[Point]:
        with self._lock:
            return list(self._values.items())


class Events:
    """Waits for the XIDs of the GPUs that it is told to `watch`, until `close`.

    Raises NvmlError if the driver has no events. If it fails for good, that is reported once.
    """

    def __init__(
        self,
        driver: Driver,
        counts: XidCounts,
        clock: Clock,
        report: Callable[[NvmlError, str], None],
    ) -> None:
        self._driver = driver
        self._counts = counts
        self._clock = clock
        self._report = report
        self._labels: dict[int | None, Labels] = {}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.has_failed = False
        wait = driver.function("nvmlEventSetWait_v2")
        if wait is None:
            raise NvmlError(FUNCTION_NOT_FOUND, "nvmlEventSetWait_v2")
        self._wait: Function = wait
        self._set = driver.nvml.c_nvmlEventSet_t()
        driver.call("nvmlEventSetCreate", byref(self._set))

    def watch(self, labels: Labels, handle: c_void_p) -> None:
        """Raises NvmlError if this GPU has no events."""
        self._labels[handle.value] = labels
        self._driver.call("nvmlDeviceRegisterEvents", handle, c_ulonglong(_XID), self._set)
        self._counts.expect(labels)
        with self._lock:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="gpu-events", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; it does so at the end of its turn."""
        self._stop.set()

    def close(self, patience_s: float = 1.0) -> bool:
        """End the thread and give the set back; False if the thread hangs in the driver, in which
        case the library must not be closed."""
        self.stop()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(patience_s)
            if thread.is_alive():
                self.has_failed = True
                return False
        if self._set:
            with suppress(NvmlError):  # the library may be gone, and the set with it
                self._driver.call("nvmlEventSetFree", self._set)
            self._set = self._driver.nvml.c_nvmlEventSet_t()
        return True

    def _run(self) -> None:
        data = self._driver.nvml.c_nvmlEventData_t()
        arguments = (self._set, byref(data), _TURN_MS)
        failures = 0
        while not self._stop.is_set():
            began = time.monotonic()
            code = self._wait(*arguments)
            if code == OK:
                labels = self._labels.get(cast(data.device, c_void_p).value)
                if labels is not None and data.eventType == _XID:
                    self._counts.add(labels, int(data.eventData), self._clock.wall_ns() / 1e9)
            elif code == TIMEOUT:
                # A driver that does not wait must not keep a core busy.
                self._stop.wait(_TURN_MS / 1000 - (time.monotonic() - began))
            else:
                failures += 1
                if failures == _PATIENCE:
                    self._report(NvmlError(code, "nvmlEventSetWait_v2"), "events")
                    self.has_failed = True
                    return
                self._stop.wait(_PAUSE_S)
                continue
            failures = 0

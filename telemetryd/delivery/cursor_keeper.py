"""Writes a spool's cursor behind its back: at most once a second, and at most a second late."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from telemetryd.clock import Clock
from telemetryd.delivery.cursor import Cursor, encode
from telemetryd.delivery.spool_files import write_beside
from telemetryd.delivery.spool_log import Failed

_EVERY_NS = 10**9


class CursorKeeper:
    """Keeps the file `path` up to what `state` says, in a thread that is started when there is
    something to write first. `written` is called when it is, under `lock`, which is not held while
    the disk is waited for. `check` raises OSError if the folder is not ours any more. `failed`
    hears of what went wrong; it is tried again after a second."""

    def __init__(
        self,
        path: str,
        lock: threading.RLock,
        state: Callable[[], Cursor],
        written: Callable[[int], None],
        check: Callable[[], object],
        failed: Failed,
        clock: Clock,
        name: str,
    ) -> None:
        self._path = path
        self._lock = lock
        self._state = state
        self._on_written = written
        self._check = check
        self._failed = failed
        self._clock = clock
        self._name = name
        self._dirty = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Cursors are numbered, so that an older one is never put in the place of a newer one.
        self.version = 0
        self._written = 0

    def mark(self) -> None:
        """The state has changed. To be called under the lock."""
        self.version += 1
        self._dirty.set()
        if self._thread is None and not self._stop.is_set():
            # A daemon thread: a disk that hangs must not keep the process from exiting.
            self._thread = threading.Thread(
                target=self._run, name=f"cursor-{self._name}", daemon=True
            )
            self._thread.start()

    def save_now(self) -> None:
        """Write it at once, without waiting for the disk: a killed process leaves it behind, a loss
        of power may not. To be called under the lock. Raises OSError."""
        self.version += 1
        self._put(write_beside(self._path, encode(self._state()), "now", sync=False), self.version)

    def close(self) -> None:
        """Write it for the last time and end the thread."""
        self._stop.set()
        self._dirty.set()
        if self._thread is not None:
            self._thread.join()
        if self.version > self._written:
            self._save()

    def _run(self) -> None:
        while True:
            self._dirty.wait()
            if self._stop.is_set():
                return
            self._dirty.clear()
            if not self._save():
                self._dirty.set()
            if self._clock.wait_until(self._clock.mono_ns() + _EVERY_NS, self._stop):
                return

    def _save(self) -> bool:
        with self._lock:
            version, data = self.version, encode(self._state())
        try:
            self._check()
            unfinished = write_beside(self._path, data, "new", sync=True)
            with self._lock:
                if version > self._written:
                    self._put(unfinished, version)
        except OSError as error:
            self._failed("writing", self._path, error)
            return False
        return True

    def _put(self, unfinished: str, version: int) -> None:
        os.rename(unfinished, self._path)
        self._written = version
        self._on_written(version)

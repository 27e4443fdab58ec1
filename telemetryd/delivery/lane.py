"""The thread of a push exporter: gather, encode, queue, send.

It does one thing at a time, so that the queue and the encoder need no lock. While it waits for a
slow destination, batches wait as references, which costs the lanes nothing and is bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.delivery.gather import Gather
from telemetryd.delivery.queue import FULL, Body, OnDrop, Queue
from telemetryd.delivery.sender import Outcome, Sender
from telemetryd.instruments import (
    PUSH_DROPPED,
    PUSH_LAST_SUCCESS,
    PUSH_POINTS,
    PUSH_QUEUE_BYTES,
    PUSH_REQUESTS,
    Instruments,
)

Encode = Callable[[Sequence[Batch]], Sequence[Body]]

# After something that should not happen, so that it does not happen all the time.
_PAUSE_S = 60.0
_AT_SHUTDOWN = "shutdown"
_FAULT = "exception"
# Reasons that are counted from the start, so that `increase()` sees the first drop.
_REFUSALS = (Outcome.REFUSED.value, Outcome.TOO_OLD.value, Outcome.TOO_LARGE.value)
_REASONS = (FULL, *_REFUSALS)


def count_drops(name: str, instruments: Instruments) -> OnDrop:
    """What to do with points for the destination `name` that are given up: count and say so."""

    def on_drop(reason: str, points: int) -> None:
        instruments.count(PUSH_DROPPED, name, reason, by=points)
        # Those that the destination refuses are logged by the sender, with its answer.
        if reason not in _REFUSALS:
            instruments.warn(
                f"{name}/dropped/{reason}",
                f'msg="points dropped" destination={name} reason={reason} points={points}',
            )

    return on_drop


class DeliveryLane:
    """Delivers to the destination called `name` in a thread called push-`name`.

    Every `flush_interval` seconds of the monotonic clock, or as soon as `batch_size` points are
    ready, `encode` makes bodies of them for `queue`, which `sender` works off.
    """

    def __init__(
        self,
        name: str,
        gather: Gather,
        encode: Encode,
        queue: Queue,
        sender: Sender,
        *,
        flush_interval: float,
        batch_size: int,
        clock: Clock,
        instruments: Instruments,
        on_drop: OnDrop,
    ) -> None:
        self._name = name
        self._gather = gather
        self._encode = encode
        self._queue = queue
        self._sender = sender
        self._flush_ns = int(flush_interval * 1e9)
        self._batch_size = batch_size
        self._clock = clock
        self._instruments = instruments
        self._on_drop = on_drop
        self._next_flush_ns = self._after(clock.mono_ns())
        self._wake = threading.Event()
        self._stopping = False
        self._deadline_ns = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Show the instruments and start the thread."""
        count, name = self._instruments.count, self._name
        count(PUSH_POINTS, name, by=0)
        for outcome in Outcome:
            count(PUSH_REQUESTS, name, outcome.value, by=0)
        for reason in _REASONS:
            count(PUSH_DROPPED, name, reason, by=0)
        self._instruments.set(PUSH_LAST_SUCCESS, name, to=self._clock.wall_ns() / 1e9)
        self._show_queue()
        # A daemon thread: a destination that hangs must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name=f"push-{name}", daemon=True)
        self._thread.start()

    def offer(self, batch: Batch) -> None:
        """Take a batch from a lane; returns at once."""
        if self._stopping:
            return
        if lost := self._gather.offer(batch):
            self._on_drop(FULL, lost)
        if self._gather.points >= self._batch_size:
            self._wake.set()

    def stop(self, timeout: float) -> bool:
        """Send what is left and end, within `timeout` seconds; False if the thread is stuck."""
        self._deadline_ns = self._clock.mono_ns() + int(timeout * 1e9)
        self._stopping = True
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def turn(self) -> int:
        """Do what is due; returns the monotonic moment at which something is due again."""
        now_ns = self._clock.mono_ns()
        if now_ns >= self._next_flush_ns or self._gather.points >= self._batch_size:
            self._next_flush_ns = self._after(now_ns)
            self._enqueue(self._gather.take(now_ns))
        if self._sender.is_due:
            self._sender.step()
            self._show_queue()
        if self._queue.peek() is None:
            return self._next_flush_ns
        return min(self._next_flush_ns, self._sender.due_ns)

    def finish(self) -> None:
        """Send everything, until the deadline given to `stop` or the first failure."""
        self._enqueue(self._gather.take_all())
        while self._queue.peek() is not None:
            left = (self._deadline_ns - self._clock.mono_ns()) / 1e9
            if left <= 0:
                break
            self._sender.step(left)
            if not self._sender.is_due:
                break
        while self._queue.peek() is not None:
            self._queue.drop(_AT_SHUTDOWN)
        self._show_queue()

    def _after(self, now_ns: int) -> int:
        return (now_ns // self._flush_ns + 1) * self._flush_ns

    def _enqueue(self, batches: Sequence[Batch]) -> None:
        try:
            bodies = self._encode(batches)
        except Exception as error:  # noqa: BLE001  (costs these points, not those to come)
            self._failed(error)
            self._on_drop(_FAULT, sum(len(batch.values) for batch in batches))
            return
        for body in bodies:
            self._queue.put(body)
        self._show_queue()

    def _show_queue(self) -> None:
        self._instruments.set(PUSH_QUEUE_BYTES, self._name, to=self._queue.size)

    def _failed(self, error: Exception) -> None:
        self._instruments.warn(
            f"{self._name}/exception",
            f'msg="push exporter failed" destination={self._name} error="{error!r}"',
        )

    def _run(self) -> None:
        while not self._stopping:
            # Cleared before looking: what is offered meanwhile sets it again.
            self._wake.clear()
            try:
                next_ns = self.turn()
            except Exception as error:  # noqa: BLE001  (an exporter's fault must not end it)
                self._failed(error)
                next_ns = self._clock.mono_ns() + int(_PAUSE_S * 1e9)
            self._clock.wait_until(next_ns, self._wake)
        try:
            self.finish()
        except Exception as error:  # noqa: BLE001  (the process is about to end)
            self._failed(error)

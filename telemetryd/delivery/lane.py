"""The two threads of a push exporter: one puts what was gathered into the queue, one sends.

What the lanes read waits as references until it is written, which costs them nothing and is
bounded. A destination that hangs keeps nothing from the disk.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.delivery.counts import show_block, show_from_start
from telemetryd.delivery.gather import Gather
from telemetryd.delivery.memory_queue import FULL, SHUTDOWN
from telemetryd.delivery.queue import OnDrop, Queue
from telemetryd.delivery.sender import Sender
from telemetryd.delivery.writer import Writer
from telemetryd.instruments import Instruments

# After something that should not happen, so that it does not happen all the time.
_PAUSE_NS = 60 * 10**9
# A place on disk that was not to be had is looked for this often.
_LOOK_NS = 60 * 10**9
# The share of the time to stop in that is left for closing the queue, and the longest it may be.
_CLOSE_SHARE = 0.1
_CLOSE_S = 0.5

_log = logging.getLogger("telemetryd.delivery")

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Works:
    """What a lane drives. `is_makeshift`: the queue is in memory, but ought to be on disk."""

    queue: Queue
    writer: Writer
    sender: Sender
    is_makeshift: bool = False


class DeliveryLane:
    """Delivers to the destination called `name`, in threads called spool-`name` and push-`name`.

    `open_works` is called by `start`: the queue may have files that another one has to let go of
    first. Points are taken from the beginning. If what it gives is makeshift, `open_disk` is called
    once a minute until it gives what was wanted, and not None.
    """

    def __init__(
        self,
        name: str,
        gather: Gather,
        open_works: Callable[[], Works],
        open_disk: Callable[[], Works | None] = lambda: None,
        *,
        batch_size: int,
        clock: Clock,
        instruments: Instruments,
        on_drop: OnDrop,
    ) -> None:
        self._name = name
        self._gather = gather
        self._open_works = open_works
        self._open_disk = open_disk
        self._batch_size = batch_size
        self._clock = clock
        self._instruments = instruments
        self._on_drop = on_drop
        self._works: Works
        self._look_ns = 0
        self._is_stopping = False
        self._is_closing = False
        self._deadline_ns = 0
        self._gathered = threading.Event()
        self._put = threading.Event()
        self._is_written = threading.Event()
        self._writing: threading.Thread | None = None
        self._sending: threading.Thread | None = None

    def start(self) -> None:
        """Show the instruments, open the queue and start the threads."""
        show_from_start(self._name, self._instruments, self._clock.wall_ns())
        self._works = self._open_works()
        self._look_ns = self._clock.mono_ns() + _LOOK_NS
        self._works.writer.show()
        # Daemon threads: a destination or a disk that hangs must not keep the process from exiting.
        self._writing = self._thread("spool", self._write)
        self._sending = self._thread("push", self._send)

    def offer(self, batch: Batch) -> None:
        """Take a batch from a lane; returns at once."""
        if lost := self._gather.offer(batch):
            self._on_drop(FULL, lost)
        if self._is_written.is_set():
            self._drop_gathered()
        elif self._gather.points >= self._batch_size:
            self._gathered.set()

    def stop(self, timeout: float) -> bool:
        """Write what is left, send what can be sent, and end, within `timeout` seconds; False if
        a thread is stuck. What is on disk by then is sent after the next start."""
        closing = min(timeout * _CLOSE_SHARE, _CLOSE_S)
        self._deadline_ns = self._clock.mono_ns() + int((timeout - closing) * 1e9)
        self._is_stopping = True
        self._gathered.set()
        self._put.set()
        if self._writing is None:
            self._is_written.set()
            self._drop_gathered()
        elif not self._is_closing:
            self._is_closing = True
            if self._join(self._writing):
                self._join(self._sending)
                self._close()
            else:
                # The disk hangs, and closing the queue would, too.
                self._thread("close", self._close)
        return not any(map(_is_alive, (self._writing, self._sending)))

    def _join(self, thread: threading.Thread | None) -> bool:
        if thread is not None:
            thread.join(self._left())
        return not _is_alive(thread)

    def _left(self) -> float:
        return max((self._deadline_ns - self._clock.mono_ns()) / 1e9, 0.0)

    def _drop_gathered(self) -> None:
        if lost := sum(len(batch.values) for batch in self._gather.take_all()):
            self._on_drop(SHUTDOWN, lost)

    def _thread(self, kind: str, run: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=run, name=f"{kind}-{self._name}", daemon=True)
        thread.start()
        return thread

    def _write(self) -> None:
        def turn() -> int:
            due_ns = self._works.writer.turn()
            if self._works.is_makeshift and self._clock.mono_ns() >= self._look_ns:
                self._move_to_disk()
            self._put.set()
            return due_ns

        self._repeat(turn, self._gathered)
        self._attempt(self._works.writer.finish)
        self._is_written.set()
        # What came behind the last look.
        self._drop_gathered()

    def _move_to_disk(self) -> None:
        """What waits goes along, in order. A request that is on its way is repeated."""
        self._look_ns = self._clock.mono_ns() + _LOOK_NS
        works, before = self._open_disk(), self._works
        if works is None:
            return
        before.sender.abandon()
        for number in reversed(before.queue.aside):
            before.queue.take_back(number)
        while (body := before.queue.peek()) is not None:
            works.queue.put(body)
            before.queue.acknowledge()
        works.queue.sync()
        self._works = works
        works.writer.show()
        _log.info('msg="points wait on disk from now on" destination=%s', self._name)

    def _send(self) -> None:
        def turn() -> int:
            due_ns = self._works.sender.turn()
            if not self._is_stopping:
                self._works.writer.show()
            return due_ns

        self._repeat(turn, self._put)
        self._is_written.wait(self._left())
        self._attempt(lambda: self._works.sender.finish(self._deadline_ns))

    def _close(self) -> None:
        self._is_written.wait()
        works = self._works
        works.sender.abandon()
        if works.queue.is_durable:
            works.writer.show()
        works.queue.close()
        if not works.queue.is_durable:
            works.writer.show()
        show_block(self._name, self._instruments, None)

    def _repeat(self, turn: Callable[[], int], news: threading.Event) -> None:
        """Take turns when they are due, or when there are news, until the lane is stopped."""
        while True:
            # Cleared before looking, at whether to stop too: what comes meanwhile sets it again.
            news.clear()
            if self._is_stopping:
                return
            due_ns = self._attempt(turn)
            if due_ns is None:
                due_ns = self._clock.mono_ns() + _PAUSE_NS
            self._clock.wait_until(due_ns, news)

    def _attempt(self, call: Callable[[], R]) -> R | None:
        """None if it raises: an exporter's fault must not end the thread."""
        try:
            return call()
        except Exception as error:  # noqa: BLE001
            self._instruments.warn(
                f"{self._name}/exception",
                f'msg="push exporter failed" destination={self._name} error="{error!r}"',
            )
            return None


def _is_alive(thread: threading.Thread | None) -> bool:
    return thread is not None and thread.is_alive()

"""Makes bodies of the batches that were gathered and puts them into the queue, safe on disk.

This is apart from sending, in a thread of its own, so that a destination that hangs does not delay
what reaches the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from telemetryd.batch import Batch
from telemetryd.clock import Clock
from telemetryd.delivery.counts import FAULT, show_waiting
from telemetryd.delivery.gather import Gather
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import Body, OnDrop, Queue
from telemetryd.delivery.server_clock import ServerClock
from telemetryd.instruments import SPOOL_ERRORS, Instruments

Encode = Callable[[Sequence[Batch]], Sequence[Body]]


class Writer:
    """Fills `queue` for the destination `name`, with bodies of the kind `kind`.

    Every `flush_interval` seconds of the monotonic clock, or as soon as `batch_size` points are
    ready, `encode` makes bodies; it is called without any batches too, since what has ended may
    have to be told.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        gather: Gather,
        encode: Encode,
        queue: Queue,
        quarantine: Quarantine | None,
        *,
        flush_interval: float,
        batch_size: int,
        clock: Clock,
        server: ServerClock,
        instruments: Instruments,
        on_drop: OnDrop,
    ) -> None:
        self._name = name
        self._kind = kind
        self._gather = gather
        self._encode = encode
        self._queue = queue
        self._quarantine = quarantine
        self._flush_ns = int(flush_interval * 1e9)
        self._batch_size = batch_size
        self._clock = clock
        self._server = server
        self._instruments = instruments
        self._on_drop = on_drop
        self._next_flush_ns = self._after(clock.mono_ns())
        # They remove files whose bodies are in the queue.
        self._put_again: list[Callable[[], None]] = []

    def turn(self) -> int:
        """Do what is due; returns the monotonic moment at which something is due again."""
        now_ns = self._clock.mono_ns()
        if now_ns >= self._next_flush_ns or self._gather.points >= self._batch_size:
            self._next_flush_ns = self._after(now_ns)
            self._flush(self._gather.take(now_ns))
            self._replay()
            self.show()
        return self._next_flush_ns

    def finish(self) -> None:
        """Put everything that was gathered, open windows too."""
        self._flush(self._gather.take_all())
        self.show()

    def show(self) -> None:
        """Bring the figures of what waits up to date."""
        show_waiting(
            self._name, self._instruments, self._queue, self._quarantine, self._clock.wall_ns()
        )

    def _after(self, now_ns: int) -> int:
        return (now_ns // self._flush_ns + 1) * self._flush_ns

    def _flush(self, batches: Sequence[Batch]) -> None:
        try:
            bodies = self._encode(batches)
        except Exception as error:  # noqa: BLE001  (costs these points, not those to come)
            self._failed(error, sum(len(batch.values) for batch in batches))
            bodies = ()
        for body in bodies:
            try:
                self._queue.put(body)
            except Exception as error:  # noqa: BLE001  (the others may fare better)
                self._failed(error, body.points)
        self._queue.sync()
        self._queue.expire(self._server.sound_ns())

    def _failed(self, error: Exception, points: int) -> None:
        self._instruments.warn(
            f"{self._name}/write",
            f'msg="points cannot be encoded or written" destination={self._name} error="{error!r}"',
        )
        self._on_drop(FAULT, points)

    def _replay(self) -> None:
        """Put what an operator has asked for once more, as long as it is as safe here as it was
        there."""
        if self._quarantine is None or not self._queue.is_durable:
            return
        try:
            self._remove_put_again()
            for body, remove in self._quarantine.take_replayed(self._kind):
                # It waits from now on, and is not to be dropped for its age.
                self._queue.put(replace(body, newest_ns=self._server.sound_ns()))
                self._queue.sync()
                self._put_again.append(remove)
                if not self._queue.is_durable:
                    return
                self._remove_put_again()
            for path, kind in self._quarantine.strangers(self._kind).items():
                self._instruments.warn(
                    f"{self._name}/{path}",
                    f'msg="cannot be sent again, it was made for another kind of destination" '
                    f"destination={self._name} kind={kind} file={path}",
                )
        except OSError as error:
            self._instruments.count(SPOOL_ERRORS, self._name)
            self._instruments.warn(
                f"{self._name}/replay",
                f'msg="cannot send again what was in quarantine" destination={self._name} '
                f'error="{error}"',
            )

    def _remove_put_again(self) -> None:
        """Raises OSError, and none is put twice then."""
        while self._put_again:
            self._put_again[0]()
            del self._put_again[0]

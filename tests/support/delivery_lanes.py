"""A delivery lane towards a destination of words, on a clock that only the test moves.

A body is the seconds of the monotonic clock at which its batches were read, from 1000 on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from support.clock import FakeClock
from support.delivery import Words
from telemetryd.batch import Batch
from telemetryd.delivery.backoff import Backoff
from telemetryd.delivery.counts import count_drops
from telemetryd.delivery.gather import Gather
from telemetryd.delivery.lane import DeliveryLane, Works
from telemetryd.delivery.memory_queue import MemoryQueue
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import Body, OnDrop, Queue
from telemetryd.delivery.refusals import Refusals
from telemetryd.delivery.sender import Sender
from telemetryd.delivery.server_clock import ServerClock
from telemetryd.delivery.writer import Encode, Writer
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog
from telemetryd.metric import Kind, Metric, Unit

SERIES = (Metric("a", "b", Kind.GAUGE, Unit.NONE, "", "").at(),)


def by_second(batches: Sequence[Batch]) -> list[Body]:
    """One body for all."""
    if not batches:
        return []
    seconds = b" ".join(b"%d" % (batch.mono_ns // 10**9) for batch in batches)
    points = sum(len(batch.values) for batch in batches)
    return [Body(seconds, points, batches[-1].wall_ns)]


class LaneBench:
    """A lane with all that it needs, its writer and its sender too, so that a test may take their
    turns itself. It flushes every ten seconds; 150 points may be gathered."""

    def __init__(
        self,
        resolution: float = 0,
        encode: Encode = by_second,
        batch_size: int = 100,
        open_queue: Callable[[OnDrop], Queue] = lambda on_drop: MemoryQueue(1 << 20, on_drop),
        quarantine: Quarantine | None = None,
        name: str = "there",
        clock: FakeClock | None = None,
        is_makeshift: bool = False,
    ) -> None:
        self.clock = clock or FakeClock()
        self.name = name
        self.instruments = Instruments(QuietLog(logging.getLogger("test")))
        self.there = Words()
        on_drop = count_drops(name, self.instruments)
        gather = Gather(resolution, 150)
        server = ServerClock(self.clock)

        def open_works() -> Works:
            return works(open_queue(on_drop), is_makeshift=is_makeshift)

        def works(queue: Queue, *, is_makeshift: bool) -> Works:
            self.queue = queue
            self.writer = Writer(
                name, "words", gather, encode, queue, quarantine,
                flush_interval=10, batch_size=batch_size, clock=self.clock, server=server,
                instruments=self.instruments, on_drop=on_drop,
            )  # fmt: skip
            refusals = Refusals(name, "words", queue, quarantine, self.instruments, self.clock)
            self.sender = Sender(
                name, queue, self.there, self.instruments, self.clock, Backoff(lambda: 1.0),
                server, refusals,
            )  # fmt: skip
            return Works(queue, self.writer, self.sender, is_makeshift)

        def open_disk() -> Works | None:
            disk = self.open_disk(on_drop)
            return works(disk, is_makeshift=False) if disk is not None else None

        self.open_works = open_works
        # What a makeshift queue is to be replaced by.
        self.open_disk: Callable[[OnDrop], Queue | None] = lambda _on_drop: None
        self.lane = DeliveryLane(
            name, gather, self._open, open_disk, batch_size=batch_size, clock=self.clock,
            instruments=self.instruments, on_drop=on_drop,
        )  # fmt: skip

    def _open(self) -> Works:
        return self.open_works()

    def read(self, points: int = 1) -> None:
        """A second passes, and a collector reads."""
        self.clock.tick(1)
        wall_ns, mono_ns = self.clock.wall_ns(), self.clock.mono_ns()
        self.lane.offer(Batch("c", wall_ns, mono_ns, 1.0, SERIES * points, (1.0,) * points))

    def counted(self, name: str) -> float:
        """An instrument of this destination: its name, and what comes behind its first label."""
        name, _, labels = name.partition(",")
        behind = f",{labels}" if labels else ""
        wanted = f'telemetryd_{name}{{destination="{self.name}"{behind}}}'
        return {repr(series): value for series, value in self.instruments.points()}[wanted]

    def dropped(self, reason: str) -> float:
        return self.counted(f'exporter_dropped_points_total,reason="{reason}"')

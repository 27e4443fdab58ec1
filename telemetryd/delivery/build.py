"""Puts together what delivers to one destination: every push exporter uses this and no more."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress

from telemetryd.clock import Clock
from telemetryd.delivery.backoff import Backoff
from telemetryd.delivery.counts import count_drops
from telemetryd.delivery.destination import Destination
from telemetryd.delivery.gather import Gather
from telemetryd.delivery.lane import DeliveryLane, Works
from telemetryd.delivery.memory_queue import MemoryQueue
from telemetryd.delivery.push_config import PushConfig
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import Queue
from telemetryd.delivery.refusals import Refusals
from telemetryd.delivery.sender import Sender
from telemetryd.delivery.server_clock import ServerClock
from telemetryd.delivery.spool import open_spool
from telemetryd.delivery.writer import Encode, Writer
from telemetryd.errors import Unavailable
from telemetryd.exporter import PushExporter

# A point that waits as a reference: a number, its place in a tuple, its share of the rest.
_POINT_BYTES = 64
# The share of queue_bytes that may wait as references while the disk is slow.
_UNENCODED_SHARE = 4

_log = logging.getLogger("telemetryd.delivery")


def delivery_lane(
    exporter: PushExporter,
    kind: str,
    encode: Encode,
    destination: Destination,
    clock: Clock,
    random: Callable[[], float],
) -> DeliveryLane:
    """The lane of `exporter`, not started yet, whose bodies are of the kind `kind`: "influxdb" or
    "remote_write", which spool and quarantine keep with them.

    `encode` makes bodies of the batches read since the last time, and is called at every flush,
    even without any; only one thread calls it. `random` gives numbers in [0, 1).
    """
    config = exporter.config
    assert isinstance(config, PushConfig)
    name, instruments = exporter.name, exporter.instruments
    on_drop = count_drops(name, instruments)
    most = config.queue_bytes // _UNENCODED_SHARE // _POINT_BYTES
    gather = Gather(config.resolution, most)
    # Well before the oldest would have to be given up.
    batch_size = min(config.flush_points, most // 2)

    def works(queue: Queue, quarantine: Quarantine | None, *, is_makeshift: bool = False) -> Works:
        server = ServerClock(clock)
        writer = Writer(
            name, kind, gather, encode, queue, quarantine,
            flush_interval=config.flush_interval, batch_size=batch_size,
            clock=clock, server=server, instruments=instruments, on_drop=on_drop,
        )  # fmt: skip
        refusals = Refusals(name, kind, queue, quarantine, instruments, clock)
        sender = Sender(
            name, queue, destination, instruments, clock, Backoff(random), server, refusals
        )
        return Works(queue, writer, sender, is_makeshift)

    place = exporter.spool.place(os.environ)
    directory = os.path.join(place, name) if place is not None else None

    def open_disk() -> Works | None:
        if directory is None:
            return None
        spool = open_spool(directory, kind, exporter.spool, on_drop, instruments, name, clock)
        return works(spool, Quarantine(directory, exporter.spool.quarantine_bytes))

    def try_disk() -> Works | None:
        with suppress(Unavailable, OSError):
            return open_disk()
        return None

    def open_works() -> Works:
        try:
            if (on_disk := open_disk()) is not None:
                return on_disk
            if exporter.spool.enabled:
                _log.warning(
                    'msg="points wait in memory, where a crash loses them: set spool.directory" '
                    "destination=%s",
                    name,
                )
        except (Unavailable, OSError) as error:
            _log.warning(
                'msg="points wait in memory, where a crash loses them; the disk is tried again '
                'every minute" destination=%s error="%s"',
                name,
                error,
            )
        memory = MemoryQueue(config.queue_bytes, on_drop)
        return works(memory, None, is_makeshift=directory is not None)

    return DeliveryLane(
        name,
        gather,
        open_works,
        try_disk,
        batch_size=batch_size,
        clock=clock,
        instruments=instruments,
        on_drop=on_drop,
    )

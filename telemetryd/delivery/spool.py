"""A queue on disk: what is put survives the end of the process, kill -9 and a loss of power.

One folder for each destination, which one process uses at a time (`lock`, flock):

    00000000000000000001.seg    segments, named after the number of their first record
    cursor                      how far it has been delivered
    quarantine/ replay/         what the destination refused (telemetryd.delivery.quarantine)
    unusable/                   files that could not be used, 64 MiB at most

**Writing.** A body becomes one record (telemetryd.delivery.record), appended with one write to the
last segment; `sync` waits for the disk. A segment is 16 MiB at most, or an eighth of what there is
room for. Each start begins a new one, so that nothing is ever appended to a torn tail. Records are
numbered from 1 on, for ever.

**Reading.** The headers of all records are read once at the start, their bodies only one by one as
they become the head; what is kept in memory is a few sums for each segment. A header or a body
whose CRC does not fit costs that record and no other: reading goes on at the next sound header. As
each header says how many records and points were written before it, what is missing is counted
exactly, as `corrupt`, when it is passed; the last records of all are only missed if the cursor
knows of them. A file that is of another format or for another kind of destination is moved to
unusable/, with one line in the log, and so is a cursor that cannot be read: delivery then begins
at the oldest record, because sending twice does no harm.

**Delivered.** What is acknowledged is remembered in the cursor, written by a thread of its own at
most a second later, and at the end. A segment is deleted when nothing in it waits and the cursor
says so. After kill -9 at most what was acknowledged in the last second is sent again, after `close`
nothing.

**Bounds.** Beyond `bytes` (128 MiB where files lie in memory) or with less than `free` left on the
disk the oldest segment is dropped, as `size` or `enospc`; what is older than `age` as `age`. The
head that is on its way is not: it stays in memory. A disk that is full costs the oldest segment;
if there is none left, or the disk has another trouble, up to 4 MiB of bodies wait in memory until
writing works again. Nothing here raises because of the disk once the spool is open.

**Others.** What somebody deletes under a running daemon is lost, counted as `corrupt`, and made
anew for what comes; nothing is appended to a deleted file. A folder that has come into the place of
ours (mounted over it, say) is not touched: what comes waits in memory. A disk may show the space of
what is deleted only later (btrfs); so a full one costs no more than twice what is to be written.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence

from telemetryd.clock import Clock
from telemetryd.delivery.memory_queue import SHUTDOWN
from telemetryd.delivery.queue import Body, OnDrop, Queue
from telemetryd.delivery.spool_backlog import SIZE, Backlog
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.delivery.spool_log import Unsynced
from telemetryd.delivery.spool_opening import Opened, Troubles, open_folder
from telemetryd.delivery.spool_room import Room
from telemetryd.instruments import Instruments

# Segments that may be full but not synced: each has a descriptor open.
_MOST_ROLLED = 4


def open_spool(
    directory: str,
    kind: str,
    config: SpoolConfig,
    on_drop: OnDrop,
    instruments: Instruments,
    name: str,
    clock: Clock,
) -> Spool:
    """The spool in `directory` for the destination called `name`, to which bodies of `kind` go.
    Raises Unavailable if another process has it, or the folder cannot be used."""
    troubles = Troubles(name, instruments)
    opened = open_folder(directory, kind, on_drop, troubles, name)
    return Spool(directory, kind, config, on_drop, troubles, name, clock, opened)


class Spool(Queue):
    """Made by `open_spool`. One thread may put, sync and expire while another one looks at the head
    and ends it. Once it is closed nothing has an effect any more: a request that was on its way
    then is repeated by the next process."""

    def __init__(
        self,
        directory: str,
        kind: str,
        config: SpoolConfig,
        on_drop: OnDrop,
        troubles: Troubles,
        name: str,
        clock: Clock,
        opened: Opened,
    ) -> None:
        self._directory = directory
        self._on_drop = on_drop
        self._failed = troubles
        self._age_ns = int(config.age * 1e9)
        self._room = Room(directory, config)
        self._lock = threading.RLock()
        self._backlog = Backlog(
            directory, kind, self._room, opened, on_drop, troubles, name, clock, self._lock
        )
        self._folder = opened.lock
        self._is_closed = False
        # Whether the disk did what it was last asked for.
        self._is_synced = True

    @property
    def size(self) -> int:
        with self._lock:
            return self._backlog.line.waiting + self._backlog.hands.size

    @property
    def limit(self) -> int:
        with self._lock:
            try:
                return self._room.limit(self._backlog.log.size)
            except OSError:
                return self._room.most

    @property
    def is_durable(self) -> bool:
        with self._lock:
            return self._is_synced and not self._backlog.hands.unwritten

    @property
    def oldest_ns(self) -> int | None:
        with self._lock:
            if self._is_closed:
                return None
            first = self._backlog.first()
            oldest = [held.newest_ns for held in self._backlog.hands.aside.values()][:1]
            return min([*oldest, *([first.newest_ns] if first is not None else [])], default=None)

    def __len__(self) -> int:
        with self._lock:
            return self._backlog.line.records + self._backlog.hands.count

    def put(self, body: Body) -> None:
        with self._lock:
            if self._is_closed or self._backlog.log.size_of(body) > self._room.most:
                self._on_drop(SHUTDOWN if self._is_closed else SIZE, body.points)
                return
            self._backlog.add(body)
            is_late = self._backlog.log.rolled > _MOST_ROLLED
        if is_late:
            self.sync()

    def sync(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._backlog.write_all()
            work = self._unsynced()
        self._sync(work)

    def expire(self, wall_ns: int) -> None:
        with self._lock:
            if self._is_closed:
                return
            try:
                self._folder.check()
                self._backlog.make_room(0)
            except OSError as error:
                self._failed("dropping", self._directory, error)
                if error.errno == errno.ESTALE:
                    return
            self._backlog.expire(wall_ns - self._age_ns)

    def peek(self) -> Body | None:
        with self._lock:
            held = None if self._is_closed else self._backlog.whole()
            self._backlog.hands.pinned = held
            return held.first if held is not None else None

    @property
    def head(self) -> int | None:
        with self._lock:
            held = None if self._is_closed else self._backlog.whole()
            return held.number if held is not None else None

    @property
    def parts(self) -> int:
        with self._lock:
            front = self._backlog.hands.front
            return len(front[0].parts or ()) if front else 0

    def acknowledge(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._backlog.end_head()

    def drop(self, reason: str) -> None:
        with self._lock:
            if not self._is_closed:
                self._on_drop(reason, self._backlog.end_head())

    def split(self, parts: Sequence[Body]) -> None:
        with self._lock:
            if not self._is_closed:
                self._backlog.split(parts)

    def set_aside(self) -> None:
        with self._lock:
            if not self._is_closed:
                self._backlog.set_aside()

    @property
    def aside(self) -> Sequence[int]:
        with self._lock:
            return tuple(self._backlog.hands.aside)

    def take_back(self, number: int) -> bool:
        with self._lock:
            return not self._is_closed and self._backlog.take_back(number)

    def close(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._backlog.finish()
            work = self._unsynced()
        self._sync(work)
        with self._lock:
            self._backlog.retire_all()
        # Its thread needs the lock.
        self._backlog.keeper.close()
        with self._lock:
            self._backlog.log.close()
            self._backlog.line.close()
            self._folder.close()

    def _unsynced(self) -> Unsynced | None:
        try:
            return self._backlog.log.unsynced()
        except OSError as error:
            self._failed("syncing", self._directory, error)
            return None

    def _sync(self, work: Unsynced | None) -> None:
        """The disk is waited for without the lock."""
        if work is None:
            return
        try:
            work.sync()
        except OSError as error:
            self._failed("syncing", self._directory, error)
            with self._lock:
                self._is_synced = False
                # What was not synced may be gone: nothing is appended to it.
                self._backlog.log.roll()
            return
        with self._lock:
            self._is_synced = True
            self._backlog.synced = max(self._backlog.synced, work.end)
            self._backlog.keeper.mark()

"""Encoded bodies that wait for a destination, oldest first.

Queue is the seam between what encodes and what sends. One thread puts, another one looks at the
head, sends it, and tells how it ended; each implementation locks for itself. Every point that is
put leaves in one of two ways: acknowledged, or dropped, which the `on_drop` given to the
implementation hears of.

A head that was looked at stays the head until it has ended, whatever bounds are passed meanwhile:
what is on its way must not be counted as dropped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class OnDrop(Protocol):
    """Hears of everything that is given up."""

    def __call__(self, reason: str, points: int, records: int = 1) -> None:
        """So many points, which waited in so many bodies."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The body of one request, not compressed, and how many points are in it. `newest_ns` is when
    the newest of them was read, in nanoseconds since 1970."""

    data: bytes
    points: int
    newest_ns: int = 0


class Queue(ABC):
    """Bodies in the order in which they came."""

    @abstractmethod
    def put(self, body: Body) -> None:
        """Add a body behind the others; the oldest are dropped where there is no room."""

    @abstractmethod
    def sync(self) -> None:
        """When this returns, what was put survives the end of the process, if anything here
        does."""

    @abstractmethod
    def expire(self, wall_ns: int) -> None:
        """Drop what has waited for too long."""

    @abstractmethod
    def peek(self) -> Body | None:
        """The head: the body to send next."""

    @property
    @abstractmethod
    def head(self) -> int | None:
        """The number of the head. Each body that is put has one of its own, higher than those
        before; a part has that of the body that it was split from."""

    @abstractmethod
    def acknowledge(self) -> None:
        """The destination has the head: forget it."""

    @abstractmethod
    def drop(self, reason: str) -> None:
        """Give the head up."""

    @abstractmethod
    def split(self, parts: Sequence[Body]) -> None:
        """Put these bodies, which hold the same points together, in the place of the head.

        A queue that outlives the process need not remember the parts: sending points twice does
        no harm.
        """

    @property
    @abstractmethod
    def parts(self) -> int:
        """How many parts are left of the body that the head was split from; 0 if it is whole."""

    @abstractmethod
    def set_aside(self) -> None:
        """Let the next ones pass the head, which is kept. A part takes along the body that it was
        split from, as far as that is not acknowledged yet or the queue does not remember it."""

    @property
    @abstractmethod
    def aside(self) -> Sequence[int]:
        """The numbers of those that are set aside, oldest first."""

    @abstractmethod
    def take_back(self, number: int) -> bool:
        """Make one that was set aside the head again; False if it is there no more. A head that
        was looked at comes right behind it."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes that wait, those set aside too."""

    @property
    @abstractmethod
    def limit(self) -> int:
        """Most bytes that may wait."""

    @property
    @abstractmethod
    def oldest_ns(self) -> int | None:
        """When the oldest that waits was read, in nanoseconds since 1970; None without any."""

    @abstractmethod
    def __len__(self) -> int:
        """Bodies that wait, parts counted one by one, those set aside too."""

    @property
    @abstractmethod
    def is_durable(self) -> bool:
        """Whether what waits survives the end of the process: all of it, as far as is known."""

    @abstractmethod
    def close(self) -> None:
        """Keep what waits, if that is possible, and let go of it; otherwise it is dropped for the
        reason "shutdown". Calling it twice is safe."""

"""Names that somebody else knows, asked for in a thread, so that no sample waits for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from telemetryd.attempt import Attempt
from telemetryd.clock import Clock

V = TypeVar("V")
# After a failure: whoever does not answer is not asked by every node of a cluster at once.
_PAUSE_NS = 60 * 10**9


class Lookup(ABC, Generic[V]):
    """`known` has what was learned of the keys last asked for. One round of questions is under way
    at most, and the next begins no sooner than `pause` seconds later, a minute after a failure."""

    what: str
    pause = 0.0

    def __init__(self, clock: Clock) -> None:
        self.known: dict[str, V] = {}
        self._clock = clock
        self._answers: dict[str, V] = {}
        self._round: Attempt[None] | None = None
        self._next_ns = 0
        self._is_closed = False

    def want(self, keys: Collection[str], fault: Callable[[Exception, str], None]) -> bool:
        """Ask for those that are not known, forget all others; whether something was learned."""
        has_news = False
        if self._round is not None and self._round.is_over:
            try:
                self._round.outcome()
            except Exception as error:  # noqa: BLE001  (whatever it is, names are no more than names)
                fault(error, self.what)
                self._next_ns = self._clock.mono_ns() + _PAUSE_NS
            else:
                self._next_ns = self._clock.mono_ns() + int(self.pause * 1e9)
            self._round = None
            has_news = bool(self._answers)
            self.known |= self._answers
        for key in self.known.keys() - keys:
            del self.known[key]
        if self._round is None and not self._is_closed and self._clock.mono_ns() >= self._next_ns:
            missing = self._open_questions(keys)
            if missing:
                answers = self._answers = {}
                self._round = Attempt(lambda: self._ask(missing, answers), self.what)
        return has_news

    def _open_questions(self, keys: Collection[str]) -> list[str]:
        return [key for key in keys if key not in self.known]

    @abstractmethod
    def _ask(self, keys: list[str], answers: dict[str, V]) -> None:
        """Put into `answers` what is learned of `keys`, until it raises whatever it raises."""

    def close(self) -> None:
        """Ask no more; does not wait."""
        self._is_closed = True

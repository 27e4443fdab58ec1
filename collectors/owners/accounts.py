"""The counters of each owner: of the first so many their own, of the others one for all.

Every nanosecond goes into exactly one counter: that of its owner while that is among the first,
else that of the others. A counter so never falls, whoever comes and goes among the first, and the
increases of all of them add up to what was used. The first are those that hold a GPU, and those
that used the most CPU time lately.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping

from telemetryd.metric import Series
from telemetryd.owners import CPU, MEMORY, Owner

# Time after which what was used counts half.
_HALF_LIFE_S = 60.0
# An owner that is among the first is not driven out by one that used hardly more.
_HOLD = 2.0


class Account:
    """What one owner used. `has_ended` once it is gone: it is shown for the last time."""

    __slots__ = ("cpu", "has_ended", "info", "is_shown", "lately_ns", "memory", "owner", "total_ns")

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.cpu = CPU.at(owner.kind, owner.name)
        self.memory = MEMORY.at(owner.kind, owner.name)
        self.info: Series | None = None
        self.total_ns = 0
        self.lately_ns = 0.0
        self.is_shown = False
        self.has_ended = False


class Accounts:
    """At most `most` owners are shown; `others_ns` is the CPU time of the rest, which are
    `hidden`; `ended` are shown for the last time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._all: dict[Owner, Account] = {}
        self.others_ns = 0
        self._all_shown = True
        self.hidden = 0
        self.ended = 0

    def __iter__(self) -> Iterator[Account]:
        return iter(self._all.values())

    def __len__(self) -> int:
        """Owners that are there."""
        return len(self._all) - self.ended

    def keep(self, owners: Collection[Owner]) -> None:
        """These are there now. One that is not there any more is shown once more, and forgotten
        the next time, unless it has come back."""
        for owner in owners:
            if owner not in self._all:
                self._all[owner] = Account(owner)
                self._all_shown = False
        for account in list(self._all.values()):
            is_gone = account.owner not in owners
            if is_gone and account.has_ended:
                del self._all[account.owner]
            elif account.has_ended and not is_gone:
                self._all_shown = False
            account.has_ended = is_gone
        self.ended = sum(account.has_ended for account in self._all.values())

    def __contains__(self, owner: object) -> bool:
        return owner in self._all

    def add(self, used: Mapping[Owner, int], holders: Collection[Owner], step_ns: int) -> None:
        """What was used in the `step_ns` until now; `holders` have a GPU."""
        if len(self) > self._most:
            fading = 0.5 ** (step_ns / 1e9 / _HALF_LIFE_S)
            for owner, account in self._all.items():
                account.lately_ns = account.lately_ns * fading + used.get(owner, 0)
            self._choose(holders)
        elif not self._all_shown:
            self._show_all()
        for owner, ns in used.items():
            account = self._all[owner]
            if account.is_shown:
                account.total_ns += ns
            else:
                self.others_ns += ns

    def _choose(self, holders: Collection[Owner]) -> None:
        self._all_shown = False
        living = [account for account in self._all.values() if not account.has_ended]
        first = heapq.nlargest(
            self._most,
            living,
            key=lambda one: (
                one.owner in holders,
                one.lately_ns * (_HOLD if one.is_shown else 1.0),
                one.is_shown,
            ),
        )
        for account in living:
            account.is_shown = False
        for account in first:
            account.is_shown = True
        self.hidden = len(living) - len(first)

    def _show_all(self) -> None:
        for account in self._all.values():
            if not account.has_ended:
                account.is_shown = True
        self.hidden = 0
        self._all_shown = True

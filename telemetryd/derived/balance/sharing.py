"""Whose the energy of a GPU is: by shares of its multiprocessors, under MIG by instance first.

Parts add up to 1 at most; what is missing is nobody's, or it cannot be told whose it is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from telemetryd import gpus
from telemetryd.derived.balance.ledger import Owner, add
from telemetryd.owners import JOB, PROCESS

OWNED = (gpus.OWNER_PROCESSES, gpus.OWNER_UTILIZATION)
# "3g.40gb", "1c.3g.40gb", "1g.10gb+me"
_PROFILE = re.compile(r"(?:\d+c\.)?(\d+)g\.")
# Into how many slices MIG can divide a GPU (MIG User Guide, "Supported MIG Profiles").
_SLICES = 7
_FEWER_SLICES = {"A30": 4, "RTX PRO 6000": 4, "RTX PRO 5000": 4}
# Of the time between two readings, where it is not known when somebody came or left.
_HALF = 0.5
Parts = dict[Owner, float]


@dataclass(frozen=True, slots=True)
class Slice:
    """A GPU instance of MIG: how many slices of the GPU it has, and how busy they are."""

    width: int
    share: float | None


class Use:
    """Who has a GPU: `holders` by MIG instance ("" being the whole), and their shares of its
    multiprocessors, which the driver does not tell under MIG."""

    def __init__(
        self,
        values: Sequence[float] = (),
        owners: Iterable[tuple[int, str, Owner, bool]] = (),
        jobs: Iterable[Owner] = (),
    ) -> None:
        """`owners` are positions in `values`: of which instance, whose, and whether a share stands
        there. `jobs` hold the whole GPU, be there processes of theirs or not."""
        self.shares: Parts = {}
        self.holders: dict[str, set[Owner]] = {}
        for position, instance, owner, is_share in owners:
            if is_share:
                self.shares[owner] = self.shares.get(owner, 0.0) + values[position]
            self.holders.setdefault(instance, set()).add(owner)
        found = {_job_of(owner) for owner in self.everybody}
        for job in jobs:
            # It is on it already if a process of it or of a step of it is, under MIG on its
            # instance. A command hides whose job it is: the job is taken to be at work by it.
            if job not in found and not any(kind == PROCESS for kind, _ in found):
                self.holders.setdefault("", set()).add(job)

    @property
    def everybody(self) -> frozenset[Owner]:
        return frozenset().union(*self.holders.values())

    def keep_shares(self, before: Use) -> None:
        """There is no new sample: what was told last still holds."""
        held = self.everybody
        self.shares = {owner: share for owner, share in before.shares.items() if owner in held}

    def with_departed(self, before: Use, stayed: float) -> Use:
        """With those that left since then: they were there for a part of the time."""
        if self.holders == before.holders:
            return self
        both = Use()
        both.shares = dict(self.shares)
        both.holders = {name: set(held) for name, held in self.holders.items()}
        now = self.everybody
        for instance, held in before.holders.items():
            for owner in held - now:
                both.holders.setdefault(instance, set()).add(owner)
                if owner in before.shares:
                    both.shares[owner] = before.shares[owner] * stayed
        return both


def part_stayed(before: Use, now: Use, did: float | None, does: float | None) -> float:
    """For what part of the time since the last reading those that left in it were there: as much as
    the GPU was busier, at `does`, than with those that are left alone. At the last reading it was
    busy at `did`, with all of them. Where that cannot be told, half."""
    gone = before.everybody - now.everybody
    if not gone or not did or does is None:
        return _HALF
    total = sum(before.shares.values())
    gone_share = sum(before.shares.get(owner, 0.0) for owner in gone)
    if gone_share > 0:
        # Shares and activity may be on different scales.
        stayed = (does / did * total - sum(now.shares.values())) / gone_share
    elif not now.everybody:
        stayed = does / did
    else:
        return _HALF
    return min(1.0, max(0.0, stayed))


def blend(before: Parts, now: Parts, stayed: float) -> Parts:
    """One for a part of the time, then the other."""
    parts: Parts = {}
    add(parts, before, stayed)
    add(parts, now, 1 - stayed)
    return parts


def _job_of(owner: Owner) -> Owner:
    """Of a step of a Slurm job the job; everybody else is who he is."""
    kind, name = owner
    return (kind, name.partition(".")[0]) if kind == JOB else owner


def slices_of_profile(profile: str) -> int:
    """Of "3g.40gb" 3; 1 where the driver does not tell."""
    match = _PROFILE.match(profile)
    return 1 if match is None else int(match[1])


def slices_of_model(model: str) -> int:
    """Into how many slices MIG can divide a GPU."""
    return next((most for name, most in _FEWER_SLICES.items() if name in model), _SLICES)


def share_of_slices(slices: Collection[Slice], most: int) -> float | None:
    """How busy a GPU is by its instances; None if that is not known of all of them."""
    shares = [one.share * one.width for one in slices if one.share is not None]
    return sum(shares) / most if slices and len(shares) == len(slices) else None


def evenly(owners: Collection[Owner]) -> Parts:
    return dict.fromkeys(owners, 1 / len(owners)) if owners else {}


def by_share(use: Use) -> Parts:
    """All of it to those of whom the driver tells shares, or to a sole owner; else to nobody."""
    total = sum(use.shares.values())
    if total > 0:
        return {owner: share / total for owner, share in use.shares.items()}
    return _to_sole(use.everybody)


def by_slice(use: Use, slices: Mapping[str, Slice]) -> Parts:
    """By the activity of the instances, and in each of them to a sole owner."""
    work = {name: one.width * one.share for name, one in slices.items() if one.share is not None}
    total = sum(work.values())
    if len(work) < len(slices) or total <= 0:
        return _to_sole(use.everybody)
    parts: Parts = {}
    for name, done in work.items():
        add(parts, _to_sole(_holders(use, name)), done / total)
    return parts


def by_allocation(use: Use, slices: Mapping[str, Slice], most: int) -> Parts:
    """By the slices that each owner holds; who holds the whole GPU has those that nobody else
    does."""
    parts: Parts = {}
    rest = most
    for name, one in slices.items():
        rest -= one.width
        add(parts, evenly(_holders(use, name)), one.width / most)
    add(parts, evenly(use.holders.get("", ())), max(0, rest) / most)
    total = sum(parts.values())
    return parts if total <= 1 else {owner: part / total for owner, part in parts.items()}


def _holders(use: Use, instance: str) -> Collection[Owner]:
    return use.holders.get(instance) or use.holders.get("", set())


def _to_sole(owners: Collection[Owner]) -> Parts:
    return dict.fromkeys(owners, 1.0) if len(owners) == 1 else {}

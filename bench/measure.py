"""One round of a peer: a scrape a second for some time, then a quick succession of scrapes.

CPU time is taken over whole seconds, so that it holds as many samples and scrapes as seconds.
Each scrape comes at another moment of its second, as it does in life: at a fixed one it would
always, or never, meet the sampling.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

from clock import Cpu, Machine, Memory, wait_until
from common import Matched, disagreements, match
from peers import Peer, Running, node_exporters, running, telemetryd
from scrape import Client, Scrape
from trees import Tree

WARM_S = 4
# The last moment of its second at which a scrape begins.
_SPREAD_S = 0.8
# Between two scrapes of the quick succession, in seconds.
_GAP_S = (0.02, 0.08)


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of one peer gave. CPU in microseconds a second, latencies in seconds."""

    cpu_us: float
    sampled_us: float
    user_us: float
    memory: Memory
    paced: tuple[float, ...]
    quick: tuple[float, ...]
    others: float
    last: Scrape

    @property
    def series(self) -> int:
        return len(self.last.series())


def measure(peer: Peer, seconds: int, quick: int) -> Round:
    """Start the peer, let it warm up, measure it for `seconds`, then scrape it `quick` times."""
    with running(peer) as target, closing(Client(target.port)) as client:
        return _measure(target, client, seconds, quick, peer.tree)


def _measure(target: Running, client: Client, seconds: int, quick: int, tree: Tree | None) -> Round:
    moments = random.Random(target.port)
    begin = time.monotonic() + 0.2
    for second in range(WARM_S):
        _scrape(client, begin + second, moments, tree)
    begin += WARM_S
    wait_until(begin)
    before, ours, machine = Cpu.of(target.pid), time.process_time_ns(), Machine.now()
    paced = []
    for second in range(seconds):
        last = _scrape(client, begin + second, moments, tree)
        paced.append(last.seconds)
    wait_until(begin + seconds)
    cpu = Cpu.of(target.pid).since(before)
    both = cpu.total + time.process_time_ns() - ours
    others = Machine.now().others(machine, both)
    memory = Memory.of(target.pid)
    quickly = []
    for _ in range(quick):
        time.sleep(moments.uniform(*_GAP_S))
        quickly.append(client.get().seconds)
    return Round(
        cpu.total / 1e3 / seconds,
        cpu.sampled / 1e3 / seconds,
        cpu.user / 1e3 / seconds,
        memory,
        tuple(paced),
        tuple(quickly),
        others,
        last,
    )


def _scrape(client: Client, second: float, moments: random.Random, tree: Tree | None) -> Scrape:
    """One scrape, at some moment of this second."""
    wait_until(second)
    if tree is not None:
        tree.advance()
    wait_until(second + moments.uniform(0, _SPREAD_S))
    return client.get()


def disagree(**options: object) -> list[Matched]:
    """Series that both export, of a tree that stands still, with values that are not the same."""
    scrapes = []
    for peer in (telemetryd(**options), node_exporters(**options)):
        with running(peer) as target, closing(Client(target.port)) as client:
            time.sleep(WARM_S)
            scrapes.append(client.get().series())
    return disagreements(match(*scrapes))


@dataclass(frozen=True, slots=True)
class Contest:
    """Rounds of two peers, one after the other: A B A B."""

    ours: list[Round]
    theirs: list[Round]

    def ratio(self, of: Callable[[Round], float]) -> float:
        """Median of the ratios of the rounds that stood side by side."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return statistics.median(of(a) / of(b) for a, b in pairs)


def contest(
    ours: Peer, theirs: Peer, rounds: int, seconds: int, quick: int, say: Callable[[str], None]
) -> Contest:
    result = Contest([], [])
    for number in range(1, rounds + 1):
        for peer, found in ((ours, result.ours), (theirs, result.theirs)):
            one = measure(peer, seconds, quick)
            found.append(one)
            say(
                f"  round {number}/{rounds} {peer.name:<13} {one.cpu_us:>9,.0f} us/s "
                f"{one.series:>6} series  PSS {one.memory.pss / 1024:5.1f} MiB  "
                f"others {one.others:4.0%}"
            )
    return result


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies, between the two nearest."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * share
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)

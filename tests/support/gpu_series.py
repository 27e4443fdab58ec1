"""What tests ask of a Node again and again: some of its series, and what a sample costs."""

from __future__ import annotations

from collections import Counter

from support.gpus import Node


def only(values: dict[str, float], *families: str) -> dict[str, float]:
    """The series of some families."""
    return {name: value for name, value in values.items() if name.partition("{")[0] in families}


def sampling(node: Node, count: int = 1, after: float = 1.0) -> Counter[str]:
    """What is asked of the driver in so many samples, by function; not what the thread of events
    asks meanwhile."""
    before = Counter(node.fake.call_counts())
    node.samples(count, after)
    calls = Counter(node.fake.call_counts()) - before
    calls.pop("nvmlEventSetWait_v2", None)
    return calls

"""The processes on a GPU by owner: how many there are, and the memory that they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from telemetryd.gpus import OWNER_MEMORY, OWNER_PROCESSES
from telemetryd.host import Host
from telemetryd.metric import Point
from telemetryd.owners import SYSTEM, Owner, of_process


def owner_on_gpu(host: Host, process: int) -> Owner:
    """Whose a process on a GPU is; the system's if it is nobody's or cannot be looked at."""
    try:
        return of_process(host, process) or SYSTEM
    except (OSError, ValueError):
        return SYSTEM


def owner_points(
    labels: tuple[str, str], held: Mapping[Owner, Sequence[int | None]]
) -> Iterator[Point]:
    """Of the GPU or MIG instance with these labels. `held` has the bytes of each process of an
    owner; None is not known, and then neither is the owner's memory."""
    for owner, sizes in held.items():
        where = (*labels, owner.kind, owner.name)
        yield OWNER_PROCESSES.at(*where), len(sizes)
        known = [size for size in sizes if size is not None]
        if len(known) == len(sizes):
            yield OWNER_MEMORY.at(*where), sum(known)

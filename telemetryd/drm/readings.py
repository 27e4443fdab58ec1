"""A GPU at work: the files that are read of it, and what their contents mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from telemetryd import gpus
from telemetryd.drm.cards import Card
from telemetryd.errors import ReadError
from telemetryd.host import Attribute
from telemetryd.metric import Point, Series


@dataclass(frozen=True, slots=True)
class Reading:
    """A file that gives one value. `convert` may answer None: the driver has nothing to say.

    `asks_gpu` tells that the driver asks the hardware for it: if all of these fail, it is lost.
    """

    series: Series
    path: str
    convert: Callable[[bytes], float | None]
    asks_gpu: bool = True


class Gpu:
    """A GPU at work: its labels, its open files, and what was read of it last."""

    __slots__ = (
        "card", "due_ns", "info", "is_asleep", "is_lost", "labels", "lost", "readings", "slow",
        "status", "use",
    )  # fmt: skip

    def __init__(self, card: Card, labels: tuple[str, str], info: Series, due_ns: int) -> None:
        self.card = card
        self.labels = labels
        self.info = info
        self.lost = gpus.LOST.at(*labels)
        self.status = Attribute(card.path("power/runtime_status"))
        self.readings: list[tuple[Reading, Attribute]] = []
        self.slow: list[Point] = []
        self.use: list[Point] = []
        self.due_ns = due_ns
        self.is_asleep = False
        self.is_lost = False

    def close(self) -> None:
        self.status.close()
        for _, attribute in self.readings:
            attribute.close()


def scaled(per_unit: int) -> Callable[[bytes], float]:
    """A number of which `per_unit` make a base unit."""

    def convert(raw: bytes) -> float:
        return int(raw) / per_unit

    return convert


def percent(raw: bytes) -> float:
    """A share in percent. Raises ReadError if it is none: firmware has errors too."""
    value = int(raw)
    if not 0 <= value <= 100:
        raise ReadError("invalid", f"{value} percent")
    return value / 100


def limit_uw(raw: bytes) -> float | None:
    """A power limit in microwatts; 0 and an empty line mean that there is none."""
    text = raw.strip()
    return int(text) / 1e6 or None if text else None

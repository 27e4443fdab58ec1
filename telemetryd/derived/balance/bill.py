"""What the energy cost: facility energy, money, carbon."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator

from telemetryd.derivation import EnergyConfig
from telemetryd.derived.balance import families
from telemetryd.metric import Point

log = logging.getLogger("telemetryd.energy")

_KWH_J = 3.6e6
_MOST_TEXT = 100


class Bill:
    """Adds up as the node's energy grows, at the price that holds then."""

    def __init__(self, config: EnergyConfig) -> None:
        self._pue = config.pue
        self._currency = config.currency
        self._files = {"price_per_kwh": config.price_file, "grams_per_kwh": config.carbon_file}
        self._said: dict[str, str] = {}
        self.price_per_kwh = config.price_per_kwh
        self.grams_per_kwh = config.carbon_grams_per_kwh
        self._seen_j: float | None = None
        self._facility_j = 0.0
        self._cost = 0.0
        self._grams = 0.0

    def read_files(self) -> None:
        """Take the price and the carbon intensity from the files that the configuration names; a
        file that cannot be read leaves what held before, and is logged once."""
        for name, path in self._files.items():
            if path is None:
                continue
            try:
                value = float(_text(path))
                if not 0 <= value < math.inf:
                    raise ValueError(f"{value} is no price or intensity")  # noqa: TRY301
            except (OSError, ValueError) as error:
                self._say(name, f"cannot use {path}: {error}; write a number of 0 or more there")
            else:
                setattr(self, name, value)
                self._said.pop(name, None)

    def _say(self, name: str, what: str) -> None:
        if self._said.get(name) != what:
            self._said[name] = what
            log.warning('msg="%s"', what)

    def add_up(self, node_j: float) -> None:
        """`node_j` is the node's energy so far."""
        step_j = 0.0 if self._seen_j is None else node_j - self._seen_j
        self._seen_j = node_j
        facility_j = step_j * (self._pue or 1.0)
        self._facility_j += facility_j
        self._cost += facility_j / _KWH_J * (self.price_per_kwh or 0.0)
        self._grams += facility_j / _KWH_J * (self.grams_per_kwh or 0.0)

    def points(self) -> Iterator[Point]:
        """Only what is configured."""
        if self._pue is not None:
            yield families.FACILITY_ENERGY.at(), self._facility_j
        if self.price_per_kwh is not None:
            yield families.COST.at(self._currency), self._cost
        if self.grams_per_kwh is not None:
            yield families.CARBON.at(), self._grams


def _text(path: str) -> str:
    """What a short file says; nothing of a pipe, which would be waited for. Raises OSError,
    ValueError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        data = os.read(fd, _MOST_TEXT + 1)
    finally:
        os.close(fd)
    if len(data) > _MOST_TEXT:
        raise ValueError("it is no single number")
    return data.decode()

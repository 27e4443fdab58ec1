"""The power of a device that does nothing for nobody, learned while it does.

The 5th percentile of the power at such moments, not the lowest ever seen: a sensor that once read
too low would spoil that for good; and of such moments only, so that a daemon that starts on a busy
node learns nothing wrong. What was seen fades over days, so that a new cooling season or firmware
is learned. It is kept over restarts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

_QUANTILE = 0.05
# Idle time after which it is known.
ENOUGH_S = 300.0
# What was seen counts half after two idle days.
_HALF_LIFE_S = 2 * 86_400.0
# Weights grow instead of all the others fading; beyond this they are scaled back.
_MOST_WEIGHT = 1e6
_LEAST_WEIGHT = 1e-6
# No device draws more; a saved file may say anything.
_MOST_WATTS = 100_000
# How often the percentile is worked out once it is known.
_EVERY_S = 60.0


class IdlePower:
    """Learned from `observe`, or `configured`. A histogram of seconds with bins of 1 W."""

    def __init__(self, configured: float | None = None) -> None:
        self._configured = configured
        self._bins: dict[int, float] = {}
        self._total = 0.0
        self._weight = 1.0
        self._since_s = 0.0
        self.watts: float | None = configured

    def observe(self, watts: float, seconds: float) -> None:
        """The power over some time without activity and without an owner."""
        if self._configured is not None or not 0 <= watts <= _MOST_WATTS:
            return
        at = int(watts)
        self._bins[at] = self._bins.get(at, 0.0) + self._weight * seconds
        self._total += self._weight * seconds
        self._weight *= 2 ** (seconds / _HALF_LIFE_S)
        if self._weight > _MOST_WEIGHT:
            self._scale(1 / self._weight)
        self._since_s += seconds
        if self._since_s >= _EVERY_S or self.watts is None:
            self._since_s = 0.0
            self.watts = self._percentile()

    def save(self) -> dict[str, float]:
        """What was learned: seconds by watts, the newest counting whole."""
        return {str(at): weight / self._weight for at, weight in self._bins.items()}

    def restore(self, saved: Mapping[str, object]) -> None:
        """Go on from what was saved; what does not make sense is left out."""
        for text, seconds in saved.items():
            at, weight = _bin(text), _weight(seconds)
            if at is not None and weight is not None:
                self._bins[at] = self._bins.get(at, 0.0) + weight * self._weight
        self._total = sum(self._bins.values())
        if self._configured is None:
            self.watts = self._percentile()

    def _percentile(self) -> float | None:
        # Fading does not make what is known unknown.
        if self.watts is None and self._total / self._weight < ENOUGH_S:
            return None
        wanted = self._total * _QUANTILE
        for at in sorted(self._bins):
            wanted -= self._bins[at]
            if wanted <= 0:
                # Within its bin as if readings were spread evenly.
                return at + 1 + wanted / self._bins[at]
        return None

    def _scale(self, factor: float) -> None:
        self._bins = {
            at: weight * factor
            for at, weight in self._bins.items()
            if weight * factor > _LEAST_WEIGHT
        }
        self._total = sum(self._bins.values())
        self._weight *= factor


def _bin(text: str) -> int | None:
    if len(text) > len(str(_MOST_WATTS)) or not (text.isascii() and text.isdigit()):
        return None
    at = int(text)
    return at if at <= _MOST_WATTS else None


def _weight(seconds: object) -> float | None:
    """Seconds of a saved bin. They fade: more than some half-lives of them cannot be."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return float(seconds) if seconds <= 10 * _HALF_LIFE_S else None

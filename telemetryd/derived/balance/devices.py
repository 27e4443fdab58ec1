"""The devices whose energy is divided, GPUs and CPU packages with their memory, and their meters.

Only meters with boundary "component" count. One without an energy counter is integrated here
between two readings of its power. A device is read when all of its meters are: where one is missing
for a moment, the counters of all of them bridge that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from telemetryd.batch import Batch
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.meters import ENERGY, POWER
from telemetryd.metric import Series

# "gpu" or "cpu", and its name: "0" of NVML, "0" of package-0, a PCI address, a Grace's ACPI device.
Device = tuple[str, str]

_KINDS = {"nvml": "gpu", "rapl": "cpu"}
_PCI = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]\Z")
# Out of the air; no device draws as much, so that a counter that says so was reset.
_MOST_WATTS = 20_000.0
_Meter = tuple[str, ...]
_Reading = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True)
class Tick:
    """Energy of a device between two readings of its meters."""

    device: Device
    start_ns: int
    end_ns: int
    joules: float

    @property
    def seconds(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9


class _Metered:
    """A device and its meters: where in a batch joules and watts of each stand."""

    __slots__ = ("before", "device", "places", "read_ns")

    def __init__(self, device: Device) -> None:
        self.device = device
        self.places: dict[_Meter, list[int | None]] = {}
        self.before: dict[_Meter, _Reading] = {}
        self.read_ns: int | None = None

    def advance(self, values: Sequence[float], mono_ns: int, longest_s: float) -> Tick | None:
        """The energy since the reading before; None the first time, and where it cannot be known.
        One over more than `longest_s` is a gap."""
        since = self.read_ns
        seconds = 0.0 if since is None else (mono_ns - since) / 1e9
        is_near = 0 < seconds <= longest_s
        if is_near and not self.before.keys() <= self.places.keys():
            return None  # one may come back
        before, now = self.before, self._read(values)
        self.before, self.read_ns = now, mono_ns
        if since is None or seconds <= 0 or before.keys() != now.keys():
            return None
        joules = 0.0
        for meter, reading in now.items():
            step = _step(before[meter], reading, seconds, is_near=is_near)
            if step is None:
                return None
            joules += step
        return Tick(self.device, since, mono_ns, joules)

    def _read(self, values: Sequence[float]) -> dict[_Meter, _Reading]:
        return {
            meter: (
                None if energy is None else values[energy],
                None if power is None else values[power],
            )
            for meter, (energy, power) in self.places.items()
        }


def _step(before: _Reading, now: _Reading, seconds: float, *, is_near: bool) -> float | None:
    """Joules between two readings of a meter; None if they do not tell, as powers do only when
    they are near one another."""
    if before[0] is not None and now[0] is not None:
        step = now[0] - before[0]
        if 0 <= step <= _MOST_WATTS * seconds:
            return step
    # No counter, or it was reset.
    if not is_near:
        return None
    if before[1] is None or now[1] is None or not 0 <= before[1] + now[1] <= 2 * _MOST_WATTS:
        return None
    return (before[1] + now[1]) / 2 * seconds


class Meters:
    """The component meters of one collector. `ticks` gives the energy of each of its devices."""

    def __init__(self) -> None:
        self._layout: tuple[Series, ...] | None = None
        self._all: dict[Device, _Metered] = {}
        self._here: list[_Metered] = []
        # Of the batch that was last seen: energy over gaps, of which nobody knows what it was for,
        # and the begin of gaps over which it is not even known.
        self.bridged_j = 0.0
        self.lost_since_ns: int | None = None

    def __bool__(self) -> bool:
        """Whether there are devices in the batch that was last seen."""
        return bool(self._here)

    def ticks(self, batch: Batch) -> Iterator[Tick]:
        """One for each device; the meters of a CPU package and its memory are one."""
        if batch.series is not self._layout:
            self._layout = batch.series
            self._look(batch.series)
        self.bridged_j, self.lost_since_ns = 0.0, None
        longest_s = GAP_INTERVALS * batch.interval
        for metered in self._here:
            since = metered.read_ns
            is_gap = since is not None and batch.mono_ns - since > longest_s * 1e9
            tick = metered.advance(batch.values, batch.mono_ns, longest_s)
            if tick is not None and not is_gap:
                yield tick
            elif tick is not None:
                self.bridged_j += tick.joules
            elif is_gap and since is not None:
                self.lost_since_ns = min(since, self.lost_since_ns or since)

    def _look(self, series: tuple[Series, ...]) -> None:
        here: dict[Device, _Metered] = {}
        for position, one in enumerate(series):
            if one.metric not in (ENERGY, POWER) or one.labels[3] != "component":
                continue
            device = _device(one.labels)
            if device is None:
                continue
            metered = here.get(device)
            if metered is None:
                metered = here[device] = self._all.setdefault(device, _Metered(device))
                metered.places = {}
            place = metered.places.setdefault(one.labels, [None, None])
            place[0 if one.metric is ENERGY else 1] = position
        self._here = list(here.values())


def _device(labels: tuple[str, ...]) -> Device | None:
    """Whose energy a meter counts. None: nobody tells what that device does; it is overhead."""
    source, domain, device, _ = labels
    if source in _KINDS:
        return _KINDS[source], device
    if domain.startswith("Grace Power"):
        return "cpu", f"{device} {domain}"
    return ("gpu", device) if _PCI.match(device) else None

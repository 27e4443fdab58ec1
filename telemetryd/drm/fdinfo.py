"""What a DRM driver tells of a client in /proc/PID/fdinfo/FD.

Documentation/gpu/drm-usage-stats.rst, Documentation/gpu/amdgpu/driver-misc.rst and the drivers'
own: i915 counts nanoseconds (drm-engine-*), xe cycles beside all cycles (drm-cycles-*,
drm-total-cycles-*); memory is drm-resident-* or its older name drm-memory-*, by region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Memory of the GPU itself, as amdgpu (vram), i915 (local0) and xe (vram0) call it.
_OWN_MEMORY = ("vram", "local")


@dataclass(frozen=True, slots=True)
class Counter:
    """Busy time of a class of engines: nanoseconds, or cycles out of `total` cycles."""

    busy: int
    total: int | None
    capacity: int


@dataclass(frozen=True, slots=True)
class Client:
    """What a driver tells of a client. `memory` is that of the GPU, in bytes; None if the driver
    does not tell, or the GPU has none of its own. `is_idle_open`: it was only opened."""

    id: str
    pci: str
    engines: dict[str, Counter]
    memory: int | None
    is_idle_open: bool


def parse_client(text: bytes) -> Client | None:
    """A client from its fdinfo; None if the driver does not say which one it is.

    Raises ValueError for numbers that are none.
    """
    fields = _fields(text)
    if "client-id" not in fields:
        return None
    engines = _engines(fields)
    of_memory = {kind: _sizes(fields, f"{kind}-") for kind in ("total", "memory", "resident")}
    sizes = {**of_memory["memory"], **of_memory["resident"]}
    own = [size for region, size in sizes.items() if region.startswith(_OWN_MEMORY)]
    told = [size for regions in of_memory.values() for size in regions.values()]
    told += [counter.busy for counter in engines.values()]
    return Client(
        fields["client-id"],
        fields.get("pdev", ""),
        engines,
        sum(own) if own else None,
        bool(told) and not any(told),
    )


def _fields(text: bytes) -> dict[str, str]:
    """The lines "drm-key: value", by key without drm-."""
    pairs = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {key[4:]: value.strip() for key, _, value in pairs if key.startswith("drm-")}


def _under(fields: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {key.removeprefix(prefix): fields[key] for key in fields if key.startswith(prefix)}


def _engines(fields: Mapping[str, str]) -> dict[str, Counter]:
    capacities = {name: int(n) for name, n in _under(fields, "engine-capacity-").items()}
    totals = {name: int(n) for name, n in _under(fields, "total-cycles-").items()}
    engines = {
        name: Counter(int(n), totals[name], capacities.get(name, 1))
        for name, n in _under(fields, "cycles-").items()
        if name in totals
    }
    for name, value in _under(fields, "engine-").items():
        if not name.startswith("capacity-"):
            ns = int(value.removesuffix("ns"))
            engines[name] = Counter(ns, None, capacities.get(name, 1))
    return engines


def _sizes(fields: Mapping[str, str], prefix: str) -> dict[str, int]:
    """Bytes by region of memory: "drm-total-vram0: 192 KiB"."""
    return {
        region: _bytes(value)
        for region, value in _under(fields, prefix).items()
        if not region.startswith("cycles-")
    }


def _bytes(value: str) -> int:
    number, _, unit = value.partition(" ")
    if unit.strip() not in _UNITS:
        raise ValueError(f"a size in {unit}")
    return int(number) * _UNITS[unit.strip()]

"""How a GPU is divided: from profiles of instances to keys of the fake library's state file."""

from __future__ import annotations

from collections.abc import Sequence

from fakes.nvml.models import Model, State

# Profiles of GPU instances; with a pair, also the profiles of the compute instances in it.
Layout = Sequence[str | tuple[str, Sequence[str]]]


def divide(model: Model, gpu: int, layout: Layout, last_id: int) -> tuple[State, int]:
    """The keys of a GPU so divided, and the last id that a MIG device got."""
    state: State = {}
    slot, taken = 0, set[int]()
    for entry in layout:
        profile, parts = (entry, [""]) if isinstance(entry, str) else entry
        gi = next(i for i in model.mig[profile].ids if i not in taken)
        taken.add(gi)
        state |= {f"gi.{gi}.{key}": value for key, value in _gpu_instance(model, profile).items()}
        for ci, part in enumerate(parts):
            last_id += 1
            device: State = {
                "id": last_id,
                "gi": gi,
                "ci": ci,
                "profile": f"{part}.{profile}" if part else profile,
                "uuid": f"MIG-{gpu:08x}-{last_id:04x}-5000-8000-{slot:012x}",
            }
            device |= _compute_instance(model, profile, part) if part else {}
            state |= {f"mig.{slot}.{key}": value for key, value in device.items()}
            slot += 1
    return state, last_id


def _gpu_instance(model: Model, name: str) -> State:
    profile = model.mig[name]
    state: State = {
        "mem_total": profile.memory_mib << 20,
        "mem_reserved": 0,
        "mem_used": profile.memory_mib // 1100 << 20,
        "bar1_total": profile.bar1_mib << 20,
        "bar1_used": 0,
        "sm": profile.multiprocessors,
        "slices": profile.slices,
        "copy": profile.slices,
        "ofa": profile.ofa,
        "dec": profile.engines,
        "enc": 0,
        "jpg": profile.engines,
    }
    return state | {key: value for key, value in model.idle.items() if key.startswith("gpm.")}


def _compute_instance(model: Model, name: str, part: str) -> State:
    profile, slices = model.mig[name], int(part.rstrip("c"))
    return {"slices": slices, "sm": profile.multiprocessors * slices // profile.slices}

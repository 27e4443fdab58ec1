"""The GPUs that the fake library can be: what they are, and what they answer idle and busy."""

from __future__ import annotations

from fakes.nvml.before_hopper import A100, L40S, RTX2080S
from fakes.nvml.hopper import GH200, H100, H200
from fakes.nvml.pieces import ALL_LINKS, MIB, Model, Profile, State, Value

__all__ = ["ALL_LINKS", "MIB", "MODELS", "Model", "Profile", "State", "Value", "identity"]

MODELS = {
    "H100": H100,
    "H200": H200,
    "A100": A100,
    "L40S": L40S,
    "RTX2080S": RTX2080S,
    "GH200": GH200,
}


def identity(model: Model, gpu: int) -> State:
    """What tells one GPU of a node from the next."""
    state: State = {
        "name": model.name,
        "uuid": f"GPU-{gpu:08x}-0000-4000-8000-{gpu:012x}",
        "pci": f"00000000:{0x1B + 0x10 * gpu:02X}:00.0",
        "minor": gpu,
    }
    if "part" in model.facts:
        state["serial"] = f"165{gpu:010d}"
    if "numa" in model.facts:
        state["numa"] = gpu // 4
    return state


def power_mw(state: State) -> float:
    """The power that the energy counter follows: the average where there is one."""
    return float(state.get("power_average_mw", state.get("power_instant_mw", 0)))

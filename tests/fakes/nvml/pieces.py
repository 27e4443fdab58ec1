"""What models of GPUs are described with: groups of keys of the fake library's state file."""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1 << 20
ALL_LINKS = 0xFFFFFFFF

Value = int | float | str
State = dict[str, Value]


@dataclass(frozen=True)
class Profile:
    """A MIG profile: what a GPU instance of it has."""

    slices: int
    ids: tuple[int, ...]
    memory_mib: int
    multiprocessors: int
    engines: int
    ofa: int = 0

    @property
    def bar1_mib(self) -> int:
        return self.memory_mib * 6184 // 9984


@dataclass(frozen=True)
class Model:
    """`facts` never change; `idle` and `busy` are the readings; power in watts is in them, too."""

    name: str
    facts: State
    idle: State
    busy: State
    links: int = 0
    mig: dict[str, Profile] = field(default_factory=dict)


def memory(total: int, reserved: int, bar1: int) -> State:
    return {
        "mem_total": total * MIB,
        "mem_reserved": reserved * MIB,
        "mem_used": 0,
        "bar1_total": bar1 * MIB,
        "bar1_used": MIB,
    }


def clocks(prefix: str, graphics: int, memory: int, video: int) -> State:
    return {f"{prefix}.{i}": mhz for i, mhz in enumerate((graphics, graphics, memory, video))}


def limits(limit: int, least: int, most: int) -> State:
    watts = {"enforced": limit, "requested": limit, "default": limit, "min": least, "max": most}
    return {f"plimit_{name}_mw": each * 1000 for name, each in watts.items()}


def utilization(gpu: int, memory: int) -> State:
    return {
        "util_gpu": gpu,
        "util_mem": memory,
        **{f"util_{engine}": 0 for engine in ("enc", "dec", "jpg", "ofa")},
    }


def pcie(generation: int, limit: int) -> State:
    return {
        "pcie_gen": generation,
        "pcie_gen_max": limit,
        "pcie_gen_gpu_max": limit,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "pcie_replay": 0,
        "fi.95": 0,
    }


ECC: State = {
    "ecc": 1,
    "ecc_pending": 1,
    **{f"ecc.{kind}.{counter}": 0 for kind in (0, 1) for counter in (0, 1)},
}
REMAPPING: State = {f"remap.{what}": 0 for what in ("cor", "unc", "pending", "failure")}
THROTTLE_TIMES: State = {f"fi.{field_id}": 0 for field_id in (74, 76, 269, 270, 271)}
GPM_IDS = (1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 20, 21, 60, 61)


def gpm(**metrics: float) -> State:
    """`sm=98.9` is metric 2 and so on; the rest is 0."""
    names = {"graphics": 1, "sm": 2, "occupancy": 3, "tensor": 5, "hmma": 7, "dram": 10}
    names |= {"fp32": 12, "pcie_tx": 20, "pcie_rx": 21, "nvlink_rx": 60, "nvlink_tx": 61}
    given = {names[name]: value for name, value in metrics.items()}
    return {f"gpm.{metric}": given.get(metric, 0.0) for metric in GPM_IDS}


def nvlink(links: int, version: int, mbps: int) -> State:
    return {
        "nvlink_count": links,
        "nvlink_version": version,
        "nvlink_speed_mbps": mbps,
        "fi.164.*": mbps,
        **{f"fi.{field_id}.{ALL_LINKS}": "0+0" for field_id in (138, 139, 140, 141)},
        **{f"fi.{field_id}.*": 0 for field_id in (138, 139, 140, 141, 161, 162, 163)},
    }


FABRIC: State = {
    "fabric_state": 3,
    "fabric_status": 0,
    "fabric_clique": 0,
    "fabric_uuid": "0" * 32,
    "fabric_health": 0,
    "fabric_summary": 0,
}
DATA_CENTER: State = {
    "brand": 14,
    "persistence": 1,
    "compute_mode": 0,
    "fans": 0,
    "numa": 0,
    "event_types": 0x1F,
    "clock_reasons_supported": 0x1FF,
    "fi.169": 0,
    "fi.230": 0,
    **{f"fi.{field_id}": 0 for field_id in range(173, 184)},
    **ECC,
    **REMAPPING,
    **THROTTLE_TIMES,
}

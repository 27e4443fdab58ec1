"""What never changes of a GPU while the driver is loaded: read once."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref, c_int, c_uint, c_void_p
from dataclasses import dataclass
from typing import TypeVar

from telemetryd.collectors.gpu_nvidia.driver import Driver, NvmlError
from telemetryd.gpus import CLOCK_MAX, INFO, PCIE_GENERATION_MAX, PCIE_WIDTH_MAX, POWER_LIMIT
from telemetryd.host import Host
from telemetryd.metric import Point

T = TypeVar("T")

# nvmlClockType_t
CLOCKS = {"graphics": 0, "sm": 1, "memory": 2, "video": 3}
_ARCHITECTURES = {
    2: "Kepler", 3: "Maxwell", 4: "Pascal", 5: "Volta", 6: "Turing", 7: "Ampere", 8: "Ada",
    9: "Hopper", 10: "Blackwell", 13: "Rubin",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a GPU is. `facts` are its points that never change; the compute capability is (0, 0)
    where the driver does not tell."""

    gpu: str
    uuid: str
    pci: str
    compute_capability: tuple[int, int]
    facts: tuple[Point, ...]

    @property
    def labels(self) -> tuple[str, str]:
        return self.gpu, self.uuid


def handle_of(driver: Driver, index: int) -> c_void_p:
    """The handle of the GPU with this index. Raises NvmlError."""
    handle = c_void_p()
    driver.call("nvmlDeviceGetHandleByIndex_v2", index, byref(handle))
    return handle


def identify(driver: Driver, host: Host, handle: c_void_p, index: int) -> Identity:
    """Raises NvmlError if the GPU is gone, or does not even tell its UUID."""
    gpu = str(index)
    uuid = driver.text("nvmlDeviceGetUUID", handle)
    pci = _pci(driver, handle)

    def number(name: str, *arguments: object) -> int | None:
        return _if_known(lambda: driver.number(name, handle, *arguments))

    minor = number("nvmlDeviceGetMinorNumber")
    info = INFO.at(
        gpu,
        uuid,
        str(index),
        "nvidia",
        _if_known(lambda: driver.text("nvmlDeviceGetName", handle)) or "",
        _ARCHITECTURES.get(number("nvmlDeviceGetArchitecture") or 0, ""),
        pci,
        _if_known(lambda: driver.text("nvmlDeviceGetSerial", handle)) or "",
        "" if minor is None else str(minor),
        _numa_node(host, pci),
    )
    facts: list[Point] = [(info, 1)]
    for name, clock in CLOCKS.items():
        if (mhz := number("nvmlDeviceGetMaxClockInfo", clock)) is not None:
            facts.append((CLOCK_MAX.at(gpu, uuid, name), mhz * 1_000_000))
    if (generation := number("nvmlDeviceGetMaxPcieLinkGeneration")) is not None:
        facts.append((PCIE_GENERATION_MAX.at(gpu, uuid), generation))
    if (width := number("nvmlDeviceGetMaxPcieLinkWidth")) is not None:
        facts.append((PCIE_WIDTH_MAX.at(gpu, uuid), width))
    if (default_mw := number("nvmlDeviceGetPowerManagementDefaultLimit")) is not None:
        facts.append((POWER_LIMIT.at(gpu, uuid, "default"), default_mw / 1000))
    facts.extend(_limits(driver, handle, gpu, uuid))
    return Identity(gpu, uuid, pci, _compute_capability(driver, handle), tuple(facts))


def _compute_capability(driver: Driver, handle: c_void_p) -> tuple[int, int]:
    major, minor = c_int(), c_int()
    try:
        driver.call("nvmlDeviceGetCudaComputeCapability", handle, byref(major), byref(minor))
    except NvmlError as code:
        if code.is_lifecycle:
            raise
    return major.value, minor.value


def _limits(driver: Driver, handle: c_void_p, gpu: str, uuid: str) -> list[Point]:
    least, most = c_uint(), c_uint()
    try:
        driver.call(
            "nvmlDeviceGetPowerManagementLimitConstraints", handle, byref(least), byref(most)
        )
    except NvmlError as code:
        if code.is_lifecycle:
            raise
        return []
    return [
        (POWER_LIMIT.at(gpu, uuid, "min"), least.value / 1000),
        (POWER_LIMIT.at(gpu, uuid, "max"), most.value / 1000),
    ]


def _pci(driver: Driver, handle: c_void_p) -> str:
    """The PCI address as the kernel writes it; empty where it is not known. A GPU is always
    function 0 of its device."""
    info = driver.nvml.nvmlPciInfo_t()
    try:
        driver.call("nvmlDeviceGetPciInfo_v3", handle, byref(info))
    except NvmlError as code:
        if code.is_lifecycle:
            raise
        return ""
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"


def _numa_node(host: Host, pci: str) -> str:
    """The kernel's -1 stands for no NUMA node."""
    if not pci:
        return ""
    try:
        node = host.text(host.sys("bus/pci/devices", pci, "numa_node"))
    except OSError:
        return ""
    return "" if node == "-1" else node


def _if_known(call: Callable[[], T]) -> T | None:
    """What the call gives; None where this GPU or driver does not tell. Raises NvmlError if the GPU
    is gone."""
    try:
        return call()
    except NvmlError as code:
        if code.is_lifecycle:
            raise
        return None

"""What changes seldom, every 30 s: ECC, rows and pages of memory, PCIe errors, modes."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import byref, c_uint, c_void_p

from telemetryd.collectors.gpu_nvidia.driver import OK, Driver
from telemetryd.collectors.gpu_nvidia.families import (
    ECC_ENABLED,
    PCIE_ERRORS,
    PCIE_ROLLOVERS,
    PERSISTENCE,
    POWER_PROFILE,
    RECOVERY_ACTION,
    REMAP_FAILED,
    REMAP_PENDING,
    REMAPPED_ROWS,
    RETIRED_PAGES,
    RETIREMENT_PENDING,
)
from telemetryd.collectors.gpu_nvidia.fields import Field
from telemetryd.collectors.gpu_nvidia.identity import Identity
from telemetryd.collectors.gpu_nvidia.reading import Read, Reading, number
from telemetryd.gpus import ECC_ERRORS, PCIE_REPLAYS
from telemetryd.metric import Point

_ECC = {
    ("corrected", "volatile"): 3,
    ("uncorrected", "volatile"): 4,
    ("corrected", "aggregate"): 5,
    ("uncorrected", "aggregate"): 6,
}
_PCIE_ERRORS = {
    "correctable": 173,
    "nak_received": 174,
    "receiver": 175,
    "bad_tlp": 176,
    "nak_sent": 177,
    "bad_dllp": 178,
    "non_fatal": 179,
    "fatal": 180,
    "unsupported_request": 181,
    "lcrc": 182,
    "lane": 183,
}


def fields(identity: Identity) -> Iterator[Field]:
    """Everything that comes as a field value."""
    labels = identity.labels
    for kinds, field in _ECC.items():
        yield Field(f"ECC errors ({' '.join(kinds)})", field, (ECC_ERRORS.at(*labels, *kinds),))
    for field, errors in ((142, "correctable"), (143, "uncorrectable")):
        yield Field(f"remapped rows ({errors})", field, (REMAPPED_ROWS.at(*labels, errors),))
    yield Field("row remapping pending", 144, (REMAP_PENDING.at(*labels),))
    yield Field("row remapping failed", 145, (REMAP_FAILED.at(*labels),))
    for field, errors in ((29, "single_bit"), (30, "double_bit")):
        yield Field(f"retired pages ({errors})", field, (RETIRED_PAGES.at(*labels, errors),))
    yield Field("page retirement pending", 31, (RETIREMENT_PENDING.at(*labels),))
    yield Field("recovery action", 230, (RECOVERY_ACTION.at(*labels),))
    yield Field("PCIe replays", 94, (PCIE_REPLAYS.at(*labels),))
    yield Field("PCIe replay rollovers", 95, (PCIE_ROLLOVERS.at(*labels),))
    for kind, field in _PCIE_ERRORS.items():
        yield Field(f"PCIe errors ({kind})", field, (PCIE_ERRORS.at(*labels, kind),))


def readings(driver: Driver, handle: c_void_p, identity: Identity) -> Iterator[Reading]:
    """Everything that takes a call of its own."""
    labels = identity.labels
    persistence = PERSISTENCE.at(*labels)
    read = number(driver, "nvmlDeviceGetPersistenceMode", handle, to=persistence)
    yield Reading("persistence mode", read)
    yield Reading("ECC mode", _ecc_mode(driver, handle, labels))
    yield Reading("power profiles", _power_profiles(driver, handle, labels))


def _ecc_mode(driver: Driver, handle: c_void_p, labels: tuple[str, str]) -> Read | None:
    function = driver.function("nvmlDeviceGetEccMode")
    if function is None:
        return None
    now, after_reboot = c_uint(), c_uint()
    arguments = (handle, byref(now), byref(after_reboot))
    to = ECC_ENABLED.at(*labels)

    def read(points: list[Point]) -> int:
        code = function(*arguments)
        if code == OK:
            points.append((to, now.value))
        return code

    return read


def _power_profiles(driver: Driver, handle: c_void_p, labels: tuple[str, str]) -> Read | None:
    """The structure has three masks of 256 bits: possible, requested, enforced."""
    name = "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles"
    function = driver.function(name)
    if function is None:
        return None
    structure = driver.nvml.c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t()
    arguments = (handle, byref(structure))

    def read(points: list[Point]) -> int:
        code = function(*arguments)
        if code == OK:
            mask = structure.enforcedProfilesMask.mask
            points += [
                (POWER_PROFILE.at(*labels, str(32 * word + bit)), 1)
                for word, bits in enumerate(mask)
                for bit in range(32)
                if bits >> bit & 1
            ]
        return code

    return read

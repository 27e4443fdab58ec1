"""The fake driver library, through the real binding: GPUs and their readings."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from fakes.nvml.calls import code, field, gpu, two_h100
from fakes.nvml.models import ALL_LINKS, MIB
from support.nvml import FakeNvml


def other_model(folder: Path, model: str) -> FakeNvml:
    return FakeNvml(folder, gpus=1, model=model)


@pytest.fixture
def fake(tmp_path) -> Iterator[FakeNvml]:
    with two_h100(tmp_path) as made:
        yield made


# --- GPUs ---------------------------------------------------------------------------------------


def test_handles_are_found_by_index_and_uuid(fake):
    assert pynvml.nvmlDeviceGetCount() == 2
    uuid = pynvml.nvmlDeviceGetUUID(gpu(1))
    found = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    assert pynvml.nvmlDeviceGetIndex(found) == 1
    assert code(gpu, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code(pynvml.nvmlDeviceGetHandleByUUID, "GPU-0") == pynvml.NVML_ERROR_NOT_FOUND


def test_facts_of_an_h100(fake):
    handle = gpu(1)
    pci = pynvml.nvmlDeviceGetPciInfo(handle)
    assert pynvml.nvmlDeviceGetName(handle) == "NVIDIA H100 80GB HBM3"
    assert pynvml.nvmlDeviceGetSerial(handle) == "1650000000001"
    assert pynvml.nvmlDeviceGetVbiosVersion(handle) == "96.00.A5.00.01"
    assert pynvml.nvmlDeviceGetBoardPartNumber(handle) == "692-2G520-0200-000"
    assert (pci.busId, pci.bus, pci.pciDeviceId) == ("00000000:2B:00.0", 0x2B, 0x233010DE)
    assert pynvml.nvmlDeviceGetMinorNumber(handle) == 1
    assert pynvml.nvmlDeviceGetArchitecture(handle) == pynvml.NVML_DEVICE_ARCH_HOPPER
    assert pynvml.nvmlDeviceGetBrand(handle) == pynvml.NVML_BRAND_NVIDIA
    assert pynvml.nvmlDeviceGetCudaComputeCapability(handle) == (9, 0)
    assert pynvml.nvmlDeviceGetNumaNodeId(handle) == 0
    assert pynvml.nvmlDeviceGetPersistenceMode(handle) == 1
    assert pynvml.nvmlDeviceGetComputeMode(handle) == 0
    assert pynvml.nvmlDeviceGetPerformanceState(handle) == 0


def test_a_text_can_hold_bytes_that_are_no_utf8(fake):
    fake.gpu(0, serial=r"16\xff\\5")
    with pytest.raises(UnicodeDecodeError):
        pynvml.nvmlDeviceGetSerial(gpu())
    text = ctypes.create_string_buffer(30)
    assert fake.so.nvmlDeviceGetSerial(gpu(), text, 30) == 0
    assert text.value == b"16\xff\\5"
    assert fake.so.nvmlDeviceGetSerial(gpu(), text, 3) == pynvml.NVML_ERROR_INSUFFICIENT_SIZE


@pytest.mark.parametrize(
    ("model", "memory_mib", "links", "ecc", "gpm"),
    [
        ("H200", 143771, 18, 0, 1),
        ("A100", 81920, 12, 0, 0),
        ("GH200", 97871, 18, 0, 1),
        ("L40S", 46068, 0, 0, 0),
        ("RTX2080S", 8192, 0, pynvml.NVML_ERROR_NOT_SUPPORTED, 0),
    ],
)
def test_other_models_have_what_they_have(tmp_path, model, memory_mib, links, ecc, gpm):
    with other_model(tmp_path, model).bound():
        pynvml.nvmlInit()
        handle = gpu()
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).total == memory_mib * MIB
        assert field(handle, pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT).value.uiVal == links
        assert code(pynvml.nvmlDeviceGetEccMode, handle) == ecc
        assert pynvml.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice == gpm
        assert pynvml.nvmlDeviceGetPowerUsage(handle) > 0


def test_a_card_for_desktops_has_fans_and_no_serial_number(tmp_path):
    with other_model(tmp_path, "RTX2080S").bound():
        pynvml.nvmlInit()
        handle = gpu()
        assert pynvml.nvmlDeviceGetNumFans(handle) == 2
        assert pynvml.nvmlDeviceGetFanSpeed(handle) == 38
        assert pynvml.nvmlDeviceGetFanSpeed_v2(handle, 1) == 38
        assert code(pynvml.nvmlDeviceGetFanSpeed_v2, handle, 2) == (
            pynvml.NVML_ERROR_INVALID_ARGUMENT
        )
        assert code(pynvml.nvmlDeviceGetSerial, handle) == pynvml.NVML_ERROR_NOT_SUPPORTED
        assert pynvml.nvmlDeviceGetCurrPcieLinkGeneration(handle) == 1
        assert pynvml.nvmlDeviceGetMaxPcieLinkGeneration(handle) == 3


# --- readings -----------------------------------------------------------------------------------


def test_idle_and_busy_are_as_a_real_h100_was(fake):
    fake.busy(1)
    idle, busy = gpu(0), gpu(1)
    assert pynvml.nvmlDeviceGetPowerUsage(idle) == 69850
    assert pynvml.nvmlDeviceGetPowerUsage(busy) == 629450
    assert field(busy, pynvml.NVML_FI_DEV_POWER_AVERAGE).value.uiVal == 629450
    assert field(busy, pynvml.NVML_FI_DEV_POWER_INSTANT).value.uiVal == 588390
    assert pynvml.nvmlDeviceGetUtilizationRates(busy).gpu == 100
    assert pynvml.nvmlDeviceGetUtilizationRates(busy).memory == 11
    assert pynvml.nvmlDeviceGetClockInfo(idle, pynvml.NVML_CLOCK_SM) == 345
    assert pynvml.nvmlDeviceGetMaxClockInfo(idle, pynvml.NVML_CLOCK_SM) == 1980
    assert pynvml.nvmlDeviceGetTemperature(busy, 0) == 59
    assert pynvml.nvmlDeviceGetTemperatureV(busy, 0) == 59
    assert pynvml.nvmlDeviceGetMarginTemperature(busy) == 26
    assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(idle) == 1
    assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(busy) == 0
    assert pynvml.nvmlDeviceGetSupportedClocksEventReasons(busy) == 0x1FF
    assert code(pynvml.nvmlDeviceGetTemperature, busy, 1) == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_limits_of_power(fake):
    handle = gpu()
    assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 700000
    assert pynvml.nvmlDeviceGetPowerManagementLimit(handle) == 700000
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) == 700000
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [200000, 700000]


def test_the_old_memory_call_counts_what_is_reserved_as_used(fake):
    fake.busy(0)
    old = pynvml.nvmlDeviceGetMemoryInfo(gpu())
    new = pynvml.nvmlDeviceGetMemoryInfo(gpu(), version=pynvml.nvmlMemory_v2)
    assert new.total == new.reserved + new.used + new.free == old.total
    assert (new.reserved // MIB, new.used // MIB) == (479, 19818)
    assert old.used == new.used + new.reserved
    assert code(pynvml.nvmlDeviceGetMemoryInfo, gpu(), 1) == (
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
    )
    assert pynvml.nvmlDeviceGetBAR1MemoryInfo(gpu()).bar1Used == 19819 * MIB


def test_engines_of_the_video_codecs(fake):
    fake.gpu(0, util_enc=7, util_dec=8, util_jpg=9, util_ofa=10)
    answers = [
        pynvml.nvmlDeviceGetEncoderUtilization(gpu()),
        pynvml.nvmlDeviceGetDecoderUtilization(gpu()),
        pynvml.nvmlDeviceGetJpgUtilization(gpu()),
        pynvml.nvmlDeviceGetOfaUtilization(gpu()),
    ]
    assert answers == [[7, 167000], [8, 167000], [9, 167000], [10, 167000]]


def test_health_of_link_and_memory(fake):
    handle = gpu()
    fake.gpu(0, {"pcie_replay": 9, "ecc.1.0": 2, "remap.unc": 1, "remap.pending": 1})
    assert pynvml.nvmlDeviceGetCurrPcieLinkGeneration(handle) == 5
    assert pynvml.nvmlDeviceGetGpuMaxPcieLinkGeneration(handle) == 5
    assert pynvml.nvmlDeviceGetCurrPcieLinkWidth(handle) == 16
    assert pynvml.nvmlDeviceGetMaxPcieLinkWidth(handle) == 16
    assert pynvml.nvmlDeviceGetPcieReplayCounter(handle) == 9
    assert pynvml.nvmlDeviceGetEccMode(handle) == [1, 1]
    assert pynvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0) == 2
    assert field(handle, pynvml.NVML_FI_DEV_ECC_DBE_VOL_TOTAL).value.ullVal == 2
    assert pynvml.nvmlDeviceGetRemappedRows(handle) == (0, 1, 1, 0)


def test_pcie_throughput_takes_as_long_as_the_driver_measures(fake):
    start = time.monotonic()
    assert pynvml.nvmlDeviceGetPcieThroughput(gpu(), pynvml.NVML_PCIE_UTIL_RX_BYTES) == 329
    assert time.monotonic() - start >= 0.02


# --- time ---------------------------------------------------------------------------------------


def test_energy_is_the_integral_of_power_on_a_clock_that_stands(fake):
    handle = gpu()
    start = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    fake.advance(10)
    fake.busy(0)
    fake.advance(100)
    used = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - start
    assert used == pytest.approx(10 * 69850 + 100 * 629450, abs=1)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - start == used


def test_counters_grow_with_real_time_unless_the_clock_stands(fake):
    handle = gpu()
    fake.run_clock()
    fake.rate(0, "energy_mj", 1e9)
    before = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    time.sleep(0.002)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before >= 2_000_000


def test_a_rate_without_a_time_counts_from_when_the_driver_was_loaded(fake):
    fake.gpu(0, {"fi.269": "5+1000"})
    fake.advance(3)
    assert field(gpu(), 269).value.ullVal == 3005


# --- fields -------------------------------------------------------------------------------------


def test_each_field_has_its_own_type_scope_and_error(fake):
    fake.gpu(0, {"fi.186.ret": 999, "fi.82.type": 0, f"fi.138.{ALL_LINKS}": 2**40})
    ids = [83, 186, 82, 193, (185, 2), (185, 1), (138, ALL_LINKS), (164, 17), (164, 18), 5000]
    values = pynvml.nvmlDeviceGetFieldValues(gpu(), ids)
    assert [value.nvmlReturn for value in values] == [0, 999, 0, 0, 0, 3, 0, 0, 3, 2]
    assert values[0].valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
    assert (values[2].valueType, values[2].value.dVal) == (pynvml.NVML_VALUE_TYPE_DOUBLE, 48.0)
    assert (values[3].valueType, values[3].value.siVal) == (pynvml.NVML_VALUE_TYPE_SIGNED_INT, -8)
    assert values[4].value.uiVal == 43190
    assert values[6].value.ullVal == 2**40
    assert values[7].value.uiVal == 26562
    assert {value.timestamp for value in values} == {int(fake.seconds * 1e6)}


def test_power_of_the_module_has_its_own_scope(tmp_path):
    with other_model(tmp_path, "GH200").bound():
        pynvml.nvmlInit()
        assert field(gpu(), 185, pynvml.NVML_POWER_SCOPE_MODULE).value.uiVal == 187420
        assert field(gpu(), 185, pynvml.NVML_POWER_SCOPE_GPU).value.uiVal == 92110


# --- NVLink, fabric, profiles -------------------------------------------------------------------


def test_links_that_do_not_exist_are_an_invalid_argument(fake):
    fake.gpu(0, {"nvlink.3.state": 0})
    states = [pynvml.nvmlDeviceGetNvLinkState(gpu(), link) for link in range(18)]
    assert states == [1, 1, 1, 0, *[1] * 14]
    assert pynvml.nvmlDeviceGetNvLinkVersion(gpu(), 0) == 4
    assert code(pynvml.nvmlDeviceGetNvLinkState, gpu(), 18) == 2


def test_the_fabric_in_three_layouts(fake):
    fake.gpu(0, fabric_uuid="ab" * 16, fabric_clique=7, fabric_health=0x1, fabric_summary=2)
    first = pynvml.c_nvmlGpuFabricInfo_t()
    second, third = pynvml.c_nvmlGpuFabricInfo_v2_t(), pynvml.c_nvmlGpuFabricInfo_v3_t()
    pynvml.nvmlDeviceGetGpuFabricInfo(gpu(), ctypes.byref(first))
    pynvml.nvmlDeviceGetGpuFabricInfoV(gpu(), ctypes.byref(second))
    pynvml.nvmlDeviceGetGpuFabricInfoV(gpu(), ctypes.byref(third))
    for fabric in (first, second, third):
        assert (bytes(fabric.clusterUuid), fabric.cliqueId) == (b"\xab" * 16, 7)
        assert (fabric.state, fabric.status) == (pynvml.NVML_GPU_FABRIC_STATE_COMPLETED, 0)
    assert second.healthMask == third.healthMask == 1
    assert third.healthSummary == pynvml.NVML_GPU_FABRIC_HEALTH_SUMMARY_UNHEALTHY
    third.version = 9
    assert code(pynvml.nvmlDeviceGetGpuFabricInfoV, gpu(), ctypes.byref(third)) == 25


def test_power_profiles_where_there_are_any(fake):
    profiles = pynvml.c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t()
    read = pynvml.nvmlDeviceWorkloadPowerProfileGetCurrentProfiles
    assert code(read, gpu(), ctypes.byref(profiles)) == pynvml.NVML_ERROR_NOT_SUPPORTED
    fake.gpu(0, profiles_enforced=0x5)
    read(gpu(), ctypes.byref(profiles))
    assert profiles.enforcedProfilesMask.mask[0] == 5

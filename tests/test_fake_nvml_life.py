"""The fake driver library: its life from init to shutdown, and all that can go wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from fakes.nvml.calls import code, field, gpu, two_h100
from fakes.nvml.models import MIB
from support.nvml import FakeNvml

CAPTURE = (
    Path(__file__).parent.parent.parent
    / "shared/data/nvidia-smi-captures/linux-x86_64__nvidia-h100-80gb-hbm3__590.48.01.txt"
)


@pytest.fixture
def fake(tmp_path) -> Iterator[FakeNvml]:
    with two_h100(tmp_path) as made:
        yield made


# --- the library and its life -------------------------------------------------------------------


def test_versions_are_those_of_the_driver(fake):
    assert pynvml.nvmlSystemGetDriverVersion() == "590.48.01"
    assert pynvml.nvmlSystemGetNVMLVersion() == "13.590.48.01"
    assert pynvml.nvmlSystemGetCudaDriverVersion_v2() == 13010
    assert pynvml.nvmlErrorString(15) == "GPU is lost"


def test_after_the_last_shutdown_every_call_is_uninitialized(fake):
    handle = gpu()
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetCount() == 2
    pynvml.nvmlShutdown()
    assert code(pynvml.nvmlDeviceGetCount) == pynvml.NVML_ERROR_UNINITIALIZED
    assert code(pynvml.nvmlDeviceGetPowerUsage, handle) == pynvml.NVML_ERROR_UNINITIALIZED
    assert code(pynvml.nvmlShutdown) == pynvml.NVML_ERROR_UNINITIALIZED
    assert fake.misuse == 0


def test_a_handle_kept_over_a_shutdown_is_misuse(fake):
    handle = gpu()
    pynvml.nvmlShutdown()
    pynvml.nvmlInit()
    assert code(pynvml.nvmlDeviceGetPowerUsage, handle) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert fake.misuse == 1


def test_init_fails_as_the_state_says(fake):
    pynvml.nvmlShutdown()
    fake.set({"init.ret": pynvml.NVML_ERROR_DRIVER_NOT_LOADED})
    assert code(pynvml.nvmlInit) == pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    fake.set({"init.ret": None, "kernel.version": "590.99"})
    assert code(pynvml.nvmlInit) == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    fake.set({"kernel.version": "590.48.01"})
    assert code(pynvml.nvmlInit) == 0


def test_a_reloaded_driver_answers_only_after_a_full_shutdown_and_counts_anew(fake):
    handle = gpu()
    before = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    fake.reload_driver()
    assert code(pynvml.nvmlDeviceGetPowerUsage, handle) == pynvml.NVML_ERROR_UNINITIALIZED
    assert code(pynvml.nvmlDeviceGetCount) == pynvml.NVML_ERROR_UNINITIALIZED
    pynvml.nvmlShutdown()
    pynvml.nvmlInit()
    fake.advance(1)
    after = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu())
    assert after == pytest.approx(69850, abs=1)
    assert after < before


def test_another_process_sees_the_same_state_without_any_environment(fake):
    fake.gpu(1, temp=77)
    script = (
        "import ctypes, sys, pynvml as n; n.nvmlLib = ctypes.CDLL(sys.argv[1]); n.nvmlInit();"
        "print(n.nvmlDeviceGetTemperature(n.nvmlDeviceGetHandleByIndex(1), 0))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(fake.library)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "77\n"


def test_the_state_file_can_be_named_in_the_environment(tmp_path, monkeypatch):
    fake = FakeNvml(tmp_path, gpus=3)
    elsewhere = tmp_path / "elsewhere"
    fake.state_file.rename(elsewhere)
    monkeypatch.setenv("FAKE_NVML_STATE", str(elsewhere))
    with fake.bound():
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetCount() == 3


def test_a_state_that_is_no_number_is_not_passed_over(fake):
    fake.gpu(0, temp="hot")
    assert code(pynvml.nvmlDeviceGetTemperature, gpu(), 0) == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert fake.misuse == 1


def test_calls_and_their_cpu_time_are_counted(fake):
    handle = gpu()
    calls, busy, start = fake.calls, fake.busy_ns, time.thread_time_ns()
    for _ in range(200):
        pynvml.nvmlDeviceGetPowerUsage(handle)
    all_ns = time.thread_time_ns() - start
    assert fake.calls - calls == 200
    assert 0 < fake.busy_ns - busy < all_ns
    assert fake.call_counts()["nvmlDeviceGetPowerUsage"] == 200


def test_every_exported_function_is_one_of_a_real_driver(fake):
    if not CAPTURE.exists():
        pytest.skip("no capture of a real driver here")
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", fake.library], capture_output=True, text=True, check=True
    ).stdout
    exported = set(re.findall(r"\bnvml\w+", symbols))
    real = set(re.findall(r"^nvml\w+$", CAPTURE.read_text(), re.MULTILINE))
    assert len(exported) > 70
    assert exported <= real


# --- what goes wrong ----------------------------------------------------------------------------


def test_an_error_is_of_one_function_on_one_gpu_or_everywhere(fake):
    both = gpu(0), gpu(1)
    power = pynvml.nvmlDeviceGetPowerUsage
    fake.error("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_NO_PERMISSION, gpu=0)
    assert [code(power, handle) for handle in both] == [4, 0]
    assert code(pynvml.nvmlDeviceGetTemperature, both[0], 0) == 0
    fake.error("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_UNKNOWN)
    assert [code(power, handle) for handle in both] == [4, 999]
    fake.clear_error("nvmlDeviceGetPowerUsage", gpu=0)
    fake.clear_error("nvmlDeviceGetPowerUsage")
    assert [code(power, handle) for handle in both] == [0, 0]
    fake.error(None, pynvml.NVML_ERROR_RESET_REQUIRED, gpu=1)
    assert code(power, both[1]) == code(pynvml.nvmlDeviceGetMigMode, both[1]) == 16


def test_what_is_absent_is_not_supported(fake):
    fake.remove_from(0, "energy_mj", "temp_margin")
    assert code(pynvml.nvmlDeviceGetTotalEnergyConsumption, gpu()) == 3
    assert code(pynvml.nvmlDeviceGetMarginTemperature, gpu()) == 3
    assert field(gpu(), pynvml.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION).nvmlReturn == 3


def test_a_lost_gpu_answers_so_on_every_call_and_the_others_go_on(fake):
    lost, well = gpu(0), gpu(1)
    uuid = pynvml.nvmlDeviceGetUUID(lost)
    fake.lose(0)
    calls = [
        (pynvml.nvmlDeviceGetPowerUsage, lost),
        (pynvml.nvmlDeviceGetFieldValues, lost, [83]),
        (pynvml.nvmlDeviceGetName, lost),
        (pynvml.nvmlDeviceGetHandleByIndex, 0),
        (pynvml.nvmlDeviceGetHandleByUUID, uuid),
    ]
    assert {code(*call) for call in calls} == {pynvml.NVML_ERROR_GPU_IS_LOST}
    assert code(pynvml.nvmlDeviceGetPowerUsage, well) == 0
    assert pynvml.nvmlDeviceGetCount() == 2
    fake.find(0)
    assert code(pynvml.nvmlDeviceGetPowerUsage, lost) == 0


def test_a_call_that_hangs_goes_on_when_it_is_released(fake):
    answers: list[int] = []
    stuck, well = gpu(0), gpu(1)
    fake.hang("nvmlDeviceGetPowerUsage", gpu=0)
    thread = threading.Thread(
        target=lambda: answers.append(pynvml.nvmlDeviceGetPowerUsage(stuck)), daemon=True
    )
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert pynvml.nvmlDeviceGetPowerUsage(well) == 69850
    fake.gpu(0, power_average_mw=1)
    thread.join(0.05)
    assert thread.is_alive()
    fake.release()
    thread.join(10)
    assert answers == [1]


def test_all_calls_of_a_gpu_can_hang_and_be_slow(fake):
    stuck = gpu(0)
    fake.hang(gpu=0)
    thread = threading.Thread(target=lambda: code(pynvml.nvmlDeviceGetName, stuck), daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    fake.release()
    thread.join(10)
    assert not thread.is_alive()
    fake.delay("nvmlDeviceGetName", 0.03, gpu=0)
    start = time.monotonic()
    pynvml.nvmlDeviceGetName(stuck)
    assert time.monotonic() - start >= 0.03


def test_a_shutdown_in_the_midst_of_a_call_is_misuse(fake):
    stuck = gpu(0)
    fake.hang("nvmlDeviceGetPowerUsage")
    thread = threading.Thread(
        target=lambda: code(pynvml.nvmlDeviceGetPowerUsage, stuck), daemon=True
    )
    calls = fake.calls
    thread.start()
    while fake.calls == calls:
        time.sleep(0.001)
    pynvml.nvmlShutdown()
    assert fake.misuse == 1
    fake.release()
    thread.join(10)


def test_an_old_driver_lacks_what_came_after_it(tmp_path):
    with FakeNvml(tmp_path, gpus=1, model="A100", old_driver=True).bound():
        pynvml.nvmlInit()
        handle = gpu()
        assert pynvml.nvmlSystemGetDriverVersion() == "470.256.02"
        assert pynvml.nvmlSystemGetNVMLVersion() == "11.470.256.02"
        missing = [
            (pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2),
            (pynvml.nvmlDeviceGetTemperatureV, handle, 0),
            (pynvml.nvmlDeviceGetMarginTemperature, handle),
            (pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle),
            (pynvml.nvmlDeviceGetComputeRunningProcesses_v3, handle),
            (pynvml.nvmlGpmSampleAlloc,),
            (pynvml.nvmlGpmQueryDeviceSupport, handle),
            (pynvml.nvmlDeviceGetGpuFabricInfo, handle, None),
        ]
        assert {code(*call) for call in missing} == {pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
        with pytest.raises(pynvml.NVMLLibraryMismatchError):
            pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
        assert pynvml.nvmlDeviceGetComputeRunningProcesses_v2(handle) == []
        assert pynvml.nvmlDeviceGetMigMode(handle) == [0, 0]
        assert pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle) == 1
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).total == 81920 * MIB
        assert field(handle, 83).nvmlReturn == 0
        assert field(handle, 186).nvmlReturn == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_a_library_can_lack_any_function(tmp_path):
    with FakeNvml(tmp_path, gpus=1, without=["nvmlDeviceGetTemperatureV"]).bound():
        pynvml.nvmlInit()
        assert code(pynvml.nvmlDeviceGetTemperatureV, gpu(), 0) == (
            pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
        )
        assert pynvml.nvmlDeviceGetTemperature(gpu(), 0) == 41

"""The fake driver library: who shares a GPU, and what part of it: processes, MIG, GPM, events."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pynvml
import pytest
from fakes.nvml.calls import code, field, gpu, two_h100
from fakes.nvml.models import MIB
from support.nvml import FakeNvml, Process


@pytest.fixture
def fake(tmp_path) -> Iterator[FakeNvml]:
    with two_h100(tmp_path) as made:
        yield made


# --- processes ----------------------------------------------------------------------------------


def test_processes_are_listed_with_their_memory_and_names(fake):
    fake.processes(
        0,
        Process(10, 5 * MIB, "/usr/bin/train"),
        Process(11, 2**64 - 1),
        Process(12, MIB, kind="G"),
        Process(13, MIB, kind="M"),
    )
    compute = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu())
    assert [(p.pid, p.usedGpuMemory) for p in compute] == [(10, 5 * MIB), (11, None)]
    assert compute[0].gpuInstanceId == 0xFFFFFFFF
    graphics = pynvml.nvmlDeviceGetGraphicsRunningProcesses(gpu())
    assert [p.pid for p in graphics] == [12]
    assert [p.pid for p in pynvml.nvmlDeviceGetMPSComputeRunningProcesses(gpu())] == [13]
    assert pynvml.nvmlSystemGetProcessName(10) == "/usr/bin/train"
    assert code(pynvml.nvmlSystemGetProcessName, 11) == pynvml.NVML_ERROR_NOT_FOUND
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(gpu(1)) == []


def test_a_list_that_is_too_small_is_refused_with_the_number_needed(fake):
    fake.processes(0, Process(10, MIB), Process(11, MIB), Process(12, MIB))
    count = ctypes.c_uint(2)
    room = (pynvml.c_nvmlProcessInfo_v2_t * 2)()
    answer = fake.so.nvmlDeviceGetComputeRunningProcesses_v3(gpu(), ctypes.byref(count), room)
    assert (answer, count.value) == (pynvml.NVML_ERROR_INSUFFICIENT_SIZE, 3)


def test_samples_of_processes_are_those_since_the_last_seen(fake):
    fake.processes(0, Process(10, MIB, sm=90), Process(11, MIB))
    (sample,) = pynvml.nvmlDeviceGetProcessUtilization(gpu(), 0)
    assert (sample.pid, sample.smUtil) == (10, 90)
    assert sample.timeStamp == int(fake.seconds * 1e6)
    seen = sample.timeStamp
    assert code(pynvml.nvmlDeviceGetProcessUtilization, gpu(), seen) == (
        pynvml.NVML_ERROR_NOT_FOUND
    )
    fake.advance(1)
    (sample,) = pynvml.nvmlDeviceGetProcessUtilization(gpu(), seen)
    assert sample.timeStamp == seen + 1_000_000


def test_no_sample_at_all_can_be_a_success_without_one(fake):
    fake.gpu(0, putil_none_ret=0)
    with pytest.raises(pynvml.NVMLError) as raised:
        pynvml.nvmlDeviceGetProcessUtilization(gpu(), 0)
    assert raised.value.value == 0


# --- GPM ----------------------------------------------------------------------------------------


def metrics(earlier, later, *ids: int):
    get = pynvml.c_nvmlGpmMetricsGet_t()
    get.version = pynvml.NVML_GPM_METRICS_GET_VERSION
    get.numMetrics = len(ids)
    get.sample1, get.sample2 = earlier, later
    for i, metric in enumerate(ids):
        get.metrics[i].metricId = metric
    pynvml.nvmlGpmMetricsGet(get)
    return get.metrics


def sample(handle):
    taken = pynvml.nvmlGpmSampleAlloc()
    return pynvml.nvmlGpmSampleGet(handle, taken)


def test_metrics_are_those_between_two_samples(fake):
    fake.busy(0)
    earlier = sample(gpu())
    fake.advance(1)
    later = sample(gpu())
    fake.idle(0)  # what comes after the second sample is none of its business
    values = metrics(earlier, later, 2, 5, 99)
    assert (values[0].value, values[1].value) == (98.9, 71.2)
    assert values[2].nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert fake.gpm_samples == 2
    pynvml.nvmlGpmSampleFree(earlier)
    pynvml.nvmlGpmSampleFree(later)
    assert fake.gpm_samples == fake.misuse == 0


def test_samples_that_do_not_belong_together_give_no_metrics(fake):
    first, other = sample(gpu(0)), sample(gpu(1))
    fake.advance(0.05)
    soon = sample(gpu(0))
    fake.advance(1)
    later, empty = sample(gpu(0)), pynvml.nvmlGpmSampleAlloc()
    assert code(metrics, first, later, 2) == 0
    assert code(metrics, first, soon, 2) == pynvml.NVML_ERROR_NO_DATA
    assert code(metrics, later, first, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code(metrics, other, later, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code(metrics, empty, later, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert fake.misuse == 0
    pynvml.nvmlGpmSampleFree(first)
    assert code(metrics, first, later, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code(pynvml.nvmlGpmSampleFree, first) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert fake.misuse == 2
    for each in (other, soon, later, empty):
        pynvml.nvmlGpmSampleFree(each)


def test_samples_left_at_a_shutdown_are_misuse(fake):
    left = sample(gpu())
    pynvml.nvmlShutdown()
    assert (fake.misuse, fake.gpm_samples) == (1, 1)
    pynvml.nvmlGpmSampleFree(left)
    assert fake.gpm_samples == 0


def test_gpm_is_where_the_gpu_has_it(fake, tmp_path):
    assert pynvml.nvmlGpmQueryDeviceSupport(gpu()).isSupportedDevice == 1
    assert pynvml.nvmlGpmQueryIfStreamingEnabled(gpu()) == 0
    fake.gpu(0, gpm=0)
    assert code(sample, gpu()) == pynvml.NVML_ERROR_NOT_SUPPORTED


# --- MIG ----------------------------------------------------------------------------------------

LAYOUT = ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]


def instances(handle) -> list:
    found = []
    for index in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
        except pynvml.NVMLError_NotFound:
            continue
    return found


def test_a_divided_gpu_has_devices_as_a_real_one_had(fake):
    fake.mig(0, LAYOUT)
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [1, 1]
    devices = instances(gpu())
    assert [pynvml.nvmlDeviceGetGpuInstanceId(each) for each in devices] == [2, 3, 9, 10]
    assert [pynvml.nvmlDeviceGetName(each) for each in devices[:2]] == [
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA H100 80GB HBM3 MIG 2g.20gb",
    ]
    memory = [
        pynvml.nvmlDeviceGetMemoryInfo(each, version=pynvml.nvmlMemory_v2).total // MIB
        for each in devices
    ]
    assert memory == [40448, 20096, 9984, 9984]
    attributes = pynvml.nvmlDeviceGetAttributes_v2(devices[0])
    assert (attributes.multiprocessorCount, attributes.memorySizeMB) == (60, 40448)
    assert (attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount) == (3, 3)
    assert pynvml.nvmlDeviceIsMigDeviceHandle(devices[0]).value == 1
    assert pynvml.nvmlDeviceIsMigDeviceHandle(gpu()).value == 0
    parent = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(devices[3])
    assert pynvml.nvmlDeviceGetIndex(parent) == 0
    uuid = pynvml.nvmlDeviceGetUUID(devices[1])
    assert uuid.startswith("MIG-")
    found = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    assert pynvml.nvmlDeviceGetGpuInstanceId(found) == 3


def test_compute_instances_share_the_memory_of_their_gpu_instance(fake):
    fake.mig(0, [("3g.40gb", ["1c", "2c"])])
    first, second = instances(gpu())
    assert pynvml.nvmlDeviceGetName(second) == "NVIDIA H100 80GB HBM3 MIG 2c.3g.40gb"
    assert pynvml.nvmlDeviceGetComputeInstanceId(second) == 1
    fake.gpu(0, {"gi.2.mem_used": 5 * MIB})
    used = [
        pynvml.nvmlDeviceGetMemoryInfo(each, version=pynvml.nvmlMemory_v2).used
        for each in (first, second)
    ]
    assert used == [5 * MIB, 5 * MIB]
    sms = [pynvml.nvmlDeviceGetAttributes(each).multiprocessorCount for each in (first, second)]
    assert sms == [20, 40]


def test_a_divided_gpu_does_not_tell_its_utilization(fake):
    handle = gpu()
    fake.processes(0, Process(1, MIB, sm=50))
    calls = [
        (pynvml.nvmlDeviceGetUtilizationRates, handle),
        (pynvml.nvmlDeviceGetEncoderUtilization, handle),
        (pynvml.nvmlDeviceGetDecoderUtilization, handle),
        (pynvml.nvmlDeviceGetRemappedRows, handle),
        (pynvml.nvmlDeviceGetNvLinkState, handle, 0),
        (pynvml.nvmlDeviceGetProcessUtilization, handle, 0),
    ]
    remapped = pynvml.NVML_FI_DEV_REMAPPED_UNC
    assert [code(*call) for call in calls] == [0] * len(calls)
    assert field(handle, remapped).nvmlReturn == 0
    fake.mig(0, LAYOUT)
    assert {code(*call) for call in calls} == {pynvml.NVML_ERROR_NOT_SUPPORTED}
    assert field(handle, remapped).nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
    assert field(handle, pynvml.NVML_FI_DEV_POWER_INSTANT).nvmlReturn == 0
    assert code(pynvml.nvmlDeviceGetPowerUsage, instances(handle)[0]) == 3


def test_metrics_of_one_gpu_instance(fake):
    fake.mig(0, LAYOUT)
    fake.gpu(0, {"gi.3.gpm.2": 42.5})
    earlier, later = pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()
    pynvml.nvmlGpmMigSampleGet(gpu(), 3, earlier)
    fake.advance(1)
    pynvml.nvmlGpmMigSampleGet(gpu(), 3, later)
    assert metrics(earlier, later, 2)[0].value == 42.5
    pynvml.nvmlGpmSampleGet(gpu(), earlier)
    assert code(metrics, earlier, later, 2) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code(pynvml.nvmlGpmMigSampleGet, gpu(), 5, later) == 2
    pynvml.nvmlGpmSampleFree(earlier)
    pynvml.nvmlGpmSampleFree(later)


def test_processes_belong_to_their_instance(fake):
    fake.mig(0, LAYOUT)
    fake.processes(0, Process(7, MIB, gi=2, ci=0), Process(8, MIB, gi=9, ci=0))
    listed = [
        [each.pid for each in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)]
        for handle in (gpu(), *instances(gpu()))
    ]
    assert listed == [[7, 8], [7], [], [8], []]


def test_handles_of_instances_that_are_gone_are_refused(fake):
    fake.mig(0, LAYOUT)
    old = instances(gpu())
    fake.mig(0, ["7g.80gb"])
    assert {code(pynvml.nvmlDeviceGetName, each) for each in old} == {2}
    assert code(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu(), 1) == 6
    assert len(instances(gpu())) == 1
    fake.mig(0, None)
    assert pynvml.nvmlDeviceGetMigMode(gpu()) == [0, 0]
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu()) == 0
    assert fake.misuse == 0

"""The fake driver library: events, and those who wait for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest
from fakes.nvml.calls import code, gpu, two_h100
from support.nvml import FakeNvml


@pytest.fixture
def fake(tmp_path) -> Iterator[FakeNvml]:
    with two_h100(tmp_path) as made:
        yield made


@pytest.fixture
def events(fake) -> Iterator:
    """An event set in which both GPUs report XIDs."""
    made = pynvml.nvmlEventSetCreate()
    for index in range(2):
        pynvml.nvmlDeviceRegisterEvents(gpu(index), pynvml.nvmlEventTypeXidCriticalError, made)
    return made


def test_xids_that_come_at_once_are_all_delivered_in_order(fake, events):
    assert pynvml.nvmlDeviceGetSupportedEventTypes(gpu()) & pynvml.nvmlEventTypeXidCriticalError
    fake.xid(0, 79, 48)
    fake.xid(1, 94, gi=2, ci=1)
    fake.xid(1, 1, kind=pynvml.nvmlEventTypeClock)  # nobody asked for these
    got = [pynvml.nvmlEventSetWait_v2(events, 1000) for _ in range(3)]
    uuids = [pynvml.nvmlDeviceGetUUID(each.device) for each in got]
    assert [each.eventData for each in got] == [79, 48, 94]
    assert [uuid[:12] for uuid in uuids] == ["GPU-00000000", "GPU-00000000", "GPU-00000001"]
    assert (got[0].gpuInstanceId, got[0].computeInstanceId) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert (got[2].gpuInstanceId, got[2].computeInstanceId) == (2, 1)
    assert code(pynvml.nvmlEventSetWait_v2, events, 0) == pynvml.NVML_ERROR_TIMEOUT
    pynvml.nvmlEventSetFree(events)


def test_a_wait_ends_when_an_event_comes(fake, events):
    got: list[int] = []
    thread = threading.Thread(
        target=lambda: got.append(pynvml.nvmlEventSetWait_v2(events, 20_000).eventData)
    )
    thread.start()
    fake.xid(1, 63)
    thread.join(10)
    assert got == [63]
    pynvml.nvmlEventSetFree(events)


def waiting(fake: FakeNvml, events) -> tuple[threading.Thread, list[int]]:
    """A thread that waits for events, asleep in its call."""
    answers: list[int] = []
    wait = pynvml.nvmlEventSetWait_v2
    thread = threading.Thread(
        target=lambda: answers.append(code(wait, events, 20_000)), daemon=True
    )
    calls = fake.calls
    thread.start()
    stat = Path(f"/proc/self/task/{thread.native_id}/stat")
    while fake.calls == calls or stat.read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.001)
    return thread, answers


def test_an_event_set_freed_under_a_wait_is_misuse(fake, events):
    thread, answers = waiting(fake, events)
    pynvml.nvmlEventSetFree(events)
    thread.join(10)
    assert (answers, fake.misuse) == ([pynvml.NVML_ERROR_UNINITIALIZED], 1)


def test_a_shutdown_under_a_wait_is_misuse(fake, events):
    thread, answers = waiting(fake, events)
    pynvml.nvmlShutdown()
    thread.join(10)
    assert answers == [pynvml.NVML_ERROR_UNINITIALIZED]
    assert fake.misuse == 2  # the wait, and the set that was not freed


def test_an_event_set_is_of_no_use_once_it_is_freed(fake, events):
    pynvml.nvmlEventSetFree(events)
    assert code(pynvml.nvmlEventSetWait_v2, events, 0) == pynvml.NVML_ERROR_UNINITIALIZED
    assert fake.misuse == 0
    assert code(pynvml.nvmlEventSetFree, events) == pynvml.NVML_ERROR_UNINITIALIZED
    assert fake.misuse == 1


def test_events_a_gpu_does_not_know_cannot_be_registered(fake, events):
    unknown = 1 << 40
    assert code(pynvml.nvmlDeviceRegisterEvents, gpu(), unknown, events) == 3
    pynvml.nvmlEventSetFree(events)

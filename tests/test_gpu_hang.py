"""A call to the driver that does not return, on the machine's own clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.daemon import eventually
from support.gpus import Node
from support.nvml import FakeNvml

from telemetryd.collectors.gpu_nvidia import GpuNvidia, GpuNvidiaConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Host

Make = Callable[..., Node]
MEMORY = "nvmlDeviceGetMemoryInfo_v2"
# A third of 0.9 intervals for each GPU: much more than a look takes, and a wait for each hang.
INTERVAL = 1.5


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Make]:
    """Makes a node of fake GPUs; at the end nothing hangs and the library was never misused."""
    nodes: list[Node] = []

    def make(gpus: int = 4, **settings: Any) -> Node:
        settings.setdefault("interval", INTERVAL)
        nodes.append(Node(tmp_path, gpus, host=Host(), **settings))
        return nodes[-1]

    yield make
    for one in nodes:
        one.fake.release()
        eventually(lambda one=one: not hanging(one), "what hung returns")  # type: ignore[misc]
        one.close()
        assert (one.fake.misuse, one.fake.gpm_samples) == (0, 0)


def hanging(one: Node) -> bool:
    return bool(one.collector._relay.stuck)


def lost(values: dict[str, float]) -> list[float | None]:
    return [values.get(f'gpu_lost{{gpu="{gpu}"}}') for gpu in range(4)]


def read(values: dict[str, float]) -> set[int]:
    return {gpu for gpu in range(4) if f'gpu_clock_hertz{{gpu="{gpu}",clock="sm"}}' in values}


def threads() -> int:
    return sum(thread.name == "gpu" for thread in threading.enumerate())


def test_a_gpu_that_hangs_leaves_the_others_in_that_sample_and_after(node: Make) -> None:
    one = node()
    assert read(one.sample()) == {0, 1, 2, 3}
    one.fake.hang(MEMORY, gpu=1)
    values = one.sample()
    assert read(values) == {0, 2, 3}
    assert lost(values) == [0, 1, 0, 0]
    calls = one.fake.call_counts()[MEMORY]
    count = threads()
    for _ in range(5):
        began = time.monotonic()
        assert read(one.sample()) == {0, 2, 3}
        assert time.monotonic() - began < INTERVAL / 4, "nobody waits for it again"
    assert one.fake.call_counts()[MEMORY] == calls + 5 * 3, "it is not called again"
    assert threads() == count
    assert [reason for reason, _ in one.faults] == ["timeout"], "once"
    assert one.faults[0][1].startswith("GPU 1: no answer within 0.45 s")


def test_a_gpu_that_hung_is_read_again_once_its_call_has_returned(node: Make) -> None:
    one = node()
    one.sample()
    one.fake.hang(MEMORY, gpu=1)
    one.sample()
    one.fake.gpu(1, mem_used=7 << 30)
    one.fake.release()
    eventually(lambda: not hanging(one), "the call returns")
    values = one.sample()
    assert read(values) == {0, 1, 2, 3}
    assert lost(values) == [0, 0, 0, 0]
    assert values['gpu_memory_used_bytes{gpu="1"}'] == 7 << 30
    eventually(lambda: threads() == 1, "the thread that was left behind ends")
    assert one.fake.call_counts()["nvmlInitWithFlags"] == 1
    one.fake.hang(MEMORY, gpu=1)
    one.sample()
    assert [reason for reason, _ in one.faults] == ["timeout"] * 2, "a hang of its own"


def test_gpus_that_were_not_asked_because_others_hang_do_not_count_as_lost(node: Make) -> None:
    one = node(interval=1.2)
    one.sample()
    for gpu in (0, 1, 2):
        one.fake.hang(None, gpu=gpu)
    values = one.sample()
    assert lost(values) == [1, 1, 1, None]
    values = one.sample()
    assert lost(values) == [1, 1, 1, 0]
    assert read(values) == {3}


def test_a_gpu_that_hangs_when_it_is_looked_up_leaves_the_others(
    node: Make, tmp_path: Path
) -> None:
    fake = FakeNvml(tmp_path, gpus=4)
    fake.hang("nvmlDeviceGetHandleByIndex_v2", gpu=2)
    one = node(fake=fake)
    assert read(one.sample()) == {0, 1, 3}
    assert [reason for reason, _ in one.faults] == ["timeout"]
    assert one.faults[0][1].startswith("GPU 2: ")
    fake.release()
    eventually(lambda: not hanging(one), "the call returns")
    assert read(one.sample()) == {0, 1, 2, 3}
    assert fake.call_counts()["nvmlInitWithFlags"] == 1, "no other opening for it"


def test_gpus_that_are_slow_to_open_are_found_one_after_the_other(
    node: Make, tmp_path: Path
) -> None:
    fake = FakeNvml(tmp_path, gpus=4)
    fake.delay("nvmlDeviceGetHandleByIndex_v2", 0.8)
    one = node(fake=fake, interval=0.9)
    found: set[int] = set()

    def look() -> bool:
        found.update(read(one.sample()))
        return found == {0, 1, 2, 3}

    eventually(look, "all are found")
    assert fake.call_counts()["nvmlInitWithFlags"] == 1
    assert fake.call_counts()["nvmlDeviceGetHandleByIndex_v2"] == 4


def test_if_all_gpus_hang_at_the_start_the_collector_is_there_for_them(
    node: Make, tmp_path: Path
) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.hang("nvmlDeviceGetUUID")
    one = node(fake=fake, interval=1.2)
    assert read(one.sample()) == set()
    assert one.reasons == {"timeout"}
    fake.release()
    eventually(lambda: not hanging(one), "the calls return")
    assert read(one.sample()) == {0, 1}


def test_the_library_is_not_opened_again_while_a_call_is_inside_it(node: Make) -> None:
    one = node(interval=1.2)
    one.sample()
    one.fake.hang(MEMORY, gpu=1)
    one.fake.lose(2)
    one.sample()
    one.collector._again_ns = 1  # it is time to
    for _ in range(3):
        assert read(one.sample()) == {0, 3}
    counts = one.fake.call_counts()
    assert (counts["nvmlInitWithFlags"], counts.get("nvmlShutdown", 0)) == (1, 0)
    one.fake.release()
    one.fake.find(2)
    eventually(lambda: not hanging(one), "the call returns")
    assert read(one.sample()) == {0, 1, 2, 3}
    assert one.fake.call_counts()["nvmlInitWithFlags"] == 2, "at once, whatever the pause is"


def test_closing_while_a_call_hangs_neither_waits_nor_closes_the_library(node: Make) -> None:
    one = node(interval=1.2)
    one.sample()
    one.fake.hang(MEMORY, gpu=1)
    one.sample()
    began = time.monotonic()
    one.collector.close()
    assert time.monotonic() - began < 0.5
    assert "nvmlShutdown" not in one.fake.call_counts()
    assert one.fake.misuse == 0
    eventually(lambda: threads() == 1, "the thread that reads ends, the stuck one does not")
    eventually(
        lambda: "gpu-events" not in {thread.name for thread in threading.enumerate()},
        "the thread of events ends",
    )


def test_a_thread_of_events_that_hangs_keeps_the_library_open(node: Make) -> None:
    one = node(interval=1.2)
    one.sample()
    one.fake.hang("nvmlEventSetWait_v2")
    eventually(lambda: _hangs_waiting(one), "it hangs")
    one.fake.lose(2)
    one.sample()
    one.collector._again_ns = 1
    assert read(one.sample()) == {0, 1, 3}
    assert ("timeout", "events: its thread hangs in the driver") in one.faults
    assert "nvmlShutdown" not in one.fake.call_counts()
    one.fake.find(2)
    one.fake.release()
    assert lost(one.sample()) == [0, 0, 0, 0]
    assert one.collector._again_ns, "for the sake of the events"
    one.collector._again_ns = 1
    one.sample()
    one.fake.xid(1, 79)
    count = 'gpu_xid_errors_total{gpu="1",xid="79"}'
    eventually(lambda: one.sample()[count] == 1, "events are waited for again")


def _hangs_waiting(one: Node) -> bool:
    before = one.fake.call_counts()["nvmlEventSetWait_v2"]
    time.sleep(0.5)
    return one.fake.call_counts()["nvmlEventSetWait_v2"] == before


def test_what_the_constructor_fails_with_is_given_back_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeNvml(tmp_path, gpus=1)

    def fail(_: GpuNvidia) -> None:
        raise MemoryError

    monkeypatch.setattr(GpuNvidia, "_start", fail)
    with pytest.raises(MemoryError):
        GpuNvidia(GpuNvidiaConfig(library=str(fake.library)), Host())
    monkeypatch.undo()
    fake.error("nvmlDeviceGetCount_v2", 1)
    with pytest.raises(Unavailable, match="Uninitialized"):
        GpuNvidia(GpuNvidiaConfig(library=str(fake.library)), Host())
    counts = fake.call_counts()
    assert counts["nvmlShutdown"] == counts["nvmlInitWithFlags"]
    assert counts["nvmlEventSetFree"] == counts["nvmlEventSetCreate"]
    assert fake.misuse == 0

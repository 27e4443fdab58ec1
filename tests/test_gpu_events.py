"""XIDs: counted from the start, whenever they come, for as long as the collector lives."""

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

from telemetryd.collectors.gpu_nvidia import events
from telemetryd.collectors.gpu_nvidia.events import KNOWN, XidCounts

Make = Callable[..., Node]
WAIT, REGISTER = "nvmlEventSetWait_v2", "nvmlDeviceRegisterEvents"
SBE_ECC, POWER = 0x1, 0x80  # events that are no XIDs


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Make]:
    """Makes a node of fake GPUs; at the end the library was never misused."""
    nodes: list[Node] = []

    def make(gpus: int = 2, **settings: Any) -> Node:
        nodes.append(Node(tmp_path, gpus, **settings))
        return nodes[-1]

    yield make
    for one in nodes:
        one.close()
        assert one.fake.misuse == 0
        counts = one.fake.call_counts()
        assert counts.get("nvmlEventSetFree") == counts.get("nvmlEventSetCreate")


def xids(one: Node, what: str = "errors_total") -> dict[tuple[int, int], float]:
    """By GPU and XID, without the passing of any time."""
    prefix = f'gpu_xid_{what}{{gpu="'
    return {
        (int(name.split('"')[1]), int(name.split('"')[3])): value
        for name, value in one.sample(after=0).items()
        if name.startswith(prefix)
    }


def counted(one: Node) -> dict[tuple[int, int], float]:
    return {key: value for key, value in xids(one).items() if value}


def waiting() -> bool:
    return any(thread.name == "gpu-events" for thread in threading.enumerate())


def test_known_xids_are_there_at_zero_from_the_first_sample_and_no_time_is(node: Make) -> None:
    one = node()
    assert xids(one) == {(gpu, xid): 0 for gpu in (0, 1) for xid in KNOWN}
    assert xids(one, "last_time_seconds") == {}
    assert {13, 31, 43, 48, 62, 63, 64, 74, 79, 92, 94, 95, 119, 120} == {*KNOWN}


def test_several_xids_at_once_are_all_counted_of_their_gpu(node: Make) -> None:
    one = node()
    one.fake.xid(1, 79, 79, 48)
    one.fake.xid(0, 31)
    expected = {(1, 79): 2, (1, 48): 1, (0, 31): 1}
    eventually(lambda: counted(one) == expected, "all are counted")
    assert set(xids(one)) == {(gpu, xid) for gpu in (0, 1) for xid in KNOWN}


def test_a_storm_of_xids_is_counted_to_the_last(node: Make) -> None:
    one = node()
    one.fake.xid(0, *[63] * 90)
    eventually(lambda: counted(one) == {(0, 63): 90}, "all are counted")


def test_an_xid_that_is_not_known_appears_when_it_comes(node: Make) -> None:
    one = node()
    assert (0, 143) not in xids(one)
    one.fake.xid(0, 143)
    eventually(lambda: xids(one).get((0, 143)) == 1, "it is there")
    assert (1, 143) not in xids(one)


def test_the_time_of_the_last_is_the_wall_clocks(node: Make) -> None:
    one = node()
    one.sample(after=100)
    one.fake.xid(0, 79)
    eventually(lambda: bool(counted(one)), "it is counted")
    first = one.clock.wall_ns() / 1e9
    assert xids(one, "last_time_seconds") == {(0, 79): first}
    one.sample(after=50)
    assert xids(one, "last_time_seconds") == {(0, 79): first}
    one.fake.xid(0, 79)
    eventually(lambda: counted(one) == {(0, 79): 2}, "it is counted")
    assert xids(one, "last_time_seconds") == {(0, 79): first + 50}


def test_events_of_other_kinds_and_of_gpus_left_alone_are_not_counted(node: Make) -> None:
    one = node(exclude=["0000:1b:*"])
    one.fake.xid(0, 79)
    one.fake.xid(1, 48, kind=SBE_ECC)
    one.fake.xid(1, 48, kind=POWER)
    one.fake.xid(1, 94)
    eventually(lambda: counted(one) == {(1, 94): 1}, "the last one is counted")
    assert {gpu for gpu, _ in xids(one)} == {1}


def test_xids_of_before_the_start_are_not_counted(node: Make, tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.xid(0, 79)
    one = node(fake=fake)
    fake.xid(0, 48)
    eventually(lambda: counted(one) == {(0, 48): 1}, "the other is counted")


def test_a_gpu_with_another_index_keeps_its_counters_and_others_theirs() -> None:
    counts = XidCounts()
    for labels in (("0", "GPU-a"), ("1", "GPU-b")):
        counts.expect(labels)
        counts.add(labels, 79, at_s=5)
    counts.expect(("0", "GPU-b"))
    points = {repr(series): value for series, value in counts.points()}
    total, last = "telemetryd_gpu_xid_errors_total", "telemetryd_gpu_xid_last_time_seconds"
    for uuid in "ab":
        assert points[f'{total}{{gpu="0",uuid="GPU-{uuid}",xid="79"}}'] == 1
        assert points[f'{last}{{gpu="0",uuid="GPU-{uuid}",xid="79"}}'] == 5
    assert len(points) == 2 * (len(KNOWN) + 1)


# The thread


def test_a_thread_that_fails_again_and_again_is_replaced(
    node: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_PAUSE_S", 0.01)
    one = node()
    one.fake.xid(0, 79)
    eventually(lambda: counted(one) == {(0, 79): 1}, "it is counted")
    one.fake.error(WAIT, 999)
    eventually(lambda: not waiting(), "the thread has ended")
    values = one.sample()
    assert 'gpu_busy_ratio{gpu="0"}' in values
    assert values['gpu_lost{gpu="0"}'] == 0
    one.samples(3)
    assert one.faults == [("io", "events: nvmlEventSetWait_v2: Unknown Error (999); see dmesg")], (
        "once"
    )
    one.fake.clear_error(WAIT)
    values = one.sample(after=5)
    assert 'gpu_busy_ratio{gpu="1"}' in values
    assert waiting()
    one.fake.xid(0, 79)
    eventually(lambda: counted(one) == {(0, 79): 2}, "events are counted again")
    assert len(one.faults) == 1


def test_a_thread_that_fails_now_and_then_goes_on(
    node: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_PAUSE_S", 0.3)
    one = node()
    for times in (1, 2, 3):
        calls = one.fake.call_counts()[WAIT]
        one.fake.error(WAIT, 999)
        eventually(lambda n=calls: one.fake.call_counts()[WAIT] > n + 1, "it fails")  # type: ignore[misc]
        one.fake.clear_error(WAIT)
        one.fake.xid(0, 79)
        eventually(lambda n=times: counted(one) == {(0, 79): n}, "it goes on")  # type: ignore[misc]
    assert one.faults == []
    assert one.fake.call_counts()["nvmlInitWithFlags"] == 1


def test_a_driver_that_does_not_wait_does_not_keep_a_core_busy(node: Make) -> None:
    one = node()
    one.fake.error(WAIT, 10)
    time.sleep(0.3)  # the turn that was under way
    calls = one.fake.call_counts()[WAIT]
    time.sleep(0.6)
    assert one.fake.call_counts()[WAIT] - calls <= 5
    assert one.faults == []


# No events


def test_a_driver_without_events_leaves_everything_else(node: Make, tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.error(REGISTER, 3)
    one = node(fake=fake)
    values = one.sample()
    assert 'gpu_busy_ratio{gpu="1"}' in values
    assert xids(one) == {}, "0 would be a lie"
    assert not waiting()
    (remark,) = one.collector.remarks()
    assert remark.startswith("GPU 0, 1: not supported: XID events; ")
    assert one.faults == []


def test_one_gpu_without_events_does_not_keep_the_others_from_theirs(
    node: Make, tmp_path: Path
) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.gpu(0, event_types=0)
    one = node(fake=fake)
    one.fake.xid(1, 79)
    eventually(lambda: counted(one) == {(1, 79): 1}, "it is counted")
    assert {gpu for gpu, _ in xids(one)} == {1}
    values = one.sample()
    missing = 'gpu_readings_missing{{gpu="{}",reason="unsupported"}}'
    assert values[missing.format(0)] == values[missing.format(1)] + 1


@pytest.mark.parametrize("without", [[WAIT], ["nvmlEventSetCreate"]], ids=lambda names: names[0])
def test_a_library_without_the_functions_for_events_is_one_without_events(
    node: Make, tmp_path: Path, without: list[str]
) -> None:
    one = node(fake=FakeNvml(tmp_path, gpus=1, without=without))
    assert 'gpu_busy_ratio{gpu="0"}' in one.sample()
    assert xids(one) == {}
    assert "XID events" in next(iter(one.collector.remarks()))
    assert one.faults == []


@pytest.mark.parametrize(("code", "reason"), [(4, "permission"), (23, "io")])
def test_events_that_cannot_be_had_for_another_reason_are_a_fault_once(
    node: Make, tmp_path: Path, code: int, reason: str
) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.error(REGISTER, code)
    one = node(fake=fake)
    values = one.samples(3)
    assert 'gpu_busy_ratio{gpu="0"}' in values
    assert [fault[0] for fault in one.faults] == [reason]
    assert "nvmlDeviceRegisterEvents" in one.faults[0][1]
    assert any("XID events" in remark for remark in one.collector.remarks())


def test_events_that_are_switched_off_take_no_thread(node: Make) -> None:
    one = node(events=False)
    values = one.sample()
    assert 'gpu_busy_ratio{gpu="0"}' in values
    assert not waiting()
    assert "nvmlEventSetCreate" not in one.fake.call_counts()
    assert xids(one) == {}
    assert not any("XID" in remark for remark in one.collector.remarks())


def test_a_gpu_that_is_lost_while_it_registers_for_events_is_looked_for_again(
    node: Make, tmp_path: Path
) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.error(REGISTER, 15, gpu=1)
    one = node(fake=fake)
    assert 'gpu_busy_ratio{gpu="1"}' not in one.sample()
    assert one.reasons == {"lost"}
    fake.clear_error(REGISTER, gpu=1)
    assert 'gpu_busy_ratio{gpu="1"}' in one.sample(after=6)

"""GPUs that are lost and come back, a driver that is reloaded, and an orderly end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gpus import Node
from support.nvml import FakeNvml

from telemetryd.collectors.gpu_nvidia import GpuNvidia, GpuNvidiaConfig
from telemetryd.host import Host

Make = Callable[..., Node]
INIT, SHUTDOWN = "nvmlInitWithFlags", "nvmlShutdown"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Make]:
    """Makes a node of fake GPUs; at the end the library was never misused."""
    nodes: list[Node] = []

    def make(gpus: int = 1, model: str = "H100", **settings: Any) -> Node:
        nodes.append(Node(tmp_path, gpus, model, **settings))
        return nodes[-1]

    yield make
    for one in nodes:
        one.close()
        assert (one.fake.misuse, one.fake.gpm_samples) == (0, 0)


def of_gpu(values: dict[str, float], gpu: int) -> set[str]:
    """The series of a GPU, without the counters of XIDs, which stay whatever happens."""
    own = f'gpu="{gpu}"', f'device="{gpu}"'
    return {name for name in values if any(o in name for o in own) and "_xid_" not in name}


def lost(values: dict[str, float]) -> dict[str, float]:
    prefix = 'gpu_lost{gpu="'
    return {
        name.removeprefix(prefix)[:-2]: value
        for name, value in values.items()
        if name.startswith(prefix)
    }


def inits(one: Node) -> int:
    return one.fake.call_counts()[INIT]


# One GPU is lost


def test_one_lost_gpu_of_eight_leaves_seven_with_every_series(node: Make) -> None:
    one = node(gpus=8)
    before = one.samples(2)
    one.fake.lose(3)
    for _ in range(3):
        values = one.sample()
        assert of_gpu(values, 3) == {'gpu_lost{gpu="3"}'}
        assert lost(values) == {str(gpu): int(gpu == 3) for gpu in range(8)}
        for gpu in {*range(8)} - {3}:
            assert of_gpu(values, gpu) == of_gpu(before, gpu)
    assert one.reasons == {"lost"}
    assert "GPU 3: " in one.faults[0][1]
    assert "nvidia-smi -r" in one.faults[0][1]


def test_a_gpu_that_is_lost_in_the_midst_of_its_readings_leaves_no_half_of_them(
    node: Make,
) -> None:
    one = node(gpus=2)
    one.samples(2)
    one.fake.error("nvmlDeviceGetDecoderUtilization", 15, gpu=1)
    assert of_gpu(one.sample(), 1) == {'gpu_lost{gpu="1"}'}


def test_seven_gpus_are_read_in_the_very_sample_that_opens_the_library_again(node: Make) -> None:
    one = node(gpus=8, gpm=False)
    before = one.samples(2)
    one.fake.lose(3)
    one.sample()
    values = one.sample(after=5)
    assert inits(one) == 2
    for gpu in {*range(8)} - {3}:
        assert of_gpu(values, gpu) == of_gpu(before, gpu)
    assert of_gpu(values, 3) == {'gpu_lost{gpu="3"}'}


def test_the_library_is_opened_again_after_5_10_and_at_most_600_seconds(node: Make) -> None:
    one = node(gpus=2)
    one.sample()
    one.fake.lose(1)
    one.sample()
    for pause in (5, 10, 20, 40, 80, 160, 320, 600, 600):
        before = inits(one)
        one.sample(after=pause - 0.5)
        assert inits(one) == before, pause
        one.sample(after=1)
        assert inits(one) == before + 1, pause
    assert len([1 for reason, _ in one.faults if reason == "lost"]) < 20, "not on every tick"


def test_a_gpu_that_returns_is_no_longer_lost_and_the_next_loss_is_seen_to_soon(
    node: Make,
) -> None:
    one = node(gpus=2)
    before = one.samples(2)
    one.fake.lose(1)
    one.sample()
    one.sample(after=5)
    one.fake.find(1)
    assert lost(one.sample(after=5)) == {"0": 0, "1": 1}
    one.sample(after=5)
    values = one.sample()
    assert lost(values) == {"0": 0, "1": 0}
    assert of_gpu(values, 1) == of_gpu(before, 1)
    one.sample(after=30)
    one.fake.lose(1)
    one.sample()
    opened = inits(one)
    one.sample(after=5.5)
    assert inits(one) == opened + 1


def test_a_gpu_that_works_only_for_moments_does_not_disturb_the_others_ever_more(
    node: Make,
) -> None:
    one = node(gpus=2)
    one.sample()
    for _ in range(60):
        # It is well when it is looked up, and lost two seconds later.
        if one.collector._again_ns and one.collector._again_ns <= one.clock.mono_ns() + 2e9:
            one.fake.find(1)
        else:
            one.fake.lose(1)
        assert lost(one.sample(after=2))["0"] == 0
    assert 4 <= inits(one) <= 6, "in 120 s"


def test_a_gpu_that_answers_again_by_itself_needs_no_opening(node: Make) -> None:
    one = node(gpus=2)
    one.sample()
    one.fake.lose(1)
    one.sample()
    one.fake.find(1)
    values = one.sample()
    one.sample(after=10)
    assert lost(values) == {"0": 0, "1": 0}
    assert inits(one) == 1


def test_a_gpu_that_is_lost_at_the_start_is_found_later(node: Make, tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.lose(0)
    one = node(fake=fake)
    values = one.sample()
    assert lost(values) == {"1": 0}
    assert of_gpu(values, 1)
    assert one.faults[0][0] == "lost"
    assert "GPU 0: nvmlDeviceGetHandleByIndex_v2" in one.faults[0][1]
    assert len(one.faults) == 1
    fake.find(0)
    one.sample(after=3)
    values = one.sample(after=3)
    assert lost(values) == {"0": 0, "1": 0}
    assert len(of_gpu(values, 0)) == len(of_gpu(values, 1))


def test_a_gpu_that_has_got_another_index_is_not_lost_and_its_xids_go_on(node: Make) -> None:
    one = node(gpus=2)
    one.sample()
    one.fake.xid(1, 79)
    count = 'gpu_xid_errors_total{{gpu="{}",xid="79"}}'
    _poll(lambda: one.sample()[count.format(1)] == 1)
    with one.fake.batch():  # the first one is taken out
        one.fake.set(count=1)
        one.fake.gpu(0, uuid=one.fake.state["g1.uuid"], pci=one.fake.state["g1.pci"])
        one.fake.reload_driver()
    one.sample()
    values = named_with_uuid(one, after=5)
    uuid = one.fake.state["g1.uuid"]
    assert values[f'telemetryd_gpu_lost{{gpu="0",uuid="{uuid}"}}'] == 0
    assert values[f'telemetryd_gpu_xid_errors_total{{gpu="0",uuid="{uuid}",xid="79"}}'] == 1
    assert sum(value for name, value in values.items() if "gpu_lost" in name) == 1
    assert not [name for name in values if 'gpu="1"' in name]


def named_with_uuid(one: Node, after: float) -> dict[str, float]:
    one.clock.tick(after)
    return {repr(series): value for series, value in one.collector.sample()}


def _poll(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not check():
        assert time.monotonic() < deadline


# The driver


def test_a_reloaded_driver_is_opened_again_and_counters_of_xids_go_on(node: Make) -> None:
    one = node(gpus=2)
    xids = 'gpu_xid_errors_total{gpu="0",xid="31"}'
    before = one.samples(2)
    one.fake.xid(0, 31)
    _poll(lambda: one.sample()[xids] == 1)
    one.fake.reload_driver()
    values = one.sample()
    assert lost(values) == {"0": 1, "1": 1}
    assert one.reasons == {"driver"}
    one.sample(after=5)
    values = one.sample()
    assert lost(values) == {"0": 0, "1": 0}
    for gpu in (0, 1):
        assert of_gpu(values, gpu) == of_gpu(before, gpu)
    assert values[xids] == 1
    energy = 'gpu_energy_joules_total{gpu="0"}'
    assert 0 <= values[energy] < before[energy], "the hardware's counter starts anew"
    one.fake.xid(0, 31)
    _poll(lambda: one.sample()[xids] == 2)


def test_while_the_driver_is_not_loaded_all_gpus_are_lost_and_it_comes_back(node: Make) -> None:
    one = node(gpus=2)
    before = one.samples(2)
    one.fake.set({"init.ret": 9})
    one.fake.reload_driver()
    for after in (1, 5, 5, 5):
        values = one.sample(after)
    assert lost(values) == {"0": 1, "1": 1}
    assert of_gpu(values, 0) == {'gpu_lost{gpu="0"}'}
    assert not [name for name in values if name.startswith("gpu_driver_info")]
    assert one.reasons == {"driver"}
    assert any("modprobe nvidia" in what for _, what in one.faults)
    one.fake.remove("init.ret")
    one.sample(after=40)
    values = one.sample()
    assert lost(values) == {"0": 0, "1": 0}
    assert of_gpu(values, 1) == of_gpu(before, 1)
    assert one.fake.misuse == 0


# The end


def test_closing_gives_everything_back_and_closing_twice_is_safe(tmp_path: Path) -> None:
    one = Node(tmp_path, gpus=8)
    one.samples(3)
    began = time.monotonic()
    one.collector.close()
    assert time.monotonic() - began < 0.5 + 0.5, "with the thread of events waiting"
    counts = one.fake.call_counts()
    assert (one.fake.misuse, one.fake.gpm_samples) == (0, 0)
    assert counts[SHUTDOWN] == counts[INIT] == 1
    assert counts["nvmlEventSetFree"] == counts["nvmlEventSetCreate"] == 1
    one.collector.close()
    assert one.fake.call_counts() == counts


def test_every_opening_is_followed_by_one_closing(tmp_path: Path) -> None:
    one = Node(tmp_path, gpus=2)
    for _ in range(3):
        one.fake.reload_driver()
        one.sample()
        one.sample(after=1000)
        one.sample(after=1000)
    one.close()
    counts = one.fake.call_counts()
    assert counts[SHUTDOWN] == counts[INIT] >= 4
    assert counts["nvmlEventSetFree"] == counts["nvmlEventSetCreate"]
    assert (one.fake.misuse, one.fake.gpm_samples) == (0, 0)


def test_threads_end_with_the_collector(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    one = Node(tmp_path, gpus=2)
    one.samples(2)
    assert {thread.name for thread in set(threading.enumerate()) - before} == {"gpu", "gpu-events"}
    one.close()
    _poll(lambda: set(threading.enumerate()) <= before)


def test_a_collector_beside_another_that_ends_goes_on(tmp_path: Path) -> None:
    """As when the configuration is reloaded: the old one may take its time to close."""
    one = Node(tmp_path, gpus=1)
    other = GpuNvidia(GpuNvidiaConfig(library=str(one.fake.library)), Host(clock=one.clock))
    other.close()
    assert lost(one.sample()) == {"0": 0}
    another = Node(tmp_path, gpus=1)  # of another library
    one.close()
    assert lost(another.sample()) == {"0": 0}
    another.close()
    for node, openings in ((one, 2), (another, 1)):
        counts = node.fake.call_counts()
        assert counts[SHUTDOWN] == counts[INIT] == openings
        assert node.fake.misuse == 0

"""Who uses a GPU: memory and share of each process, bounded, and gone with the process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.clock import FakeClock
from support.gpu_series import only, sampling
from support.gpus import Node
from support.line_parser import parse
from support.nvml import FakeNvml, Process
from support.receiver import Receiver, serving
from support.trees import host_at, write_tree

from telemetryd.batch import Batch
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.exporters.influxdb import InfluxDB, InfluxDBConfig
from telemetryd.instruments import Instruments
from telemetryd.log import QuietLog

MIB = 1 << 20
NOT_AVAILABLE = (1 << 64) - 1
MEMORY, SHARE = "gpu_process_memory_bytes", "gpu_process_utilization_ratio"


def watched(folder: Path, fake: FakeNvml | None = None, **settings: Any) -> Node:
    """One GPU, on a host whose /proc is below `folder`."""
    clock = FakeClock()
    host = host_at(folder, clock)
    node = Node(folder, gpus=1, fake=fake, host=host, events=False, **settings)
    node.clock = clock
    return node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    write_tree(tmp_path, {"proc/100/comm": "python3\n", "proc/200/comm": "gpu burn\n"})
    with closing(watched(tmp_path)) as node:
        yield node


def memory_of(values: dict[str, float]) -> dict[int, float]:
    """Bytes by process."""
    return {
        int(name.split('pid="')[1].split('"')[0]): v for name, v in only(values, MEMORY).items()
    }


def test_every_process_has_its_memory_and_share_under_its_name(node: Node) -> None:
    node.fake.processes(0, Process(100, 2566 * MIB, sm=40), Process(200, 15690 * MIB, sm=99))
    values = node.sample()
    assert only(values, "gpu_processes", MEMORY, SHARE) == {
        'gpu_processes{gpu="0"}': 2,
        f'{MEMORY}{{gpu="0",pid="100",command="python3"}}': 2566 * MIB,
        f'{MEMORY}{{gpu="0",pid="200",command="gpu burn"}}': 15690 * MIB,
        f'{SHARE}{{gpu="0",pid="100",command="python3"}}': 0.4,
        f'{SHARE}{{gpu="0",pid="200",command="gpu burn"}}': 0.99,
    }


def test_a_gpu_that_nobody_uses_has_no_processes(node: Node) -> None:
    assert only(node.sample(), "gpu_processes", MEMORY, SHARE) == {'gpu_processes{gpu="0"}': 0}
    assert node.faults == []


def test_a_process_whose_name_is_not_to_be_read_has_none(node: Node, tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/300/comm": b"\xff\xfe bin\n"})
    node.fake.processes(0, Process(999, MIB), Process(300, MIB))
    assert set(only(node.sample(), MEMORY)) == {
        f'{MEMORY}{{gpu="0",pid="999",command=""}}',
        f'{MEMORY}{{gpu="0",pid="300",command="\\udcff\\udcfe bin"}}',
    }
    assert node.faults == []


def test_memory_that_the_driver_does_not_tell_is_absent(node: Node) -> None:
    node.fake.processes(0, Process(100, NOT_AVAILABLE, sm=7), Process(200, 0))
    values = node.sample()
    assert only(values, MEMORY, SHARE, "gpu_processes") == {
        'gpu_processes{gpu="0"}': 2,
        f'{MEMORY}{{gpu="0",pid="200",command="gpu burn"}}': 0,
        f'{SHARE}{{gpu="0",pid="100",command="python3"}}': 0.07,
    }


def test_a_process_without_a_sample_has_no_share(node: Node) -> None:
    node.fake.processes(0, Process(100, MIB), Process(200, MIB, sm=0))
    assert only(node.sample(), SHARE) == {f'{SHARE}{{gpu="0",pid="200",command="gpu burn"}}': 0.0}


def test_a_share_is_shown_once_and_not_repeated_when_no_newer_one_comes(node: Node) -> None:
    node.fake.processes(0, Process(100, MIB, sm=50))
    node.fake.gpu(0, {"proc.0.stamp": node.fake.seconds + 1})
    assert len(only(node.sample(), SHARE)) == 1
    assert not only(node.sample(), SHARE)
    assert node.faults == []
    node.fake.gpu(0, {"proc.0.stamp": node.fake.seconds + 1})
    assert len(only(node.sample(), SHARE)) == 1


def test_the_newest_of_several_samples_of_a_process_counts(node: Node) -> None:
    now = node.fake.seconds
    node.fake.processes(
        0, Process(100, MIB, sm=10), Process(100, MIB, sm=60), Process(100, MIB, sm=30)
    )
    node.fake.gpu(0, {f"proc.{i}.stamp": now + s for i, s in enumerate((0.2, 0.6, 0.4))})
    assert list(only(node.sample(), SHARE).values()) == [0.6]


@pytest.mark.parametrize("nonsense", [101, 54_600, 4_294_967_295])
def test_a_share_beyond_the_whole_is_nonsense_and_absent(node: Node, nonsense: int) -> None:
    node.fake.processes(0, Process(100, MIB, sm=nonsense), Process(200, MIB, sm=100))
    assert only(node.sample(), SHARE) == {f'{SHARE}{{gpu="0",pid="200",command="gpu burn"}}': 1.0}


def test_a_sample_from_the_future_is_nonsense_and_does_not_end_all_others(node: Node) -> None:
    node.fake.processes(0, Process(100, MIB, sm=50), Process(200, MIB, sm=20))
    node.fake.set(clock=node.clock.wall_ns() / 1e9)
    node.fake.gpu(0, {"proc.1.stamp": 9e12})
    for _ in range(3):
        assert only(node.sample(), SHARE) == {
            f'{SHARE}{{gpu="0",pid="100",command="python3"}}': 0.5
        }


def test_shares_go_on_when_the_wall_clock_is_set_back(node: Node) -> None:
    node.fake.processes(0, Process(100, MIB, sm=50))
    node.fake.set(clock=node.clock.wall_ns() / 1e9)
    node.samples(2)
    node.clock.step_wall(-3600)
    node.fake.advance(-3600)
    assert len(only(node.samples(2), SHARE)) == 1


def test_a_share_of_a_process_that_is_not_listed_is_not_shown(node: Node) -> None:
    """It ended between the two calls."""
    node.fake.processes(0, Process(100, MIB, sm=50), Process(200, MIB, sm=20, kind="M"))
    assert set(only(node.sample(), SHARE)) == {f'{SHARE}{{gpu="0",pid="100",command="python3"}}'}


def test_a_process_that_computes_and_draws_is_one(node: Node) -> None:
    node.fake.processes(
        0,
        Process(100, 30 * MIB),
        Process(100, 30 * MIB, kind="G"),
        Process(200, 40 * MIB),
        Process(200, NOT_AVAILABLE, kind="G"),
    )
    values = node.sample()
    assert values['gpu_processes{gpu="0"}'] == 2
    assert memory_of(values) == {100: 30 * MIB, 200: 40 * MIB}


def test_a_process_is_gone_when_it_is_gone_and_its_successor_has_its_own_name(
    node: Node, tmp_path: Path
) -> None:
    node.fake.processes(0, Process(100, MIB, sm=5), Process(200, MIB, sm=5))
    node.sample()
    node.fake.processes(0, Process(200, MIB, sm=5))
    values = node.sample()
    assert values['gpu_processes{gpu="0"}'] == 1
    assert all('pid="200"' in name for name in only(values, MEMORY, SHARE))
    write_tree(tmp_path, {"proc/100/comm": "another\n"})
    node.fake.processes(0, Process(100, MIB), Process(200, MIB))
    assert f'{MEMORY}{{gpu="0",pid="100",command="another"}}' in node.sample()


def test_as_many_processes_as_before_may_be_others(node: Node) -> None:
    node.fake.processes(0, Process(100, MIB), Process(200, 2 * MIB))
    node.sample()
    node.fake.processes(0, Process(200, 3 * MIB), Process(300, 4 * MIB))
    assert memory_of(node.sample()) == {200: 3 * MIB, 300: 4 * MIB}


def test_a_name_is_read_once(node: Node, tmp_path: Path) -> None:
    node.fake.processes(0, Process(100, MIB))
    node.sample()
    (tmp_path / "proc/100/comm").unlink()
    assert f'{MEMORY}{{gpu="0",pid="100",command="python3"}}' in node.sample()


def test_the_processes_with_the_most_memory_have_series_and_all_are_counted(
    tmp_path: Path,
) -> None:
    with closing(watched(tmp_path, max_processes=3)) as node:
        node.fake.processes(0, *[Process(pid, pid * MIB, sm=1) for pid in range(1, 11)])
        values = node.sample()
        assert values['gpu_processes{gpu="0"}'] == 10
        assert set(memory_of(values)) == {8, 9, 10}
        assert len(only(values, SHARE)) == 3
        grown = [Process(pid, (100 if pid == 1 else pid) * MIB) for pid in range(1, 11)]
        node.fake.processes(0, *grown, Process(77, NOT_AVAILABLE))
        assert set(memory_of(node.sample())) == {1, 9, 10}


def test_processes_can_be_counted_without_series_of_their_own(tmp_path: Path) -> None:
    with closing(watched(tmp_path, max_processes=0)) as node:
        node.fake.processes(0, Process(100, MIB, sm=5))
        values = node.sample()
        assert only(values, "gpu_processes", MEMORY, SHARE) == {'gpu_processes{gpu="0"}': 1}


def test_processes_can_be_left_alone_altogether(tmp_path: Path) -> None:
    with closing(watched(tmp_path, processes=False)) as node:
        node.fake.processes(0, Process(100, MIB, sm=5))
        assert not only(node.sample(), "gpu_processes", MEMORY, SHARE)
        assert not [name for name in node.fake.call_counts() if "Process" in name]


def test_a_list_that_outgrows_its_room_is_read_whole(tmp_path: Path) -> None:
    with closing(watched(tmp_path, max_processes=1000)) as node:
        for count in (16, 17, 400, 3):
            node.fake.processes(0, *[Process(pid, MIB, sm=1) for pid in range(1, count + 1)])
            values = node.sample()
            assert values['gpu_processes{gpu="0"}'] == count
            assert len(only(values, MEMORY)) == count
            assert len(only(values, SHARE)) == count
        assert sampling(node)["nvmlDeviceGetComputeRunningProcesses_v3"] == 1
    assert node.faults == []


def test_a_list_without_end_is_given_up_and_counted(node: Node) -> None:
    node.fake.error("nvmlDeviceGetComputeRunningProcesses_v3", 7)
    values = node.samples(20)
    assert not only(values, "gpu_processes", MEMORY)
    assert len(node.faults) == 20
    assert node.reasons == {"io"}  # and no memory was asked for without end
    assert values['gpu_lost{gpu="0"}'] == 0


@pytest.mark.parametrize("kind", ["Compute", "Graphics"])
def test_processes_are_not_counted_from_half_of_the_lists(node: Node, kind: str) -> None:
    node.fake.processes(0, Process(100, MIB), Process(200, MIB, kind="G"))
    assert node.sample()['gpu_processes{gpu="0"}'] == 2
    node.fake.error(f"nvmlDeviceGet{kind}RunningProcesses_v3", 10)
    assert not only(node.sample(), "gpu_processes", MEMORY)
    assert len(node.faults) == 1
    node.fake.clear_error(f"nvmlDeviceGet{kind}RunningProcesses_v3")
    assert node.sample()['gpu_processes{gpu="0"}'] == 2


def test_a_gpu_without_graphics_is_not_asked_again_who_draws(node: Node) -> None:
    node.fake.processes(0, Process(100, MIB))
    node.fake.error("nvmlDeviceGetGraphicsRunningProcesses_v3", 3)
    assert node.sample()['gpu_processes{gpu="0"}'] == 1
    assert sampling(node)["nvmlDeviceGetGraphicsRunningProcesses_v3"] == 0
    assert node.faults == []


def test_a_gpu_that_tells_nothing_of_processes_has_no_count(node: Node) -> None:
    node.fake.error("nvmlDeviceGetComputeRunningProcesses_v3", 3)
    node.fake.error("nvmlDeviceGetGraphicsRunningProcesses_v3", 3)
    assert not only(node.samples(2), "gpu_processes")
    assert sampling(node)["nvmlDeviceGetComputeRunningProcesses_v3"] == 0
    assert node.faults == []


def test_an_old_driver_lists_processes_too(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1, old_driver=True)
    fake.processes(0, Process(100, MIB, sm=9))
    with closing(watched(tmp_path, fake)) as node:
        values = node.sample()
    assert values['gpu_processes{gpu="0"}'] == 1
    assert memory_of(values) == {100: MIB}
    assert list(only(values, SHARE).values()) == [0.09]


@pytest.mark.parametrize(("per_process", "pushed"), [(False, set()), (True, {"100", "200"})])
def test_series_of_processes_are_pushed_only_when_told_to(
    node: Node, per_process: bool, pushed: set[str]
) -> None:
    node.fake.processes(0, Process(100, MIB, sm=1), Process(200, MIB, sm=1))
    series, values = zip(*node.collector.sample(), strict=True)
    settings = {"per_process": True} if per_process else {}
    with serving(Receiver()) as receiver:
        exporter = InfluxDB(
            "influxdb",
            InfluxDBConfig(url=receiver.url, bucket="b", host="n1", resolution=0, **settings),
            {},
            Instruments(QuietLog(logging.getLogger("test"))),
            SpoolConfig(),
            clock=node.clock,
        )
        exporter.start()
        exporter.offer(
            Batch("gpu_nvidia", node.clock.wall_ns(), node.clock.mono_ns(), 1.0, series, values)
        )
        exporter.stop(10)
        lines = [line for body in receiver.bodies if body.strip() for line in parse(body)]
    assert {line.tags["pid"] for line in lines if "pid" in line.tags} == pushed
    assert any("processes" in line.fields for line in lines)

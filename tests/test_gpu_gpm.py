"""GPU performance monitoring: how full a GPU was between two samples."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.gpu_series import only, sampling
from support.gpus import Node
from support.nvml import FakeNvml

MIB = 1 << 20
RATIOS = (
    "gpu_graphics_active_ratio", "gpu_sm_active_ratio", "gpu_sm_occupancy_ratio",
    "gpu_tensor_active_ratio", "gpu_dram_active_ratio",
)  # fmt: skip
RATES = ("gpu_pcie_bytes_per_second", "gpu_nvlink_bytes_per_second")
SM = 'gpu_sm_active_ratio{gpu="0"}'


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """At the end everything was given back, and nothing misused."""
    node = Node(tmp_path, gpus=1, events=False)
    node.fake.busy()
    with closing(node):
        yield node
    assert node.fake.gpm_samples == 0
    assert node.fake.misuse == 0


def activity(values: dict[str, float]) -> dict[str, float]:
    return only(values, *RATIOS, *RATES)


def test_activity_is_in_ratios_and_bytes_per_second(node: Node) -> None:
    assert activity(node.samples(2)) == {
        'gpu_graphics_active_ratio{gpu="0"}': pytest.approx(0.998),
        SM: pytest.approx(0.989),
        'gpu_sm_occupancy_ratio{gpu="0"}': pytest.approx(0.251),
        'gpu_tensor_active_ratio{gpu="0"}': pytest.approx(0.712),
        'gpu_dram_active_ratio{gpu="0"}': pytest.approx(0.384),
        'gpu_pcie_bytes_per_second{gpu="0",direction="transmit"}': pytest.approx(4.1 * MIB),
        'gpu_pcie_bytes_per_second{gpu="0",direction="receive"}': pytest.approx(8.5 * MIB),
        'gpu_nvlink_bytes_per_second{gpu="0",direction="receive"}': 2340 * MIB,
        'gpu_nvlink_bytes_per_second{gpu="0",direction="transmit"}': 2310 * MIB,
    }


def test_one_sample_tells_nothing(node: Node) -> None:
    assert activity(node.sample()) == {}
    assert SM in node.sample()


def test_a_gpu_without_work_reports_zero(node: Node) -> None:
    node.fake.idle()
    assert set(activity(node.samples(2)).values()) == {0.0}


def test_the_figures_are_those_of_the_time_since_the_sample_before(node: Node) -> None:
    node.samples(2)
    node.fake.gpu(0, {"gpm.2": 12.5})
    assert node.sample()[SM] == 0.125
    node.fake.gpu(0, {"gpm.2": 25})
    assert node.sample()[SM] == 0.25


def test_two_samples_too_near_to_each_other_give_none(node: Node) -> None:
    node.samples(2)
    assert activity(node.sample(0.109)) == {}
    assert SM in node.sample(0.002)  # 111 ms since the one before
    assert node.faults == []


def test_a_lane_of_fifty_milliseconds_has_activity_every_third_time(node: Node) -> None:
    node.sample()
    assert [SM in node.sample(0.05) for _ in range(7)] == [False, False, True] * 2 + [False]
    assert node.faults == []


def test_no_call_is_made_where_the_configuration_leaves_the_counters_alone(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=1, gpm=False)) as node:
        assert activity(node.samples(3)) == {}
        node.fake.mig(0, ["3g.40gb"])
        node.samples(2, after=31)
        assert not [name for name in node.fake.call_counts() if "Gpm" in name]


def test_two_samples_are_held_for_each_gpu_however_long_it_runs(tmp_path: Path) -> None:
    node = Node(tmp_path, gpus=2, events=False)
    with closing(node):
        node.sample()
        assert node.fake.gpm_samples == 4
        node.samples(20)
        assert node.fake.gpm_samples == 4
    assert node.fake.gpm_samples == 0
    assert node.fake.misuse == 0


@pytest.mark.parametrize("code", [3, 6, 999])
def test_a_metric_that_is_refused_is_absent_and_the_others_are_not(node: Node, code: int) -> None:
    node.fake.gpu(0, {"gpm.5.ret": code})
    values = activity(node.samples(2))
    assert 'gpu_tensor_active_ratio{gpu="0"}' not in values
    assert len(values) == 8


@pytest.mark.parametrize("nonsense", ["nan", "inf", "-inf"])
def test_a_metric_that_is_no_number_is_absent(node: Node, nonsense: str) -> None:
    node.fake.gpu(0, {"gpm.2": nonsense})
    values = activity(node.samples(2))
    assert SM not in values
    assert len(values) == 8


@pytest.mark.parametrize("model", ["A100", "L40S", "RTX2080S"])
def test_older_gpus_have_none_and_are_quiet(tmp_path: Path, model: str) -> None:
    with closing(Node(tmp_path, gpus=1, model=model, events=False)) as node:
        assert activity(node.samples(2)) == {}
        assert node.faults == []
        assert not [name for name in sampling(node) if "Gpm" in name]
        assert node.fake.gpm_samples == 0


def test_a_driver_of_before_has_none_and_is_quiet(tmp_path: Path) -> None:
    with closing(Node(tmp_path, fake=FakeNvml(tmp_path, gpus=1, old_driver=True))) as node:
        assert activity(node.samples(2)) == {}
        assert node.faults == []


def test_a_gpu_that_answers_that_it_cannot_is_not_asked_again(node: Node) -> None:
    node.fake.error("nvmlGpmSampleGet", 3)
    assert activity(node.samples(2)) == {}
    assert sampling(node)["nvmlGpmSampleGet"] == 0
    assert node.faults == []
    assert any("GPM" in remark for remark in node.collector.remarks())


def test_counters_that_a_profiler_holds_are_absent_until_it_lets_go(node: Node) -> None:
    node.samples(2)
    node.fake.error("nvmlGpmSampleGet", 19)  # in use
    assert activity(node.sample()) == {}
    assert activity(node.sample()) == {}
    assert len(node.faults) == 2
    node.fake.clear_error("nvmlGpmSampleGet")
    assert activity(node.sample()) == {}  # nothing to compare with
    assert SM in node.sample()


def test_samples_that_cannot_be_allocated_are_tried_again_and_none_is_leaked(node: Node) -> None:
    node.fake.error("nvmlGpmSampleAlloc", 23)  # out of resources
    values = node.samples(2)
    assert activity(values) == {}
    assert values['gpu_busy_ratio{gpu="0"}'] == 1.0
    assert values['gpu_lost{gpu="0"}'] == 0
    assert len(node.faults) == 2
    node.fake.clear_error("nvmlGpmSampleAlloc")
    assert SM in node.samples(2)


def test_no_sample_is_leaked_when_only_the_first_of_two_can_be_allocated(node: Node) -> None:
    """The library's table is full but for one."""
    alloc = node.fake.so.nvmlGpmSampleAlloc
    taken = []
    while True:
        sample = ctypes.c_void_p()
        if alloc(ctypes.byref(sample)):
            break
        taken.append(sample)
    node.fake.so.nvmlGpmSampleFree(taken.pop())
    held = node.fake.gpm_samples
    assert activity(node.samples(3)) == {}
    assert node.fake.gpm_samples == held
    for sample in taken:
        node.fake.so.nvmlGpmSampleFree(sample)
    assert SM in node.samples(2)


def test_samples_are_freed_before_the_library_is_opened_again(node: Node) -> None:
    assert SM in node.samples(2)
    node.fake.lose(0)
    node.sample()
    node.fake.find(0)
    for _ in range(5):
        values = node.sample(10)
    assert SM in values
    assert node.fake.call_counts()["nvmlInitWithFlags"] >= 2
    assert node.fake.gpm_samples == 2
    assert node.fake.misuse == 0


def test_samples_are_made_anew_when_mig_is_switched(node: Node) -> None:
    assert SM in node.samples(2)
    node.fake.mig(0, ["1g.10gb", "1g.10gb"])
    node.samples(2, after=31)
    assert node.fake.gpm_samples == 6  # of the GPU and of two instances
    node.fake.mig(0, None)
    node.samples(3)
    assert node.fake.gpm_samples == 2
    assert SM in node.sample()

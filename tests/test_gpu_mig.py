"""MIG instances as devices of their own, and what happens when somebody rearranges them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from support.gpu_series import only, sampling
from support.gpus import Node
from support.nvml import FakeNvml, Process
from support.trees import named

MIB = 1 << 20
Layout = Sequence[str | tuple[str, Sequence[str]]]
# As on the recorded H100.
RECORDED = ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]
SHARED: Layout = [("3g.40gb", ["1c", "1c"]), "2g.20gb"]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, gpus=1, events=False)
    node.fake.busy()
    with closing(node):
        yield node
    assert node.fake.gpm_samples == 0
    assert node.fake.misuse == 0


def divided(folder: Path, layout: Layout) -> Node:
    fake = FakeNvml(folder, gpus=1)
    fake.busy()
    fake.mig(0, layout)
    return Node(folder, fake=fake, events=False)


def devices(values: dict[str, float]) -> set[str]:
    """The instances that have a series of any kind."""
    return {name.split('gpu="')[1].split('"')[0] for name in values if 'gpu="0/' in name}


def test_every_instance_is_a_device_with_its_profile(tmp_path: Path) -> None:
    with closing(divided(tmp_path, SHARED)) as node:
        infos = [
            dict(zip(series.metric.labels, series.labels, strict=True))
            for series, _ in node.collector.sample()
            if series.metric.name == "telemetryd_gpu_instance_info"
        ]
    assert infos[0] == {
        "gpu": "0/2/0",
        "uuid": "MIG-00000000-0001-5000-8000-000000000000",
        "parent": "0",
        "parent_uuid": "GPU-00000000-0000-4000-8000-000000000000",
        "profile": "1c.3g.40gb",
        "gpu_instance": "2",
        "compute_instance": "0",
    }
    assert [(info["gpu"], info["profile"]) for info in infos] == [
        ("0/2/0", "1c.3g.40gb"),
        ("0/2/1", "1c.3g.40gb"),
        ("0/3/0", "2g.20gb"),
    ]


def test_instances_have_uuids_of_their_own_on_every_series(tmp_path: Path) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        values = named(node.collector.sample())
    uuids = {name.split('uuid="')[1].split('"')[0] for name in values if 'gpu="0/' in name}
    assert len(uuids) == 4
    assert all(uuid.startswith("MIG-") for uuid in uuids)


def test_every_instance_has_the_memory_of_its_gpu_instance(tmp_path: Path) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        node.fake.gpu(0, {"gi.2.mem_used": 11091 * MIB})
        values = node.sample()
    assert values['gpu_memory_total_bytes{gpu="0/2/0"}'] == 40448 * MIB
    assert values['gpu_memory_used_bytes{gpu="0/2/0"}'] == 11091 * MIB
    assert values['gpu_memory_free_bytes{gpu="0/2/0"}'] == 29357 * MIB
    assert values['gpu_memory_reserved_bytes{gpu="0/2/0"}'] == 0
    assert values['gpu_memory_total_bytes{gpu="0/10/0"}'] == 9984 * MIB
    assert values['gpu_memory_total_bytes{gpu="0"}'] == 81559 * MIB


def test_memory_is_summed_over_distinct_gpu_instances(tmp_path: Path) -> None:
    """Two compute instances of one GPU instance report the same bytes."""
    with closing(divided(tmp_path, SHARED)) as node:
        node.fake.gpu(0, {"gi.2.mem_used": 1000 * MIB, "gi.3.mem_used": 10 * MIB})
        values = node.sample()
    used = only(values, "gpu_memory_used_bytes")
    assert used['gpu_memory_used_bytes{gpu="0/2/0"}'] == 1000 * MIB
    assert used['gpu_memory_used_bytes{gpu="0/2/1"}'] == 1000 * MIB
    assert values['gpu_mig_memory_used_bytes{gpu="0"}'] == 1010 * MIB
    assert values['gpu_mig_memory_total_bytes{gpu="0"}'] == (40448 + 20096) * MIB


def test_an_old_driver_gives_the_memory_of_instances_too(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1, model="A100", old_driver=True)
    fake.mig(0, ["3g.40gb"])
    with closing(Node(tmp_path, fake=fake)) as node:
        assert node.sample()['gpu_mig_memory_total_bytes{gpu="0"}'] == 40192 * MIB
        assert node.faults == []


def test_a_sum_is_absent_if_the_memory_of_one_instance_is(tmp_path: Path) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        node.sample()
        node.fake.remove_from(0, "gi.3.mem_used")
        values = node.sample()
    assert 'gpu_memory_used_bytes{gpu="0/2/0"}' in values
    assert not only(values, "gpu_mig_memory_used_bytes", "gpu_mig_memory_total_bytes")


def test_instances_whose_memory_is_never_told_do_not_cost_a_slow_look_each_second(
    tmp_path: Path,
) -> None:
    with closing(divided(tmp_path, ["3g.40gb"])) as node:
        node.fake.remove_from(0, "gi.2.mem_used")
        values = node.samples(2)
        assert 'gpu_memory_total_bytes{gpu="0/2/0"}' not in values
        assert 'gpu_sm_active_ratio{gpu="0/2/0"}' in values
        calls = sampling(node, 5)
    assert calls["nvmlDeviceGetMigMode"] == 0
    assert calls["nvmlDeviceGetMemoryInfo_v2"] == 5  # of the GPU


def test_utilization_is_absent_under_mig(tmp_path: Path) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        values = node.sample()
    absent = ("busy", "memory_busy", "encoder_busy", "decoder_busy")
    assert not only(values, *[f"gpu_{name}_ratio" for name in absent])
    assert values['gpu_mig_enabled{gpu="0"}'] == 1
    assert node.faults == []


def test_every_instance_has_its_activity(tmp_path: Path) -> None:
    with closing(divided(tmp_path, SHARED)) as node:
        node.fake.gpu(0, {"gi.2.gpm.2": 80, "gi.3.gpm.2": 30, "gi.3.gpm.5": 7})
        assert not only(node.sample(), "gpu_sm_active_ratio")
        values = node.sample()
    assert only(values, "gpu_sm_active_ratio") == {
        'gpu_sm_active_ratio{gpu="0"}': pytest.approx(0.989),
        'gpu_sm_active_ratio{gpu="0/2/0"}': 0.8,
        'gpu_sm_active_ratio{gpu="0/2/1"}': 0.8,
        'gpu_sm_active_ratio{gpu="0/3/0"}': 0.3,
    }
    assert values['gpu_tensor_active_ratio{gpu="0/3/0"}'] == pytest.approx(0.07)


def test_instances_without_activity_keep_their_memory_and_are_not_asked_again(
    tmp_path: Path,
) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        node.fake.error("nvmlGpmMigSampleGet", 3)
        values = node.samples(2)
        assert len(devices(only(values, "gpu_memory_used_bytes"))) == 4
        assert sampling(node)["nvmlGpmMigSampleGet"] == 0
        assert node.fake.gpm_samples == 2
        assert node.faults == []


def test_activity_of_instances_that_fails_is_counted(tmp_path: Path) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        node.samples(2)
        node.fake.error("nvmlGpmMigSampleGet", 19)
        values = node.sample()
    assert len(devices(only(values, "gpu_memory_used_bytes"))) == 4
    assert 'gpu_mig_memory_used_bytes{gpu="0"}' in values
    assert len(node.faults) == 1


def test_without_instances_there_is_no_memory_to_sum(tmp_path: Path) -> None:
    with closing(divided(tmp_path, [])) as node:
        values = node.samples(2)
    assert values['gpu_mig_enabled{gpu="0"}'] == 1
    assert devices(values) == set()
    assert not only(values, "gpu_mig_memory_used_bytes", "gpu_mig_memory_total_bytes")
    assert node.faults == []


def test_a_gpu_that_cannot_be_divided_says_nothing_of_mig(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=1, model="L40S", events=False)) as node:
        assert not only(node.sample(), "gpu_mig_enabled")


def test_an_instance_that_is_taken_apart_is_gone_at_once_and_the_new_ones_are_there_next(
    tmp_path: Path,
) -> None:
    with closing(divided(tmp_path, ["3g.40gb", "3g.40gb"])) as node:
        assert devices(node.samples(3)) == {"0/2/0", "0/1/0"}
        node.fake.mig(0, ["3g.40gb", "2g.20gb", "1g.10gb"])
        gone = node.sample()
        assert not only(gone, "gpu_memory_used_bytes", "gpu_mig_memory_used_bytes").keys() - {
            'gpu_memory_used_bytes{gpu="0"}'
        }
        values = node.sample()
        assert devices(values) == {"0/2/0", "0/3/0", "0/9/0"}
        assert values['gpu_mig_memory_total_bytes{gpu="0"}'] == (40448 + 20096 + 9984) * MIB
        assert len(only(node.sample(), "gpu_sm_active_ratio")) == 4
        assert node.faults == []
        assert sampling(node)["nvmlDeviceGetMigMode"] == 0
        assert node.fake.gpm_samples == 8


def test_those_that_stay_keep_their_activity(tmp_path: Path) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        node.samples(2)
        with node.fake.batch():  # the last two are taken apart
            node.fake.remove_from(0, "mig.2.id", "mig.3.id", "mig.2.gi", "mig.3.gi")
        node.sample()
        values = node.sample()
    assert set(only(values, "gpu_sm_active_ratio")) == {
        'gpu_sm_active_ratio{gpu="0"}',
        'gpu_sm_active_ratio{gpu="0/2/0"}',
        'gpu_sm_active_ratio{gpu="0/3/0"}',
    }
    assert values['gpu_mig_memory_total_bytes{gpu="0"}'] == (40448 + 20096) * MIB


def test_an_instance_that_is_made_anew_in_the_same_place_has_its_new_uuid(tmp_path: Path) -> None:
    with closing(divided(tmp_path, ["3g.40gb"])) as node:
        node.sample()
        node.fake.mig(0, ["3g.40gb"])
        node.sample()
        node.clock.tick(1)
        values = named(node.collector.sample())
    uuids = {name.split('uuid="')[1].split('"')[0] for name in values if 'gpu="0/' in name}
    assert uuids == {node.fake.state["g0.mig.0.uuid"]}


def test_mig_is_switched_on_and_off_without_a_restart(node: Node) -> None:
    busy = 'gpu_busy_ratio{gpu="0"}'
    assert node.sample()[busy] == 1.0
    node.fake.mig(0, ["3g.40gb"])
    assert busy not in node.sample()
    values = node.samples(2, after=15)
    assert devices(values) == {"0/2/0"}
    assert busy not in values
    node.fake.mig(0, None)
    node.sample()
    values = node.sample()
    assert values[busy] == 1.0
    assert values['gpu_mig_enabled{gpu="0"}'] == 0
    assert devices(values) == set()
    assert not only(values, "gpu_mig_memory_used_bytes")
    assert node.faults == []


def test_an_empty_layout_is_filled_at_the_next_slow_look(tmp_path: Path) -> None:
    with closing(divided(tmp_path, [])) as node:
        node.sample()
        node.fake.mig(0, ["7g.80gb"])
        assert devices(node.samples(2, after=15)) == {"0/0/0"}


def test_instances_that_disappear_while_they_are_listed_are_left_out(tmp_path: Path) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        node.fake.error("nvmlDeviceGetComputeInstanceId", 2)
        values = node.samples(2)
        assert devices(values) == set()
        assert node.faults == []
        node.fake.clear_error("nvmlDeviceGetComputeInstanceId")
        assert len(devices(node.sample(30))) == 4


@pytest.mark.parametrize("code", [10, 999])
def test_a_mode_that_cannot_be_read_leaves_the_instances_as_they_were(
    tmp_path: Path, code: int
) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        node.samples(2)
        node.fake.error("nvmlDeviceGetMigMode", code)
        values = node.sample(30)
        assert len(devices(only(values, "gpu_memory_used_bytes"))) == 4
        assert len(only(values, "gpu_sm_active_ratio")) == 5
        assert not only(values, "gpu_mig_enabled")


def test_a_number_of_places_that_cannot_be_read_does_not_lose_the_gpu(tmp_path: Path) -> None:
    with closing(divided(tmp_path, RECORDED)) as node:
        node.fake.error("nvmlDeviceGetMaxMigDeviceCount", 4)
        values = node.sample()
    assert values['gpu_lost{gpu="0"}'] == 0
    assert devices(values) == set()


def test_a_gpu_lost_while_its_instances_are_opened_is_whole_when_it_is_back(
    tmp_path: Path,
) -> None:
    node = divided(tmp_path, RECORDED)
    with closing(node):
        node.samples(2)
        node.fake.mig(0, SHARED)
        node.fake.error("nvmlDeviceGetName", 15)
        assert node.samples(2)['gpu_lost{gpu="0"}'] == 1
        node.fake.clear_error("nvmlDeviceGetName")
        for _ in range(4):
            values = node.sample(10)
        assert values['gpu_lost{gpu="0"}'] == 0
        assert devices(values) == {"0/2/0", "0/2/1", "0/3/0"}
    assert node.fake.gpm_samples == 0
    assert node.fake.misuse == 0


def test_processes_belong_to_their_instances(tmp_path: Path) -> None:
    with closing(divided(tmp_path, SHARED)) as node:
        node.fake.processes(  # with numbers that no process of this machine can have
            0,
            Process(5_000_010, 100 * MIB, gi=2, ci=0),
            Process(5_000_011, 200 * MIB, gi=2, ci=1),
            Process(5_000_012, 300 * MIB, gi=3, ci=0),
            Process(5_000_010, 400 * MIB, gi=3, ci=0),
            Process(5_000_013, 500 * MIB, gi=9, ci=0),  # of an instance that we do not see
        )
        values = node.sample()
    assert only(values, "gpu_processes") == {
        'gpu_processes{gpu="0"}': 4,
        'gpu_processes{gpu="0/2/0"}': 1,
        'gpu_processes{gpu="0/2/1"}': 1,
        'gpu_processes{gpu="0/3/0"}': 2,
    }
    assert only(values, "gpu_process_memory_bytes") == {
        'gpu_process_memory_bytes{gpu="0/2/0",pid="5000010",command=""}': 100 * MIB,
        'gpu_process_memory_bytes{gpu="0/2/1",pid="5000011",command=""}': 200 * MIB,
        'gpu_process_memory_bytes{gpu="0/3/0",pid="5000012",command=""}': 300 * MIB,
        'gpu_process_memory_bytes{gpu="0/3/0",pid="5000010",command=""}': 400 * MIB,
        'gpu_process_memory_bytes{gpu="0",pid="5000013",command=""}': 500 * MIB,
    }
    assert not only(values, "gpu_process_utilization_ratio")

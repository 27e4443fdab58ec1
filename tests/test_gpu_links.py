"""NVLink and the fabric behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.gpu_series import only, sampling
from support.gpus import Node
from support.nvml import FakeNvml

ALL = 0xFFFFFFFF
NVLINK = (
    "gpu_nvlink_up", "gpu_nvlink_speed_bytes_per_second", "gpu_nvlink_errors_total",
    "gpu_nvlink_bytes_total", "gpu_nvlink_bytes_per_second",
)  # fmt: skip
FABRIC = ("gpu_fabric_info", "gpu_fabric_healthy", "gpu_fabric_fault")
SPEED = 'gpu_nvlink_speed_bytes_per_second{gpu="0"}'


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Looked at slowly once a second."""
    with closing(Node(tmp_path, gpus=1, slow_interval=1, events=False)) as node:
        yield node


def errors(node: Node) -> dict[str, float]:
    found = only(node.sample(), "gpu_nvlink_errors_total")
    return {name.split('type="')[1].rstrip('"}'): value for name, value in found.items()}


def test_every_link_is_up_or_down(node: Node) -> None:
    node.fake.gpu(0, {"nvlink.0.state": 0, "nvlink.17.state": 0})
    up = only(node.sample(), "gpu_nvlink_up")
    assert len(up) == 18
    assert {name for name, is_up in up.items() if not is_up} == {
        'gpu_nvlink_up{gpu="0",link="0"}',
        'gpu_nvlink_up{gpu="0",link="17"}',
    }


def test_a_link_that_comes_back_is_up_again(node: Node) -> None:
    node.fake.gpu(0, {"nvlink.5.state": 0})
    assert node.sample()['gpu_nvlink_up{gpu="0",link="5"}'] == 0
    node.fake.remove_from(0, "nvlink.5.state")
    assert node.sample()['gpu_nvlink_up{gpu="0",link="5"}'] == 1


def test_the_speed_of_a_link_is_in_bytes_per_second(node: Node) -> None:
    assert node.sample()[SPEED] == 26_562_000_000


def test_without_a_common_speed_it_is_that_of_a_link_that_runs(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.gpu(0, {"fi.90.ret": 3, "fi.164.0": 0, "fi.164.1.ret": 3, "fi.164.2": 25781})
    fake.remove_from(0, "nvlink_speed_mbps")
    with closing(Node(tmp_path, fake=fake, slow_interval=1, events=False)) as node:
        assert node.sample()[SPEED] == 26_562_000_000
        fake.gpu(0, {"fi.164.*": 0, "fi.164.2": 0})
        assert SPEED not in node.sample()
    assert node.faults == []


def test_a_gpu_that_states_no_speed_of_its_links_has_none(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.remove_from(0, "nvlink_speed_mbps", "fi.164.*")
    with closing(Node(tmp_path, fake=fake, slow_interval=1, events=False)) as node:
        assert SPEED not in node.samples(2)
        (remark,) = node.collector.remarks()
    assert "NVLink speed" in remark
    assert "too old" not in remark


def test_data_is_counted_in_bytes_for_all_links_together(node: Node) -> None:
    node.fake.gpu(0, {f"fi.138.{ALL}": 1 << 40, f"fi.139.{ALL}": 3, "fi.138.*": 7})
    assert only(node.sample(), "gpu_nvlink_bytes_total") == {
        'gpu_nvlink_bytes_total{gpu="0",direction="transmit"}': 1 << 50,
        'gpu_nvlink_bytes_total{gpu="0",direction="receive"}': 3 * 1024,
    }


def test_errors_of_all_links_are_added_up(node: Node) -> None:
    node.fake.gpu(0, {"fi.161.*": 1, "fi.161.3": 100, "fi.162.17": 5, "fi.163.0": 1 << 33})
    assert errors(node) == {"replay": 117, "recovery": 5, "crc": 1 << 33}


@pytest.mark.parametrize("code", [3, 6, 999])
def test_a_sum_is_absent_if_one_link_does_not_answer(node: Node, code: int) -> None:
    """With fewer summands a counter would seem to have been reset."""
    node.fake.gpu(0, {"fi.161.*": 10})
    assert errors(node)["replay"] == 180
    node.fake.gpu(0, {"fi.161.4.ret": code})
    assert errors(node).keys() == {"recovery", "crc"}
    assert errors(node).keys() == {"recovery", "crc"}


def test_a_sum_is_back_when_the_link_answers_again(node: Node) -> None:
    node.fake.gpu(0, {"fi.161.*": 10})
    assert errors(node)["replay"] == 180
    node.fake.gpu(0, {"fi.161.4.ret": 999})
    assert "replay" not in errors(node)
    assert len(node.faults) == 1
    node.fake.remove_from(0, "fi.161.4.ret")
    assert errors(node)["replay"] == 180


def test_gpus_that_add_up_their_errors_themselves_are_asked_once(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1, model="A100")
    fake.gpu(0, {"fi.38": 1, "fi.45": 2, "fi.52": 3, "fi.59": 4, "fi.160": 5, "fi.161.*": 99})
    fake.remove_from(0, "fi.163.*")
    with closing(Node(tmp_path, fake=fake, slow_interval=1, events=False)) as node:
        assert errors(node) == {
            "crc_flit": 1,
            "crc_data": 2,
            "replay": 3,
            "recovery": 4,
            "ecc_data": 5,
        }
        assert len(only(node.sample(), "gpu_nvlink_up")) == 12


def test_a_gpu_without_nvlink_has_no_series_of_it_and_no_faults(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=1, model="L40S", slow_interval=1, events=False)) as node:
        assert not only(node.samples(2), *NVLINK, *FABRIC)
        assert node.faults == []
        calls = sampling(node)
    assert calls["nvmlDeviceGetNvLinkState"] == 0
    assert calls["nvmlDeviceGetGpuFabricInfoV"] == 0


@pytest.mark.parametrize(("code", "faults"), [(3, 0), (6, 0), (10, 2)])
def test_states_that_are_refused_are_absent(node: Node, code: int, faults: int) -> None:
    node.sample()
    node.fake.error("nvmlDeviceGetNvLinkState", code)
    assert not only(node.sample(), "gpu_nvlink_up")
    node.sample()
    assert len(node.faults) == faults


def fabric(node: Node) -> dict[str, float]:
    return only(node.sample(), *FABRIC)


def identity(state: str, status: str) -> str:
    cluster = 'cluster="12345678-9abc-def0-1234-56789abcdef0",clique="7"'
    return f'gpu_fabric_info{{gpu="0",state="{state}",status="{status}",{cluster}}}'


@pytest.mark.parametrize(
    ("state", "status", "name", "outcome", "healthy"),
    [
        (1, 0, "not_started", "success", 0),
        (2, 0, "in_progress", "success", 0),
        (3, 0, "completed", "success", 1),
        (3, 999, "completed", "error 999", 0),
    ],
)
def test_a_gpu_is_registered_with_its_fabric_or_not(
    node: Node, state: int, status: int, name: str, outcome: str, healthy: int
) -> None:
    node.fake.gpu(0, fabric_state=state, fabric_status=status, fabric_clique=7)
    node.fake.gpu(0, fabric_uuid="123456789abcdef0123456789abcdef0")
    assert fabric(node) == {identity(name, outcome): 1, 'gpu_fabric_healthy{gpu="0"}': healthy}


def test_without_a_fabric_there_is_nothing_to_be_healthy(node: Node) -> None:
    node.fake.gpu(0, fabric_state=0)
    assert fabric(node) == {}
    assert node.sample()['gpu_lost{gpu="0"}'] == 0
    assert node.faults == []


FAULTS = ("degraded_bandwidth", "route_recovery", "route_unhealthy", "access_timeout_recovery")


@pytest.mark.parametrize(
    ("mask", "faults"),
    [
        (0x0, {}),
        (0x2, {"degraded_bandwidth": 0}),
        (0x1AA, {**dict.fromkeys(FAULTS, 0), "incorrect_configuration": 0}),
        (
            0x1A9,
            {**dict.fromkeys(FAULTS, 0), "degraded_bandwidth": 1, "incorrect_configuration": 0},
        ),
        (0x1A6, {**dict.fromkeys(FAULTS, 0), "route_recovery": 1, "incorrect_configuration": 0}),
        (0x19A, {**dict.fromkeys(FAULTS, 0), "route_unhealthy": 1, "incorrect_configuration": 0}),
        (
            0x16A,
            {
                **dict.fromkeys(FAULTS, 0),
                "access_timeout_recovery": 1,
                "incorrect_configuration": 0,
            },
        ),
        (0x500, {"incorrect_configuration": 1}),
        # Whether a partition is assigned, which is no fault.
        (0x2002, {"degraded_bandwidth": 0}),
    ],
)
def test_the_faults_of_a_fabric_are_those_that_the_driver_tells_of(
    node: Node, mask: int, faults: dict[str, int]
) -> None:
    node.fake.gpu(0, fabric_health=mask)
    values = fabric(node)
    assert only(values, "gpu_fabric_fault") == {
        f'gpu_fabric_fault{{gpu="0",fault="{fault}"}}': is_on for fault, is_on in faults.items()
    }
    assert values['gpu_fabric_healthy{gpu="0"}'] == (0 if 1 in faults.values() else 1)


def test_a_fabric_that_falls_ill_and_recovers_is_seen_at_the_next_look(node: Node) -> None:
    healthy = 'gpu_fabric_healthy{gpu="0"}'
    assert fabric(node)[healthy] == 1
    node.fake.gpu(0, fabric_health=0x10)
    assert fabric(node)[healthy] == 0
    node.fake.gpu(0, fabric_health=0x20)
    assert fabric(node)[healthy] == 1


def test_links_are_absent_under_mig_and_back_without(node: Node) -> None:
    assert len(only(node.sample(), "gpu_nvlink_up")) == 18
    node.fake.mig(0, ["7g.80gb"])
    assert not only(node.samples(2), "gpu_nvlink_up", "gpu_nvlink_errors_total", SPEED)
    node.fake.mig(0, None)
    assert len(only(node.samples(2), "gpu_nvlink_up")) == 18
    assert node.faults == []

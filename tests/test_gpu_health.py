"""What changes seldom: ECC, rows and pages of memory, PCIe errors, modes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.gpu_series import only
from support.gpus import Node
from support.nvml import FakeNvml

ECC = "gpu_ecc_errors_total"
REMAPPING = ("gpu_remapped_rows_total", "gpu_row_remap_pending", "gpu_row_remap_failed")
RETIRED = ("gpu_retired_pages_total", "gpu_retired_pages_pending")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """Looked at slowly once a second."""
    with closing(Node(tmp_path, gpus=1, slow_interval=1, events=False)) as node:
        yield node


def test_ecc_errors_are_told_apart_by_what_became_of_them_and_since_when(node: Node) -> None:
    node.fake.gpu(0, {"ecc.0.0": 1, "ecc.1.0": 2, "ecc.0.1": 30_000_000_000, "ecc.1.1": 4})
    assert only(node.sample(), ECC) == {
        f'{ECC}{{gpu="0",type="corrected",lifetime="volatile"}}': 1,
        f'{ECC}{{gpu="0",type="uncorrected",lifetime="volatile"}}': 2,
        f'{ECC}{{gpu="0",type="corrected",lifetime="aggregate"}}': 30_000_000_000,
        f'{ECC}{{gpu="0",type="uncorrected",lifetime="aggregate"}}': 4,
    }


def test_ecc_that_is_off_is_told_and_has_no_counters(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.gpu(0, {"ecc": 0, **{f"fi.{field}.ret": 3 for field in (3, 4, 5, 6)}})
    with closing(Node(tmp_path, fake=fake, events=False)) as node:
        values = node.sample()
    assert values['gpu_ecc_enabled{gpu="0"}'] == 0
    assert not only(values, ECC)
    assert node.faults == []


def test_a_gpu_that_cannot_do_ecc_says_nothing_of_it(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=1, model="RTX2080S", events=False)) as node:
        assert not only(node.sample(), ECC, "gpu_ecc_enabled", *REMAPPING)
        assert node.faults == []


def test_rows_that_were_replaced_wait_or_could_not_be(node: Node) -> None:
    node.fake.gpu(0, {"remap.cor": 5, "remap.unc": 2, "remap.pending": 1, "remap.failure": 1})
    assert only(node.sample(), *REMAPPING) == {
        'gpu_remapped_rows_total{gpu="0",errors="correctable"}': 5,
        'gpu_remapped_rows_total{gpu="0",errors="uncorrectable"}': 2,
        'gpu_row_remap_pending{gpu="0"}': 1,
        'gpu_row_remap_failed{gpu="0"}': 1,
    }


def test_row_remapping_is_absent_under_mig_and_back_without(node: Node) -> None:
    node.fake.gpu(0, {"remap.cor": 5})
    assert len(only(node.sample(), *REMAPPING)) == 4
    node.fake.mig(0, ["3g.40gb"])
    assert not only(node.samples(2), *REMAPPING)
    node.fake.mig(0, None)
    again = only(node.samples(2), *REMAPPING)
    assert len(again) == 4
    assert again['gpu_remapped_rows_total{gpu="0",errors="correctable"}'] == 5


def test_old_gpus_retire_pages(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1, model="RTX2080S")
    fake.gpu(0, {"retired.sbe": 3, "retired.dbe": 1, "retired.pending": 1})
    with closing(Node(tmp_path, fake=fake, events=False)) as node:
        assert only(node.sample(), *RETIRED) == {
            'gpu_retired_pages_total{gpu="0",errors="single_bit"}': 3,
            'gpu_retired_pages_total{gpu="0",errors="double_bit"}': 1,
            'gpu_retired_pages_pending{gpu="0"}': 1,
        }


def test_newer_gpus_retire_none(node: Node) -> None:
    assert not only(node.sample(), *RETIRED)


def test_pcie_errors_by_type_and_replays(node: Node) -> None:
    node.fake.gpu(0, {f"fi.{field}": field for field in range(173, 184)})
    node.fake.gpu(0, {"pcie_replay": 9, "fi.95": 2})
    values = node.sample()
    assert only(values, "gpu_pcie_errors_total") == {
        f'gpu_pcie_errors_total{{gpu="0",type="{kind}"}}': field
        for field, kind in enumerate(
            [
                *("correctable", "nak_received", "receiver", "bad_tlp", "nak_sent", "bad_dllp"),
                *("non_fatal", "fatal", "unsupported_request", "lcrc", "lane"),
            ],
            173,
        )
    }
    assert values['gpu_pcie_replays_total{gpu="0"}'] == 9
    assert values['gpu_pcie_replay_rollovers_total{gpu="0"}'] == 2


@pytest.mark.parametrize("action", [0, 4])
def test_what_the_driver_asks_for_after_an_error(node: Node, action: int) -> None:
    node.fake.gpu(0, {"fi.230": action})
    assert node.sample()['gpu_recovery_action{gpu="0"}'] == action


def test_persistence_mode(node: Node) -> None:
    assert node.sample()['gpu_persistence_enabled{gpu="0"}'] == 1
    node.fake.gpu(0, persistence=0)
    assert node.sample()['gpu_persistence_enabled{gpu="0"}'] == 0


@pytest.fixture
def profiled(tmp_path: Path) -> Iterator[Node]:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.gpu(0, profiles_enforced=1 << 3 | 1 << 33, profiles_requested=1)
    with closing(Node(tmp_path, fake=fake, slow_interval=1, events=False)) as node:
        yield node


def test_power_profiles_come_and_go(profiled: Node) -> None:
    assert only(profiled.sample(), "gpu_power_profile") == {
        'gpu_power_profile{gpu="0",profile="3"}': 1,
        'gpu_power_profile{gpu="0",profile="33"}': 1,
    }
    profiled.fake.gpu(0, profiles_enforced=2)
    assert only(profiled.sample(), "gpu_power_profile") == {
        'gpu_power_profile{gpu="0",profile="1"}': 1
    }
    profiled.fake.gpu(0, profiles_enforced=0)
    assert only(profiled.sample(), "gpu_power_profile") == {}


def test_slow_facts_stay_in_every_sample_and_change_at_the_next_look(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=1, events=False)) as node:
        node.sample()
        node.fake.gpu(0, {"pcie_replay": 7})
        replays = 'gpu_pcie_replays_total{gpu="0"}'
        assert node.sample()[replays] == 0
        assert node.sample(27)[replays] == 0
        assert node.sample(2)[replays] == 7


def test_a_field_that_fails_once_is_absent_once_and_counted(node: Node) -> None:
    node.sample()
    node.fake.gpu(0, {"fi.94.ret": 999})
    assert not only(node.sample(), "gpu_pcie_replays_total")
    assert len(node.faults) == 1
    node.fake.remove_from(0, "fi.94.ret")
    assert only(node.sample(), "gpu_pcie_replays_total") == {'gpu_pcie_replays_total{gpu="0"}': 0}

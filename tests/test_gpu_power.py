"""Power, its limits and the energy counter, and the meters that energy figures come from."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from support.gpu_series import only, sampling
from support.gpus import Node
from support.nvml import FakeNvml

POWER = ("gpu_power_average_watts", "gpu_power_instant_watts")
METERS = ("power_watts", "energy_joules_total")
GPU = 'source="nvml",domain="gpu",device="0",boundary="component"'
MEMORY = 'source="nvml",domain="memory",device="0",boundary="subcomponent"'
MODULE = 'source="nvml",domain="module",device="0",boundary="enclosing"'


def busy(folder: Path, model: str = "H100", **variant: object) -> Node:
    fake = FakeNvml(folder, gpus=1, model=model, **variant)  # type: ignore[arg-type]
    fake.busy()
    fake.gpu(0, energy_mj=2_000_500)
    return Node(folder, fake=fake, events=False)


def test_average_and_instantaneous_power_are_two_families_with_values_of_their_own(
    tmp_path: Path,
) -> None:
    with closing(busy(tmp_path)) as node:
        assert only(node.sample(), *POWER) == {
            'gpu_power_average_watts{gpu="0",scope="gpu"}': 629.45,
            'gpu_power_instant_watts{gpu="0",scope="gpu"}': 588.39,
            'gpu_power_average_watts{gpu="0",scope="memory"}': 85.83,
        }


def test_the_meters_get_the_average_and_the_energy_counter(tmp_path: Path) -> None:
    with closing(busy(tmp_path)) as node:
        values = node.sample()
    assert only(values, *METERS) == {
        f"power_watts{{{GPU}}}": 629.45,
        f"power_watts{{{MEMORY}}}": 85.83,
        f"energy_joules_total{{{GPU}}}": 2000.5,
    }
    assert values['gpu_energy_joules_total{gpu="0"}'] == 2000.5


def test_components_of_several_gpus_add_up_to_their_power(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=8, events=False)) as node:
        values = only(node.sample(), "power_watts")
    assert sum(v for name, v in values.items() if 'boundary="component"' in name) == (
        pytest.approx(8 * 69.85)
    )


def test_energy_follows_the_power(tmp_path: Path) -> None:
    with closing(Node(tmp_path, gpus=1, events=False)) as node:
        node.fake.busy()
        before, after = node.sample(), node.sample(10)
    energy = 'gpu_energy_joules_total{gpu="0"}'
    assert after[energy] - before[energy] == pytest.approx(6294.5)


def test_the_counter_of_a_module_covers_all_of_it_and_the_power_of_its_gpu_is_a_component(
    tmp_path: Path,
) -> None:
    with closing(busy(tmp_path, "GH200")) as node:
        values = node.sample()
    assert only(values, *METERS) == {
        f"power_watts{{{GPU}}}": 641.27,
        f"power_watts{{{MODULE}}}": 832.56,
        f"power_watts{{{MEMORY}}}": 85.83,
        f"energy_joules_total{{{MODULE}}}": 2000.5,
    }
    assert only(values, *POWER) == {
        'gpu_power_average_watts{gpu="0",scope="gpu"}': 641.27,
        'gpu_power_average_watts{gpu="0",scope="module"}': 832.56,
        'gpu_power_average_watts{gpu="0",scope="memory"}': 85.83,
        'gpu_power_instant_watts{gpu="0",scope="gpu"}': 655.04,
        'gpu_power_instant_watts{gpu="0",scope="module"}': 848.11,
    }


@pytest.mark.parametrize(("model", "watts"), [("A100", 392.18), ("RTX2080S", 248.7)])
def test_the_power_of_the_moment_is_never_shown_as_an_average(
    tmp_path: Path, model: str, watts: float
) -> None:
    """nvmlDeviceGetPowerUsage is an average only on Ampere (not GA100) and later."""
    with closing(busy(tmp_path, model)) as node:
        values = node.sample()
        remarks = " ".join(node.collector.remarks())
    assert only(values, *POWER) == {'gpu_power_instant_watts{gpu="0",scope="gpu"}': watts}
    assert only(values, "power_watts") == {f"power_watts{{{GPU}}}": watts}
    assert "average power of the gpu" in remarks


@pytest.mark.parametrize(
    ("model", "family", "watts"),
    [
        ("H100", "gpu_power_average_watts", 629.45),
        ("L40S", "gpu_power_average_watts", 183.28),
        ("A100", "gpu_power_instant_watts", 392.18),
    ],
)
def test_a_driver_without_the_fields_gives_what_its_one_call_means_on_that_gpu(
    tmp_path: Path, model: str, family: str, watts: float
) -> None:
    with closing(busy(tmp_path, model, old_driver=True)) as node:
        values = node.sample()
    assert only(values, *POWER) == {f'{family}{{gpu="0",scope="gpu"}}': watts}
    assert only(values, "power_watts") == {f"power_watts{{{GPU}}}": watts}


def test_power_that_the_gpu_does_not_measure_is_absent_and_not_zero(tmp_path: Path) -> None:
    with closing(busy(tmp_path)) as node:
        node.fake.remove_from(0, "power_average_mw", "power_instant_mw", "fi.185.2", "energy_mj")
        values = node.sample()
        assert not only(values, *POWER, *METERS, "gpu_energy_joules_total")
        assert node.faults == []
        assert sampling(node)["nvmlDeviceGetPowerUsage"] == 0  # not asked again


def test_a_gpu_without_the_average_field_keeps_the_instantaneous_one(tmp_path: Path) -> None:
    with closing(busy(tmp_path)) as node:
        node.fake.gpu(0, {"fi.186.ret": 3})
        values = only(node.sample(), *POWER)
    assert 'gpu_power_instant_watts{gpu="0",scope="gpu"}' not in values
    assert values['gpu_power_average_watts{gpu="0",scope="gpu"}'] == 629.45


def test_where_the_energy_field_is_refused_the_call_gives_the_counter(tmp_path: Path) -> None:
    with closing(busy(tmp_path)) as node:
        node.fake.gpu(0, {"fi.83.ret": 3})
        values = node.sample()
        assert sampling(node)["nvmlDeviceGetTotalEnergyConsumption"] == 1
    assert values['gpu_energy_joules_total{gpu="0"}'] == 2000.5
    assert values[f"energy_joules_total{{{GPU}}}"] == 2000.5


def test_an_energy_counter_beyond_32_bits_is_exact(tmp_path: Path) -> None:
    with closing(busy(tmp_path)) as node:
        node.fake.gpu(0, energy_mj=(1 << 52) + 1)
        assert node.sample()['gpu_energy_joules_total{gpu="0"}'] == ((1 << 52) + 1) / 1000


def test_every_limit_has_its_name(tmp_path: Path) -> None:
    limits = {"enforced": 650, "requested": 690, "default": 700, "min": 200, "max": 710}
    fake = FakeNvml(tmp_path, gpus=1)
    fake.gpu(0, {f"plimit_{name}_mw": watts * 1000 for name, watts in limits.items()})
    with closing(Node(tmp_path, fake=fake, events=False)) as node:
        assert only(node.sample(), "gpu_power_limit_watts") == {
            f'gpu_power_limit_watts{{gpu="0",limit="{name}"}}': watts
            for name, watts in limits.items()
        }
        fake.gpu(0, plimit_enforced_mw=500_000)  # an operator caps it
        assert node.sample()['gpu_power_limit_watts{gpu="0",limit="enforced"}'] == 500


def test_an_old_driver_gives_the_enforced_limit_by_its_call(tmp_path: Path) -> None:
    with closing(busy(tmp_path, old_driver=True)) as node:
        values = node.sample()
    assert values['gpu_power_limit_watts{gpu="0",limit="enforced"}'] == 700


def test_limits_that_are_not_known_are_absent(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.remove_from(0, *[f"plimit_{name}_mw" for name in ("enforced", "requested", "min")])
    with closing(Node(tmp_path, fake=fake, events=False)) as node:
        assert only(node.sample(), "gpu_power_limit_watts") == {
            'gpu_power_limit_watts{gpu="0",limit="default"}': 700
        }

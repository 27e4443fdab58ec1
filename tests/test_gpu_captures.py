"""The collector beside nvidia-smi: every figure of recorded dumps of real GPUs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.captures import CAPTURES, ECC, FIGURES, GPU, MIB, REASONS, Capture
from support.clock import FakeClock
from support.gpu_series import only
from support.gpus import Node
from support.nvml import FakeNvml, Process
from support.trees import host_at, write_tree

pytestmark = pytest.mark.skipif(
    not CAPTURES.is_dir(), reason="the recorded captures of nvidia-smi are not here"
)

H100, MIG = "nvidia-h100-80gb-hbm3", "nvidia-h100-mig"
L40S, RTX = "nvidia-l40s", "nvidia-geforce-rtx-2080-super"
EACH = [(name, load) for name in (H100, MIG, L40S, RTX) for load in ("idle", "load")]
# What a dump does not tell, and the collector yields of every GPU.
BESIDE = {
    "gpu_info", "gpu_driver_info", "gpu_lost", "gpu_readings_missing", "gpu_throttle_active",
    "gpu_memory_free_bytes", "gpu_processes", "power_watts",
}  # fmt: skip


class Seen:
    """What the collector yields, and faults, of a GPU that answers like the recorded one."""

    def __init__(self, folder: Path, name: str, load: str) -> None:
        self.capture = Capture(name, load)
        fake = FakeNvml(folder, gpus=1)
        with fake.batch():
            fake.remove(*[key for key in fake.state if key.startswith("g0.")])
            fake.gpu(0, self.capture.state())
            fake.processes(0, *self.capture.processes())
        for one in self.capture.processes():
            write_tree(folder, {f"proc/{one.pid}/comm": f"{one.name}\n"})
        clock = FakeClock()
        host = host_at(folder, clock)
        node = Node(folder, fake=fake, host=host, events=False, pcie_throughput=True)
        node.clock = clock
        with closing(node):
            self.values = node.sample()
        self.faults = node.faults


See = Callable[[str, str], Seen]


@pytest.fixture(scope="module")
def see(tmp_path_factory: pytest.TempPathFactory) -> See:
    return functools.cache(lambda name, load: Seen(tmp_path_factory.mktemp("gpu"), name, load))


@pytest.mark.parametrize(("name", "load"), EACH)
def test_every_figure_is_as_nvidia_smi_shows_it_and_what_is_n_a_is_absent(
    see: See, name: str, load: str
) -> None:
    seen = see(name, load)
    capture, values = seen.capture, seen.values
    expected = {}
    for figure in FIGURES:
        number = figure.number(capture.dump)
        if number is None:
            assert figure.series not in values, figure
        else:
            expected[figure.series] = pytest.approx(figure.base(number), rel=1e-12)
    assert len(expected) > 25
    assert {series: values.get(series) for series in expected} == expected
    assert seen.faults == []


@pytest.mark.parametrize(
    ("name", "model", "architecture", "pci", "serial"),
    [
        (H100, "NVIDIA H100 80GB HBM3", "Hopper", "0000:00:09.0", "0000000000000"),
        (MIG, "NVIDIA H100 80GB HBM3", "Hopper", "0000:00:09.0", "0000000000000"),
        (L40S, "NVIDIA L40S", "Ada", "0000:01:00.0", "0000000000000"),
        (RTX, "NVIDIA GeForce RTX 2080 SUPER", "Turing", "0000:0c:00.0", ""),
    ],
)
def test_a_gpu_is_who_nvidia_smi_says(
    see: See, name: str, model: str, architecture: str, pci: str, serial: str
) -> None:
    labels = f'index="0",vendor="nvidia",model="{model}",architecture="{architecture}"'
    place = f'pci="{pci}",serial="{serial}",minor="0",numa_node=""'
    assert f"gpu_info{{{GPU},{labels},{place}}}" in see(name, "idle").values


@pytest.mark.parametrize(("name", "load"), EACH)
def test_nothing_is_reported_that_the_dump_does_not_have(see: See, name: str, load: str) -> None:
    """But for what stands in other tests here."""
    capture, values = see(name, load).capture, see(name, load).values
    known = {figure.series for figure in FIGURES}
    others = {series.partition("{")[0] for series in values if series not in known}
    if capture.processes():
        others -= {f"gpu_{who}_memory_bytes" for who in ("process", "owner")}
        others -= {f"gpu_{who}_utilization_ratio" for who in ("process", "owner")}
        others.remove("gpu_owner_processes")
    if capture.ecc_errors(0, 0) is not None:
        others.remove("gpu_ecc_errors_total")
    if capture.dump.text(("Fabric", "State")):
        others -= {"gpu_fabric_info", "gpu_fabric_healthy"}
    if capture.link_speeds():
        others -= {"gpu_nvlink_up", "gpu_nvlink_speed_bytes_per_second"}
    if capture.instances():
        others -= {"gpu_instance_info", "gpu_mig_memory_used_bytes", "gpu_mig_memory_total_bytes"}
        others -= {"gpu_memory_used_bytes", "gpu_memory_total_bytes", "gpu_memory_reserved_bytes"}
    assert others == BESIDE


@pytest.mark.parametrize(("name", "load"), EACH)
def test_the_reasons_for_low_clocks_are_those_of_the_dump(see: See, name: str, load: str) -> None:
    capture, values = see(name, load).capture, see(name, load).values
    assert only(values, "gpu_throttle_active") == {
        f'gpu_throttle_active{{{GPU},reason="{reason}"}}': int(capture.is_active(*path))
        for path, (_, reason) in REASONS.items()
    }


@pytest.mark.parametrize(("name", "load"), EACH)
def test_ecc_errors_are_those_of_sram_and_dram(see: See, name: str, load: str) -> None:
    capture, values = see(name, load).capture, see(name, load).values
    names = {0: "corrected", 1: "uncorrected"}, {0: "volatile", 1: "aggregate"}
    assert only(values, "gpu_ecc_errors_total") == {
        f'gpu_ecc_errors_total{{{GPU},type="{names[0][kind]}",lifetime="{names[1][since]}"}}': found
        for kind, since in ECC
        if (found := capture.ecc_errors(kind, since)) is not None
    }


@pytest.mark.parametrize(("name", "load"), EACH)
def test_free_memory_is_what_nvidia_smi_shows_but_for_its_rounding(
    see: See, name: str, load: str
) -> None:
    capture, values = see(name, load).capture, see(name, load).values
    free = int(str(capture.dump.text(("FB Memory Usage", "Free"))).split()[0])
    assert values[f"gpu_memory_free_bytes{{{GPU}}}"] == pytest.approx(free * MIB, abs=MIB)


@pytest.mark.parametrize(("name", "load"), EACH)
def test_processes_are_those_of_the_dump_and_without_a_sample_have_no_share(
    see: See, name: str, load: str
) -> None:
    """pmon shows `-` for them."""
    capture, values = see(name, load).capture, see(name, load).values

    def series(family: str, one: Process) -> str:
        gpu = GPU if one.gi is None else f'gpu="0/{one.gi}/{one.ci}"'
        return f'{family}{{{gpu},pid="{one.pid}",command="{one.name}"}}'

    processes = capture.processes()
    assert values[f"gpu_processes{{{GPU}}}"] == len(processes)
    assert only(values, "gpu_process_memory_bytes") == {
        series("gpu_process_memory_bytes", one): one.memory for one in processes
    }
    assert only(values, "gpu_process_utilization_ratio") == {
        series("gpu_process_utilization_ratio", one): one.sm / 100
        for one in processes
        if one.sm is not None
    }


@pytest.mark.parametrize(("name", "load"), EACH)
def test_the_processes_of_the_dump_whose_cgroup_is_not_known_are_the_system_s_and_add_up(
    see: See, name: str, load: str
) -> None:
    capture, values = see(name, load).capture, see(name, load).values
    count: dict[str, int] = {}
    memory: dict[str, int] = {}
    shares: dict[str, float] = {}
    for one in capture.processes():
        gpu = GPU if one.gi is None else f'gpu="0/{one.gi}/{one.ci}"'
        owner = f'{gpu},owner_kind="system",owner="system"'
        count[owner] = count.get(owner, 0) + 1
        memory[owner] = memory.get(owner, 0) + one.memory
        if one.sm is not None:
            shares[owner] = shares.get(owner, 0.0) + one.sm / 100
    assert only(values, "gpu_owner_processes") == {
        f"gpu_owner_processes{{{owner}}}": found for owner, found in count.items()
    }
    assert only(values, "gpu_owner_memory_bytes", "gpu_owner_utilization_ratio") == {
        **{f"gpu_owner_memory_bytes{{{owner}}}": found for owner, found in memory.items()},
        **{f"gpu_owner_utilization_ratio{{{owner}}}": found for owner, found in shares.items()},
    }


def test_average_and_instantaneous_power_of_one_dump_differ_by_forty_watts(see: See) -> None:
    values = see(H100, "load").values
    assert values[f'gpu_power_average_watts{{{GPU},scope="gpu"}}'] == 629.45
    assert values[f'gpu_power_instant_watts{{{GPU},scope="gpu"}}'] == 588.39
    assert only(values, "power_watts") == {
        'power_watts{source="nvml",domain="gpu",device="0",boundary="component"}': 629.45,
        'power_watts{source="nvml",domain="memory",device="0",boundary="subcomponent"}': 85.83,
    }


def test_a_gpu_with_an_instantaneous_reading_only_has_no_average(see: See) -> None:
    values = see(RTX, "load").values
    assert not only(values, "gpu_power_average_watts")
    assert only(values, "power_watts") == {
        'power_watts{source="nvml",domain="gpu",device="0",boundary="component"}': 97.75
    }


def test_under_mig_there_is_no_utilization_and_every_instance_has_its_memory(
    see: See,
) -> None:
    capture, values = see(MIG, "load").capture, see(MIG, "load").values
    assert capture.dump.text(("Utilization", "GPU")) is None
    assert not only(values, "gpu_busy_ratio", "gpu_process_utilization_ratio")
    instances = capture.instances()
    assert [(gi, profile) for gi, _, profile, _ in instances] == [
        *((2, "3g.40gb"), (3, "2g.20gb"), (9, "1g.10gb"), (10, "1g.10gb"))
    ]
    for gi, ci, _, memory in instances:
        for kind, size in memory.items():
            series = f'gpu_memory_{kind.lower()}_bytes{{gpu="0/{gi}/{ci}"}}'
            assert values[series] == size


def test_the_memory_of_distinct_gpu_instances_adds_up_to_that_of_the_gpu(see: See) -> None:
    for load in ("idle", "load"):
        values = see(MIG, load).values
        used = values[f"gpu_mig_memory_used_bytes{{{GPU}}}"]
        # nvidia-smi rounds each of them to MiB.
        assert used == pytest.approx(values[f"gpu_memory_used_bytes{{{GPU}}}"], abs=4 * MIB)
        assert values[f"gpu_mig_memory_total_bytes{{{GPU}}}"] == (
            (40448 + 20096 + 9984 + 9984) * MIB
        )


@pytest.mark.parametrize(("name", "links"), [(H100, 18), (MIG, 0), (L40S, 0), (RTX, 0)])
def test_links_are_those_of_nvidia_smi(see: See, name: str, links: int) -> None:
    capture, values = see(name, "load").capture, see(name, "load").values
    assert len(only(values, "gpu_nvlink_up")) == links == len(capture.link_speeds())
    speed = only(values, "gpu_nvlink_speed_bytes_per_second")
    assert list(speed.values()) == [26_562_000_000] * bool(links)


def test_a_fabric_whose_health_is_n_a_is_healthy_while_it_is_completed(see: See) -> None:
    values = see(H100, "load").values
    zero = "00000000-0000-0000-0000-000000000000"
    fabric = f'{GPU},state="completed",status="success",cluster="{zero}",clique="0"'
    assert only(values, "gpu_fabric_info", "gpu_fabric_healthy", "gpu_fabric_fault") == {
        f"gpu_fabric_info{{{fabric}}}": 1,
        f"gpu_fabric_healthy{{{GPU}}}": 1,
    }

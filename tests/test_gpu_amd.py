"""The gpu_amd collector on trees with one defect each: what amdgpu offers, and what it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.amd_gpus import Machine, of_card, values_of_tree
from support.trees import values_of


def test_an_mi300x_gives_what_its_driver_offers(tmp_path: Path) -> None:
    expected = of_card(
        "card1",
        lost=0,
        busy_ratio=0.73,
        memory_busy_ratio=0.41,
        memory_total_bytes=206141652992,
        memory_used_bytes=103070826496,
        clock_hertz__clock__graphics=2_087_000_000,
        clock_hertz__clock__memory=1_300_000_000,
        clock_max_hertz__clock__graphics=2_100_000_000,
        clock_max_hertz__clock__memory=1_300_000_000,
        temperature_celsius__sensor__gpu=61,
        temperature_celsius__sensor__memory=48,
        power_instant_watts__scope__gpu=412,
        power_limit_watts__limit__enforced=750,
        power_limit_watts__limit__default=750,
        power_limit_watts__limit__max=750,
        power_limit_watts__limit__min=0,
        pcie_link_generation=5,
        pcie_link_width=16,
        pcie_link_generation_max=5,
        pcie_link_width_max=16,
        pcie_replays_total=2,
        ecc_errors_total__type__corrected__lifetime__volatile=3,
        ecc_errors_total__type__uncorrected__lifetime__volatile=0,
        processes=2,
        process_memory_bytes__pid__4100__command__python3=80 << 30,
        process_memory_bytes__pid__4200__command__ffmpeg=256 << 20,
        owner_processes__owner_kind__job__owner__7=1,
        owner_memory_bytes__owner_kind__job__owner__7=80 << 30,
        owner_processes__owner_kind__system__owner__system=1,
        owner_memory_bytes__owner_kind__system__owner__system=256 << 20,
    )
    assert values_of_tree("mi300x", tmp_path) == expected


def test_an_edge_sensor_is_the_gpus_temperature_and_the_average_power_is_told_apart(
    tmp_path: Path,
) -> None:
    values = values_of_tree("mi210", tmp_path)
    expected = of_card(
        "card0",
        busy_ratio=0,
        temperature_celsius__sensor__gpu=35,
        temperature_celsius__sensor__junction=38,
        temperature_celsius__sensor__memory=41,
        power_average_watts__scope__gpu=43,
        power_limit_watts__limit__min=100,
        ecc_errors_total__type__corrected__lifetime__volatile=12,
        ecc_errors_total__type__uncorrected__lifetime__volatile=1,
    )
    assert expected.items() <= values.items()
    assert not any(name.startswith("power_instant") for name in values)


def test_the_fan_is_a_share_of_its_highest_speed(tmp_path: Path) -> None:
    assert values_of_tree("own-switch", tmp_path)['fan_speed_ratio{gpu="card1",fan="1"}'] == 0.4


def test_inside_a_processor_the_power_is_that_of_the_module_and_the_marked_level_is_the_clock(
    tmp_path: Path,
) -> None:
    values = values_of_tree("inside-processor", tmp_path)
    assert values['power_instant_watts{gpu="card0",scope="module"}'] == 17
    assert values['clock_hertz{gpu="card0",clock="graphics"}'] == 1_100_000_000
    # Two levels are marked: none is known to be in use.
    assert 'clock_hertz{gpu="card0",clock="memory"}' not in values
    assert values['clock_max_hertz{gpu="card0",clock="memory"}'] == 2_800_000_000
    assert not any(name.startswith(("pcie_", "power_limit")) for name in values)


def test_what_a_driver_does_not_offer_is_absent_and_no_fault(tmp_path: Path) -> None:
    assert values_of_tree("busy-not-offered", tmp_path) == of_card(
        "card0",
        lost=0,
        memory_total_bytes=68702699520,
        memory_used_bytes=11452416,
        temperature_celsius__sensor__gpu=35,
        processes=0,
    )


def test_doctor_is_told_what_a_gpu_does_not_offer(tmp_path: Path) -> None:
    machine = Machine("mi300x", tmp_path)
    machine.values()
    assert list(machine.gpus.remarks()) == [
        "card1: not offered or not known: power_average, fan_speed"
    ]


def test_identity_is_on_the_info_series_and_the_uuid_is_the_unique_id(tmp_path: Path) -> None:
    names = set(values_of(Machine("mi300x", tmp_path).gpus))
    assert (
        'telemetryd_gpu_info{gpu="card1",uuid="8c1e5b9f2a7d4c31",index="",vendor="amd",'
        'model="AMD Instinct MI300X OAM",architecture="",pci="0000:05:00.0",'
        'serial="692316000512",minor="128",numa_node="0"}'
    ) in names
    assert 'telemetryd_gpu_driver_info{vendor="amd",driver="6.10.5",library="",cuda=""}' in names


def test_without_a_unique_id_the_pci_address_stands_for_it(tmp_path: Path) -> None:
    names = set(values_of(Machine("inside-processor", tmp_path).gpus))
    assert (
        'telemetryd_gpu_info{gpu="card0",uuid="0000:c4:00.0",index="",vendor="amd",'
        'model="1002:15bf",architecture="",pci="0000:c4:00.0",serial="",minor="128",'
        'numa_node=""}'
    ) in names


def test_two_cards_of_one_device_give_every_reading_once(tmp_path: Path) -> None:
    values = values_of_tree("two-cards-one-device", tmp_path)
    assert [name for name in values if name.startswith("power_instant")] == [
        'power_instant_watts{gpu="card9",scope="gpu"}'
    ]


def test_a_process_of_rocm_has_no_utilization_for_its_queues_bypass_the_kernel(
    tmp_path: Path,
) -> None:
    machine = Machine("mi300x", tmp_path)
    machine.values()
    for pid, fd, engine in ((4100, 8, "dma:\t600"), (4200, 5, "dec:\t9500000000")):
        path = machine.root / f"proc/{pid}/fdinfo/{fd}"
        text = path.read_text()
        path.write_text(text[: text.index("drm-engine-")] + f"drm-engine-{engine} ns\n")
    values = machine.values(after=10)
    shares = {name: value for name, value in values.items() if "process_utilization" in name}
    assert shares == {'process_utilization_ratio{gpu="card1",pid="4200",command="ffmpeg"}': 0.25}


def test_processes_are_looked_at_at_their_own_interval(tmp_path: Path) -> None:
    machine = Machine("mi300x", tmp_path, process_interval=30)
    assert machine.values()['processes{gpu="card1"}'] == 2
    shutil.rmtree(machine.root / "proc/4200")
    assert machine.values(after=29)['processes{gpu="card1"}'] == 2
    assert machine.values(after=1)['processes{gpu="card1"}'] == 1

"""The disk collector on trees with one defect each, and the utilization derived from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import pytest
from support.clock import FakeClock
from support.disks import IDLE, SDA, blocks, disk_at, diskstats
from support.trees import values_of, write_tree

from telemetryd.collectors.disk import Disk, DiskConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Host


def devices(values: dict[str, float]) -> set[str]:
    return {name.split('device="')[1].split('"')[0] for name in values}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(tmp_path, {"proc/diskstats": diskstats(sda=SDA, sdb=IDLE), **blocks("sda", "sdb")})
    return tmp_path


def test_numbers_are_operations_bytes_and_seconds_by_operation(tree: Path) -> None:
    disk, faults = disk_at(tree)
    values = values_of(disk)

    def sda(name: str, operation: str = "") -> float:
        more = f',operation="{operation}"' if operation else ""
        return values[f'telemetryd_disk_{name}{{device="sda"{more}}}']

    operations = [sda("operations_total", of) for of in ("read", "write", "discard", "flush")]
    assert operations == [100, 50, 7, 9]
    merged = [sda("merged_operations_total", of) for of in ("read", "write", "discard")]
    assert merged == [1, 2, 4]
    assert sda("io_time_seconds_total") == 0.9
    assert sda("in_flight_operations") == 3
    assert sda("size_bytes") == 1 << 20
    assert not faults


def test_a_sector_is_512_bytes_on_a_disk_with_sectors_of_4096(tree: Path) -> None:
    write_tree(tree, {"sys/block/sda/queue/hw_sector_size": "4096\n"})
    values = values_of(disk_at(tree)[0])
    read, write, discard = (
        values[f'telemetryd_disk_bytes_total{{device="sda",operation="{operation}"}}']
        for operation in ("read", "write", "discard")
    )
    assert (read, write, discard) == (1 << 20, 2 << 20, 4 << 20)


@pytest.mark.parametrize(
    ("columns", "operations"),
    [(14, {"read", "write"}), (18, {"read", "write", "discard"}),
     (20, {"read", "write", "discard", "flush"})],
)  # fmt: skip
def test_a_kernel_without_discards_or_flushes_has_no_series_for_them(
    tree: Path, columns: int, operations: set[str]
) -> None:
    write_tree(tree, {"proc/diskstats": diskstats(columns, sda=SDA, sdb=IDLE)})
    disk, faults = disk_at(tree)
    values = values_of(disk)
    given = {name.split('operation="')[1][:-2] for name in values if "operation=" in name}
    assert given == operations
    assert values['telemetryd_disk_in_flight_operations{device="sda"}'] == 3
    assert not faults


def test_columns_that_a_later_kernel_adds_are_no_defect(tree: Path) -> None:
    before = values_of(disk_at(tree)[0])
    text = diskstats(sda=SDA, sdb=IDLE).replace("\n", " 77 88\n")
    write_tree(tree, {"proc/diskstats": text})
    disk, faults = disk_at(tree)
    assert values_of(disk) == before
    assert not faults


def test_partitions_are_left_out(tree: Path) -> None:
    text = diskstats(sda=SDA, sda1=SDA, sdb=IDLE, nvme0n1=SDA, nvme0n1p1=SDA)
    write_tree(tree, {"proc/diskstats": text, **blocks("nvme0n1")})
    assert devices(values_of(disk_at(tree)[0])) == {"sda", "sdb", "nvme0n1"}


STACK = ("loop0", "ram0", "zram0", "fd0", "sr0", "dm-0", "md0", "md127")


def test_devices_without_a_disk_of_their_own_are_left_out_by_default(tree: Path) -> None:
    rows = dict.fromkeys(("sda", *STACK), SDA)
    write_tree(tree, {"proc/diskstats": diskstats(**rows), **blocks(*STACK)})
    assert devices(values_of(disk_at(tree)[0])) == {"sda"}
    everything, _ = disk_at(tree, exclude=())
    assert devices(values_of(everything)) == {"sda", *STACK}


def test_of_an_excluded_disk_nothing_is_opened(tree: Path) -> None:
    # A folder in the place of a file: to open it and read would be a fault.
    (tree / "sys/block/sdb/size").unlink()
    (tree / "sys/block/sdb/size").mkdir()
    included, faults = disk_at(tree, clock=(clock := FakeClock()))
    clock.tick(61)
    values_of(included)
    assert "sdb/size" in faults[0][1]
    excluded, faults = disk_at(tree, clock=(clock := FakeClock()), exclude=("sdb",))
    clock.tick(61)
    assert devices(values_of(excluded)) == {"sda"}
    assert not faults


def test_a_disk_that_goes_takes_its_series_along_and_may_come_back(tree: Path) -> None:
    disk, faults = disk_at(tree)
    assert devices(values_of(disk)) == {"sda", "sdb"}
    write_tree(tree, {"proc/diskstats": diskstats(sdb=IDLE)})
    shutil.rmtree(tree / "sys/block/sda")
    assert devices(values_of(disk)) == {"sdb"}
    write_tree(tree, {"proc/diskstats": diskstats(sdb=IDLE, sdc=SDA, sda=SDA)})
    write_tree(tree, blocks("sda", "sdc"))
    values = values_of(disk)
    assert devices(values) == {"sda", "sdb", "sdc"}
    assert values['telemetryd_disk_bytes_total{device="sdb",operation="read"}'] == 0
    assert values['telemetryd_disk_bytes_total{device="sdc",operation="read"}'] == 1 << 20
    assert not faults


@pytest.mark.parametrize(
    "row",
    ["   8  0 sda 100 1 2048 300 50", "   8  0 sda 100 1 2048 300 50 2 4096 7\n",
     "   8  0 sda 100 1 2048 300 -50 2 4096 700 3 900 1000\n",
     "   8  0 sda 100 1 2048 300 50 2 4096 700 3 900 1000"],
    ids=["torn", "short", "negative", "without-its-end"],
)  # fmt: skip
def test_a_row_that_is_not_whole_is_absent_and_reported_and_the_others_go_on(
    tree: Path, row: str
) -> None:
    disk, faults = disk_at(tree)
    healthy = values_of(disk)
    write_tree(tree, {"proc/diskstats": diskstats(sdb=IDLE) + row})
    assert devices(values_of(disk)) == {"sdb"}
    assert [reason for reason, _ in faults] == ["parse"]
    assert "proc/diskstats" in faults[0][1]
    assert "sda" in faults[0][1]
    write_tree(tree, {"proc/diskstats": diskstats(sda=SDA, sdb=IDLE)})
    assert values_of(disk).keys() == healthy.keys()
    assert len(faults) == 1


def test_a_number_that_is_none_is_found_and_so_is_its_return(tree: Path) -> None:
    disk, faults = disk_at(tree)
    healthy = values_of(disk)
    write_tree(tree, {"proc/diskstats": diskstats(sda=SDA.replace("2048", "x"), sdb=IDLE)})
    assert devices(values_of(disk)) == {"sdb"}
    assert [reason for reason, _ in faults] == ["parse"]
    write_tree(tree, {"proc/diskstats": diskstats(sda=SDA, sdb=IDLE)})
    assert values_of(disk).keys() == healthy.keys()


def test_a_last_number_that_is_cut_short_is_not_taken_for_a_smaller_one(tree: Path) -> None:
    text = diskstats(sdb=IDLE, sda=SDA)
    write_tree(tree, {"proc/diskstats": text})
    disk, faults = disk_at(tree)
    values_of(disk)
    write_tree(tree, {"proc/diskstats": text[:-2]})
    assert devices(values_of(disk)) == {"sdb"}
    assert [reason for reason, _ in faults] == ["parse"]


def test_a_disk_whose_row_comes_before_its_folder_is_found_a_second_later(tree: Path) -> None:
    clock = FakeClock()
    disk, _ = disk_at(tree, clock)
    write_tree(tree, {"proc/diskstats": diskstats(sda=SDA, sdb=IDLE, sdc=SDA)})
    assert devices(values_of(disk)) == {"sda", "sdb"}
    write_tree(tree, blocks("sdc"))
    clock.tick(1)
    assert devices(values_of(disk)) == {"sda", "sdb", "sdc"}


def test_a_disk_in_the_place_of_another_has_its_own_name(tree: Path) -> None:
    disk, _ = disk_at(tree)
    values_of(disk)
    write_tree(tree, {"proc/diskstats": diskstats(sda=SDA, sdc=IDLE), **blocks("sdc")})
    assert devices(values_of(disk)) == {"sda", "sdc"}


def test_a_name_that_is_not_utf8_becomes_a_valid_label(tree: Path) -> None:
    odd = b"md_\xff\xfe"
    text = diskstats(sda=SDA).encode() + diskstats(X=SDA).encode().replace(b"X", odd)
    write_tree(tree, {"proc/diskstats": text})
    (tree / "sys/block" / odd.decode("utf-8", "surrogateescape")).mkdir()
    values = values_of(disk_at(tree, exclude=())[0])
    names = devices(values)
    assert len(names) == 2
    for name in names:
        name.encode()


def test_a_name_with_a_slash_is_found_under_its_name_in_sysfs(tree: Path) -> None:
    text = diskstats(**{"cciss/c0d0": SDA, "cciss/c0d0p1": SDA})
    write_tree(tree, {"proc/diskstats": text, **blocks("cciss!c0d0")})
    values = values_of(disk_at(tree)[0])
    assert devices(values) == {"cciss/c0d0"}
    assert values['telemetryd_disk_size_bytes{device="cciss/c0d0"}'] == 1 << 20


def test_what_a_disk_is_stands_on_an_info_series(tree: Path) -> None:
    write_tree(
        tree,
        {
            "sys/block/sda/device/model": "WDC WD40EFRX-68N \n",
            "sys/block/sda/queue/rotational": "1\n",
            "sys/block/sdb/queue/rotational": "0\n",
        },
    )
    values = values_of(disk_at(tree)[0])
    info = "telemetryd_disk_info"
    assert values[f'{info}{{device="sda",model="WDC WD40EFRX-68N",rotational="true"}}'] == 1
    assert values[f'{info}{{device="sdb",model="",rotational="false"}}'] == 1


def test_a_volume_that_grows_is_noticed_within_a_minute(tree: Path) -> None:
    clock = FakeClock()
    disk, _ = disk_at(tree, clock)
    values_of(disk)
    write_tree(tree, {"sys/block/sda/size": "4096\n"})
    clock.tick(61)
    assert values_of(disk)['telemetryd_disk_size_bytes{device="sda"}'] == 2 << 20


def test_a_disk_whose_accounting_is_switched_off_is_absent_and_reported(tree: Path) -> None:
    write_tree(tree, {"sys/block/sdb/queue/iostats": "0\n", "sys/block/sdb/mq/0/nr_tags": "64\n"})
    clock = FakeClock()
    disk, faults = disk_at(tree, clock)
    clock.tick(61)
    assert devices(values_of(disk)) == {"sda"}
    assert "write 1 to" in faults[0][1]
    assert "sys/block/sdb/queue/iostats" in faults[0][1]
    write_tree(tree, {"sys/block/sdb/queue/iostats": "1\n"})
    clock.tick(61)
    assert devices(values_of(disk)) == {"sda", "sdb"}


def test_a_driver_that_counts_in_spite_of_the_switch_is_believed(tree: Path) -> None:
    write_tree(tree, {"sys/block/sda/queue/iostats": "0\n", "sys/block/sdb/queue/iostats": "0\n"})
    disk, faults = disk_at(tree)
    assert devices(values_of(disk)) == {"sda"}
    assert not faults


@pytest.mark.parametrize(
    ("head", "switch", "published"),
    [(SDA, "1", {"nvme0n1"}), (IDLE, "0", {"nvme0c0n1", "nvme0c1n1"})],
    ids=["recent-kernel", "linux-6.1"],
)
def test_the_bytes_of_a_multipath_nvme_disk_count_once(
    tmp_path: Path, head: str, switch: str, published: set[str]
) -> None:
    names = ("nvme0c0n1", "nvme0c1n1", "nvme0n1")
    text = diskstats(nvme0c0n1=SDA, nvme0c1n1=SDA, nvme0n1=head)
    write_tree(
        tmp_path,
        {
            "proc/diskstats": text,
            **blocks(*names),
            "sys/block/nvme0n1/queue/iostats": f"{switch}\n",
        },
    )
    assert devices(values_of(disk_at(tmp_path)[0])) == published


def test_without_diskstats_or_sysfs_the_collector_is_unavailable(tree: Path) -> None:
    shutil.rmtree(tree / "sys")
    with pytest.raises(Unavailable, match="sys/block: No such file"):
        disk_at(tree)
    (tree / "proc/diskstats").unlink()
    with pytest.raises(Unavailable, match="proc/diskstats: No such file"):
        disk_at(tree)


def test_without_a_disk_that_is_wanted_the_collector_is_unavailable(tree: Path) -> None:
    with pytest.raises(Unavailable, match="include and exclude"):
        disk_at(tree, include=("nvme*",))


def test_a_file_that_cannot_be_read_any_more_ends_the_sample_and_the_next_one_works(
    tree: Path,
) -> None:
    disk, _ = disk_at(tree)
    before = values_of(disk)
    disk.close()
    (tree / "proc/diskstats").unlink()
    with pytest.raises(FileNotFoundError, match="proc/diskstats"):
        values_of(disk)
    write_tree(tree, {"proc/diskstats": diskstats(sda=SDA, sdb=IDLE)})
    assert values_of(disk) == before


def read_time(values: dict[str, float], device: str = "sda") -> float:
    return values[f'telemetryd_disk_time_seconds_total{{device="{device}",operation="read"}}']


def queue_time(values: dict[str, float]) -> float:
    return values['telemetryd_disk_queue_time_seconds_total{device="sda"}']


def row(reads: int, read_ms: int, queue_ms: int = 0) -> str:
    return f"{reads} 0 0 {read_ms} 0 0 0 0 0 0 {queue_ms} 0 0 0 0 0 0"


def sample(disk: Disk, tree: Path, **rows: str) -> dict[str, float]:
    write_tree(tree, {"proc/diskstats": diskstats(**rows)})
    return values_of(disk)


def test_summed_times_begin_at_0_and_grow_with_the_kernels(tree: Path) -> None:
    disk, _ = disk_at(tree)
    first = values_of(disk)
    assert read_time(first) == queue_time(first) == 0
    later = sample(disk, tree, sda=SDA.replace("300", "1800").replace("1000", "4000"), sdb=IDLE)
    assert read_time(later) == 1.5
    assert queue_time(later) == 3


def test_summed_times_are_exact_across_the_wrap_of_32_bits(tree: Path) -> None:
    disk, _ = disk_at(tree)
    top = 1 << 32
    sample(disk, tree, sda=row(100, top - 1500, top - 1), sdb=IDLE)
    start = values_of(disk)
    wrapped = sample(disk, tree, sda=row(101, 500, 9), sdb=IDLE)
    assert read_time(wrapped) - read_time(start) == pytest.approx(2)
    assert queue_time(wrapped) - queue_time(start) == pytest.approx(0.01)


def test_a_disk_that_was_reset_adds_nothing_and_is_described_anew(tree: Path) -> None:
    write_tree(tree, {"sys/block/sda/device/model": "OLD\n"})
    disk, _ = disk_at(tree)
    top = 1 << 32
    before = sample(disk, tree, sda=row(100, top - 1500, top - 1), sdb=IDLE)
    write_tree(tree, {"sys/block/sda/device/model": "NEW\n"})
    after = sample(disk, tree, sda=row(3, 20, 20), sdb=IDLE)
    assert read_time(after) == read_time(before)
    assert queue_time(after) == queue_time(before)
    assert any('model="NEW"' in name for name in values_of(disk))
    assert read_time(sample(disk, tree, sda=row(4, 1020, 20), sdb=IDLE)) == read_time(after) + 1


def test_a_small_step_back_of_a_summed_time_is_no_wrap(tree: Path) -> None:
    disk, _ = disk_at(tree)
    before = sample(disk, tree, sda=row(100, 5000), sdb=IDLE)
    assert read_time(sample(disk, tree, sda=row(100, 4990), sdb=IDLE)) == read_time(before)


def test_summed_times_go_on_when_other_disks_come_and_go(tree: Path) -> None:
    disk, _ = disk_at(tree)
    sample(disk, tree, sda=row(1, 1000), sdb=IDLE)
    before = sample(disk, tree, sda=row(2, 3000), sdb=IDLE)
    after = sample(disk, tree, sda=row(3, 4000))
    assert read_time(after) - read_time(before) == 1
    back = sample(disk, tree, sda=row(4, 5000), sdb=row(9, 9000))
    assert read_time(back) - read_time(after) == 1
    assert read_time(back, "sdb") == 0


def test_this_machine_agrees_with_psutil() -> None:
    try:
        disk = Disk(DiskConfig(), Host())
    except Unavailable as gone:
        pytest.skip(str(gone))
    before = psutil.disk_io_counters(perdisk=True, nowrap=False)
    values = values_of(disk)
    after = psutil.disk_io_counters(perdisk=True, nowrap=False)
    for name in devices(values):
        at = f'{{device="{name}",operation="read"}}'
        reads = values[f"telemetryd_disk_operations_total{at}"]
        read_bytes = values[f"telemetryd_disk_bytes_total{at}"]
        assert before[name].read_count <= reads <= after[name].read_count
        assert before[name].read_bytes <= read_bytes <= after[name].read_bytes

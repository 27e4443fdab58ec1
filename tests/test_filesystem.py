"""The filesystem collector on mount tables with one defect each, and the utilization from it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.trees import host_at, values_of, write_tree

from telemetryd.collectors.filesystem import (
    SIZE,
    Filesystem,
    FilesystemConfig,
    mounts_of,
    visible,
)
from telemetryd.errors import Unavailable
from telemetryd.host import Host

# A server with its own disks, one dead NFS server, containers, sessions, and the usual pseudo
# filesystems.
SERVER = r"""22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid shared:12 - proc proc rw
24 22 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw
25 24 0:30 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
26 22 0:5 / /dev rw shared:2 - devtmpfs udev rw,size=8192k
27 26 0:24 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw
28 22 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=1638400k
29 28 0:50 / /run/user/1000 rw,nosuid shared:300 - tmpfs tmpfs rw,size=1638396k
30 28 0:51 / /run/credentials/systemd-sysusers.service ro - ramfs none rw
31 22 259:1 / /data rw,noatime shared:30 - xfs /dev/nvme0n1p1 rw,attr2
32 22 0:60 / /home rw shared:31 - nfs4 filer:/home rw,hard
33 22 0:61 / /scratch rw - lustre 10.0.0.1@o2ib:/scratch rw
34 22 7:0 / /snap/core/1 ro,nodev - squashfs /dev/loop0 ro
35 22 0:62 / /var/lib/docker/overlay2/ab/merged rw - overlay overlay rw,lowerdir=/l
36 22 0:63 / /var/lib/docker/containers/ab/mounts/shm rw - tmpfs shm rw
37 22 0:64 / /misc rw - autofs systemd-1 rw,fd=40
38 22 0:65 / /mnt/far rw - fuse.sshfs me@far:/ rw
"""
SPACE = 1000


def statvfs(
    blocks: int = SPACE, free: int = 400, available: int = 350, files: int = 64
) -> os.statvfs_result:
    """A filesystem of blocks of 4 KiB."""
    return os.statvfs_result((4096, 4096, blocks, free, available, files, 16, 16, 0, 255))


Answer = Callable[[str], os.statvfs_result]


@pytest.fixture
def made() -> Iterator[list[Filesystem]]:
    """The collectors of a test, closed at its end."""
    collectors: list[Filesystem] = []
    yield collectors
    for one in collectors:
        one.close()


@pytest.fixture
def collector(tmp_path: Path, made: list[Filesystem]) -> Callable[[str | bytes], Filesystem]:
    def make(table: str | bytes, answer: Answer | None = None, **config: object) -> Filesystem:
        write_tree(tmp_path, {"proc/1/mountinfo": table})
        asked = answer or (lambda path: statvfs())
        host = replace(host_at(tmp_path), statvfs=asked)
        made.append(Filesystem(FilesystemConfig(**config), host))
        return made[-1]

    return make  # type: ignore[return-value]


def faults_of(collector: Filesystem) -> list[tuple[str, str]]:
    """What the collector reports from now on."""
    found: list[tuple[str, str]] = []
    collector.on_fault = lambda reason, what: found.append((reason, what))
    return found


def mount_points(values: dict[str, float]) -> list[str]:
    return [
        name.split('"')[1]
        for name in values
        if name.startswith("telemetryd_filesystem_device_error")
    ]


def test_sizes_are_in_bytes_and_inodes_are_counted(collector) -> None:
    values = values_of(collector(SERVER))
    labels = '{mountpoint="/data",device="/dev/nvme0n1p1",type="xfs"}'
    assert values[f"telemetryd_filesystem_size_bytes{labels}"] == 1000 * 4096
    assert values[f"telemetryd_filesystem_free_bytes{labels}"] == 400 * 4096
    assert values[f"telemetryd_filesystem_available_bytes{labels}"] == 350 * 4096
    assert values[f"telemetryd_filesystem_files{labels}"] == 64
    assert values[f"telemetryd_filesystem_files_free{labels}"] == 16
    assert values[f"telemetryd_filesystem_read_only{labels}"] == 0
    assert values[f"telemetryd_filesystem_device_error{labels}"] == 0


def test_only_local_filesystems_that_last_are_asked(collector, tmp_path: Path) -> None:
    asked: list[str] = []
    watch = collector(SERVER, lambda path: asked.append(path) or statvfs())
    assert mount_points(values_of(watch)) == ["/", "/dev/shm", "/run", "/data"]
    root = str(tmp_path / "root")
    assert asked == [f"{root}/", f"{root}/dev/shm", f"{root}/run", f"{root}/data"]


def test_types_and_mount_points_can_be_chosen_before_anything_is_asked(collector) -> None:
    asked: list[str] = []
    watch = collector(
        SERVER,
        lambda path: asked.append(path) or statvfs(),
        types=["ext4", "xfs", "nfs*"],
        exclude_types=["ext*"],
        exclude=["/data"],
    )
    assert mount_points(values_of(watch)) == ["/home"]
    assert len(asked) == 1


def test_inodes_are_absent_where_their_number_is_not_fixed(collector) -> None:
    values = values_of(collector(SERVER, lambda path: statvfs(files=0)))
    assert not any(name.startswith("telemetryd_filesystem_files") for name in values)
    assert mount_points(values)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/dev/sda2 rw,errors", "/dev/sda2 ro,errors"),
        ("/ / rw,relatime", "/ / ro,relatime"),
    ],
    ids=["the kernel remounted it after an error", "it was mounted so"],
)
def test_a_filesystem_that_turns_read_only_shows_it_at_the_next_sample(
    collector, tmp_path: Path, before: str, after: str
) -> None:
    name = 'telemetryd_filesystem_read_only{mountpoint="/",device="/dev/sda2",type="ext4"}'
    watch = collector(SERVER)
    assert values_of(watch)[name] == 0
    write_tree(tmp_path, {"proc/1/mountinfo": SERVER.replace(before, after)})
    assert values_of(watch)[name] == 1
    write_tree(tmp_path, {"proc/1/mountinfo": SERVER})
    assert values_of(watch)[name] == 0


def test_series_are_the_same_objects_while_the_mount_table_stays(collector) -> None:
    watch = collector(SERVER)
    before = [series for series, _ in watch.sample()]
    after = [series for series, _ in watch.sample()]
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_names_with_spaces_line_breaks_and_odd_bytes_are_found_and_become_labels(
    collector, tmp_path: Path
) -> None:
    table = (
        b"22 1 8:2 / / rw - ext4 /dev/sda2 rw\n"
        rb"23 22 8:3 / /mnt/my\040disk\011x rw - ext4 /dev/disk\040one rw" + b"\n"
        rb"24 22 8:4 / /mnt/two\012lines rw - ext4 /dev/sdc rw" + b"\n"
        rb"25 22 8:5 / /mnt/back\134040slash rw - ext4 /dev/sdd rw" + b"\n"
        b"26 22 8:6 / /mnt/caf\xe9 rw - ext4 /dev/sde rw\n"
        b"27 22 0:70 / /mnt/nothing rw - tmpfs  rw\n"
    )
    asked: list[bytes] = []
    watch = collector(table, lambda path: asked.append(os.fsencode(path)) or statvfs())
    labels = [s.labels for s, _ in watch.sample() if s.metric is SIZE]
    assert labels == [
        ("/", "/dev/sda2", "ext4"),
        ("/mnt/my disk\tx", "/dev/disk one", "ext4"),
        ("/mnt/two\nlines", "/dev/sdc", "ext4"),
        ("/mnt/back\\040slash", "/dev/sdd", "ext4"),
        ("/mnt/caf\\udce9", "/dev/sde", "ext4"),
        ("/mnt/nothing", "", "tmpfs"),
    ]
    assert asked[4] == os.fsencode(tmp_path) + b"/root/mnt/caf\xe9"


def test_a_filesystem_mounted_in_several_places_is_counted_once_at_the_shortest(
    collector,
) -> None:
    table = """22 1 8:2 / / rw - ext4 /dev/sda2 rw
31 22 259:1 /sub /srv/longer/name rw - xfs /dev/nvme0n1p1 rw
32 22 259:1 / /data rw - xfs /dev/nvme0n1p1 rw
33 22 8:2 /etc/hosts /etc/hosts ro - ext4 /dev/sda2 rw
34 22 0:40 /@home /home rw - btrfs /dev/sdb rw
35 22 0:40 /@var /var rw - btrfs /dev/sdb rw
"""
    assert sorted(mount_points(values_of(collector(table)))) == ["/", "/data", "/var"]
    without = collector(table, exclude=["/data"])
    assert "/srv/longer/name" in mount_points(values_of(without))


STACKED = ["23 22 8:3 / /mnt rw - ext4 /dev/sdb rw", "24 23 8:4 / /mnt rw - ext4 /dev/sdc rw"]
BELOW = ["23 22 8:3 / /mnt/deep/a rw - ext4 /dev/sdb rw", "25 23 8:5 / /mnt/deep/a/b rw - xfs x rw"]
ABOVE = ["24 22 8:4 / /mnt rw - ext4 /dev/sdc rw", "26 24 8:6 / /mnt/deep rw - xfs /dev/sde rw"]
CIRCLE = ["23 24 8:3 / /a rw - ext4 /dev/sdb rw", "24 23 8:4 / /b rw - ext4 /dev/sdc rw"]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        (STACKED, {"/mnt": "/dev/sdc"}),
        (BELOW, {"/mnt/deep/a": "/dev/sdb", "/mnt/deep/a/b": "x"}),
        (BELOW + ABOVE, {"/mnt": "/dev/sdc", "/mnt/deep": "/dev/sde"}),
        (CIRCLE, {"/a": "/dev/sdb", "/b": "/dev/sdc"}),
    ],
    ids=["stacked", "side by side", "covered from above", "torn into a circle"],
)
@pytest.mark.parametrize("order", [1, -1], ids=["in order", "upside down"])
def test_of_mounts_over_mounts_only_those_that_a_path_reaches_are_seen(
    rows: list[str], found: dict[str, str], order: int
) -> None:
    roots = ["1 1 0:2 / / rw - rootfs rootfs rw", "22 1 8:2 / / rw - ext4 /dev/sda2 rw"]
    table = "\n".join([*roots, *rows][::order])
    mounts = visible(mounts_of(table.encode()))
    assert {path: mount.source for path, mount in mounts.items()} == {"/": "/dev/sda2", **found}


def test_a_machine_that_runs_from_memory_has_a_root_that_is_its_own_parent() -> None:
    assert list(visible(mounts_of(b"1 1 0:2 / / rw - tmpfs rootfs rw\n"))) == ["/"]


def test_without_mount_tables_the_collector_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="self/mountinfo"):
        Filesystem(FilesystemConfig(), host_at(tmp_path))


def test_a_row_that_is_not_one_of_a_mount_table_is_an_error(collector) -> None:
    with pytest.raises(ValueError, match="not a row of a mount table: b'22 1 8:2"):
        values_of(collector("22 1 8:2 / / rw ext4 /dev/sda2 rw\n"))


def test_in_a_unit_flags_are_those_of_the_host_and_a_hidden_filesystem_is_absent(
    collector, tmp_path: Path
) -> None:
    host = """22 1 8:2 / / rw - ext4 /dev/sda2 rw
23 22 8:3 / /home rw - ext4 /dev/sdb rw
24 22 8:4 / /data rw - ext4 /dev/sdc rw
25 22 0:40 / /tmp rw - tmpfs tmpfs rw
"""
    # ProtectSystem=strict, ProtectHome=tmpfs and PrivateTmp=yes, as the unit's processes see them.
    root = str(tmp_path / "root")
    ours = f"""90 1 8:2 / {root} ro - ext4 /dev/sda2 rw
91 90 0:99 / {root}/home ro - tmpfs tmpfs ro
92 90 8:4 / {root}/data ro - ext4 /dev/sdc rw
93 90 0:40 /systemd-private-1/tmp {root}/tmp rw - tmpfs tmpfs rw
"""
    write_tree(tmp_path, {"proc/self/mountinfo": ours})
    watch = collector(host)
    faults = faults_of(watch)
    values = values_of(watch)
    assert not any(v for name, v in values.items() if "_read_only" in name)
    sizes = [name for name in values if "_size_bytes" in name]
    assert [name.split('"')[1] for name in sizes] == ["/", "/data", "/tmp"]
    home = '{mountpoint="/home",device="/dev/sdb",type="ext4"}'
    assert values[f"telemetryd_filesystem_device_error{home}"] == 1
    assert [reason for reason, _ in faults] == ["missing"]
    assert "/home" in faults[0][1]


def test_of_our_own_mount_table_only_the_filesystems_flag_is_believed(
    tmp_path: Path, made: list[Filesystem]
) -> None:
    table = "22 1 8:2 / / ro - ext4 /dev/sda2 rw\n23 22 8:3 / /data ro - xfs /dev/sdb ro\n"
    write_tree(tmp_path, {"proc/self/mountinfo": table})
    host = replace(host_at(tmp_path), statvfs=lambda path: statvfs())
    made.append(Filesystem(FilesystemConfig(), host))
    values = values_of(made[0])
    name = "telemetryd_filesystem_read_only"
    assert values[f'{name}{{mountpoint="/",device="/dev/sda2",type="ext4"}}'] == 0
    assert values[f'{name}{{mountpoint="/data",device="/dev/sdb",type="xfs"}}'] == 1


def test_a_filesystem_that_fails_is_absent_and_reported_and_the_others_go_on(collector) -> None:
    def answer(path: str) -> os.statvfs_result:
        if path.endswith("/data"):
            raise PermissionError(13, "Permission denied", path)
        return statvfs()

    watch = collector(SERVER, answer)
    faults = faults_of(watch)
    values = values_of(watch)
    data = '{mountpoint="/data",device="/dev/nvme0n1p1",type="xfs"}'
    assert values[f"telemetryd_filesystem_device_error{data}"] == 1
    assert f"telemetryd_filesystem_size_bytes{data}" not in values
    assert len([name for name in values if "_size_bytes" in name]) == 3
    assert [reason for reason, _ in faults] == ["permission"]
    assert "/data" in faults[0][1]


class Hanging:
    """statvfs that hangs in /data until released, letting the fake clock run meanwhile."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.calls: list[str] = []
        self.is_dead = True
        self.released = threading.Event()
        self.returned = threading.Event()

    def __call__(self, path: str) -> os.statvfs_result:
        self.calls.append(path.rpartition("/")[2])
        if self.is_dead and path.endswith("/data"):
            self.clock.tick(1.0)
            assert self.released.wait(30)
            self.returned.set()
        return statvfs()


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    statvfs = Hanging()
    yield statvfs
    statvfs.released.set()


def test_a_stuck_filesystem_holds_up_no_other_and_is_asked_again_only_when_it_returned(
    tmp_path: Path, made: list[Filesystem], hanging: Hanging
) -> None:
    write_tree(tmp_path, {"proc/1/mountinfo": SERVER})
    host = replace(host_at(tmp_path, hanging.clock), statvfs=hanging)
    watch = Filesystem(FilesystemConfig(), host)
    made.append(watch)
    faults = faults_of(watch)
    data = '{mountpoint="/data",device="/dev/nvme0n1p1",type="xfs"}'
    for ticks in range(1, 4):
        values = values_of(watch)
        assert len([name for name in values if "_size_bytes" in name]) == 3
        assert f"telemetryd_filesystem_size_bytes{data}" not in values
        assert values[f"telemetryd_filesystem_device_error{data}"] == 1
        assert values[f"telemetryd_filesystem_read_only{data}"] == 0
        assert [reason for reason, _ in faults] == ["timeout"] * ticks
    assert hanging.calls.count("data") == 1
    hanging.is_dead = False
    hanging.released.set()
    assert hanging.returned.wait(30)
    for _ in range(3000):
        values = values_of(watch)
        if f"telemetryd_filesystem_size_bytes{data}" in values:
            break
        threading.Event().wait(0.01)
    assert values[f"telemetryd_filesystem_size_bytes{data}"] == 1000 * 4096
    assert values[f"telemetryd_filesystem_device_error{data}"] == 0
    assert hanging.calls.count("data") == 2


def test_what_is_mounted_in_place_of_a_stuck_filesystem_is_asked(
    tmp_path: Path, made: list[Filesystem], hanging: Hanging
) -> None:
    write_tree(tmp_path, {"proc/1/mountinfo": SERVER})
    host = replace(host_at(tmp_path, hanging.clock), statvfs=hanging)
    watch = Filesystem(FilesystemConfig(), host)
    made.append(watch)
    values_of(watch)
    hanging.is_dead = False
    replaced = SERVER.replace("259:1", "259:7").replace("/dev/nvme0n1p1", "/dev/nvme1n1p1")
    write_tree(tmp_path, {"proc/1/mountinfo": replaced})
    values = values_of(watch)
    data = '{mountpoint="/data",device="/dev/nvme1n1p1",type="xfs"}'
    assert values[f"telemetryd_filesystem_size_bytes{data}"] == 1000 * 4096


def test_on_this_machine_sizes_are_those_of_df(made: list[Filesystem]) -> None:
    made.append(Filesystem(FilesystemConfig(types=["*"], exclude_types=["nfs*", "fuse*"]), Host()))
    sizes = {s.labels[0]: value for s, value in made[0].sample() if s.metric is SIZE}
    assert sizes
    for mount_point, size in sizes.items():
        assert size == shutil.disk_usage(mount_point).total

"""The system collector on trees with one defect each, and on the machine it runs on."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import time
from pathlib import Path

import pytest
from support.clock import START_WALL_NS, FakeClock
from support.trees import host_at, values_of, write_tree

from telemetryd import kernel_clock
from telemetryd.collector import CollectorConfig
from telemetryd.collectors.system import System
from telemetryd.errors import Unavailable
from telemetryd.host import Host
from telemetryd.kernel_clock import KernelClock, read_kernel_clock

STA_UNSYNC, STA_NANO = 0x0040, 0x2000

FILES: dict[str, str | bytes] = {
    "proc/sys/kernel/hostname": "node7\n",
    "proc/sys/kernel/osrelease": "6.1.0-28-amd64\n",
    "proc/sys/kernel/arch": "x86_64\n",
    "proc/sys/kernel/threads-max": "192730\n",
    "proc/sys/kernel/pid_max": "32768\n",
    "proc/sys/fs/file-nr": "557\t0\t9223372036854775807\n",
    "proc/loadavg": "0.00 0.00 0.00 2/92 7880\n",
    "proc/stat": "cpu  1 2 3\nintr 9 9\nctxt 5\nbtime 1795264868\nprocesses 15722\n",
    "proc/cpuinfo": "processor\t: 0\nmodel\t\t: 2\nmodel name\t: AMD EPYC 9654\n\n"
    "processor\t: 1\nmodel name\t: another\n",
    "root/etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/class/dmi/id/sys_vendor": "Supermicro\n",
    "sys/class/dmi/id/product_name": "SYS-421GE-TNRT\n",
    "sys/class/dmi/id/product_serial": "S3CR3T\n",
    "sys/class/dmi/id/product_uuid": "S3CR3T\n",
}
INFO = (
    'telemetryd_system_info{hostname="node7",kernel="6.1.0-28-amd64",architecture="x86_64",'
    'os="Debian GNU/Linux 12 (bookworm)",vendor="Supermicro",product="SYS-421GE-TNRT",'
    'cpu="AMD EPYC 9654"}'
)

Faults = list[tuple[str, str]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(tmp_path, FILES)
    return tmp_path


def watched(system: System) -> tuple[System, Faults]:
    faults: Faults = []
    system.on_fault = lambda reason, what: faults.append((reason, what))
    return system, faults


def system_at(tree: Path, clock: FakeClock | None = None) -> tuple[System, Faults]:
    return watched(System(CollectorConfig(), host_at(tree, clock)))


def test_everything_is_told_once_and_no_serial_number(tree: Path) -> None:
    system, faults = system_at(tree)
    assert values_of(system) == {
        "telemetryd_system_boot_time_seconds{}": 1795264868,
        "telemetryd_system_time_seconds{}": START_WALL_NS / 1e9,
        "telemetryd_system_file_handles{}": 557,
        "telemetryd_system_file_handles_limit{}": 9223372036854775807,
        "telemetryd_system_threads{}": 92,
        "telemetryd_system_threads_limit{}": 192730,
        "telemetryd_system_pid_limit{}": 32768,
        INFO: 1,
    }
    assert faults == []


def test_a_machine_without_board_or_cpu_model_leaves_those_labels_empty(tmp_path: Path) -> None:
    left_out = ("dmi", "cpuinfo", "os-release", "kernel/arch")
    kept = {name: text for name, text in FILES.items() if not any(o in name for o in left_out)}
    write_tree(tmp_path, {**kept, "proc/cpuinfo": "Processor\t: 0\nCPU part\t: 0xd4f\n"})
    system, faults = system_at(tmp_path)
    empty = 'architecture="",os="",vendor="",product="",cpu=""'
    info = f'telemetryd_system_info{{hostname="node7",kernel="6.1.0-28-amd64",{empty}}}'
    assert values_of(system)[info] == 1
    assert faults == []


def test_os_release_below_usr_counts_where_etc_has_none(tree: Path) -> None:
    (tree / "root/etc/os-release").unlink()
    write_tree(tree, {"root/usr/lib/os-release": "PRETTY_NAME='Fedora Linux 41'\n"})
    system, _ = system_at(tree)
    assert any('os="Fedora Linux 41"' in name for name in values_of(system))


def test_a_broken_os_release_is_reported_and_the_rest_of_the_identity_stays(tree: Path) -> None:
    write_tree(tree, {"root/etc/os-release": 'PRETTY_NAME="Debian\n'})
    system, faults = system_at(tree)
    (info,) = [name for name in values_of(system) if "_info" in name]
    assert 'os=""' in info
    assert 'product="SYS-421GE-TNRT"' in info
    assert faults[0][0] == "parse"
    assert "etc/os-release" in faults[0][1]


@pytest.mark.parametrize(
    ("file", "gone"),
    [
        ("proc/sys/fs/file-nr", {"file_handles", "file_handles_limit"}),
        ("proc/loadavg", {"threads"}),
        ("proc/stat", {"boot_time_seconds"}),
        ("proc/sys/kernel/threads-max", {"threads_limit"}),
        ("proc/sys/kernel/pid_max", {"pid_limit"}),
    ],
)
@pytest.mark.parametrize("defect", ["missing", "parse"])
def test_what_cannot_be_read_is_absent_and_reported_and_the_others_stay(
    tree: Path, file: str, gone: set[str], defect: str
) -> None:
    everything = set(values_of(system_at(tree)[0]))
    if defect == "missing":
        (tree / file).unlink()
    else:
        write_tree(tree, {file: "nothing\nthat makes sense\n"})
    system, faults = system_at(tree)
    assert everything - set(values_of(system)) == {f"telemetryd_system_{one}{{}}" for one in gone}
    assert [reason for reason, _ in faults] == [defect]
    assert file.rpartition("/")[2] in faults[0][1]


def test_a_new_host_name_shows_at_once_and_the_rest_of_the_identity_after_a_minute(
    tree: Path,
) -> None:
    clock = FakeClock()
    system, _ = system_at(tree, clock)
    values_of(system)
    write_tree(
        tree,
        {
            "proc/sys/kernel/hostname": "node8\n",
            "proc/sys/kernel/pid_max": "4194304\n",
            "root/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 13"\n',
        },
    )
    clock.tick(59)
    values = values_of(system)
    assert values[INFO.replace("node7", "node8")] == 1
    assert sum("_info" in name for name in values) == 1
    assert values["telemetryd_system_pid_limit{}"] == 32768
    clock.tick(1)
    values = values_of(system)
    assert values[INFO.replace("node7", "node8").replace("12 (bookworm)", "13")] == 1
    assert values["telemetryd_system_pid_limit{}"] == 4194304


def test_a_host_name_that_is_not_utf8_becomes_a_valid_label(tree: Path) -> None:
    write_tree(tree, {"proc/sys/kernel/hostname": b"n\xffde\n"})
    system, _ = system_at(tree)
    (info,) = [series for series, _ in system.sample() if series.metric.name.endswith("_info")]
    assert info.labels[0] == "n\\udcffde"


def test_a_host_name_that_cannot_be_read_any_more_is_reported(tree: Path) -> None:
    system, faults = system_at(tree)
    values_of(system)
    system.close()
    (tree / "proc/sys/kernel/hostname").unlink()
    assert not any("_info" in name for name in values_of(system))
    assert [reason for reason, _ in faults] == ["missing"]


def test_without_procfs_the_collector_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="sys/kernel/hostname"):
        system_at(tmp_path)


def test_the_clock_of_another_machines_tree_is_not_guessed_from_ours(tree: Path) -> None:
    system, _ = system_at(tree)
    assert not any("clock" in name for name in values_of(system))


def test_a_clock_that_may_not_be_asked_is_absent_and_reported_and_the_others_stay(
    tree: Path,
) -> None:
    def refused() -> KernelClock:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    system, faults = system_at(tree)
    system._read_clock = refused
    values = values_of(system)
    assert not any("clock" in name for name in values)
    assert values["telemetryd_system_file_handles{}"] == 557
    assert [reason for reason, _ in faults] == ["permission"]
    assert "adjtimex" in faults[0][1]


@pytest.mark.parametrize(("status", "offset"), [(0, -0.0015), (STA_NANO, -0.0000015)])
def test_the_offset_is_in_the_unit_that_the_kernel_says(status: int, offset: float) -> None:
    clock = KernelClock.of(offset=-1500, maxerror=2500, esterror=40, status=status)
    assert clock.offset == pytest.approx(offset)
    assert clock.max_error == pytest.approx(0.0025)
    assert clock.estimated_error == pytest.approx(0.00004)


@pytest.mark.parametrize(
    ("maxerror", "status", "synchronized"),
    [
        (2500, 0, True),
        # A time daemon that keeps the hardware clock to itself.
        (2500, STA_UNSYNC | STA_NANO, True),
        (15_999_999, 0, True),
        # Nobody has touched the clock for hours, or ever.
        (16_000_000, STA_UNSYNC, False),
        (16_000_000, 0, False),
    ],
)
def test_a_clock_is_synchronized_while_somebody_keeps_its_error_down(
    maxerror: int, status: int, synchronized: bool
) -> None:
    clock = KernelClock.of(offset=0, maxerror=maxerror, esterror=0, status=status)
    assert clock.synchronized is synchronized


@pytest.mark.skipif(ctypes.sizeof(ctypes.c_long) != 8, reason="offsets of the 64-bit ABI")
def test_the_fields_lie_where_the_kernel_writes_them() -> None:
    # offsetof() by gcc over linux/timex.h; the kernel's struct is 208 bytes long.
    names = ("modes", "offset", "freq", "maxerror", "esterror", "status")
    offsets = [getattr(kernel_clock._Timex, name).offset for name in names]
    assert offsets == [0, 8, 16, 24, 32, 40]
    assert ctypes.sizeof(kernel_clock._Timex) >= 208


def test_the_kernels_clock_gives_sensible_figures_here() -> None:
    clock = read_kernel_clock()
    assert 0 <= clock.max_error <= 16
    assert clock.estimated_error >= 0
    assert abs(clock.offset) <= 0.5
    assert clock.synchronized is (clock.max_error < 16)


def test_the_figures_are_those_of_this_machine() -> None:
    system, faults = watched(System(CollectorConfig(), Host()))
    values = values_of(system)
    system.close()
    system.close()
    assert values["telemetryd_system_time_seconds{}"] == pytest.approx(time.time(), abs=60)
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    assert values["telemetryd_system_boot_time_seconds{}"] == pytest.approx(booted, abs=5)
    assert values["telemetryd_system_clock_synchronized{}"] in {0, 1}
    assert values["telemetryd_system_threads{}"] >= 1
    (info,) = [name for name in values if "_info" in name]
    assert f'hostname="{platform.node()}",kernel="{platform.release()}"' in info
    assert f'architecture="{platform.machine()}"' in info
    assert faults == []

"""Files that are read again and again, and the trees that they lie in."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.trees import host_at, write_tree

from telemetryd.host import Attribute, Host, Table


def descriptors() -> set[str]:
    return {
        os.readlink(f"/proc/self/fd/{name}")
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}")
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attribute"


def test_an_attribute_is_opened_once_and_read_from_its_start_each_time(path: Path) -> None:
    path.write_text("1\n")
    attribute = Attribute(str(path))
    assert attribute.read() == b"1\n"
    descriptor = attribute._fd
    path.write_text("23\n")
    assert attribute.read() == b"23\n"
    assert attribute._fd == descriptor


@pytest.mark.parametrize("kind", [Attribute, Table])
def test_a_missing_file_raises_with_its_path_and_may_appear_later(
    path: Path, kind: type[Attribute]
) -> None:
    attribute = kind(str(path))
    with pytest.raises(FileNotFoundError) as missing:
        attribute.read()
    assert missing.value.filename == str(path)
    path.write_text("5\n")
    assert attribute.read() == b"5\n"


def test_closing_gives_the_descriptor_back_and_twice_is_safe(path: Path) -> None:
    path.write_text("1\n")
    attribute = Attribute(str(path))
    attribute.read()
    assert str(path) in descriptors()
    attribute.close()
    attribute.close()
    assert str(path) not in descriptors()
    assert attribute.read() == b"1\n", "and it can be read again"


def test_an_attribute_that_nobody_holds_gives_its_descriptor_back(path: Path) -> None:
    path.write_text("1\n")
    attribute = Attribute(str(path))
    attribute.read()
    del attribute
    assert str(path) not in descriptors()


class Process:
    """A process that waits: its files in /proc are a device's, which fail once it has gone."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-c", "import ctypes, socket, zlib; print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._popen.stdout is not None
        self._popen.stdout.readline()
        self.pid = self._popen.pid

    def file(self, name: str) -> str:
        return f"/proc/{self.pid}/{name}"

    def end(self) -> None:
        if self._popen.poll() is None:
            self._popen.communicate(b"\n", timeout=20)


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started = [Process(), Process()]
    yield started
    for process in started:
        process.end()


@pytest.mark.parametrize("kind", [Attribute, Table])
def test_a_device_that_was_replaced_costs_one_reading_and_then_the_new_one_is_opened(
    path: Path, processes: list[Process], kind: type[Attribute]
) -> None:
    old, new = processes
    path.symlink_to(old.file("status"))
    attribute = kind(str(path))
    assert attribute.read().startswith(b"Name:")
    old.end()
    path.unlink()
    path.symlink_to(new.file("status"))
    with pytest.raises(ProcessLookupError) as error:
        attribute.read()
    assert error.value.filename == str(path)
    assert old.file("status") not in descriptors()
    assert f"Pid:\t{new.pid}\n".encode() in attribute.read()
    attribute.close()


def test_a_table_whose_device_vanishes_half_way_gives_nothing_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("half")
    real = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        if offset:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return real(descriptor, size, offset)

    table = Table(str(path))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", pread)
        with pytest.raises(OSError, match="No such device") as error:
            table.read()
    assert error.value.filename == str(path)
    assert str(path) not in descriptors()
    assert table.read() == b"half"


def test_a_replaced_file_is_read_from_its_new_inode_once_the_old_one_fails(path: Path) -> None:
    path.write_text("old\n")
    attribute = Attribute(str(path))
    attribute.read()
    path.rename(path.with_suffix(".away"))
    path.write_text("new\n")
    assert attribute.read() == b"old\n", "the descriptor still stands for the old one"
    attribute.close()
    assert attribute.read() == b"new\n"


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 64, 100_000])
def test_a_table_is_read_to_its_end_however_long_it_is(path: Path, length: int) -> None:
    content = os.urandom(length)
    path.write_bytes(content)
    table = Table(str(path), 16)
    assert table.read() == content
    assert table.read() == content


def test_a_table_that_grows_and_shrinks_is_read_as_it_is(path: Path) -> None:
    table = Table(str(path), 16)
    for length in (10, 5000, 3, 90_000, 16):
        path.write_bytes(b"x" * length)
        assert len(table.read()) == length


def test_a_table_puts_together_what_the_kernel_hands_out_in_pieces(
    processes: list[Process],
) -> None:
    maps = processes[0].file("maps")
    with open(maps, "rb", buffering=0) as stream:
        piece = stream.read(1 << 20)
        content = piece + b"".join(iter(lambda: stream.read(1 << 20), b""))
    assert len(piece) < len(content), "the kernel's buffer is shorter than this file"
    assert Table(maps, 1 << 20).read() == content


def test_paths_lie_below_the_roots(tmp_path: Path) -> None:
    host = host_at(tmp_path)
    assert host.proc("net", "dev") == f"{tmp_path}/proc/net/dev"
    assert host.sys("class/net") == f"{tmp_path}/sys/class/net"
    assert host.root("/var/lib") == f"{tmp_path}/root/var/lib"
    assert host.root("/") == f"{tmp_path}/root/"
    assert not host.is_live


def test_the_machine_we_run_on_has_the_usual_roots() -> None:
    host = Host()
    assert host.proc("stat") == "/proc/stat"
    assert host.root("/var/lib") == "/var/lib"
    assert host.is_live
    assert not Host(sysfs="/elsewhere").is_live


def test_a_file_is_read_whole_and_a_text_is_stripped(tmp_path: Path) -> None:
    write_tree(tmp_path, {"long": b"x" * 200_000, "name": b"  eth\xff \n"})
    host = host_at(tmp_path)
    assert len(host.read(str(tmp_path / "long"))) == 200_000
    assert host.text(str(tmp_path / "name")) == "eth\udcff"
    with pytest.raises(FileNotFoundError):
        host.read(str(tmp_path / "missing"))


def test_a_read_that_fails_names_the_file_and_leaves_nothing_open(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as error:
        Host().read(str(tmp_path))
    assert error.value.filename == str(tmp_path)
    assert str(tmp_path) not in descriptors()


def test_the_entries_of_a_directory_are_sorted_and_none_if_it_is_not_there(
    tmp_path: Path,
) -> None:
    write_tree(tmp_path, {"net/eth1": "", "net/eth0": "", "net/eth10": ""})
    host = host_at(tmp_path)
    assert host.names(str(tmp_path / "net")) == ["eth0", "eth1", "eth10"]
    assert host.names(str(tmp_path / "missing")) == []
    assert host.names(str(tmp_path / "net/eth0")) == []

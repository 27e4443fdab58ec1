"""`telemetryd spool status`, as an operator sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.spooled import NOON, SECOND, Shell, body, fill, opened, quarantined

from telemetryd.cli import main
from telemetryd.config import load
from telemetryd.delivery import cursor as cursors
from telemetryd.errors import Unavailable
from telemetryd.spool_command import find_spool


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def status(shell: Shell) -> dict[str, Any]:
    """What it says of each folder, by name."""
    page = json.loads(shell.run("status", "--format", "json"))
    assert page["directory"] == str(shell.spool)
    return {one["name"]: one for one in page["destinations"]}


def everything_below(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Names, what is in the files, and when they were changed."""
    return {
        str(path): (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def test_it_tells_kind_number_size_and_age_of_what_waits(shell: Shell) -> None:
    bodies = [body(1), body(2), body(3)]
    fill(shell.spool / "influxdb", bodies[:2])
    fill(shell.spool / "influxdb", bodies[2:])
    found = status(shell)["influxdb"]
    assert found["kind"] == "influxdb"
    assert (found["records"], found["points"]) == (3, 6)
    assert found["size"] == sum(len(one.data) for one in bodies)
    assert (found["oldest_ns"], found["newest_ns"]) == (NOON + SECOND, NOON + 3 * SECOND)
    assert (found["set_aside"], found["quarantined"], found["unusable"]) == (0, 0, 0)
    assert found["remarks"] == []


def test_what_is_delivered_is_not_counted_and_what_is_set_aside_is(shell: Shell) -> None:
    spool = opened(shell.spool / "influxdb")
    for number in range(1, 6):
        spool.put(body(number))
    spool.peek()
    spool.acknowledge()
    spool.peek()
    spool.set_aside()
    spool.peek()
    size, count = spool.size, len(spool)
    spool.close()
    found = status(shell)["influxdb"]
    assert (found["records"], found["points"], found["set_aside"]) == (count, 8, 1) == (4, 8, 1)
    assert found["size"] == size
    assert found["oldest_ns"] == NOON + 2 * SECOND


def test_it_works_while_a_daemon_puts_and_sends(shell: Shell) -> None:
    spool = opened(shell.spool / "influxdb")
    try:
        for number in (1, 2, 3):
            spool.put(body(number))
        spool.sync()
        assert spool.peek() is not None
        assert status(shell)["influxdb"]["records"] == 3
        spool.acknowledge()
        spool.put(body(4))
        assert len(spool) == 3
    finally:
        spool.close()
    assert status(shell)["influxdb"]["records"] == 3


def test_it_counts_quarantine_what_is_to_be_replayed_and_what_is_unusable(shell: Shell) -> None:
    folder = shell.spool / "influxdb"
    fill(folder, [])
    first, second = quarantined(folder, body(1)), quarantined(folder, body(2))
    shell.run("quarantine", "replay", first)
    (folder / "unusable").mkdir()
    (folder / "unusable" / "cursor").write_text("?")
    found = status(shell)["influxdb"]
    assert found["quarantined"] == 1
    assert found["quarantined_bytes"] == (folder / "quarantine" / second).stat().st_size
    assert (found["to_replay"], found["unusable"]) == (1, 1)
    assert found["oldest_ns"] is None
    table = shell.run("status")
    assert str(folder / "unusable") in table


def test_a_folder_without_a_destination_is_named_with_what_to_do(shell: Shell) -> None:
    fill(shell.spool / "renamed", [body()])
    table = shell.run("status")
    (remark,) = (line for line in table.splitlines() if line.startswith("renamed: "))
    assert "no destination renamed" in remark
    assert f"rename {shell.spool / 'renamed'}" in remark
    assert "delete it" in remark


def test_a_folder_of_another_kind_than_its_destination_is_named(shell: Shell) -> None:
    fill(shell.spool / "second", [body()], "remote_write")
    (remark,) = status(shell)["second"]["remarks"]
    assert "is of the kind influxdb now" in remark
    assert "remote_write" in remark


def test_a_destination_without_a_folder_is_named(shell: Shell) -> None:
    fill(shell.spool / "influxdb", [body()])
    assert "second: has no folder yet" in shell.run("status")


def test_the_table_has_a_line_for_each_folder(shell: Shell) -> None:
    fill(shell.spool / "influxdb", [body(1), body(2)])
    fill(shell.spool / "second", [])
    heading, titles, *lines = shell.run("status").splitlines()
    assert heading == f"spool {shell.spool}"
    assert titles.split()[:6] == ["DESTINATION", "KIND", "RECORDS", "SIZE", "OLDEST", "NEWEST"]
    assert lines[0].split()[:5] == ["influxdb", "influxdb", "2", str(len(body().data) * 2), "B"]
    assert lines[1].split() == ["second", "influxdb", "0", "0", "B", "-", "-", "0", "0", "0", "0"]


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_torn_or_damaged_spool_is_counted_as_far_as_it_is_sound(shell: Shell, cut: int) -> None:
    path = fill(shell.spool / "influxdb", [body(1), body(2), body(3)])
    path.write_bytes(path.read_bytes()[:-cut])
    (shell.spool / "influxdb" / cursors.NAME).write_bytes(b"not a cursor")
    found = status(shell)["influxdb"]
    assert found["records"] == (1 if cut == 200 else 2)
    assert any(cursors.NAME in remark for remark in found["remarks"])


def test_looking_changes_nothing(shell: Shell) -> None:
    folder = shell.spool / "influxdb"
    fill(folder, [body(1), body(2)])
    (folder / "00000000000000000009.seg").write_bytes(b"not a segment")
    quarantined(folder, body(3))
    before = everything_below(shell.spool)
    shell.run("status")
    shell.run("quarantine", "list")
    shell.run("quarantine", "show", next(iter(os.listdir(folder / "quarantine"))))
    assert everything_below(shell.spool) == before


def test_without_a_spool_it_says_that_and_where_what_waits_is(shell: Shell) -> None:
    complaint = shell.run("status", status=1)
    assert f"there is no spool in {shell.spool}" in complaint
    assert "in memory" in complaint
    assert "--directory" in complaint


def test_a_spool_that_is_switched_off_is_told_apart(shell: Shell) -> None:
    shell.configure("spool.enabled = false\n")
    assert "spool.enabled is false" in shell.run("status", status=1)


def test_a_file_in_the_place_of_the_spool_is_told_apart(shell: Shell) -> None:
    shell.spool.write_text("")
    assert "is no directory" in shell.run("status", status=1)


def test_without_destinations_it_asks_for_the_configuration(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.configure("")
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "none"))
    complaint = shell.run("status", status=1)
    assert "no destination to push to" in complaint
    assert "--config" in complaint


def test_the_directory_is_that_of_the_service_or_the_one_that_is_given(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.configure("")
    fill(tmp_path / "state/spool/one", [body()])
    fill(tmp_path / "elsewhere/other", [body()])
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path / 'state'}:/another")
    assert "\none " in shell.run("status")
    assert "\nother " in shell.run("status", "--directory", str(tmp_path / "elsewhere"))
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setattr("telemetryd.spool_command.INSTALLED", str(tmp_path / "state/spool"))
    assert "\none " in shell.run("status")


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[None]:
    """Somebody who may not look into the folder of the test."""
    tmp_path.chmod(0o700)
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.usefixtures("nobody")
def test_who_may_not_see_the_spool_is_told_to_use_sudo(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"permission denied; use sudo"):
        find_spool(load([], environ={}), {}, str(tmp_path / "spool"))


def test_a_wrong_configuration_is_status_2(shell: Shell) -> None:
    shell.configure("[spool]\nsize = 1\n")
    assert "spool.size" in shell.run("status", status=2)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["status"],
        ["quarantine"],
        *(["quarantine", word] for word in ("list", "show", "replay", "drop")),
    ],
)
def test_every_command_has_a_help_text(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["spool", *words, "--help"])
    assert end.value.code == 0
    assert " ".join(["usage: telemetryd spool", *words]) in capsys.readouterr().out

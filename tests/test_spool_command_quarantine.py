"""`telemetryd spool quarantine`, as an operator uses it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.spooled import NOON, Shell, body, quarantined

from telemetryd.cli import main
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import Body

WORDS = 'partial write: field type conflict: input field "load" is type float'


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, capsys)
    for name in ("influxdb", "second"):
        (shell.spool / name).mkdir(parents=True)
    return shell


def listed(shell: Shell, *words: str) -> list[str]:
    """The IDs that `list` shows."""
    page = json.loads(shell.run("quarantine", "list", "--format", "json", *words))
    return [entry["id"] for entry in page]


def to_replay(shell: Shell, name: str = "influxdb", kind: str = "influxdb") -> list[Body]:
    """What a daemon takes from there."""
    found = Quarantine(str(shell.spool / name), 1 << 20).take_replayed(kind)
    return [body for body, _ in found]


def test_list_has_a_line_for_each_body_with_the_words_of_the_server(shell: Shell) -> None:
    first = quarantined(shell.spool / "influxdb", body(1), answer=WORDS)
    second = quarantined(shell.spool / "second", body(2, points=5), answer="x" * 500)
    titles, one, other = shell.run("quarantine", "list").splitlines()
    assert titles.split()[:3] == ["ID", "DESTINATION", "STATUS"]
    assert one.split()[:5] == [first, "influxdb", "400", "refused", "2"]
    assert "field type conflict" in one
    assert other.split()[:5] == [second, "second", "400", "refused", "5"]
    assert other.endswith("xxx...")


def test_an_empty_quarantine_says_so(shell: Shell) -> None:
    assert shell.run("quarantine", "list") == "nothing is in quarantine\n"
    assert listed(shell) == []


def test_list_can_be_of_one_destination(shell: Shell) -> None:
    quarantined(shell.spool / "influxdb", body(1))
    wanted = quarantined(shell.spool / "second", body(2))
    assert listed(shell, "--destination", "second") == [wanted]
    complaint = shell.run("quarantine", "list", "--destination", "third", status=1)
    assert "no folder of a destination third; has: influxdb, second" in complaint


def test_show_prints_everything_that_is_known_and_the_lines_as_they_stand(shell: Shell) -> None:
    refused = body(1)
    wanted = quarantined(shell.spool / "influxdb", refused, answer=WORDS)
    head, _, text = shell.run("quarantine", "show", wanted).partition("\n\n")
    facts = dict(line.split(":", 1) for line in head.splitlines())
    assert {name: fact.strip() for name, fact in facts.items()} == {
        "id": wanted,
        "destination": "influxdb (influxdb)",
        "refused": "2026-03-01T12:00:02.000Z",
        "reason": "refused",
        "status": "400",
        "answer": WORDS,
        "points": "2, the newest read 2026-03-01T12:00:01.000Z",
        "size": f"{len(refused.data)} bytes",
    }
    assert text == refused.data.decode()


def test_what_a_server_says_cannot_tell_the_terminal_what_to_do(shell: Shell) -> None:
    hostile = Body(b"telemetryd_cpu,cpu=\x1b[2J load=1 1\n", 1, NOON)
    wanted = quarantined(shell.spool / "influxdb", hostile, answer="\x1b]0;root\x07\r\u202egone")
    for words in (["list"], ["show", wanted]):
        page = shell.run("quarantine", *words)
        assert all(one.isprintable() or one == "\n" for one in page)
    assert "\\x1b[2J" in page


def test_raw_is_the_body_byte_for_byte(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    refused = Body(b"\x00\xff\x1b\n", 1, NOON)
    (tmp_path / "influxdb").mkdir()
    wanted = quarantined(tmp_path / "influxdb", refused)
    file = tmp_path / "telemetryd.toml"
    file.write_text("")
    places = ["--config", str(file), "--directory", str(tmp_path)]
    assert main(["spool", "quarantine", "show", wanted, "--raw", *places]) == 0
    assert capfdbinary.readouterr().out == refused.data


def test_replay_hands_the_body_to_the_daemon(shell: Shell) -> None:
    first = quarantined(shell.spool / "influxdb", body(1))
    second = quarantined(shell.spool / "influxdb", body(2))
    assert shell.run("quarantine", "replay", first).startswith("1 to be sent once more")
    assert listed(shell) == [second]
    assert [one.data for one in to_replay(shell)] == [body(1).data]


def test_all_are_replayed_or_dropped_at_once_of_one_destination_if_wanted(shell: Shell) -> None:
    for number in (1, 2):
        quarantined(shell.spool / "influxdb", body(number))
    left = quarantined(shell.spool / "second", body(3))
    shell.run("quarantine", "replay", "--all", "--destination", "influxdb")
    assert listed(shell) == [left]
    assert len(to_replay(shell)) == 2
    assert shell.run("quarantine", "drop", "--all") == "1 dropped\n"
    assert listed(shell) == []
    assert len(to_replay(shell)) == 2


def test_drop_deletes_what_is_named_and_nothing_else(shell: Shell) -> None:
    ids = [quarantined(shell.spool / "influxdb", body(number)) for number in (1, 2, 3)]
    assert shell.run("quarantine", "drop", ids[0], ids[2]) == "2 dropped\n"
    assert listed(shell) == [ids[1]]


@pytest.mark.parametrize("name", ["20260301T120000.000000000Z", "../../telemetryd.toml", "\x1b[2J"])
@pytest.mark.parametrize("command", ["show", "replay", "drop"])
def test_a_name_that_is_not_there_is_an_error_and_changes_nothing(
    shell: Shell, command: str, name: str
) -> None:
    there = quarantined(shell.spool / "influxdb", body(1))
    names = [name] if command == "show" else [there, name]
    complaint = shell.run("quarantine", command, *names, status=1)
    assert "nothing in quarantine is called" in complaint
    assert "quarantine list" in complaint
    assert "\x1b" not in complaint
    assert listed(shell) == [there]


def test_a_name_that_two_destinations_have_has_to_be_told_apart(shell: Shell) -> None:
    name = quarantined(shell.spool / "influxdb", body(1))
    assert quarantined(shell.spool / "second", body(1)) == name
    assert "influxdb, second" in shell.run("quarantine", "drop", name, status=1)
    shell.run("quarantine", "drop", name, "--destination", "second")
    assert listed(shell, "--destination", "influxdb") == [name]
    assert listed(shell, "--destination", "second") == []


def test_a_damaged_body_is_named_and_only_dropped(shell: Shell) -> None:
    quarantined(shell.spool / "influxdb", body(1))
    damaged = quarantined(shell.spool / "influxdb", body(2))
    path = shell.spool / "influxdb/quarantine" / damaged
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged" in shell.run("quarantine", "list")
    assert f"drop {damaged}" in shell.run("quarantine", "show", damaged, status=1)
    assert f"{damaged} is damaged" in shell.run("quarantine", "replay", "--all", status=1)
    assert listed(shell) == [damaged]
    assert [one.data for one in to_replay(shell)] == [body(1).data]
    assert shell.run("quarantine", "drop", damaged) == "1 dropped\n"


def test_replay_says_if_no_destination_will_take_it(
    shell: Shell, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (shell.spool / "gone").mkdir()
    name = quarantined(shell.spool / "gone", Body(b"?", 1, NOON), kind="remote_write")
    file = str(tmp_path / "telemetryd.toml")
    assert main(["spool", "quarantine", "replay", name, "--config", file]) == 0
    assert "no destination gone of the kind remote_write" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--all", "20260301T120000.000000000Z"]])
@pytest.mark.parametrize("command", ["replay", "drop"])
def test_either_names_or_all_must_be_given(shell: Shell, command: str, words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        shell.run("quarantine", command, *words)
    assert end.value.code == 2

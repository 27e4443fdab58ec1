"""The quarantine: a ring of refused bodies, with why, that the daemon and an operator share."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import START_WALL_NS
from support.spools import tree

from telemetryd.delivery.quarantine import DAMAGED, Quarantine, Quarantined
from telemetryd.delivery.queue import Body

ROOMY = 1 << 20
ID = "20231114T221320.000000000Z"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "far"


def quarantine(folder: Path, limit: int = ROOMY) -> Quarantine:
    return Quarantine(str(folder), limit)


def add(to: Quarantine, data: bytes, *, kind: str = "influxdb", seconds: int = 0) -> None:
    body = Body(data, 7, START_WALL_NS - 10**9)
    to.add(body, kind, "refused", 400, 'bad "line"\n', START_WALL_NS + seconds * 10**9)


def test_a_body_is_kept_with_what_the_destination_said(folder: Path) -> None:
    kept = quarantine(folder)
    add(kept, b"cpu value=x\n\x00\xff")
    entry, body = quarantine(folder).read(ID)
    assert entry == Quarantined(
        ID, START_WALL_NS, "influxdb", "refused", 400, 'bad "line"\n', 7, START_WALL_NS - 10**9, 14
    )
    assert (body.data, body.points, body.newest_ns) == (
        b"cpu value=x\n\x00\xff",
        7,
        START_WALL_NS - 10**9,
    )
    assert kept.list() == [entry]


def test_nothing_is_made_before_there_is_something_to_keep(folder: Path) -> None:
    kept = quarantine(folder)
    assert (kept.records, kept.size, kept.list()) == (0, 0, [])
    assert list(kept.take_replayed("influxdb")) == []
    assert kept.strangers("influxdb") == {}
    assert not folder.exists()


def test_files_are_for_their_owner_alone(folder: Path) -> None:
    add(quarantine(folder), b"x")
    assert (folder / "quarantine").stat().st_mode & 0o777 == 0o700
    assert (folder / "quarantine" / ID).stat().st_mode & 0o777 == 0o600


def test_two_bodies_of_the_same_moment_get_two_names(folder: Path) -> None:
    kept = quarantine(folder)
    for data in (b"first", b"second"):
        add(kept, data)
    kept.replay(ID)
    add(kept, b"third")
    assert [kept.read(entry.id)[1].data for entry in kept.list()] == [b"second", b"third"]
    assert [body.data for body, _ in kept.take_replayed("influxdb")] == [b"first"]


def test_the_oldest_make_room(folder: Path) -> None:
    kept = quarantine(folder, 10_000)
    for number in range(10):
        add(kept, b"%d" % number * 2500, seconds=number)
        assert sum(map(len, tree(folder).values())) <= 10_000
    assert [kept.read(entry.id)[1].data[:1] for entry in kept.list()] == [b"7", b"8", b"9"]
    assert kept.records == 3
    assert kept.size == sum(map(len, tree(folder).values()))


def test_a_body_larger_than_the_ring_is_refused_and_spares_the_others(folder: Path) -> None:
    kept = quarantine(folder, 10_000)
    add(kept, b"small")
    with pytest.raises(OSError, match="larger than the quarantine's 10000 bytes"):
        add(kept, b"x" * 10_000)
    assert kept.records == 1


def test_without_room_nothing_is_kept(folder: Path) -> None:
    add(quarantine(folder, 0), b"x")
    assert not folder.exists()


def test_the_gauges_follow_what_others_change(folder: Path) -> None:
    daemon, command = quarantine(folder), quarantine(folder)
    for number in range(3):
        add(daemon, b"x" * 100, seconds=number)
    assert daemon.records == command.records == 3
    first, second, _ = (entry.id for entry in command.list())
    command.drop(first)
    assert (daemon.records, daemon.size) == (2, command.size)
    command.replay(second)
    assert daemon.records == 1


def test_a_body_to_be_sent_once_more_stays_until_the_queue_has_it(folder: Path) -> None:
    kept = quarantine(folder)
    for number in range(3):
        add(kept, b"%d" % number, seconds=number)
    for entry in kept.list()[:2]:
        kept.replay(entry.id)
    first, second = kept.take_replayed("influxdb")
    assert (first[0].data, second[0].data) == (b"0", b"1")
    first[1]()
    first[1]()
    assert [body.data for body, _ in quarantine(folder).take_replayed("influxdb")] == [b"1"]


def test_a_body_for_another_kind_of_destination_stays_and_is_named(folder: Path) -> None:
    kept = quarantine(folder)
    add(kept, b"x", kind="remote_write")
    kept.replay(ID)
    assert list(kept.take_replayed("influxdb")) == []
    assert kept.strangers("influxdb") == {str(folder / "replay" / ID): "remote_write"}
    assert kept.strangers("remote_write") == {}


@pytest.mark.parametrize("name", ["", "x", "../cursor", "20231114T221320.000000000Z/..", ID])
def test_what_is_not_there_is_a_key_error(folder: Path, name: str) -> None:
    kept = quarantine(folder)
    add(kept, b"x", seconds=1)
    for act in (kept.read, kept.drop, kept.replay):
        with pytest.raises(KeyError):
            act(name)
    assert kept.records == 1


def test_a_damaged_file_is_listed_as_such_and_can_be_dropped(folder: Path) -> None:
    kept = quarantine(folder)
    for number in range(2):
        add(kept, b"x" * 100, seconds=number)
    (folder / "quarantine" / ID).write_bytes(b"")
    damaged, sound = kept.list()
    assert (damaged.id, damaged.reason, damaged.size) == (ID, DAMAGED, 0)
    assert sound.reason == "refused"
    with pytest.raises(ValueError, match=f"quarantine/{ID} is damaged: its first line is not JSON"):
        kept.read(ID)
    kept.drop(ID)
    assert kept.list() == [sound]


def test_every_flipped_bit_is_noticed(folder: Path) -> None:
    kept = quarantine(folder)
    add(kept, b"cpu value=x\n")
    path = folder / "quarantine" / ID
    good = path.read_bytes()
    entry = kept.list()[0]
    for at in range(len(good) * 8):
        data = bytearray(good)
        data[at // 8] ^= 1 << at % 8
        path.write_bytes(data)
        found = kept.list()[0]
        # White space between the fields of JSON means nothing.
        assert found.reason == DAMAGED or (found == entry and good[at // 8] in b" \n")


def test_a_damaged_file_to_be_sent_goes_back_and_the_others_are_sent(folder: Path) -> None:
    kept = quarantine(folder)
    for number in range(2):
        add(kept, b"%d" % number, seconds=number)
    for entry in kept.list():
        kept.replay(entry.id)
    (folder / "replay" / ID).write_bytes(b"junk")
    assert [body.data for body, _ in kept.take_replayed("influxdb")] == [b"1"]
    assert [entry.reason for entry in kept.list()] == [DAMAGED]


def test_a_file_of_a_newer_version_is_kept_and_says_so(folder: Path) -> None:
    kept = quarantine(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("telemetryd.delivery.quarantine._FORMAT", 2)
        add(kept, b"x")
    assert kept.list()[0].answer == "format 2 is not known, only 1"


def test_folders_pipes_and_foreign_files_harm_nothing(folder: Path) -> None:
    kept = quarantine(folder, 1000)
    (folder / "quarantine" / ID).mkdir(parents=True)
    os.mkfifo(folder / "quarantine" / ID.replace("000Z", "001Z"))
    (folder / "quarantine" / "notes").write_text("mine")
    assert [entry.reason for entry in kept.list()] == [DAMAGED, DAMAGED]
    for number in (1, 2, 3):
        add(kept, b"x" * 300, seconds=number)
    assert [entry.reason for entry in kept.list()] == [DAMAGED, "refused"]
    assert (folder / "quarantine" / "notes").read_text() == "mine"


def test_what_a_killed_process_left_unfinished_goes(folder: Path) -> None:
    kept = quarantine(folder)
    (folder / "quarantine").mkdir(parents=True)
    (folder / "quarantine" / f".{ID}.new").write_bytes(b"half")
    assert kept.records == 0
    add(kept, b"x")
    assert set(tree(folder)) == {f"quarantine/{ID}"}


def test_a_disk_that_takes_nothing_raises_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "far").write_text("in the way")
    with pytest.raises(NotADirectoryError):
        add(quarantine(tmp_path / "far"), b"x")
    assert quarantine(tmp_path / "far").records == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can work for another owner")
def test_what_root_makes_belongs_to_the_owner_of_the_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chown(folder, 65534, 65534)
    kept = quarantine(folder)
    for number in range(2):
        add(kept, b"x", seconds=number)
    kept.replay(ID)
    owners = {path.stat().st_uid for path in folder.rglob("*")}
    assert owners == {65534}


@pytest.mark.parametrize("link", ["quarantine", "replay", "."])
def test_a_link_in_the_place_of_a_folder_moves_and_deletes_nothing_elsewhere(
    folder: Path, tmp_path: Path, link: str
) -> None:
    """Root types these commands in a folder that belongs to the daemon's user."""
    add(quarantine(folder), b"x")
    (folder / "replay").mkdir()
    elsewhere = tmp_path / "elsewhere"
    (folder / link).rename(elsewhere)
    (folder / link).symlink_to(elsewhere)
    kept = quarantine(folder)
    before = tree(tmp_path)
    for act in (kept.replay, *([] if link == "replay" else [kept.drop])):
        with pytest.raises(NotADirectoryError):
            act(ID)
    assert tree(tmp_path) == before


@given(data=st.binary(max_size=2000), at=st.integers(0, 4000), junk=st.binary(max_size=50))
def test_junk_is_never_taken_for_a_body(data: bytes, at: int, junk: bytes) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        kept = quarantine(folder)
        add(kept, data)
        path = folder / "quarantine" / ID
        good = path.read_bytes()
        path.write_bytes(good[:at] + junk + good[at + len(junk) :])
        entry = kept.list()[0]
        assert entry.reason == DAMAGED or kept.read(ID)[1].data == data
    finally:
        shutil.rmtree(folder)

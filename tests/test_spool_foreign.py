"""What is not the spool's own is set aside with one line in the log, never a crash, and nothing of
it is deleted but the oldest beyond 64 MiB."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import pytest
from support.spools import Kept, body, tree

from telemetryd.delivery import segment as segments
from telemetryd.delivery.record import Mark
from telemetryd.delivery.segment import encode_preamble, segment_name
from telemetryd.delivery.spool_unusable import put_aside

FIRST = "00000000000000000001.seg"
SECOND = "00000000000000000003.seg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """1 and 2 wait in one segment, 3 and 4 in the next."""
    for numbers in ((1, 2), (3, 4)):
        kept = Kept(tmp_path / "far")
        for number in numbers:
            kept.spool.put(body(number))
        kept.spool.close()
    return tmp_path / "far"


def delivered(kept: Kept) -> list[int]:
    numbers = [one.points for one in kept.drain()]
    kept.spool.close()
    return numbers


def test_a_foreign_file_under_the_name_of_a_segment_is_set_aside(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / FIRST).write_bytes(b"what an editor left behind" * 100)
    with caplog.at_level(logging.WARNING):
        kept = Kept(folder)
    assert len(caplog.records) == 1
    assert "neither a preamble nor a record of ours is in it" in caplog.text
    assert f"now={folder}/unusable/{FIRST}" in caplog.text
    assert kept.errors == 1
    assert delivered(kept) == [3, 4]
    assert kept.drops.records == {"corrupt": 2}
    assert kept.drops.points == {"corrupt": 3}


def test_a_file_that_is_none_of_ours_is_left_alone(folder: Path) -> None:
    for name in ("notes.txt", "1.seg", FIRST + ".bak"):
        (folder / name).write_text("mine")
    kept = Kept(folder)
    assert delivered(kept) == [1, 2, 3, 4]
    assert kept.errors == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert set(tree(folder)) == {"cursor", "notes.txt", "1.seg", FIRST + ".bak"}


def test_a_segment_of_a_future_format_is_set_aside_and_says_so(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(segments, "FORMAT", 2)
        preamble = encode_preamble("influxdb", Mark(1, 0, 0))
    data = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(preamble + data[len(preamble) :])
    with caplog.at_level(logging.WARNING):
        kept = Kept(folder)
    assert "format 2 is not known, only 1" in caplog.text
    assert delivered(kept) == [3, 4]


@pytest.mark.parametrize("name", [FIRST, SECOND, "cursor"])
def test_a_folder_where_a_file_should_be_is_set_aside(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name / "inside").mkdir(parents=True)
    kept = Kept(folder)
    assert kept.errors == 1
    expected = {FIRST: [3, 4], SECOND: [1, 2], "cursor": [1, 2, 3, 4]}[name]
    assert delivered(kept) == expected
    assert kept.drops.records.total() == 4 - len(expected)
    assert (folder / "unusable" / name / "inside").is_dir()
    Kept(folder).spool.close()


def test_a_pipe_or_a_link_where_a_file_should_be_is_set_aside(folder: Path) -> None:
    shutil.move(folder / FIRST, folder / "elsewhere")
    (folder / FIRST).symlink_to(folder / "elsewhere")
    (folder / SECOND).unlink()
    os.mkfifo(folder / SECOND)
    kept = Kept(folder)
    assert kept.errors == 2
    assert delivered(kept) == []
    assert kept.drops.points == {"corrupt": 1 + 2 + 3 + 4}


def summed(text: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(text), text)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"\0" * 100, b"junk", b"{}", b"00000000 {}\n"),
        *map(summed, (b"[1]", b"{}", b'{"format": 1}', b'{"format": 2}', b"[" * 100_000)),
        summed(b'{"format": 1, "next": [1], "end": [1, 0, 0], "front": [], "aside": []}'),
        summed(b'{"format": 1, "next": ["x", 0, 0], "end": [1, 0, 0], "front": [], "aside": []}'),
    ],
    ids=range(12),
)
def test_a_cursor_that_is_garbage_means_to_begin_at_the_oldest(folder: Path, text: bytes) -> None:
    (folder / "cursor").write_bytes(text)
    kept = Kept(folder)
    assert kept.errors == 1
    assert delivered(kept) == [1, 2, 3, 4]
    assert tree(folder)["unusable/cursor"] == text
    assert kept.drops.records.total() == 0


def test_a_cursor_that_is_gone_means_the_same(folder: Path) -> None:
    (folder / "cursor").unlink()
    kept = Kept(folder)
    assert delivered(kept) == [1, 2, 3, 4]
    assert kept.errors == 0


def test_a_file_that_stands_in_the_way_of_a_new_segment_is_set_aside(folder: Path) -> None:
    kept = Kept(folder)
    (folder / segment_name(5)).write_text("in the way")
    kept.spool.put(body(5))
    assert delivered(kept) == [1, 2, 3, 4, 5]
    assert tree(folder)[f"unusable/{segment_name(5)}"] == b"in the way"


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_segment_that_somebody_deletes_under_way_is_counted(
    folder: Path, is_replaced: bool
) -> None:
    kept = Kept(folder)
    (folder / FIRST).unlink()
    if is_replaced:
        (folder / FIRST).mkdir()
    assert delivered(kept) == [3, 4]
    assert kept.drops.points == {"corrupt": 1 + 2}


def test_a_body_that_is_damaged_under_way_costs_that_one(folder: Path) -> None:
    kept = Kept(folder)
    with (folder / SECOND).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert delivered(kept) == [1, 2, 3]
    assert kept.drops.points == {"corrupt": 4}


def test_a_header_that_is_damaged_under_way_costs_that_one(folder: Path) -> None:
    kept = Kept(folder)
    data = bytearray((folder / FIRST).read_bytes())
    data[data.rindex(b"\xf7\xd1TR") + 5] ^= 1
    (folder / FIRST).write_bytes(data)
    assert delivered(kept) == [1, 3, 4]
    assert kept.drops.points == {"corrupt": 2}
    assert (len(kept.spool), kept.spool.size) == (0, 0)


def test_what_was_set_aside_twice_is_there_twice(tmp_path: Path) -> None:
    for text in ("first", "second"):
        (tmp_path / "cursor").write_text(text)
        put_aside(str(tmp_path / "cursor"))
    assert tree(tmp_path) == {"unusable/cursor": b"first", "unusable/cursor.1": b"second"}


def test_at_most_64_mib_are_kept_and_the_oldest_go(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / segment_name(number)
        with path.open("wb") as file:
            file.truncate(20 << 20)
        put_aside(str(path))
    assert sorted(tree(tmp_path)) == [f"unusable/{segment_name(number)}" for number in (1, 2, 3)]


OPEN_AS_NOBODY = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.spools import Kept
os.setgid(65534)
os.setuid(65534)
kept = Kept(Path(sys.argv[1]))
print([one.points for one in kept.drain()], int(kept.errors))
kept.spool.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_a_file_that_may_not_be_read_is_set_aside(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        away = Path(shutil.copytree(folder, Path(directory) / "far"))
        Path(directory).chmod(0o755)
        for path in (away, *away.iterdir()):
            os.chown(path, 65534, 65534)
        os.chown(away / FIRST, 0, 0)
        script = [sys.executable, "-c", OPEN_AS_NOBODY, str(away), str(Path(__file__).parent)]
        child = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
        assert child.stdout.strip() == "[3, 4] 1", child.stderr
        assert (away / "unusable" / FIRST).stat().st_uid == 0

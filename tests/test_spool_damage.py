"""Damage to the files of a spool costs the records that it hit, which are counted, and no other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.spools import Kept, body, plant, same, tree

from telemetryd.delivery.record import HEADER_SIZE, Mark, encode_header, header_of
from telemetryd.delivery.segment import PREAMBLE_SIZE

SIZE = 17
FIRST, SECOND = "00000000000000000001.seg", "00000000000000000003.seg"
# Number 1 is acknowledged, 2 set aside; 3, 4 and 5 wait in a second segment.
WAITING = (2, 3, 4, 5)


# In memory where that is possible: these tests open thousands of spools.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory)


@pytest.fixture
def files(folder: Path) -> dict[str, bytes]:
    return made(folder)


def made(folder: Path) -> dict[str, bytes]:
    kept = Kept(folder / "made")
    for number in (1, 2):
        kept.spool.put(body(number, SIZE))
    kept.spool.peek()
    kept.spool.acknowledge()
    kept.spool.set_aside()
    kept.spool.close()
    kept = Kept(folder / "made")
    for number in (3, 4, 5):
        kept.spool.put(body(number, SIZE))
    kept.spool.close()
    found = tree(folder / "made")
    assert set(found) == {FIRST, SECOND, "cursor"}
    return found


def arrives(directory: Path, files: dict[str, bytes]) -> tuple[set[int], Kept]:
    """The numbers of the bodies that a spool of these files delivers, each whole and in order."""
    kept = Kept(plant(directory, files))
    for number in reversed(kept.spool.aside):
        kept.spool.take_back(number)
    bodies = kept.drain()
    numbers = [one.points for one in bodies]
    assert same(bodies) == same([body(number, SIZE) for number in numbers])
    assert numbers == sorted(set(numbers))
    assert (len(kept.spool), kept.spool.size) == (0, 0)
    kept.spool.close()
    return set(numbers), kept


def check_counted(kept: Kept, lost: set[int]) -> None:
    assert kept.drops.records["corrupt"] == len(lost)
    assert kept.drops.points["corrupt"] == sum(lost)


def test_an_undamaged_spool_delivers_what_waits(folder: Path, files: dict[str, bytes]) -> None:
    numbers, kept = arrives(folder / "spool", files)
    assert numbers == set(WAITING)
    check_counted(kept, set())
    assert kept.errors == 0


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_flipped_bit_costs_at_most_one_record_which_is_counted_exactly(
    folder: Path, files: dict[str, bytes], name: str
) -> None:
    hit = set()
    for at in range(len(files[name]) * 8):
        data = bytearray(files[name])
        data[at // 8] ^= 1 << at % 8
        numbers, kept = arrives(folder / "spool", {**files, name: bytes(data)})
        lost = set(WAITING) - numbers
        assert numbers <= set(WAITING)
        assert len(lost) <= (at // 8 >= PREAMBLE_SIZE), f"bit {at}"
        check_counted(kept, lost)
        hit |= lost
    assert hit == ({2} if name == FIRST else {3, 4, 5})


def test_a_flipped_bit_in_the_cursor_costs_nothing(folder: Path, files: dict[str, bytes]) -> None:
    for at in range(len(files["cursor"]) * 8):
        data = bytearray(files["cursor"])
        data[at // 8] ^= 1 << at % 8
        numbers, kept = arrives(folder / "spool", {**files, "cursor": bytes(data)})
        assert numbers | {1} == {1, *WAITING}, f"bit {at}"
        check_counted(kept, set())


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_file_cut_off_anywhere_keeps_every_complete_record(
    folder: Path, files: dict[str, bytes], name: str
) -> None:
    numbers_in = (1, 2) if name == FIRST else (3, 4, 5)
    for size in range(len(files[name])):
        whole = max(0, size - PREAMBLE_SIZE) // (HEADER_SIZE + SIZE)
        lost = set(numbers_in[whole:]) - {1}
        numbers, kept = arrives(folder / "spool", {**files, name: files[name][:size]})
        assert numbers == set(WAITING) - lost, f"cut off at {size}"
        check_counted(kept, lost)


def test_a_cursor_cut_off_anywhere_costs_nothing(folder: Path, files: dict[str, bytes]) -> None:
    for size in range(len(files["cursor"])):
        numbers, kept = arrives(folder / "spool", {**files, "cursor": files["cursor"][:size]})
        assert numbers | {1} == {1, *WAITING}, f"cut off at {size}"
        check_counted(kept, set())


def test_records_without_anything_before_them_are_kept(
    folder: Path, files: dict[str, bytes]
) -> None:
    bare = {**files, SECOND: files[SECOND][PREAMBLE_SIZE:]}
    numbers, kept = arrives(folder / "spool", bare)
    assert numbers == set(WAITING)
    check_counted(kept, set())


def test_a_segment_that_is_there_twice_is_delivered_once(
    folder: Path, files: dict[str, bytes]
) -> None:
    double = {**files, "00000000000000000009.seg": files[SECOND]}
    numbers, kept = arrives(folder / "spool", double)
    assert numbers == set(WAITING)
    check_counted(kept, set())


def test_a_torn_tail_that_was_never_synced_is_not_counted_as_lost(
    folder: Path, files: dict[str, bytes]
) -> None:
    next_one = encode_header(header_of(body(6, SIZE), Mark(6, 5, 15))) + body(6, SIZE).data
    for size in range(len(next_one)):
        torn = files[SECOND] + next_one[:size]
        numbers, kept = arrives(folder / "spool", {**files, SECOND: torn})
        assert numbers == set(WAITING)
        check_counted(kept, set())


def test_what_comes_after_the_damage_is_kept_and_numbered_on(
    folder: Path, files: dict[str, bytes]
) -> None:
    kept = Kept(plant(folder / "spool", {**files, SECOND: files[SECOND][:100]}))
    kept.spool.put(body(6, SIZE))
    assert [one.points for one in kept.drain()] == [6]
    check_counted(kept, {3, 4, 5})
    kept.spool.close()


def test_what_is_lost_is_counted_once_whatever_the_number_of_restarts(
    folder: Path, files: dict[str, bytes]
) -> None:
    data = bytearray(files[SECOND])
    data[PREAMBLE_SIZE + HEADER_SIZE + SIZE + 5] ^= 1
    plant(folder / "spool", {**files, SECOND: bytes(data)})
    drops = []
    for _ in range(3):
        kept = Kept(folder / "spool")
        if kept.spool.peek() is not None:
            kept.spool.acknowledge()
        kept.spool.close()
        drops.append(kept.drops.records["corrupt"])
    assert drops == [0, 1, 0]


@given(
    name=st.sampled_from([FIRST, SECOND, "cursor"]),
    at=st.integers(0, 400),
    junk=st.binary(min_size=1, max_size=200),
    inserts=st.booleans(),
)
def test_junk_anywhere_spares_the_records_that_it_did_not_hit(
    name: str, at: int, junk: bytes, inserts: bool
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        folder = Path(directory)
        files = made(folder)
        data = files[name]
        at %= len(data)
        after = data[at if inserts else at + len(junk) :]
        numbers, kept = arrives(folder / "spool", {**files, name: data[:at] + junk + after})
        assert numbers <= {1, *WAITING}
        spared = set(WAITING)
        if name != "cursor":
            spared -= set(_hit(name, at, 0 if inserts else len(junk)))
            assert kept.drops.records["corrupt"] == len(set(WAITING) - numbers)
        assert spared <= numbers


def _hit(name: str, at: int, length: int) -> Iterator[int]:
    """The numbers of the records that bytes from `at` on belong to."""
    for place, number in enumerate((1, 2) if name == FIRST else (3, 4, 5)):
        start = PREAMBLE_SIZE + place * (HEADER_SIZE + SIZE)
        end = start + HEADER_SIZE + SIZE
        if at < end and start < at + max(length, 1):
            yield number

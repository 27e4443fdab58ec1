"""A disk that is full, for real: the oldest go and are counted exactly, nothing raises, and all
goes on when there is space again. Each test is a program that runs on a small tmpfs of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import json, os, resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.spools import Kept, body, tree
disk = Path(sys.argv[1])
folder = disk / "far"
def tell(**found):
    print(json.dumps(found))
"""

FULL = """
kept = Kept(folder, bytes="64MiB")
for number in range(1, 101):
    kept.spool.put(body(number, 100_000))
    kept.spool.sync()
left = [one.points for one in kept.drain()]
for number in range(101, 106):
    kept.spool.put(body(number, 100_000))
kept.spool.close()
again = [one.points for one in Kept(folder).drain()]
tell(left=left, points=kept.drops.points, records=kept.drops.records, again=again)
"""

NO_INODES = """
kept = Kept(folder, bytes="1MiB")
for number in range(1, 31):
    kept.spool.put(body(number, 100_000))
    kept.spool.sync()
files = len(tree(folder))
left = [one.points for one in kept.drain()]
kept.spool.close()
tell(left=left, points=kept.drops.points, records=kept.drops.records, files=files)
"""

TAKEN_BY_OTHERS = """
def fill(path):
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

kept = Kept(folder, bytes="64MiB")
fill(disk / "others")
kept.spool.put(body(1, 100_000))
pinned = kept.spool.peek().points
for number in range(2, 101):
    kept.spool.put(body(number, 100_000))
    kept.spool.sync()
in_memory = kept.spool.size
errors = kept.errors
heads = [pinned]
for _ in range(3):
    kept.spool.acknowledge()
    heads.append(kept.spool.peek().points)
(disk / "others").unlink()
kept.spool.put(body(101, 100_000))
kept.spool.sync()
on_disk = sum(len(data) for name, data in tree(folder).items() if name.endswith(".seg"))
kept.spool.close()
again = Kept(folder)
left = [one.points for one in again.drain()]
tell(heads=heads, in_memory=in_memory, errors=errors, on_disk=on_disk, left=left,
     points=kept.drops.points, records=kept.drops.records, lost=again.drops.records)
"""

AT_MOST_SO_LARGE = """
kept = Kept(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (250_000, -1))
for number in range(1, 61):
    kept.spool.put(body(number, 100_000))
    kept.spool.sync()
errors = kept.errors
sizes = [len(data) for name, data in tree(folder).items() if name.endswith(".seg")]
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
kept.spool.put(body(61, 100_000))
kept.spool.close()
again = Kept(folder)
left = [one.points for one in again.drain()]
tell(errors=errors, sizes=sizes, left=left, points=kept.drops.points,
     lost=again.drops.records)
"""

TESTS = str(Path(__file__).parent)


def number(found: dict[str, object], name: str) -> int:
    value = found[name]
    assert isinstance(value, int | float)
    return int(value)


def run(command: list[str], program: str, folder: Path) -> dict[str, object]:
    script = [sys.executable, "-c", BEGIN + program, str(folder), TESTS]
    done = subprocess.run(
        [*command, *script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def on_tmpfs(options: str, program: str, folder: Path) -> dict[str, object]:
    """Run `program` where a tmpfs is mounted on `folder`, which nobody else sees."""
    mount = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
    private = ["unshare", "--mount", "sh", "-c"]
    trial = subprocess.run([*private, mount, str(folder), "true"], capture_output=True, check=False)
    if trial.returncode:
        pytest.skip("a tmpfs of its own cannot be mounted here: " + trial.stderr.decode().strip())
    return run([*private, mount, str(folder)], program, folder)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")


@needs_root
def test_on_a_full_disk_the_oldest_are_dropped_and_counted_exactly(tmp_path: Path) -> None:
    found = on_tmpfs("size=4m", FULL, tmp_path)
    left = found["left"]
    assert isinstance(left, list)
    assert 20 < len(left) < 42
    assert left == list(range(101 - len(left), 101))
    gone = list(range(1, left[0]))
    assert found["records"] == {"enospc": len(gone)}
    assert found["points"] == {"enospc": sum(gone)}
    assert found["again"] == [101, 102, 103, 104, 105]


@needs_root
def test_a_disk_without_inodes_is_a_full_disk(tmp_path: Path) -> None:
    found = on_tmpfs("size=64m,nr_inodes=9", NO_INODES, tmp_path)
    left = found["left"]
    assert isinstance(left, list)
    assert 3 <= len(left) <= 8
    assert left == list(range(31 - len(left), 31))
    assert found["points"] == {"enospc": sum(range(1, left[0]))}
    assert found["records"] == {"enospc": left[0] - 1}


@needs_root
def test_without_any_space_bodies_wait_in_memory_and_reach_the_disk_later(tmp_path: Path) -> None:
    found = on_tmpfs("size=6m", TAKEN_BY_OTHERS, tmp_path)
    left, heads, points = found["left"], found["heads"], found["points"]
    assert isinstance(left, list)
    assert isinstance(heads, list)
    assert isinstance(points, dict)
    # The head on its way was never dropped, and sending went on from memory.
    assert heads[0] == 1
    assert heads == sorted(heads)
    assert (4 << 20) - 200_000 < number(found, "in_memory") <= (4 << 20) + 100_000
    assert number(found, "errors") >= 96
    assert number(found, "on_disk") > 100_000 * len(left)
    assert left == list(range(left[0], 102))
    assert heads[-1] == left[0]
    assert sum(range(1, 102)) == sum(heads[:-1]) + sum(left) + points["enospc"]
    assert found["lost"] == {}


def test_files_that_may_not_grow_cost_nothing_that_fits_into_memory(tmp_path: Path) -> None:
    found = run([], AT_MOST_SO_LARGE, tmp_path)
    assert found["sizes"] == [54 + 2 * (52 + 100_000)]
    left, points = found["left"], found["points"]
    assert isinstance(left, list)
    assert isinstance(points, dict)
    # The first two were on disk; of the others the youngest 4 MiB were kept.
    assert left[:2] == [1, 2]
    assert left[2:] == list(range(62 - len(left[2:]), 62))
    assert len(left) > 40
    assert points == {"enospc": sum(range(3, left[2]))}
    assert number(found, "errors") >= 58
    assert found["lost"] == {}

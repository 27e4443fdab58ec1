"""kill -9, for real: what `sync` returned for is there, in order; what was acknowledged more than a
second ago is not sent again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.spools import Kept, body, same

APPEND = """
import os, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.spools import Kept, body
spool = Kept(Path(sys.argv[1]), bytes="64MiB").spool
number = int(sys.argv[3])
while True:
    for _ in range(3):
        spool.put(body(number, 3000 + number % 5000))
        number += 1
    spool.sync()
    os.write(1, b"%d\\n" % (number - 1))
"""

ACKNOWLEDGE = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from support.spools import Kept
from telemetryd.clock import Clock
spool = Kept(Path(sys.argv[1]), clock=Clock()).spool
while (head := spool.peek()) is not None:
    spool.acknowledge()
    os.write(1, b"%d %d\\n" % (head.points, time.monotonic_ns()))
    time.sleep(0.01)
"""

TESTS = str(Path(__file__).parent)
PATIENCE_S = 60.0


def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill(child: subprocess.Popen[bytes]) -> list[list[int]]:
    """Kill it; returns the lines that it wrote."""
    assert child.poll() is None, child.communicate()[1].decode()
    child.send_signal(signal.SIGKILL)
    out, _ = child.communicate(timeout=PATIENCE_S)
    # The last line may be cut off.
    return [[int(field) for field in line.split()] for line in out.split(b"\n")[:-1]]


def check_appending(folder: Path, times: int) -> None:
    expected = 1
    for turn in range(times):
        child = start(APPEND, str(folder), TESTS, str(expected))
        assert child.stdout is not None
        first = child.stdout.readline()
        # Somewhere in the middle of a write or a sync.
        time.sleep(0.01 + turn % 7 * 0.003)
        synced = [int(first), *(line[0] for line in kill(child))][-1]
        kept = Kept(folder, bytes="64MiB")
        bodies = kept.drain()
        numbers = [one.points for one in bodies]
        assert numbers == list(range(expected, expected + len(numbers)))
        assert numbers[-1] >= synced
        assert same(bodies) == same([body(n, 3000 + n % 5000) for n in numbers])
        assert (kept.drops.records.total(), kept.errors) == (0, 0)
        expected = numbers[-1] + 1
        kept.spool.close()


def test_everything_synced_survives_kill_9(tmp_path: Path) -> None:
    check_appending(tmp_path / "far", 5)


@pytest.mark.long
def test_everything_synced_survives_a_hundred_times_kill_9(tmp_path: Path) -> None:
    check_appending(tmp_path / "far", 100)


def test_what_was_acknowledged_more_than_a_second_ago_is_not_sent_again(tmp_path: Path) -> None:
    folder = tmp_path / "far"
    kept = Kept(folder, bytes="2MiB")
    for number in range(1, 1001):
        kept.spool.put(body(number, 1500))
    kept.spool.close()
    done = 0
    # Two processes, one after the other.
    for _ in range(2):
        child = start(ACKNOWLEDGE, str(folder), TESTS)
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(2.5)
        killed_ns = time.monotonic_ns()
        lines = [[int(field) for field in first.split()], *kill(child)]
        assert lines[0][0] > done
        # A second, and the time that a busy machine takes to write a small file.
        old = [number for number, when_ns in lines if when_ns < killed_ns - 2_000_000_000]
        assert old
        done = old[-1]
    again = Kept(folder, bytes="2MiB")
    head = again.spool.peek()
    assert head is not None
    assert done < head.points <= lines[-1][0] + 2
    assert again.drops.records.total() == 0
    again.spool.close()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    child = start(APPEND, str(tmp_path / "far"), TESTS, "1")
    assert child.stdout is not None
    child.stdout.readline()
    kill(child)
    Kept(tmp_path / "far").spool.close()
    assert os.path.exists(tmp_path / "far" / "lock")

"""Laws of the utilization of disks, over generated loads and broken readings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.trees import Bench
from support.utilization_laws import (
    INTERVAL,
    Values,
    account_of,
    assert_lawful,
    assert_nothing_derived,
    ratio_of,
    untimed,
)

from telemetryd.collectors.disk import IO_TIME
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.disk import MOST_AHEAD_S, DiskUtilization
from telemetryd.derived.steps import GAP_INTERVALS

JIFFY_MS = 4
# From the moment that is taken for the reading's to the moment that the kernel prints the row.
MOST_LATE_MS = 5


class BusyDisk:
    """A disk as the kernel accounts it: in whole jiffies, up to the last one that is over."""

    def __init__(self, bursts: Sequence[tuple[int, int]]) -> None:
        """Each burst: jiffies of rest, then jiffies with I/O in flight; over and over."""
        self._bursts = bursts

    def busy_ms(self, until_ms: float) -> float:
        """Milliseconds with I/O in flight up to a moment."""
        at = busy = 0.0
        for rest, work in itertools.cycle(self._bursts):
            at += rest * JIFFY_MS
            if at >= until_ms:
                return busy
            busy += min(work * JIFFY_MS, until_ms - at)
            at += work * JIFFY_MS
        raise AssertionError

    def io_ticks_ms(self, at_ms: int) -> float:
        return self.busy_ms(at_ms // JIFFY_MS * JIFFY_MS)


@untimed
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 600)), min_size=1, max_size=6),
    st.lists(
        st.tuples(st.integers(100, 3000), st.integers(0, MOST_LATE_MS)), min_size=2, max_size=40
    ),
)
@example([(0, 1)], [(1000 + n % 3, n * 7 % (MOST_LATE_MS + 1)) for n in range(200)])
def test_disk_utilization_has_the_true_mean_of_any_load_to_within_a_jiffy_and_a_late_reading(
    bursts: list[tuple[int, int]], readings: list[tuple[int, int]]
) -> None:
    disk = BusyDisk(bursts)
    bench = Bench(DiskUtilization(DerivedConfig()), INTERVAL)
    now_ms = 0
    moments: list[int] = []
    accounts: list[tuple[float, float]] = []
    for milliseconds, late_ms in readings:
        now_ms += milliseconds
        ticks_ms = disk.io_ticks_ms(now_ms + late_ms)
        values = bench.feed([(IO_TIME.at("sda"), ticks_ms / 1000)], after=milliseconds / 1000)
        moments.append(now_ms)
        accounts.append(account_of(values, "disk", "sda"))
        ratio = ratio_of(values, "disk", "sda")
        assert (ratio is None) == (len(moments) == 1)
        assert ratio is None or 0 <= ratio <= 1
    # However many readings there are, what they are off by does not add up.
    most = (JIFFY_MS + MOST_LATE_MS) * 2 / 1000 + 1e-6
    for first, last in ((0, -1), (len(moments) // 2, -1), (0, len(moments) // 2)):
        elapsed = (moments[last] - moments[first]) / 1000
        assert accounts[last][1] - accounts[first][1] == pytest.approx(elapsed, abs=1e-6)
        true = (disk.busy_ms(moments[last]) - disk.busy_ms(moments[first])) / 1000
        assert accounts[last][0] - accounts[first][0] == pytest.approx(true, abs=most)


any_disks = st.lists(
    st.tuples(
        st.integers(0, 1000),
        st.dictionaries(st.sampled_from(["sda", "sdb", "sdc"]), st.integers(0, 2000), max_size=3),
    ),
    min_size=1,
    max_size=15,
)


@untimed
@given(any_disks)
def test_disk_utilization_is_lawful_whatever_the_kernel_says(
    readings: list[tuple[int, dict[str, int]]],
) -> None:
    bench = Bench(DiskUtilization(DerivedConfig()), INTERVAL)
    before: Values = {}
    known: dict[str, int] = {}
    for hundredths, disks in readings:
        now = bench.feed(
            [(IO_TIME.at(name), n / 100) for name, n in disks.items()], after=hundredths / 100
        )
        assert_lawful(before, now)
        for name, n in disks.items():
            if (
                name not in known
                or n < known[name]
                or not 0 < hundredths <= GAP_INTERVALS * INTERVAL * 100
                or n - known[name] > hundredths + MOST_AHEAD_S * 2 * 100
            ):
                assert ratio_of(now, "disk", name) is None
        before, known = now, disks


@untimed
@given(st.integers(1, 300), st.integers(0, 1000), st.integers(0, 1000))
def test_a_disk_whose_counter_fell_has_no_utilization_for_that_interval(
    hundredths: int, first: int, second: int
) -> None:
    assume(second < first)
    bench = Bench(DiskUtilization(DerivedConfig()), INTERVAL)
    before = bench.feed([(IO_TIME.at("sda"), first / 100)])
    now = bench.feed([(IO_TIME.at("sda"), second / 100)], after=hundredths / 100)
    assert_nothing_derived(before, now)

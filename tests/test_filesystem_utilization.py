"""Filesystem utilization: the used share of what a user may fill, as df shows it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trees import Bench

from telemetryd.collectors.filesystem import (
    AVAILABLE,
    DEVICE_ERROR,
    FREE,
    SIZE,
)
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.filesystem import FilesystemUtilization
from telemetryd.metric import Point

LABELS = ("/data", "/dev/nvme0n1p1", "xfs")


def levels(size: float, free: float, available: float) -> list[Point]:
    return [
        (DEVICE_ERROR.at(*LABELS), 0),
        (SIZE.at(*LABELS), size),
        (FREE.at(*LABELS), free),
        (AVAILABLE.at(*LABELS), available),
    ]


STUCK: list[Point] = [(DEVICE_ERROR.at(*LABELS), 1)]
DATA = '{resource="filesystem",device="/data"}'
RATIO = f"telemetryd_utilization_ratio{DATA}"
SECONDS = f"telemetryd_utilization_seconds_total{DATA}"
OBSERVED = f"telemetryd_utilization_observed_seconds_total{DATA}"


def bench() -> Bench:
    return Bench(FilesystemUtilization(DerivedConfig()), interval=10.0)


def test_utilization_is_that_of_df_without_what_is_reserved_for_root() -> None:
    values = bench().feed(levels(1000, 400, 350))
    assert values[RATIO] == pytest.approx(600 / 950)
    assert values[OBSERVED] == 0


def test_the_integral_is_the_mean_of_both_ends_of_each_interval() -> None:
    fed = bench()
    fed.feed(levels(100, 80, 80), after=10)
    values = fed.feed(levels(100, 40, 40), after=10)
    assert values[SECONDS] == pytest.approx(10 * (0.2 + 0.6) / 2)
    assert values[OBSERVED] == 10
    assert not any("peak" in name for name in values)


@pytest.mark.parametrize(
    "odd", [levels(0, 0, 0), levels(100, 120, 50), levels(100, 100, 0)], ids=str
)
def test_levels_that_give_no_ratio_give_no_series_at_all(odd: list[Point]) -> None:
    assert bench().feed(odd) == {}


def test_a_stuck_filesystem_has_no_ratio_and_keeps_its_integral_for_later() -> None:
    fed = bench()
    fed.feed(levels(100, 80, 80), after=10)
    fed.feed(levels(100, 80, 80), after=10)
    values = fed.feed(STUCK, after=10)
    assert RATIO not in values
    assert (values[SECONDS], values[OBSERVED]) == (pytest.approx(2), 10)
    assert fed.feed(levels(100, 80, 80), after=10)[OBSERVED] == 10
    assert fed.feed(levels(100, 80, 80), after=10)[OBSERVED] == 20


def test_a_gap_is_not_observed() -> None:
    fed = bench()
    fed.feed(levels(100, 80, 80), after=10)
    values = fed.feed(levels(100, 20, 20), after=31)
    assert values[RATIO] == pytest.approx(0.8)
    assert values[OBSERVED] == 0


def test_an_unmounted_filesystem_is_gone_and_one_collectors_end_is_not_anothers() -> None:
    fed = bench()
    fed.feed(levels(100, 80, 80), after=10)
    fed.derivation.forget("another")
    assert fed.feed(levels(100, 80, 80), after=10)[OBSERVED] == 10
    fed.derivation.forget("c")
    assert fed.feed(levels(100, 80, 80), after=10)[OBSERVED] == 0
    other = [(SIZE.at("/", "/dev/sda", "ext4"), 1.0)]
    assert fed.feed(other, after=10) == {}


fill = st.tuples(
    st.integers(0, 2**50), st.integers(0, 2**50), st.integers(0, 2**50), st.integers(1, 35)
)


@settings(deadline=None)
@given(st.lists(st.one_of(fill, st.none()), min_size=1, max_size=30))
def test_any_levels_give_ratios_up_to_one_and_an_integral_that_is_their_true_mean(
    ticks: list[tuple[int, int, int, int] | None],
) -> None:
    fed = bench()
    before: float | None = None
    full, observed, known = 0.0, 0.0, False
    for tick in ticks:
        if tick is None:
            values, ratio, after = fed.feed(STUCK, after=10), None, 10
        else:
            size, free, available, after = tick
            values = fed.feed(levels(size, free, available), after=after)
            used = size - free
            ratio = used / (used + available) if used >= 0 and used + available > 0 else None
        if ratio is not None and before is not None and after <= 30:
            full += (before + ratio) / 2 * after
            observed += after
        before = ratio
        known = known or ratio is not None
        assert values.get(RATIO) == ratio
        assert ratio is None or 0 <= ratio <= 1
        assert values.get(OBSERVED) == (observed if known else None)
        assert values.get(SECONDS) == (pytest.approx(full) if known else None)

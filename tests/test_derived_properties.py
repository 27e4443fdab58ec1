"""Laws of the utilization of CPU, memory and disks, over generated loads and broken readings.

A mean is always taken as a scraper takes it: increase of the integral / increase of the observed
time between any two scrapes, however far apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Bench, named
from support.utilization_laws import (
    INTERVAL,
    Values,
    account_of,
    assert_lawful,
    assert_mean_between_any_scrapes,
    assert_nothing_derived,
    intervals,
    ratio_of,
    shares,
    untimed,
)

from telemetryd.collectors.cpu import MODES, TIME
from telemetryd.collectors.memory import AVAILABLE, SWAP_FREE, SWAP_TOTAL, TOTAL
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.cpu import CpuUtilization
from telemetryd.derived.memory import MemoryUtilization
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.derived.utilization import Account
from telemetryd.metric import Point

# The account


@untimed
@given(st.lists(st.tuples(st.integers(1, 10**6), st.none() | shares), min_size=1, max_size=30))
def test_an_account_gives_the_mean_between_any_scrapes_and_leaves_out_what_nobody_saw(
    load: list[tuple[int, float | None]],
) -> None:
    account = Account("cpu", "all")
    accounts = [account_of(named(account.points()), "cpu")]
    mono_ns = 0
    for milliseconds, ratio in load:
        mono_ns += milliseconds * 1_000_000
        account.observe(ratio, milliseconds / 1000, mono_ns)
        values = named(account.points())
        assert ratio_of(values, "cpu") == ratio
        accounts.append(account_of(values, "cpu"))
    truth = [(0, 0) if r is None else (ms / 1000 * r, ms / 1000) for ms, r in load]
    assert_mean_between_any_scrapes(accounts, truth)


@untimed
@given(
    st.lists(st.tuples(st.integers(1, 100), st.none() | shares), min_size=1, max_size=40),
    st.integers(1, 200),
)
def test_a_peak_is_the_highest_ratio_of_the_window_and_gone_after_it(
    load: list[tuple[int, float | None]], window: int
) -> None:
    account = Account("cpu", "all", peak_window=float(window))
    seen: list[tuple[int, float]] = []
    now = 0
    for seconds, ratio in load:
        now += seconds
        if ratio is not None:
            seen.append((now, ratio))
        account.observe(ratio, seconds, now * 10**9)
        peak = named(account.points()).get(
            'telemetryd_utilization_peak_ratio{resource="cpu",device="all"}'
        )
        inside = [one for at, one in seen if at > now - window]
        assert peak == max(inside, default=None)


# CPU


def cpu_points(times: Sequence[Sequence[float]]) -> list[Point]:
    return [
        (TIME.at(str(cpu), mode), value)
        for cpu, row in enumerate(times)
        for mode, value in zip(MODES, row, strict=True)
    ]


def centiseconds(times: Sequence[Sequence[int]]) -> list[Point]:
    return cpu_points([[n / 100 for n in row] for row in times])


# For each interval its length, and for each CPU the share of its time in each mode.
cpu_loads = st.integers(1, 3).flatmap(
    lambda cpus: st.lists(
        st.tuples(
            intervals,
            st.lists(
                st.lists(st.integers(0, 10), min_size=8, max_size=8).filter(any),
                min_size=cpus,
                max_size=cpus,
            ),
        ),
        min_size=1,
        max_size=12,
    )
)


@untimed
@given(cpu_loads)
def test_cpu_utilization_has_the_true_mean_of_any_load_between_any_scrapes(
    load: list[tuple[int, list[list[int]]]],
) -> None:
    bench = Bench(CpuUtilization(DerivedConfig()), INTERVAL)
    times = [[1000.0] * 8 for _ in load[0][1]]
    samples = [bench.feed(cpu_points(times))]
    idle = [MODES.index("idle"), MODES.index("iowait")]
    truth: list[list[tuple[float, float]]] = [[] for _ in ["all", *times]]
    for hundredths, weights in load:
        seconds = hundredths / 100
        times = [
            [t + seconds * w / sum(row) for t, w in zip(old, row, strict=True)]
            for old, row in zip(times, weights, strict=True)
        ]
        samples.append(bench.feed(cpu_points(times), after=seconds))
        busy = [seconds * (1 - sum(row[i] for i in idle) / sum(row)) for row in weights]
        looked = seconds <= GAP_INTERVALS * INTERVAL
        of_all = sum(busy) / len(busy)
        for one, used in zip(truth, [of_all, *busy], strict=True):
            one.append((used, seconds) if looked else (0, 0))
        if not looked:
            assert_nothing_derived(samples[-2], samples[-1])
    assert_mean_between_any_scrapes([account_of(s, "cpu") for s in samples], truth[0])
    for cpu in range(len(times)):
        accounts = [account_of(s, "cpu_core", str(cpu)) for s in samples]
        assert_mean_between_any_scrapes(accounts, truth[cpu + 1])


# Whatever the file may say: counters that jump, fall and stand still, CPUs that come and go.
any_cpus = st.lists(
    st.tuples(
        st.integers(0, 1000),
        st.lists(st.lists(st.integers(0, 500), min_size=8, max_size=8), min_size=0, max_size=3),
    ),
    min_size=1,
    max_size=12,
)


@untimed
@given(any_cpus)
def test_cpu_utilization_is_lawful_whatever_the_kernel_says(
    readings: list[tuple[int, list[list[int]]]],
) -> None:
    bench = Bench(CpuUtilization(DerivedConfig()), INTERVAL)
    before: Values = {}
    for hundredths, times in readings:
        now = bench.feed(centiseconds(times), after=hundredths / 100)
        assert_lawful(before, now)
        if not before or hundredths == 0 or hundredths > GAP_INTERVALS * INTERVAL * 100:
            assert_nothing_derived(before, now)
        before = now


rows = st.lists(st.integers(100, 500), min_size=8, max_size=8)


@untimed
@given(rows, rows, st.sampled_from([mode for mode in MODES if mode != "iowait"]))
def test_a_cpu_whose_time_fell_has_no_utilization_for_that_interval(
    first: list[int], increase: list[int], mode: str
) -> None:
    bench = Bench(CpuUtilization(DerivedConfig()), INTERVAL)
    second = [a + b for a, b in zip(first, increase, strict=True)]
    second[MODES.index(mode)] = first[MODES.index(mode)] - 1
    before = bench.feed(centiseconds([first]))
    assert_nothing_derived(before, bench.feed(centiseconds([second])))


@untimed
@given(rows, rows, rows)
def test_a_cpu_that_comes_online_has_no_utilization_before_its_second_reading(
    first: list[int], increase: list[int], newcomer: list[int]
) -> None:
    bench = Bench(CpuUtilization(DerivedConfig()), INTERVAL)
    alone = [a + b for a, b in zip(first, increase, strict=True)]
    bench.feed(centiseconds([first]))
    expected = ratio_of(bench.feed(centiseconds([alone])), "cpu")
    bench = Bench(CpuUtilization(DerivedConfig()), INTERVAL)
    bench.feed(centiseconds([first]))
    values = bench.feed(centiseconds([alone, newcomer]))
    assert ratio_of(values, "cpu_core", "1") is None
    assert ratio_of(values, "cpu") == expected


# Memory


@untimed
@given(
    st.integers(1, 1 << 44),
    st.lists(st.tuples(intervals, shares, shares), min_size=2, max_size=20),
)
def test_memory_utilization_has_the_true_mean_of_any_load_that_changes_evenly(
    total: int, load: list[tuple[int, float, float]]
) -> None:
    bench = Bench(MemoryUtilization(DerivedConfig()), INTERVAL)
    accounts: dict[str, list[tuple[float, float]]] = {"memory": [], "swap": []}
    truth: dict[str, list[tuple[float, float]]] = {"memory": [], "swap": []}
    levels: list[dict[str, float]] = []
    for hundredths, memory, swap in load:
        available, swap_free = int(total * memory), int(total * swap)
        values = bench.feed(
            [
                (TOTAL.at(), total),
                (AVAILABLE.at(), available),
                (SWAP_TOTAL.at(), total),
                (SWAP_FREE.at(), swap_free),
            ],
            after=hundredths / 100,
        )
        levels.append({"memory": 1 - available / total, "swap": 1 - swap_free / total})
        for resource, account in accounts.items():
            account.append(account_of(values, resource))
            assert ratio_of(values, resource) == pytest.approx(levels[-1][resource], abs=1e-12)
            if len(levels) > 1:
                # Between two readings the level moves on a straight line.
                mean = (levels[-2][resource] + levels[-1][resource]) / 2
                looked = hundredths / 100 if hundredths <= GAP_INTERVALS * INTERVAL * 100 else 0
                truth[resource].append((mean * looked, looked))
    for resource, account in accounts.items():
        assert_mean_between_any_scrapes(account, truth[resource])


sizes = st.none() | st.integers(0, 3)


@untimed
@given(
    st.lists(st.tuples(st.integers(0, 1000), sizes, sizes, sizes, sizes), min_size=1, max_size=15)
)
def test_memory_utilization_is_lawful_whatever_the_kernel_says(
    readings: list[tuple[int, int | None, int | None, int | None, int | None]],
) -> None:
    bench = Bench(MemoryUtilization(DerivedConfig()), INTERVAL)
    before: Values = {}
    for hundredths, *amounts in readings:
        metrics = (TOTAL, AVAILABLE, SWAP_TOTAL, SWAP_FREE)
        points: list[Point] = [
            (metric.at(), amount)
            for metric, amount in zip(metrics, amounts, strict=True)
            if amount is not None
        ]
        now = bench.feed(points, after=hundredths / 100)
        assert_lawful(before, now)
        for resource, total, left in (("memory", *amounts[:2]), ("swap", *amounts[2:])):
            known = total and left is not None and left <= total
            assert (ratio_of(now, resource) is not None) == bool(known)
        before = now

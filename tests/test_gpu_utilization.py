"""Utilization of GPUs, worked out by hand and as laws over GPUs that come, go and talk nonsense."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Bench
from support.utilization_laws import (
    INTERVAL,
    Values,
    account_of,
    assert_lawful,
    assert_mean_between_any_scrapes,
    assert_nothing_derived,
    gaps,
    intervals,
    ratio_of,
    shares,
    ticks,
    untimed,
)

from telemetryd import gpus
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.gpu_readings import FORGET_AFTER_S
from telemetryd.derived.gpu_utilization import GpuUtilization
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Metric, Point

GIB = 1 << 30
SHARES = {
    "gpu": gpus.BUSY,
    "gpu_sm": gpus.SM_ACTIVE,
    "gpu_tensor": gpus.TENSOR_ACTIVE,
    "gpu_encoder": gpus.ENCODER_BUSY,
    "gpu_decoder": gpus.DECODER_BUSY,
}


def bench() -> Bench:
    return Bench(GpuUtilization(DerivedConfig()), INTERVAL)


def gpu(
    readings: Mapping[Metric, float | None], name: str = "0", uuid: str = "GPU-a"
) -> list[Point]:
    return [(m.at(name, uuid), value) for m, value in readings.items() if value is not None]


def busy(share: float | None, name: str = "0", uuid: str = "GPU-a") -> list[Point]:
    # A GPU that does not tell how busy it is still tells its memory.
    return gpu({gpus.BUSY: share, gpus.MEMORY_TOTAL: GIB}, name, uuid)


def memory(used: float, total: float = 80 * GIB, uuid: str = "GPU-a") -> list[Point]:
    return gpu({gpus.MEMORY_USED: used, gpus.MEMORY_TOTAL: total}, uuid=uuid)


def power(average: float | None, limit: float = 700, instant: float | None = None) -> list[Point]:
    labels = ("0", "GPU-a")
    points = [(gpus.POWER_LIMIT.at(*labels, "enforced"), limit)]
    if average is not None:
        points.append((gpus.POWER_AVERAGE.at(*labels, "gpu"), average))
    if instant is not None:
        points.append((gpus.POWER_INSTANT.at(*labels, "gpu"), instant))
    return points


@pytest.mark.parametrize("resource", SHARES)
def test_a_share_is_a_ratio_at_once_and_stands_for_the_interval_that_it_ends(
    resource: str,
) -> None:
    b = bench()
    values = b.feed(gpu({SHARES[resource]: 0.5}))
    assert ratio_of(values, resource, "0") == 0.5
    assert account_of(values, resource, "0") == (0, 0)
    values = b.feed(gpu({SHARES[resource]: 0.25}), after=2)
    assert ratio_of(values, resource, "0") == 0.25
    assert account_of(values, resource, "0") == (0.5, 2)


def test_memory_is_used_by_total_and_between_two_readings_the_mean_of_both() -> None:
    b = bench()
    assert ratio_of(b.feed(memory(20 * GIB)), "gpu_memory", "0") == 0.25
    values = b.feed(memory(60 * GIB))
    assert ratio_of(values, "gpu_memory", "0") == 0.75
    assert account_of(values, "gpu_memory", "0") == (0.5, 1)


def test_power_above_the_limit_is_published_as_it_is() -> None:
    b = bench()
    b.feed(power(350))
    values = b.feed(power(770))
    assert ratio_of(values, "gpu_power", "0") == 1.1
    assert account_of(values, "gpu_power", "0") == (pytest.approx(0.8), 1)


def test_power_is_by_the_limit_that_is_enforced_and_by_no_other() -> None:
    labels = ("0", "GPU-a")
    points = [
        (gpus.POWER_AVERAGE.at(*labels, "module"), 900.0),
        (gpus.POWER_LIMIT.at(*labels, "default"), 500.0),
    ]
    values = bench().feed([*points, *power(350)])
    assert ratio_of(values, "gpu_power", "0") == 0.5
    assert bench().feed([*points]) == {}


def test_the_power_of_the_moment_stands_in_only_for_an_average_that_was_never_there() -> None:
    b = bench()
    assert ratio_of(b.feed(power(None, instant=70)), "gpu_power", "0") == 0.1
    assert ratio_of(b.feed(power(350, instant=70)), "gpu_power", "0") == 0.5
    assert ratio_of(b.feed(power(None, instant=70)), "gpu_power", "0") is None


@pytest.mark.parametrize("share", [-0.01, 1.01, 42.0])
@pytest.mark.parametrize("resource", SHARES)
def test_a_share_that_cannot_be_is_neither_clamped_nor_integrated(
    resource: str, share: float
) -> None:
    b = bench()
    b.feed(gpu({SHARES[resource]: 0.5}))
    values = b.feed(gpu({SHARES[resource]: share}))
    assert ratio_of(values, resource, "0") is None
    assert account_of(values, resource, "0") == (0, 0)
    assert account_of(b.feed(gpu({SHARES[resource]: 1})), resource, "0") == (1, 1)


@pytest.mark.parametrize(("used", "total"), [(81 * GIB, 80 * GIB), (-1, GIB), (0, 0)])
def test_memory_that_cannot_be_has_no_ratio(used: float, total: float) -> None:
    b = bench()
    b.feed(memory(GIB))
    values = b.feed(memory(used, total))
    assert ratio_of(values, "gpu_memory", "0") is None
    assert account_of(values, "gpu_memory", "0") == (0, 0)


def test_a_reading_that_fails_is_not_observed_and_the_others_go_on() -> None:
    b = bench()
    b.feed(gpu({gpus.BUSY: 1, gpus.SM_ACTIVE: 1}))
    values = b.feed(gpu({gpus.SM_ACTIVE: 1}))
    assert ratio_of(values, "gpu", "0") is None
    assert account_of(values, "gpu", "0") == (0, 0)
    assert account_of(values, "gpu_sm", "0") == (1, 1)
    assert account_of(b.feed(gpu({gpus.BUSY: 1, gpus.SM_ACTIVE: 1})), "gpu", "0") == (1, 1)


def test_what_was_never_read_has_no_series() -> None:
    values = bench().feed(busy(0.5))
    assert {name for name in values if 'resource="gpu"' not in name} == set()


def test_a_gap_is_not_integrated() -> None:
    b = bench()
    b.feed(busy(1) + memory(GIB)[:1])
    values = b.feed(busy(1) + memory(GIB)[:1], after=GAP_INTERVALS + 0.5)
    assert ratio_of(values, "gpu", "0") == 1
    assert account_of(values, "gpu", "0") == account_of(values, "gpu_memory", "0") == (0, 0)


def test_a_lost_gpu_is_published_no_more_and_goes_on_where_it_was_when_it_returns() -> None:
    b = bench()
    for _ in range(5):
        b.feed(busy(1) + busy(1, "1", "GPU-b"))
    for _ in range(60):
        values = b.feed(busy(1, "1", "GPU-b"))
        assert not any('device="0"' in name for name in values)
    values = b.feed(busy(0.5) + busy(1, "1", "GPU-b"))
    assert ratio_of(values, "gpu", "0") == 0.5
    assert account_of(values, "gpu", "0") == (4, 4)
    assert account_of(values, "gpu", "1") == (65, 65)
    assert account_of(b.feed(busy(0.5)), "gpu", "0") == (4.5, 5)


def test_a_mig_instance_with_the_name_of_another_adds_to_its_account_and_continues_no_level() -> (
    None
):
    b = bench()
    for uuid in ("MIG-a", "MIG-a", "MIG-b"):
        share = gpu({gpus.SM_ACTIVE: 1}, uuid=uuid)
        values = b.feed(share + memory(40 * GIB, uuid=uuid))
    assert account_of(values, "gpu_memory", "0") == (0.5, 1)
    assert account_of(values, "gpu_sm", "0") == (1, 1)


def test_instances_that_are_made_anew_for_each_job_do_not_fill_the_memory() -> None:
    b = bench()
    b.feed(busy(1, "first"))
    b.feed(busy(1, "first"))
    for job in range(200):
        b.feed(busy(1, f"0/{job}/0"), after=FORGET_AFTER_S / 100)
    values = b.feed(busy(1, "0/150/0") + busy(1, "first"))
    # Seen within the hour: it was there once only. Gone for two: it starts again.
    assert account_of(values, "gpu", "0/150/0") == (0, 0)
    assert account_of(values, "gpu", "first") == (0, 0)
    [known] = b.derivation._collectors.values()  # type: ignore[attr-defined]
    assert len(known.known) < 110
    assert len(known.last_seen_ns) < 110


def test_a_gpu_is_remembered_for_an_hour_and_counts_from_0_after_it() -> None:
    for away, expected in ((FORGET_AFTER_S - 60, (1, 1)), (FORGET_AFTER_S + 60, (0, 0))):
        b = bench()
        b.feed(busy(1))
        b.feed(busy(1))
        b.feed(busy(1, "1", "GPU-b"))
        b.feed(busy(1, "1", "GPU-b"), after=away)
        assert account_of(b.feed(busy(1)), "gpu", "0") == expected


def test_peaks_are_kept_of_gpu_and_gpu_sm_alone() -> None:
    b = bench()
    everything = gpu(dict.fromkeys(SHARES.values(), 0.75)) + memory(GIB) + power(70)
    b.feed(everything)
    values = b.feed(gpu(dict.fromkeys(SHARES.values(), 0.25)) + memory(GIB) + power(70))
    peaks = {name: value for name, value in values.items() if "_peak_" in name}
    assert peaks == {
        f'telemetryd_utilization_peak_ratio{{resource="{resource}",device="0"}}': 0.75
        for resource in ("gpu", "gpu_sm")
    }
    values = b.feed(everything[1:], after=DerivedConfig().peak_window)
    assert ratio_of(values, "gpu", "0") is None


def test_gpus_of_several_makers_are_kept_apart() -> None:
    b = bench()
    for _ in range(3):
        b.feed(busy(1), collector="gpu_nvidia", after=0.5)
        values = b.feed(busy(0.5, "card1", "x"), collector="gpu_amd", after=0.5)
    assert account_of(values, "gpu", "card1") == (1, 2)
    assert not any('device="0"' in name for name in values)
    b.derivation.forget("gpu_nvidia")
    b.derivation.forget("gpu_nvidia")
    assert account_of(b.feed(busy(1), collector="gpu_nvidia"), "gpu", "0") == (0, 0)
    values = b.feed(busy(0.5, "card1", "x"), collector="gpu_amd", after=0)
    assert account_of(values, "gpu", "card1") == (1.5, 3)


# Laws

# Of a fraction of the readings of a GPU nothing is known.
loads = st.lists(
    st.tuples(st.one_of(ticks, ticks, ticks, gaps), st.none() | shares, st.none() | shares),
    min_size=1,
    max_size=15,
)


@untimed
@given(loads)
def test_the_mean_of_a_share_is_the_true_one_between_any_scrapes(
    load: list[tuple[int, float | None, float | None]],
) -> None:
    b = bench()
    samples = [b.feed(gpu({gpus.BUSY: 0.5, gpus.SM_ACTIVE: 0.5}))]
    truth: dict[str, list[tuple[float, float]]] = {"gpu": [], "gpu_sm": []}
    for hundredths, *both in load:
        points = gpu({gpus.BUSY: both[0], gpus.SM_ACTIVE: both[1], gpus.MEMORY_USED: 0})
        samples.append(b.feed(points, after=hundredths / 100))
        looked = hundredths / 100 if hundredths <= GAP_INTERVALS * INTERVAL * 100 else 0
        for resource, share in zip(truth, both, strict=True):
            assert ratio_of(samples[-1], resource, "0") == share
            truth[resource].append((0, 0) if share is None else (share * looked, looked))
    for resource, used in truth.items():
        accounts = [account_of(sample, resource, "0") for sample in samples]
        assert_mean_between_any_scrapes(accounts, used)


@untimed
@given(st.lists(st.tuples(intervals, shares, st.floats(0, 1.5)), min_size=1, max_size=15))
def test_the_mean_of_memory_and_power_is_the_true_one_of_what_changes_evenly(
    load: list[tuple[int, float, float]],
) -> None:
    b = bench()
    before = {"gpu_memory": 0.5, "gpu_power": 0.5}
    samples = [b.feed(memory(40 * GIB) + power(350))]
    truth: dict[str, list[tuple[float, float]]] = {"gpu_memory": [], "gpu_power": []}
    for hundredths, filled, watts in load:
        points = memory(80 * GIB * filled) + power(700 * watts)
        samples.append(b.feed(points, after=hundredths / 100))
        looked = hundredths / 100 if hundredths <= GAP_INTERVALS * INTERVAL * 100 else 0
        for resource, now in (("gpu_memory", filled), ("gpu_power", watts)):
            truth[resource].append(((before[resource] + now) / 2 * looked, looked))
            before[resource] = now
    for resource, used in truth.items():
        accounts = [account_of(sample, resource, "0") for sample in samples]
        assert_mean_between_any_scrapes(accounts, used)


odd = st.none() | st.floats(-0.5, 1.5)
present = st.tuples(st.sampled_from("ab"), odd, odd, odd)
# Each GPU of two: absent, or there with a uuid and readings that may be anything.
lives = st.lists(
    st.tuples(st.integers(0, 1000), st.none() | present, st.none() | present),
    min_size=1,
    max_size=15,
)
Present = tuple[str, float | None, float | None, float | None]


@untimed
@given(lives)
def test_utilization_is_lawful_whatever_the_driver_says_and_wherever_gpus_go(
    life: list[tuple[int, Present | None, Present | None]],
) -> None:
    b = bench()
    # What was last published of each series: a GPU that returns goes on from it.
    ever: Values = {}
    for hundredths, *both in life:
        points: list[Point] = []
        for name, one in zip("01", both, strict=True):
            if one is not None:
                uuid, share, sm, filled = one
                readings = {
                    gpus.BUSY: share,
                    gpus.SM_ACTIVE: sm,
                    gpus.MEMORY_USED: filled,
                    gpus.MEMORY_TOTAL: 1,
                }
                points += gpu(readings, name, uuid)
        now = b.feed(points, after=hundredths / 100)
        assert_lawful(ever, now)
        for name, one in zip("01", both, strict=True):
            mine = {series: v for series, v in now.items() if f'device="{name}"' in series}
            if one is None:
                assert not mine
                continue
            for resource, share in zip(("gpu", "gpu_sm", "gpu_memory"), one[1:], strict=True):
                known = share is not None and 0 <= share <= 1
                assert ratio_of(mine, resource, name) == (share if known else None)
            if hundredths == 0 or hundredths > GAP_INTERVALS * INTERVAL * 100:
                unmoved = {s: v for s, v in mine.items() if not re.search("_ratio{", s)}
                assert_nothing_derived(ever, unmoved)
        ever |= now

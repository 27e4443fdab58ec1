"""Bandwidth of PCIe, NVLink and the memory of GPUs, by hand and as laws over any traffic."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Bench
from support.utilization_laws import untimed

from telemetryd import gpus
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.gpu_bandwidth import GpuBandwidth
from telemetryd.derived.gpu_readings import FORGET_AFTER_S
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Point

GEN5_X16 = 32e9 * 128 / 130 / 8 * 16
H100 = "NVIDIA H100 80GB HBM3"
LABELS = ("0", "GPU-a")
Labels = tuple[str, str]


def bench() -> Bench:
    return Bench(GpuBandwidth(DerivedConfig()))


def info(model: str = H100, labels: Labels = LABELS) -> Point:
    return gpus.INFO.at(*labels, labels[0], "nvidia", model, "", "", "", "", ""), 1


def pcie(
    received: float | None,
    *,
    generation: float | None = 5,
    width: float | None = 16,
    labels: Labels = LABELS,
) -> list[Point]:
    readings = [
        (gpus.PCIE_GENERATION.at(*labels), 1.0),
        (gpus.PCIE_GENERATION_MAX.at(*labels), generation),
        (gpus.PCIE_WIDTH.at(*labels), width),
        (gpus.PCIE_RATE.at(*labels, "receive"), received),
        (gpus.PCIE_RATE.at(*labels, "transmit"), 0.0),
    ]
    return [(series, value) for series, value in readings if value is not None]


def nvlink(
    counted: float | None = None,
    *,
    rate: float | None = None,
    speed: float | None = 25e9,
    up: Sequence[int] = (1,) * 18,
    labels: Labels = LABELS,
) -> list[Point]:
    readings = [
        (gpus.NVLINK_BYTES.at(*labels, "receive"), counted),
        (gpus.NVLINK_RATE.at(*labels, "receive"), rate),
        (gpus.NVLINK_SPEED.at(*labels), speed),
    ]
    points = [(series, value) for series, value in readings if value is not None]
    return [*points, *((gpus.NVLINK_UP.at(*labels, str(i)), one) for i, one in enumerate(up))]


def series(quantity: str, link: str = "pcie", direction: str = "receive", device: str = "0") -> str:
    labels = f'link="{link}",device="{device}",direction="{direction}"'
    return f"telemetryd_bandwidth_{quantity}{{{labels}}}"


RATIO, RATE = series("utilization_ratio"), series("bytes_per_second")
CAPACITY, TOTAL = series("capacity_bytes_per_second"), series("bytes_total")


def over(link: str = "pcie") -> str:
    return f'telemetryd_bandwidth_over_capacity_intervals_total{{link="{link}"}}'


# PCIe


def test_half_of_a_pcie_link_is_05_and_its_bytes_are_the_integral_of_the_rate() -> None:
    b = bench()
    b.feed(pcie(GEN5_X16))
    values = b.feed(pcie(GEN5_X16 / 2), after=2)
    assert values == {
        TOTAL: GEN5_X16,
        RATE: GEN5_X16 / 2,
        CAPACITY: GEN5_X16,
        RATIO: 0.5,
        series("bytes_total", direction="transmit"): 0,
        series("bytes_per_second", direction="transmit"): 0,
        series("capacity_bytes_per_second", direction="transmit"): GEN5_X16,
        series("utilization_ratio", direction="transmit"): 0,
        over(): 0,
    }


@pytest.mark.parametrize(
    ("generation", "megabytes"),
    [(1, 250), (2, 500), (3, 984.615), (4, 1969.231), (5, 3938.462), (6, 7562.5)],
)
def test_the_capacity_of_pcie_is_that_of_its_highest_generation_on_the_lanes_in_use(
    generation: int, megabytes: float
) -> None:
    values = bench().feed(pcie(0, generation=generation, width=8))
    assert values[CAPACITY] == pytest.approx(megabytes * 1e6 * 8, rel=1e-6)


@pytest.mark.parametrize(("generation", "width"), [(None, 16), (5, None), (7, 16), (0, 16), (5, 0)])
def test_an_unknown_generation_or_width_gives_bytes_and_rate_but_no_ratio(
    generation: float | None, width: float | None
) -> None:
    b = bench()
    b.feed(pcie(1e9, generation=generation, width=width))
    values = b.feed(pcie(1e9, generation=generation, width=width))
    assert (values[TOTAL], values[RATE]) == (1e9, 1e9)
    assert not {CAPACITY, RATIO} & values.keys()


def test_a_link_that_lost_lanes_has_no_ratio_for_that_interval() -> None:
    b = bench()
    b.feed(pcie(0))
    values = b.feed(pcie(1e9, width=8))
    assert (values[CAPACITY], values[RATE], values[over()]) == (GEN5_X16 / 2, 1e9, 0)
    assert RATIO not in values
    assert b.feed(pcie(GEN5_X16 / 4, width=8))[RATIO] == 0.5


def test_more_than_the_link_can_carry_is_counted_and_never_a_ratio() -> None:
    b = bench()
    b.feed(pcie(0))
    values = b.feed(pcie(GEN5_X16 * 1.01))
    assert (values[RATE], values[over()]) == (GEN5_X16 * 1.01, 1)
    assert RATIO not in values
    assert b.feed(pcie(GEN5_X16))[RATIO] == 1


def test_a_reading_that_fails_gives_no_rate_and_the_bytes_stand() -> None:
    b = bench()
    b.feed(pcie(1e9))
    b.feed(pcie(1e9))
    values = b.feed(pcie(None))
    assert values[TOTAL] == 1e9
    assert not {RATE, RATIO} & values.keys()
    assert b.feed(pcie(2e9))[TOTAL] == 3e9


def test_a_gap_is_not_integrated() -> None:
    b = bench()
    b.feed(pcie(1e9))
    assert b.feed(pcie(1e9), after=GAP_INTERVALS + 0.5)[TOTAL] == 0
    assert b.feed(pcie(1e9))[TOTAL] == 1e9


def test_a_lost_gpu_is_published_no_more_and_goes_on_where_it_was_when_it_returns() -> None:
    b = bench()
    other = ("1", "GPU-b")
    for _ in range(3):
        b.feed(pcie(1e9) + pcie(0, labels=other))
    for _ in range(10):
        assert TOTAL not in b.feed(pcie(0, labels=other))
    assert b.feed(pcie(1e9) + pcie(0, labels=other))[TOTAL] == 2e9
    b.feed(pcie(0, labels=other))
    b.feed(pcie(0, labels=other), after=FORGET_AFTER_S + 1)
    assert b.feed(pcie(1e9) + pcie(0, labels=other))[TOTAL] == 0


# NVLink


def test_the_capacity_of_nvlink_is_that_of_the_links_that_are_up() -> None:
    b = bench()
    up = (1,) * 10 + (0,) * 8
    b.feed([info(), *nvlink(10**15, up=up)])
    values = b.feed([info(), *nvlink(10**15 + 125 * 10**9, up=up)])
    assert values == {
        series("bytes_total", "nvlink"): 10**15 + 125 * 10**9,
        series("bytes_per_second", "nvlink"): 125e9,
        series("capacity_bytes_per_second", "nvlink"): 250e9,
        series("utilization_ratio", "nvlink"): 0.5,
        over("nvlink"): 0,
    }


@pytest.mark.parametrize(
    ("model", "links", "stated", "expected"),
    [
        (H100, 18, 25e9, 450e9),
        (H100, 18, 26.562e9, 478.116e9),
        (H100, 18, 50e9, 450e9),
        (H100, 18, 53.125e9, 478.125e9),
        ("NVIDIA A100-SXM4-80GB", 12, 25e9, 300e9),
        ("NVIDIA H100 PCIe", 12, 26.562e9, 318.744e9),
        ("NVIDIA B200", 18, 50e9, 900e9),
        ("NVIDIA B200", 18, 100e9, 900e9),
        # Nothing to compare with: the driver is believed.
        ("NVIDIA X1", 18, 50e9, 900e9),
    ],
)
def test_a_speed_that_is_stated_of_both_directions_together_is_halved(
    model: str, links: int, stated: float, expected: float
) -> None:
    values = bench().feed([info(model), *nvlink(0, speed=stated, up=(1,) * links)])
    assert values[series("capacity_bytes_per_second", "nvlink")] == pytest.approx(expected)


def test_a_driver_that_stated_both_directions_still_does_when_links_go_down() -> None:
    b = bench()
    b.feed([info(), *nvlink(0, speed=50e9)])
    values = b.feed([info(), *nvlink(0, speed=50e9, up=(1,) * 9 + (0,) * 9)])
    assert values[series("capacity_bytes_per_second", "nvlink")] == 225e9


@pytest.mark.parametrize("speed", [None, 0])
def test_nvlinks_of_unknown_speed_or_all_down_have_no_capacity(speed: float | None) -> None:
    for points in (nvlink(0, speed=speed), nvlink(0, up=(0,) * 18)):
        values = bench().feed([info(), *points])
        assert values[series("bytes_total", "nvlink")] == 0
        assert series("capacity_bytes_per_second", "nvlink") not in values


def test_without_a_counter_the_bytes_are_the_integral_of_the_rate() -> None:
    b = bench()
    b.feed(nvlink(rate=9e9, labels=("0/3/0", "MIG-a"), speed=None, up=()))
    values = b.feed(nvlink(rate=5e9, labels=("0/3/0", "MIG-a"), speed=None, up=()))
    assert values == {
        series("bytes_total", "nvlink", device="0/3/0"): 5e9,
        series("bytes_per_second", "nvlink", device="0/3/0"): 5e9,
        over("nvlink"): 0,
    }


def test_where_there_is_a_counter_it_is_used_alone_even_when_a_reading_of_it_fails() -> None:
    b = bench()
    b.feed(nvlink(10**15, rate=1e9))
    assert b.feed(nvlink(10**15 + 7, rate=1e9))[series("bytes_per_second", "nvlink")] == 7
    values = b.feed(nvlink(rate=1e9))
    assert not {series("bytes_total", "nvlink"), series("bytes_per_second", "nvlink")} & set(values)
    values = b.feed(nvlink(10**15 + 10**9, rate=1e9))
    assert values[series("bytes_total", "nvlink")] == 10**15 + 10**9
    assert series("bytes_per_second", "nvlink") not in values


def test_a_counter_that_began_anew_gives_no_rate_for_that_interval_only() -> None:
    b = bench()
    b.feed(nvlink(10**15))
    assert series("bytes_per_second", "nvlink") not in b.feed(nvlink(5))
    assert b.feed(nvlink(10**9 + 5))[series("bytes_per_second", "nvlink")] == 10**9


def test_another_gpu_of_the_same_name_gives_no_rate_in_the_interval_in_which_it_came() -> None:
    b = bench()
    b.feed(nvlink(0))
    values = b.feed(nvlink(10**12, labels=("0", "GPU-b")))
    assert values[series("bytes_total", "nvlink")] == 10**12
    assert series("bytes_per_second", "nvlink") not in values


# Memory


def test_memory_bandwidth_is_the_active_share_of_what_the_data_sheet_says() -> None:
    b = bench()
    b.feed([info(), (gpus.DRAM_ACTIVE.at(*LABELS), 1)])
    values = b.feed([info(), (gpus.DRAM_ACTIVE.at(*LABELS), 0.5)], after=2)
    assert values == {
        series("bytes_total", "gpu_memory", "both"): 3.35e12,
        series("bytes_per_second", "gpu_memory", "both"): 1.675e12,
        series("capacity_bytes_per_second", "gpu_memory", "both"): 3.35e12,
        series("utilization_ratio", "gpu_memory", "both"): 0.5,
        over("gpu_memory"): 0,
    }


def test_an_unknown_model_has_no_memory_bandwidth() -> None:
    b = bench()
    for _ in range(2):
        assert b.feed([info("NVIDIA X1"), (gpus.DRAM_ACTIVE.at(*LABELS), 1)]) == {}
        assert b.feed([(gpus.DRAM_ACTIVE.at("0/3/0", "MIG-a"), 1)]) == {}


# Several collectors


def test_intervals_above_capacity_are_one_series_for_the_gpus_of_all_makers() -> None:
    b = bench()
    card = ("card1", "x")
    for rate in (0, GEN5_X16 * 2):
        ours = b.feed(pcie(rate), collector="gpu_nvidia", after=0.5)
        theirs = b.feed(pcie(rate, labels=card), collector="gpu_amd", after=0.5)
    assert over() not in theirs
    assert ours[over()] == 1
    assert b.feed(pcie(0), collector="gpu_nvidia")[over()] == 2
    b.derivation.forget("gpu_nvidia")
    b.derivation.forget("gpu_nvidia")
    assert b.feed([info(labels=card)], collector="gpu_intel") == {}
    assert b.feed(pcie(0, labels=card), collector="gpu_amd")[over()] == 2
    assert over() not in b.feed(pcie(0), collector="gpu_nvidia")


# Laws


one_gpu = st.tuples(
    st.sampled_from("ab"),
    st.none() | st.floats(-1e9, 1e11),
    st.none() | st.integers(0, 10**12),
    st.none() | st.sampled_from([0, 8, 16]),
    st.floats(-0.5, 1.5),
)
lives = st.lists(st.tuples(st.floats(0, 8), st.none() | one_gpu), min_size=1, max_size=15)
OneGpu = tuple[str, float | None, int | None, int | None, float]


@untimed
@given(lives)
def test_whatever_happens_a_ratio_is_in_0_to_1_and_what_is_integrated_never_falls(
    life: list[tuple[float, OneGpu | None]],
) -> None:
    b = bench()
    ever: dict[str, float] = {}
    for after, gpu in life:
        points: list[Point] = [(gpus.BUSY.at("1", "x"), 0)]
        if gpu is not None:
            uuid, rate, counted, width, active = gpu
            labels = ("0", uuid)
            points += [info(labels=labels), (gpus.DRAM_ACTIVE.at(*labels), active)]
            points += pcie(rate, width=width, labels=labels) + nvlink(counted, labels=labels)
        now = b.feed(points, after=after)
        assert gpu is not None or not any('device="0"' in name for name in now)
        for name, value in now.items():
            if "_ratio" in name:
                assert 0 <= value <= 1
            elif "_total" in name and "nvlink" not in name:
                assert value >= ever.get(name, 0)
            else:
                assert value >= 0
        if RATIO in now:
            assert now[RATIO] * now[CAPACITY] == pytest.approx(now[RATE])
        ever |= now


@untimed
@given(st.lists(st.tuples(st.floats(0.05, 2.9), st.floats(0, 1)), min_size=1, max_size=30))
def test_bytes_over_capacity_is_the_mean_of_any_load_at_any_scrape_interval(
    load: list[tuple[float, float]],
) -> None:
    b = bench()
    memory = gpus.DRAM_ACTIVE.at(*LABELS)
    values = b.feed([info(), *pcie(0), (memory, 0)])
    begun_ns, used = b.clock.mono_ns(), 0.0
    for seconds, share in load:
        before_ns = b.clock.mono_ns()
        values = b.feed([info(), *pcie(GEN5_X16 * share), (memory, share)], after=seconds)
        used += share * (b.clock.mono_ns() - before_ns) / 1e9
    truth = used / ((b.clock.mono_ns() - begun_ns) / 1e9)
    for link, direction in (("pcie", "receive"), ("gpu_memory", "both")):
        carried = values[series("bytes_total", link, direction)]
        could = values[series("capacity_bytes_per_second", link, direction)]
        seconds = (b.clock.mono_ns() - begun_ns) / 1e9
        assert carried / could / seconds == pytest.approx(truth, abs=1e-9)

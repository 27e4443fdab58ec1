"""GPUs that are held and do nothing: when that shows, and for how long it has been so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import Bench
from support.utilization_laws import untimed

from telemetryd import gpus
from telemetryd.config import load
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.gpu_held_idle import HeldIdle
from telemetryd.derived.steps import GAP_INTERVALS
from telemetryd.metric import Point

MIB = 1 << 20
AFTER = 5
CONFIG = DerivedConfig(held_idle_after=AFTER)
FLAG = 'telemetryd_gpu_held_idle{gpu="0",uuid="GPU-a"}'
SECONDS = 'telemetryd_gpu_held_idle_seconds_total{gpu="0",uuid="GPU-a"}'


@pytest.fixture
def bench() -> Bench:
    return Bench(HeldIdle(CONFIG))


def gpu(
    activity: float | None = 0,
    *,
    processes: int | None = 1,
    memory: int | None = 0,
    busy: float | None = None,
    labels: tuple[str, str] = ("0", "GPU-a"),
) -> list[Point]:
    readings = (
        (gpus.SM_ACTIVE, activity),
        (gpus.BUSY, busy),
        (gpus.PROCESSES, processes),
        (gpus.MEMORY_USED, memory),
        # Not looked at; keeps the GPU in the batch when nothing else does.
        (gpus.MEMORY_TOTAL, 80 << 30),
    )
    return [(metric.at(*labels), value) for metric, value in readings if value is not None]


def feed(bench: Bench, seconds: int, points: list[Point]) -> dict[str, float]:
    values = {}
    for _ in range(seconds):
        values = bench.feed(points)
    return values


def test_a_gpu_with_a_process_and_no_activity_is_held_idle_after_the_configured_time(
    bench: Bench,
) -> None:
    assert bench.feed(gpu()) == {FLAG: 0, SECONDS: 0}
    assert feed(bench, AFTER - 1, gpu()) == {FLAG: 0, SECONDS: 0}
    assert bench.feed(gpu()) == {FLAG: 1, SECONDS: 0}
    assert feed(bench, 10, gpu()) == {FLAG: 1, SECONDS: 10}


def test_activity_ends_it_at_once_and_the_wait_begins_anew(bench: Bench) -> None:
    feed(bench, AFTER + 3, gpu())
    assert bench.feed(gpu(0.05)) == {FLAG: 0, SECONDS: 2}
    assert feed(bench, AFTER, gpu()) == {FLAG: 0, SECONDS: 2}
    assert feed(bench, 2, gpu()) == {FLAG: 1, SECONDS: 3}


@pytest.mark.parametrize(
    ("points", "flag"),
    [
        (gpu(0.049), 1),
        (gpu(0.05), 0),
        (gpu(processes=0), 0),
        (gpu(processes=0, memory=256 * MIB - 1), 0),
        (gpu(processes=0, memory=256 * MIB), 1),
        (gpu(processes=None, memory=256 * MIB), 1),
        (gpu(processes=None, memory=0), 0),
        (gpu(processes=2, memory=None), 1),
        (gpu(processes=0, memory=None), 0),
        # Multiprocessors count before the share of time with a kernel.
        (gpu(0, busy=1), 1),
        (gpu(0.5, busy=0), 0),
        (gpu(None, busy=0), 1),
        (gpu(None, busy=0.05), 0),
    ],
)
def test_what_holds_a_gpu_and_what_is_activity(
    bench: Bench, points: list[Point], flag: int
) -> None:
    assert feed(bench, AFTER + 1, points)[FLAG] == flag


@pytest.mark.parametrize(
    "points", [gpu(None), gpu(1.5), gpu(-0.1), gpu(processes=None, memory=None)]
)
def test_what_cannot_be_known_is_absent(bench: Bench, points: list[Point]) -> None:
    assert feed(bench, AFTER + 1, points) == {}
    feed(bench, AFTER + 1, gpu())
    assert bench.feed(points) == {SECONDS: 0}


def test_a_job_that_starts_on_an_idle_gpu_is_no_waste_yet(bench: Bench) -> None:
    feed(bench, 2 * AFTER, gpu(processes=0))
    assert bench.feed(gpu())[FLAG] == 0
    assert feed(bench, AFTER, gpu())[FLAG] == 1


def test_a_reading_that_is_missing_for_a_moment_is_no_activity(bench: Bench) -> None:
    feed(bench, AFTER, gpu())
    assert feed(bench, GAP_INTERVALS - 1, gpu(None)) == {SECONDS: 0}
    assert bench.feed(gpu()) == {FLAG: 1, SECONDS: 0}
    assert feed(bench, GAP_INTERVALS - 1, gpu(None)) == {SECONDS: 0}
    assert bench.feed(gpu()) == {FLAG: 1, SECONDS: GAP_INTERVALS}


def test_a_reading_that_is_missing_for_longer_makes_the_wait_begin_anew(bench: Bench) -> None:
    feed(bench, AFTER + 3, gpu())
    feed(bench, GAP_INTERVALS, gpu(None))
    assert bench.feed(gpu()) == {FLAG: 0, SECONDS: 2}
    assert feed(bench, AFTER, gpu()) == {FLAG: 1, SECONDS: 2}


def test_a_lost_gpu_is_published_no_more_and_its_seconds_go_on_when_it_returns(
    bench: Bench,
) -> None:
    other = gpu(labels=("1", "GPU-b"))
    feed(bench, AFTER + 3, gpu() + other)
    for _ in range(10):
        assert FLAG not in bench.feed(other)
    values = bench.feed(gpu() + other)
    assert (values[FLAG], values[SECONDS]) == (0, 2)
    values = feed(bench, AFTER + 1, gpu() + other)
    assert (values[FLAG], values[SECONDS]) == (1, 3)


def test_a_mig_instance_is_held_idle_like_a_gpu(bench: Bench) -> None:
    values = feed(bench, AFTER + 2, gpu(0.01, labels=("0/3/0", "MIG-a")))
    labels = '{gpu="0/3/0",uuid="MIG-a"}'
    assert values == {
        f"telemetryd_gpu_held_idle{labels}": 1,
        f"telemetryd_gpu_held_idle_seconds_total{labels}": 1,
    }


def test_an_instance_that_is_made_anew_waits_for_itself_and_the_old_one_returns_as_it_was(
    bench: Bench,
) -> None:
    new = gpu(labels=("0", "GPU-b"))
    feed(bench, AFTER + 3, gpu())
    values = feed(bench, 4, new)
    assert values == {name.replace("GPU-a", "GPU-b"): 0 for name in (FLAG, SECONDS)}
    assert bench.feed(gpu()) == {FLAG: 0, SECONDS: 2}


def test_the_configuration_sets_memory_activity_and_time(tmp_path: Path) -> None:
    default = DerivedConfig()
    assert default.held_idle_memory == 256 * MIB
    assert (default.held_idle_activity, default.held_idle_after) == (0.05, 300)
    file = tmp_path / "telemetryd.toml"
    file.write_text(
        '[derived]\nheld_idle_memory = "1GiB"\nheld_idle_activity = 0.5\nheld_idle_after = "2s"\n'
    )
    bench = Bench(HeldIdle(load([str(file)], {}).derived))
    assert feed(bench, 3, gpu(0.4, processes=0, memory=1 << 30))[FLAG] == 1
    assert feed(bench, 3, gpu(0.4, processes=0, memory=(1 << 30) - 1))[FLAG] == 0
    assert feed(bench, 3, gpu(0.5))[FLAG] == 0


moments = st.tuples(
    st.sampled_from([0.5, 1.0, 1.0, 1.0, 2.5, 3.0, 3.5, 20.0]),
    st.sampled_from([0.0, 0.0, 0.0, 0.0, 0.02, 1.0, None]),
    st.sampled_from([1, 1, 1, 1, 0]),
)


@untimed
@given(st.lists(moments, min_size=1, max_size=40))
def test_the_seconds_are_those_between_readings_that_both_found_it_held_idle(
    life: list[tuple[float, float | None, int]],
) -> None:
    bench = Bench(HeldIdle(CONFIG))
    now, known, since, total, was = 0.0, -1e9, None, 0.0, False
    seen = False
    for after, activity, processes in life:
        now += after
        values = bench.feed(gpu(activity, processes=processes), after=after)
        if activity is None:
            assert FLAG not in values
            assert values.get(SECONDS) == (total if seen else None)
            continue
        seen = True
        waste = bool(processes) and activity < 0.05
        if not waste:
            since = None
        elif since is None or now - known > GAP_INTERVALS:
            since = now
        held_idle = since is not None and now - since >= AFTER
        if held_idle and was:
            total += now - known
        assert values == {FLAG: held_idle, SECONDS: total}
        known, was = now, held_idle

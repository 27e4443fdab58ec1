"""The cpu collector on trees with one defect each, and the utilization derived from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.trees import Bench, host_at, values_of, write_tree

from telemetryd.collector import CollectorConfig
from telemetryd.collectors.cpu import TIME, Cpu
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.cpu import CpuUtilization
from telemetryd.errors import Unavailable
from telemetryd.metric import Point

STAT = """cpu  30 0 30 240 3 0 3 0 7 0
cpu0 10 0 10 80 1 0 1 0 7 0
cpu1 20 0 20 160 2 0 2 0 0 0
intr 4242 9 0 33
ctxt 1234
btime 1700000000
processes 77
procs_running 3
procs_blocked 1
softirq 55 1 2 3
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    cpu0 = "sys/devices/system/cpu/cpu0/"
    write_tree(
        tmp_path,
        {
            "proc/stat": STAT,
            "proc/loadavg": "0.50 1.25 2.00 3/99 4242\n",
            cpu0 + "cpufreq/scaling_cur_freq": "3500000\n",
            cpu0 + "thermal_throttle/core_throttle_count": "5\n",
        },
    )
    return tmp_path


def test_times_are_in_seconds_for_each_cpu_and_mode_and_guest_is_not_counted_again(
    tree: Path,
) -> None:
    values = values_of(Cpu(CollectorConfig(), host_at(tree)))
    assert values['telemetryd_cpu_time_seconds_total{cpu="0",mode="user"}'] == 0.1
    assert values['telemetryd_cpu_time_seconds_total{cpu="1",mode="idle"}'] == 1.6
    assert not any("guest" in name for name in values)
    assert values["telemetryd_cpu_interrupts_total{}"] == 4242
    assert values["telemetryd_cpu_context_switches_total{}"] == 1234
    assert values["telemetryd_cpu_forks_total{}"] == 77
    assert values['telemetryd_cpu_tasks{state="blocked"}'] == 1
    assert values['telemetryd_cpu_load{minutes="5"}'] == 1.25
    assert values['telemetryd_cpu_frequency_hertz{cpu="0"}'] == 3.5e9
    assert values['telemetryd_cpu_thermal_throttles_total{cpu="0",scope="core"}'] == 5


def test_a_cpu_that_goes_offline_takes_its_series_along(tree: Path) -> None:
    cpu = Cpu(CollectorConfig(), host_at(tree))
    values_of(cpu)
    write_tree(tree, {"proc/stat": STAT.replace("cpu1 20 0 20 160 2 0 2 0 0 0\n", "")})
    assert not any('cpu="1"' in name for name in values_of(cpu))


def test_an_unreadable_frequency_is_absent_and_reported(tree: Path) -> None:
    cpu = Cpu(CollectorConfig(), host_at(tree))
    faults: list[tuple[str, str]] = []
    cpu.on_fault = lambda reason, what: faults.append((reason, what))
    values_of(cpu)
    write_tree(tree, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "<unknown>\n"})
    assert 'telemetryd_cpu_frequency_hertz{cpu="0"}' not in values_of(cpu)
    assert faults[0][0] == "parse"
    assert "scaling_cur_freq" in faults[0][1]


def test_without_proc_stat_the_collector_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="proc/stat"):
        Cpu(CollectorConfig(), host_at(tmp_path))


def _times(*rows: tuple[float, ...]) -> list[Point]:
    modes = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    return [
        (TIME.at(str(cpu), mode), value)
        for cpu, row in enumerate(rows)
        for mode, value in zip(modes, row, strict=True)
    ]


ALL = 'telemetryd_utilization_ratio{resource="cpu",device="all"}'


def test_utilization_is_everything_but_idle_and_iowait() -> None:
    bench = Bench(CpuUtilization(DerivedConfig()))
    assert ALL not in bench.feed(_times((1, 0, 0, 9, 5, 0, 0, 0)))
    values = bench.feed(_times((1.2, 0, 0.1, 9.5, 5.1, 0, 0, 0.1)))
    assert values[ALL] == pytest.approx(0.4)
    assert values['telemetryd_utilization_ratio{resource="cpu_core",device="0"}'] == values[ALL]


def test_a_falling_iowait_holds_and_does_not_lose_the_interval() -> None:
    bench = Bench(CpuUtilization(DerivedConfig()))
    bench.feed(_times((1, 0, 0, 9, 5, 0, 0, 0)))
    values = bench.feed(_times((1.5, 0, 0, 9.5, 4.9, 0, 0, 0)))
    assert values[ALL] == pytest.approx(0.5)


def test_a_cpu_that_was_offline_contributes_nothing_for_that_interval() -> None:
    bench = Bench(CpuUtilization(DerivedConfig()))
    bench.feed(_times((1, 0, 0, 9, 5, 0, 0, 0), (100, 0, 0, 100, 0, 0, 0, 0)))
    values = bench.feed(_times((2, 0, 0, 9, 5, 0, 0, 0), (99.5, 0, 0, 99, 0, 0, 0, 0)))
    assert values[ALL] == 1.0
    assert 'telemetryd_utilization_ratio{resource="cpu_core",device="1"}' not in values
    assert 'telemetryd_utilization_seconds_total{resource="cpu_core",device="1"}' in values

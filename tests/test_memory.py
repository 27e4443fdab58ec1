"""The memory collector on trees with one defect each, and the utilization derived from it.

fixtures/memory/linux-6.18 was recorded on a virtual machine without swap; linux-3.10 has the lines
of a kernel from before MemAvailable and oom_kill, with swap and hugepages.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil
import pytest
from support.trees import FIXTURES, Bench, host_at, values_of, write_tree

from telemetryd.batch import Batch
from telemetryd.collector import CollectorConfig
from telemetryd.collectors.memory import AVAILABLE, SWAP_FREE, SWAP_TOTAL, TOTAL, Memory
from telemetryd.derivation import DerivedConfig
from telemetryd.derived.memory import MemoryUtilization
from telemetryd.errors import Unavailable
from telemetryd.host import Host
from telemetryd.metric import Metric, Point

GIB = 1 << 30


def memory_at(root: Path) -> tuple[Memory, list[tuple[str, str]]]:
    """The collector on a tree, and the faults it reports."""
    faults: list[tuple[str, str]] = []
    memory = Memory(CollectorConfig(), host_at(root))
    memory.on_fault = lambda reason, what: faults.append((reason, what))
    return memory, faults


def copy_of(fixture: str, to: Path) -> Path:
    shutil.copytree(FIXTURES / "memory" / fixture, to, dirs_exist_ok=True)
    return to


def test_levels_are_in_bytes() -> None:
    memory, faults = memory_at(FIXTURES / "memory" / "linux-3.10")
    values = values_of(memory)
    assert values["telemetryd_memory_total_bytes{}"] == 8060408 * 1024
    assert values["telemetryd_memory_free_bytes{}"] == 152984 * 1024
    assert values["telemetryd_memory_committed_bytes{}"] == 3 * GIB
    assert values["telemetryd_memory_swap_free_bytes{}"] == 3145725 * 1024
    assert values["telemetryd_memory_hardware_corrupted_bytes{}"] == 4096
    assert not faults


def test_hugepages_are_counts_and_only_their_size_is_in_bytes() -> None:
    values = values_of(memory_at(FIXTURES / "memory" / "linux-3.10")[0])
    assert values["telemetryd_memory_hugepages{}"] == 16
    assert values["telemetryd_memory_hugepages_free{}"] == 12
    assert values["telemetryd_memory_hugepages_reserved{}"] == 3
    assert values["telemetryd_memory_hugepages_surplus{}"] == 1
    assert values["telemetryd_memory_hugepage_size_bytes{}"] == 2 << 20


def test_paging_is_in_bytes_whatever_the_unit_of_the_kernel() -> None:
    values = values_of(memory_at(FIXTURES / "memory" / "linux-3.10")[0])
    page = os.sysconf("SC_PAGE_SIZE")
    assert values['telemetryd_memory_paged_bytes_total{direction="in"}'] == 5000 * 1024
    assert values['telemetryd_memory_paged_bytes_total{direction="out"}'] == 7000 * 1024
    assert values['telemetryd_memory_swapped_bytes_total{direction="in"}'] == 11 * page
    assert values['telemetryd_memory_swapped_bytes_total{direction="out"}'] == 13 * page
    assert values["telemetryd_memory_page_faults_total{}"] == 123456
    assert values["telemetryd_memory_major_page_faults_total{}"] == 789


def test_a_kernel_without_an_estimate_of_available_memory_has_no_such_series() -> None:
    memory, faults = memory_at(FIXTURES / "memory" / "linux-3.10")
    values = values_of(memory)
    assert "telemetryd_memory_available_bytes{}" not in values
    assert "telemetryd_memory_oom_kills_total{}" not in values
    assert not faults


def test_a_recent_kernel_gives_all_that_is_declared_but_what_it_is_built_without() -> None:
    memory, faults = memory_at(FIXTURES / "memory" / "linux-6.18")
    given = {series.metric for series, _ in memory.sample()}
    missing = {metric.name for metric in set(Memory.metrics) - given}
    assert missing == {"telemetryd_memory_hardware_corrupted_bytes"}
    assert not faults


def test_a_value_that_changes_is_read_again(tmp_path: Path) -> None:
    memory, _ = memory_at(copy_of("linux-6.18", tmp_path))
    values_of(memory)
    text = (tmp_path / "proc/meminfo").read_text()
    dirty = next(line for line in text.splitlines() if line.startswith("Dirty:"))
    write_tree(tmp_path, {"proc/meminfo": text.replace(dirty, "Dirty: 4242 kB")})
    assert values_of(memory)["telemetryd_memory_dirty_bytes{}"] == 4242 * 1024


def test_lines_that_move_are_found_again(tmp_path: Path) -> None:
    memory, faults = memory_at(copy_of("linux-3.10", tmp_path))
    before = values_of(memory)
    for name in ("proc/meminfo", "proc/vmstat"):
        lines = (tmp_path / name).read_text().splitlines(keepends=True)
        write_tree(tmp_path, {name: "".join(reversed(lines))})
    assert values_of(memory) == before
    assert not faults


@pytest.mark.parametrize("line", ["Dirty: many kB", "Dirty:", "Dirty: 84 MB", "Dirty: 84"])
def test_a_line_of_another_form_is_absent_and_reported_and_the_others_go_on(
    tmp_path: Path, line: str
) -> None:
    memory, faults = memory_at(copy_of("linux-3.10", tmp_path))
    healthy = values_of(memory)
    text = (tmp_path / "proc/meminfo").read_text()
    write_tree(tmp_path, {"proc/meminfo": text.replace("Dirty:                84 kB", line)})
    values = values_of(memory)
    assert set(healthy) - set(values) == {"telemetryd_memory_dirty_bytes{}"}
    assert [reason for reason, _ in faults] == ["parse"]
    assert repr(line) in faults[0][1]
    write_tree(tmp_path, {"proc/meminfo": text})
    assert values_of(memory) == healthy


def test_a_vmstat_that_is_gone_costs_its_own_series_only(tmp_path: Path) -> None:
    copy_of("linux-3.10", tmp_path)
    (tmp_path / "proc/vmstat").unlink()
    memory, faults = memory_at(tmp_path)
    values = values_of(memory)
    assert "telemetryd_memory_total_bytes{}" in values
    assert not any(name.endswith("_total{}") for name in values)
    assert faults[0][0] == "missing"
    assert "proc/vmstat" in faults[0][1]


def test_an_empty_file_is_reported(tmp_path: Path) -> None:
    memory, faults = memory_at(copy_of("linux-3.10", tmp_path))
    write_tree(tmp_path, {"proc/meminfo": ""})
    assert "telemetryd_memory_total_bytes{}" not in values_of(memory)
    assert faults[0][0] == "parse"


def test_without_meminfo_the_collector_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="proc/meminfo"):
        Memory(CollectorConfig(), host_at(tmp_path))


def test_this_machine_agrees_with_psutil() -> None:
    memory = Memory(CollectorConfig(), Host())
    before = psutil.swap_memory()
    values = values_of(memory)
    after = psutil.swap_memory()
    assert values["telemetryd_memory_total_bytes{}"] == psutil.virtual_memory().total
    assert values["telemetryd_memory_swap_total_bytes{}"] == after.total
    swapped = values['telemetryd_memory_swapped_bytes_total{direction="in"}']
    # psutil takes pages for 4096 bytes.
    assert before.sin <= swapped * 4096 / os.sysconf("SC_PAGE_SIZE") <= after.sin


RATIO = 'telemetryd_utilization_ratio{resource="%s",device="all"}'
SECONDS = 'telemetryd_utilization_seconds_total{resource="%s",device="all"}'
OBSERVED = 'telemetryd_utilization_observed_seconds_total{resource="%s",device="all"}'
PEAK = 'telemetryd_utilization_peak_ratio{resource="%s",device="all"}'


def levels(**gib: float) -> list[Point]:
    metrics: dict[str, Metric] = {
        "total": TOTAL, "available": AVAILABLE, "swap_total": SWAP_TOTAL, "swap_free": SWAP_FREE,
    }  # fmt: skip
    return [(metrics[name].at(), value * GIB) for name, value in gib.items()]


def bench() -> Bench:
    return Bench(MemoryUtilization(DerivedConfig()))


def test_memory_utilization_is_what_is_not_available() -> None:
    assert bench().feed(levels(total=16, available=4))[RATIO % "memory"] == 0.75


def test_the_integral_of_a_level_is_the_mean_of_both_ends_of_the_interval() -> None:
    machine = bench()
    first = machine.feed(levels(total=16, available=16))
    assert first[SECONDS % "memory"] == first[OBSERVED % "memory"] == 0
    second = machine.feed(levels(total=16, available=8), after=2)
    assert second[RATIO % "memory"] == 0.5
    assert second[SECONDS % "memory"] == 0.5
    assert second[OBSERVED % "memory"] == 2


def test_a_gap_is_not_observed_and_the_level_after_it_is_known() -> None:
    machine = bench()
    machine.feed(levels(total=16, available=16))
    values = machine.feed(levels(total=16, available=8), after=3.5)
    assert values[RATIO % "memory"] == 0.5
    assert values[OBSERVED % "memory"] == 0


def test_memory_has_a_peak_and_swap_has_none() -> None:
    machine = bench()
    machine.feed(levels(total=16, available=4, swap_total=2, swap_free=1))
    values = machine.feed(levels(total=16, available=12, swap_total=2, swap_free=1))
    assert values[PEAK % "memory"] == 0.75
    assert values[RATIO % "swap"] == 0.5
    assert PEAK % "swap" not in values


def test_a_machine_without_swap_has_no_swap_utilization() -> None:
    values = bench().feed(levels(total=16, available=4, swap_total=0, swap_free=0))
    assert not any('resource="swap"' in name for name in values)


def test_swap_that_is_switched_off_takes_its_series_along() -> None:
    machine = bench()
    machine.feed(levels(total=16, available=4, swap_total=2, swap_free=1))
    values = machine.feed(levels(total=16, available=4, swap_total=0, swap_free=0))
    assert not any('resource="swap"' in name for name in values)


def test_a_kernel_without_memavailable_has_no_memory_utilization() -> None:
    assert not bench().feed(levels(total=16))


def test_a_reading_that_is_missing_leaves_the_ratio_out_and_the_integral_where_it_was() -> None:
    machine = bench()
    machine.feed(levels(total=16, available=4))
    machine.feed(levels(total=16, available=4))
    values = machine.feed(levels(total=16))
    assert RATIO % "memory" not in values
    assert values[OBSERVED % "memory"] == 1
    assert machine.feed(levels(total=16, available=4))[OBSERVED % "memory"] == 1
    assert machine.feed(levels(total=16, available=4))[OBSERVED % "memory"] == 2


def test_more_available_than_there_is_makes_no_negative_ratio() -> None:
    machine = bench()
    machine.feed(levels(total=16, available=4))
    assert RATIO % "memory" not in machine.feed(levels(total=16, available=17))


def test_only_its_own_collector_makes_it_forget() -> None:
    machine = bench()
    for _ in range(2):
        machine.feed(levels(total=16, available=4), collector="memory")
    machine.derivation.forget("disk")
    again = machine.feed(levels(total=16, available=4), collector="memory")
    assert again[OBSERVED % "memory"] == 2
    machine.derivation.forget("memory")
    anew = machine.feed(levels(total=16, available=4), collector="memory")
    assert anew[OBSERVED % "memory"] == 0


def test_the_collector_and_the_derivation_fit_together() -> None:
    memory, _ = memory_at(FIXTURES / "memory" / "linux-3.10")
    series, values = zip(*memory.sample(), strict=True)
    derivation = MemoryUtilization(DerivedConfig())
    points = list(derivation.update(Batch("memory", 0, 0, 1.0, series, values), bench().latest))
    ratios = {repr(one): value for one, value in points}
    assert ratios[RATIO % "swap"] == pytest.approx(1 - 3145725 / 4194300)

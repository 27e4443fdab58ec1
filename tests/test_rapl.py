"""The rapl collector on trees with one defect each: which zones count, and how their counters
are followed over wraps and resets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.clock import FakeClock
from support.trees import FIXTURES, RECORDED, host_at, values_of, write_tree

from telemetryd.collectors.rapl import Rapl, RaplConfig
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Host
from telemetryd.meters import EnergyCounter

TREES = FIXTURES / "rapl"
RANGE_UJ = 262143328850
AMD_RANGE_UJ = 65532610987
GAP = 'telemetryd_energy_gap_seconds_total{source="rapl"}'
PACKAGE = (
    'telemetryd_energy_joules_total{source="rapl",domain="package",device="0",boundary="component"}'
)
PACKAGE_1 = PACKAGE.replace('device="0"', 'device="1"')
# A file of the real sysfs that nobody may read, not even root: the kernel refuses to open it.
UNREADABLE = Path("/sys/bus/platform/uevent")


def _meters(collector: Rapl) -> set[tuple[str, str, str]]:
    """Domain, device and boundary of every zone that was read."""
    return {s.labels[1:] for s, _ in collector.sample() if len(s.labels) == 4}  # type: ignore[misc]


def _open(tree: str, config: RaplConfig | None = None) -> Rapl:
    return Rapl(config or RaplConfig(), host_at(TREES / tree))


class _Machine:
    """A copy of a tree whose counters can be set, read on a fake clock."""

    def __init__(self, tree: str, root: Path) -> None:
        self.clock = FakeClock()
        self.root = shutil.copytree(TREES / tree, root / "machine", symlinks=True)
        self.faults: list[tuple[str, str]] = []
        self.rapl = Rapl(RaplConfig(), host_at(self.root, self.clock))
        self.rapl.on_fault = lambda reason, what: self.faults.append((reason, what))

    def zone(self, folder: str) -> Path:
        return self.root / "sys/class/powercap" / folder

    def reads(self, energy_uj: int, after: float = 1.0, folder: str = "intel-rapl:0") -> dict:
        self.clock.tick(after)
        (self.zone(folder) / "energy_uj").write_text(f"{energy_uj}\n")
        return values_of(self.rapl)


@pytest.mark.parametrize(
    ("tree", "meters"),
    [
        (
            "two-packages",
            {
                ("package", "0", "component"),
                ("dram", "0", "component"),
                ("package", "1", "component"),
                ("dram", "1", "component"),
            },
        ),
        ("mmio-repeats-msr", {("package", "0", "component")}),
        ("hexadecimal-index", {("package", "10", "component"), ("dram", "10", "component")}),
        (
            "core-uncore-psys",
            {
                ("package", "0", "component"),
                ("core", "0", "subcomponent"),
                ("uncore", "0", "subcomponent"),
                ("dram", "0", "component"),
                ("psys", "0", "enclosing"),
            },
        ),
        ("child-only-inside", {("package", "0", "component"), ("core", "0", "subcomponent")}),
        (
            "dies",
            {
                ("package", "0-die-0", "component"),
                ("dram", "0-die-0", "component"),
                ("package", "0-die-1", "component"),
                ("dram", "0-die-1", "component"),
            },
        ),
        ("amd", {("package", "0", "component"), ("core", "0", "subcomponent")}),
    ],
)
def test_a_zone_is_known_by_its_name_and_its_package(
    tree: str, meters: set[tuple[str, str, str]]
) -> None:
    assert _meters(_open(tree)) == meters


def test_energy_offered_twice_is_read_by_msr(tmp_path: Path) -> None:
    machine = _Machine("mmio-repeats-msr", tmp_path)
    machine.reads(100_000_000)
    assert machine.reads(107_000_000)[PACKAGE] == 7


def test_a_recorded_tree_gives_each_package_once() -> None:
    tree = RECORDED / "sysfs" / "rapl-kepler"
    if not tree.is_dir():
        pytest.skip(f"the recorded trees are not here: {tree}")
    rapl = Rapl(RaplConfig(), Host(sysfs=str(tree), clock=FakeClock()))
    assert _meters(rapl) == {
        ("package", "0", "component"),
        ("core", "0", "subcomponent"),
        ("package", "10", "component"),
    }


def test_energy_starts_at_zero_with_the_process(tmp_path: Path) -> None:
    machine = _Machine("two-packages", tmp_path)
    assert machine.reads(100_000_000)[PACKAGE] == 0
    assert machine.reads(100_250_001)[PACKAGE] == 0.250001


def test_energy_is_exact_across_a_counter_wrap(tmp_path: Path) -> None:
    machine = _Machine("two-packages", tmp_path)
    machine.reads(RANGE_UJ - 120_000_001)
    values = machine.reads(30_000_000)
    assert values[PACKAGE] == 150.000001
    assert values[GAP] == 0
    assert machine.faults == []


def test_a_counter_that_is_reset_gives_nothing_for_that_interval(tmp_path: Path) -> None:
    machine = _Machine("two-packages", tmp_path)
    machine.reads(100_000_000)
    machine.reads(150_000_000)
    values = machine.reads(2_000_000, after=2)
    assert PACKAGE not in values
    assert values[PACKAGE_1] == 0
    assert values[GAP] == 2
    assert machine.faults[0][0] == "invalid"
    assert "intel-rapl:0/energy_uj: the energy counter was reset" in machine.faults[0][1]
    values = machine.reads(12_000_000)
    assert values[PACKAGE] == 60
    assert values[GAP] == 2


def test_a_pause_in_which_a_wrap_could_be_missed_gives_nothing(tmp_path: Path) -> None:
    machine = _Machine("amd", tmp_path)
    machine.reads(65_000_000_000)
    values = machine.reads(65_100_000_000, after=600)
    assert PACKAGE not in values
    # Package and core: the time is counted for each of the two meters.
    assert values[GAP] == 1200
    assert "may have wrapped unseen" in machine.faults[0][1]
    assert machine.reads(65_200_000_000)[PACKAGE] == 100


def test_a_missed_tick_costs_no_energy(tmp_path: Path) -> None:
    machine = _Machine("amd", tmp_path)
    machine.reads(1_000_000)
    assert machine.reads(3_001_000_000, after=10)[PACKAGE] == 3000


@st.composite
def _walks(draw: st.DrawFn) -> tuple[int, int, list[tuple[int, int]]]:
    """A range, a first value, and steps of nanoseconds and microjoules within 3 kW."""
    range_uj = draw(st.sampled_from([RANGE_UJ, AMD_RANGE_UJ]))
    steps = []
    for _ in range(draw(st.integers(1, 40))):
        step_ns = draw(st.integers(1, 20_000_000_000))
        steps.append((step_ns, draw(st.integers(0, 3_000 * step_ns // 1000))))
    return range_uj, draw(st.integers(0, range_uj - 1)), steps


@given(_walks())
def test_the_sum_is_exact_over_any_sequence_of_wraps(
    walk: tuple[int, int, list[tuple[int, int]]],
) -> None:
    range_uj, start, steps = walk
    counter = EnergyCounter(range_uj, most_watts=3_000)
    now_ns, true_uj = 0, 0
    assert counter.advance(start, now_ns) == 0
    for step_ns, step_uj in steps:
        now_ns += step_ns
        true_uj += step_uj
        assert counter.advance((start + true_uj) % range_uj, now_ns) == true_uj / 1e6
    assert counter.gap_seconds == 0


@given(
    st.lists(
        st.tuples(st.integers(0, RANGE_UJ), st.integers(0, 200_000_000_000), st.booleans()),
        min_size=1,
    )
)
def test_no_reading_makes_the_sum_fall_or_means_more_power_than_there_can_be(
    readings: list[tuple[int, int, bool]],
) -> None:
    counter = EnergyCounter(RANGE_UJ, most_watts=3_000)
    now_ns, joules = 0, 0.0
    for energy_uj, step_ns, rebase in readings:
        now_ns += step_ns
        if rebase:
            counter.rebase()
        try:
            after = counter.advance(energy_uj, now_ns)
        except ReadError:
            continue
        assert 0 <= after - joules <= 3_000 * step_ns / 1e9 + 1e-6
        joules = after


def test_a_zone_that_may_not_be_read_is_absent_and_the_others_go_on(tmp_path: Path) -> None:
    if not UNREADABLE.exists():
        pytest.skip(f"{UNREADABLE} is not there to stand for a counter that may not be read")
    machine = _Machine("two-packages", tmp_path)
    counter = machine.zone("intel-rapl:1") / "energy_uj"
    counter.unlink()
    counter.symlink_to(UNREADABLE)
    values = machine.reads(100_000_000)
    assert PACKAGE in values
    assert PACKAGE_1 not in values
    assert [reason for reason, _ in machine.faults] == ["permission"]
    assert "intel-rapl:1/energy_uj" in machine.faults[0][1]


def test_without_permission_the_remedy_is_the_tmpfiles_rule(tmp_path: Path) -> None:
    if not UNREADABLE.exists():
        pytest.skip(f"{UNREADABLE} is not there to stand for a counter that may not be read")
    tree = shutil.copytree(TREES / "mmio-repeats-msr", tmp_path / "machine")
    for counter in tree.glob("sys/class/powercap/*/energy_uj"):
        counter.unlink()
        counter.symlink_to(UNREADABLE)
    with pytest.raises(Unavailable, match=r"energy_uj: Permission denied; install the tmpfiles"):
        Rapl(RaplConfig(), host_at(tree))


def test_counters_that_all_fail_to_read_make_it_unavailable(tmp_path: Path) -> None:
    tree = shutil.copytree(TREES / "mmio-repeats-msr", tmp_path / "machine")
    for counter in tree.glob("sys/class/powercap/*/energy_uj"):
        counter.unlink()
        counter.symlink_to("/proc/self/mem")  # opens, and answers EIO
    with pytest.raises(Unavailable, match="Input/output error; see the kernel's log"):
        Rapl(RaplConfig(), host_at(tree))


@pytest.mark.parametrize(
    ("tree", "reason", "file"),
    [
        ("range-missing", "missing", "max_energy_range_uj"),
        ("reading-empty", "parse", "energy_uj"),
    ],
)
def test_a_zone_with_a_broken_file_is_absent_and_reported(
    tree: str, reason: str, file: str, tmp_path: Path
) -> None:
    machine = _Machine(tree, tmp_path)
    values = values_of(machine.rapl)
    assert PACKAGE in values
    assert PACKAGE_1 not in values
    assert machine.faults[0][0] == reason
    assert f"intel-rapl:1/{file}" in machine.faults[0][1]


def test_a_package_that_goes_offline_takes_its_series_along_and_goes_on_when_back(
    tmp_path: Path,
) -> None:
    machine = _Machine("two-packages", tmp_path)
    machine.reads(200_000_000, folder="intel-rapl:1")
    assert machine.reads(250_000_000, folder="intel-rapl:1")[PACKAGE_1] == 50
    for folder in ("intel-rapl:1", "intel-rapl:1:0"):
        machine.zone(folder).rename(tmp_path / folder)
    machine.clock.tick(1)
    assert set(_meters(machine.rapl)) == {
        ("package", "0", "component"),
        ("dram", "0", "component"),
    }
    for folder in ("intel-rapl:1", "intel-rapl:1:0"):
        (tmp_path / folder).rename(machine.zone(folder))
    assert machine.reads(260_000_000, folder="intel-rapl:1")[PACKAGE_1] == 60
    assert machine.faults == []


def test_without_zones_it_is_unavailable_also_when_they_go_later(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no RAPL zone .*; load the driver"):
        Rapl(RaplConfig(), host_at(tmp_path))
    machine = _Machine("two-packages", tmp_path)
    shutil.rmtree(machine.root / "sys/class/powercap")
    with pytest.raises(Unavailable, match="no RAPL zone"):
        values_of(machine.rapl)


def test_an_excluded_zone_is_never_opened() -> None:
    rapl = _open("core-uncore-psys", RaplConfig(exclude=("core", "uncore", "psys")))
    assert _meters(rapl) == {("package", "0", "component"), ("dram", "0", "component")}
    # Its counter reads as nothing: opened, it would be reported.
    rapl = _open("reading-empty", RaplConfig(include=("package-0",)))
    rapl.on_fault = lambda reason, what: pytest.fail(f"{reason}: {what}")
    assert _meters(rapl) == {("package", "0", "component")}


def test_the_interval_cannot_be_so_long_that_a_wrap_is_missed() -> None:
    assert RaplConfig(interval="10s").interval == 10  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="less than or equal to 10"):
        RaplConfig(interval=11)


def test_other_powercap_folders_are_left_alone(tmp_path: Path) -> None:
    write_tree(tmp_path, {"sys/class/powercap/dtpm:0/name": "package-0\n"})
    with pytest.raises(Unavailable):
        Rapl(RaplConfig(), host_at(tmp_path))

"""Who uses the GPUs of AMD and Intel: clients in fdinfo, from look to look."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import FakeClock
from support.trees import host_at, write_tree

from telemetryd.drm.clients import ClientWatch, Use

PCI = "0000:03:00.0"
NODES = {"card1": PCI, "renderD128": PCI}
# A file of the real sysfs that nobody may read, not even root: the kernel refuses to open it.
UNREADABLE = Path("/sys/bus/platform/uevent")


# --- who uses a GPU -------------------------------------------------------------------------------


def _no_fault(error: Exception, what: str) -> None:
    pytest.fail(f"{what}: {error}")


class _Machine:
    """Processes with clients of one GPU, looked at on a fake clock."""

    def __init__(self, root: Path, **watch: object) -> None:
        self.root = root
        self.clock = FakeClock()
        self.faults: list[str] = []
        options = {"interval": 10.0, "most": 64, **watch}
        self.watch = ClientWatch(host_at(root, self.clock), **options)  # type: ignore[arg-type]

    def client(self, pid: int, client: int | None, lines: str, fd: int = 5) -> None:
        """`lines`: engines as "render=5", everything else as the driver writes it."""
        text = "" if client is None else f"drm-client-id:\t{client}\n"
        for word in lines.split():
            name, _, value = word.partition("=")
            text += f"drm-{name}:\t{value}\n"
        write_tree(self.root, {f"proc/{pid}/comm": "app\n", f"proc/{pid}/fdinfo/{fd}": text})
        link = self.root / f"proc/{pid}/fd/{fd}"
        if not link.is_symlink():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to("/dev/dri/renderD128")

    def leave(self, pid: int) -> None:
        (self.root / f"proc/{pid}").rename(self.root / f"ended-{pid}-{self.clock.mono_ns()}")

    def look(self, after: float = 10.0) -> Use:
        self.clock.tick(after)
        found = self.watch.look(NODES, lambda error, what: self.faults.append(f"{what}: {error}"))
        return found[PCI]

    def shares(self, after: float = 10.0) -> dict[str, float | None]:
        return {one.pid: one.utilization for one in self.look(after).shown}


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


def test_the_first_look_tells_who_uses_it_but_not_how_much(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, 1, f"engine-render={_ns(3)} resident-vram0=4096")
    use = machine.look()
    assert (use.processes, use.busy) == (1, None)
    (one,) = use.shown
    assert (one.pid, one.command, one.memory, one.utilization) == ("7", "app", 4096, None)


def test_a_gpu_without_clients_is_idle_from_the_second_look_on(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    (tmp_path / "proc").mkdir()
    assert machine.look() == Use(0, None, ())
    assert machine.look() == Use(0, 0.0, ())


def test_a_client_with_two_descriptors_in_two_processes_is_counted_once_for_the_parent(
    tmp_path: Path,
) -> None:
    machine = _Machine(tmp_path)
    for busy in (1, 6):
        for pid, fd in ((9, 5), (9, 6), (10, 5)):
            machine.client(pid, 1, f"engine-render={_ns(busy)} resident-vram0=100", fd)
        use = machine.look()
    assert [(one.pid, one.memory, one.utilization) for one in use.shown] == [("9", 100, 0.5)]
    assert (use.processes, use.busy) == (1, 0.5)


def test_a_process_is_as_busy_as_the_class_it_uses_most(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    for look in (0, 1):
        machine.client(
            7,
            1,
            f"engine-render={_ns(4 * look)} engine-copy={_ns(8 * look)} "
            f"engine-video={_ns(10 * look)} engine-capacity-video=2",
        )
        shares = machine.shares()
    assert shares == {"7": 0.8}


def test_the_gpu_is_as_busy_as_its_busiest_class_over_all_clients(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    for look in (0, 1):
        machine.client(7, 1, f"engine-render={_ns(3 * look)} engine-copy={_ns(5 * look)}")
        machine.client(8, 2, f"engine-render={_ns(4 * look)} engine-copy={_ns(1 * look)}")
        use = machine.look()
    assert use.busy == pytest.approx(0.7)


def test_cycles_are_measured_by_the_drivers_own_clock(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    for busy, total in ((100, 1000), (300, 1400)):
        machine.client(
            7, 1, f"cycles-ccs={busy} total-cycles-ccs={total} engine-capacity-ccs=2"
        )  # fmt: skip
        shares = machine.shares()
    assert shares == {"7": 0.25}


def test_a_client_that_came_since_the_last_look_began_at_nothing(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, 1, "cycles-rcs=0 total-cycles-rcs=1000")
    machine.look()
    machine.client(7, 1, "cycles-rcs=0 total-cycles-rcs=2000")
    machine.client(8, 2, "cycles-rcs=500 total-cycles-rcs=2000")
    machine.client(9, 3, f"engine-render={_ns(9)}")
    use = machine.look()
    assert {one.pid: one.utilization for one in use.shown} == {"8": 0.5, "9": 0.9}
    assert use.busy == 0.9


def test_the_share_of_the_first_client_that_counts_cycles_is_not_known(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    (tmp_path / "proc").mkdir()
    machine.look()
    machine.client(8, 2, "cycles-rcs=500 total-cycles-rcs=2000")
    use = machine.look()
    assert (use.busy, use.shown[0].utilization) == (None, None)
    machine.client(8, 2, "cycles-rcs=700 total-cycles-rcs=3000")
    assert machine.look().busy == 0.2


def test_a_counter_that_falls_gives_nothing_and_goes_on_from_the_larger_value(
    tmp_path: Path,
) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, 1, f"engine-render={_ns(100)}")
    machine.look()
    machine.client(7, 1, f"engine-render={_ns(99)}")
    use = machine.look()
    assert (use.processes, use.busy, use.shown[0].utilization) == (1, None, None)
    machine.client(7, 1, f"engine-render={_ns(110)}")
    assert machine.shares() == {"7": 0.5}  # 10 s of work in the 20 s since the larger value


def test_a_counter_that_stays_below_has_begun_again(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    shares = []
    for busy in (100, 1, 4, 9):
        machine.client(7, 1, f"engine-render={_ns(busy)}")
        shares.append(machine.shares()["7"])
    assert shares == [None, None, None, 0.5]


def test_a_share_above_1_is_rounding_or_says_nothing(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    shares = []
    for busy in (0, 10.05, 60):
        machine.client(7, 1, f"engine-compute={_ns(busy)} resident-vram=1")
        shares.append(machine.shares()["7"])
    assert shares == [None, 1.0, None]


def test_nothing_is_derived_across_a_gap(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, 1, f"engine-render={_ns(1)}")
    machine.look()
    machine.client(7, 1, f"engine-render={_ns(2)}")
    use = machine.look(after=100)
    assert (use.busy, use.shown[0].utilization) == (None, None)


def test_a_gpu_that_was_left_out_starts_anew(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, 1, f"engine-render={_ns(1)}")
    machine.look()
    machine.clock.tick(5)
    machine.watch.look({}, _no_fault)
    machine.client(7, 1, f"engine-render={_ns(3)}")
    use = machine.look(after=5)
    assert (use.busy, use.shown[0].utilization) == (None, None)


def test_a_process_that_ends_takes_its_use_along(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, 1, "engine-render=5 resident-vram0=1")
    assert machine.look().processes == 1
    machine.leave(7)
    assert machine.look() == Use(0, 0.0, ())
    assert machine.faults == []


def test_beyond_the_limit_processes_are_only_counted_and_the_largest_are_shown(
    tmp_path: Path,
) -> None:
    machine = _Machine(tmp_path, most=2)
    for pid in range(1, 6):
        machine.client(pid, pid, f"resident-vram0={pid * 10 if pid != 5 else 1}")
    use = machine.look()
    assert use.processes == 5
    assert [one.pid for one in use.shown] == ["4", "3"]
    assert [one.pid for one in use.all] == ["4", "3", "2", "1", "5"]


def test_the_memory_of_a_process_is_not_known_if_that_of_one_of_its_clients_is_not(
    tmp_path: Path,
) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, 1, "engine-render=5 resident-vram0=100", fd=5)
    machine.client(7, 2, "engine-render=5", fd=6)
    assert [one.memory for one in machine.look().shown] == [None]


def test_a_process_that_may_not_be_looked_at_leaves_the_count_unknown(tmp_path: Path) -> None:
    if not UNREADABLE.exists():
        pytest.skip(f"{UNREADABLE} is not there to stand for a file that may not be read")
    machine = _Machine(tmp_path)
    machine.client(7, 1, "engine-render=5 resident-vram0=1")
    machine.client(8, 2, "engine-render=5 resident-vram0=1")
    secret = tmp_path / "proc/8/fdinfo/5"
    secret.unlink()
    secret.symlink_to(UNREADABLE)
    for _ in (1, 2):
        use = machine.look()
        assert (use.processes, use.busy) == (None, None)
        assert [one.pid for one in use.shown] == ["7"]
        assert machine.watch.denied is not None
    assert machine.faults == []
    secret.unlink()
    secret.write_text("drm-client-id: 2\ndrm-engine-render: 5 ns\n")
    assert machine.look().processes == 2
    assert machine.watch.denied is None


def test_a_driver_that_names_no_clients_leaves_the_count_unknown(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, None, "driver=amdgpu")
    assert machine.look() == Use(None, None, ())


def test_clients_without_engine_time_leave_the_gpus_unknown(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    for _ in (1, 2):
        machine.client(7, 1, "resident-vram0=1")
        use = machine.look()
    assert (use.processes, use.busy, use.shown[0].utilization) == (1, None, None)


def test_a_file_that_cannot_be_understood_is_reported_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    machine = _Machine(tmp_path)
    machine.client(7, 1, "engine-render=many")
    machine.client(8, 2, "engine-render=5 resident-vram0=1")
    use = machine.look()
    assert (use.processes, [one.pid for one in use.shown]) == (None, ["8"])
    assert "proc/7/fdinfo/5: invalid literal" in machine.faults[0]


def test_a_process_whose_work_the_driver_does_not_count_has_no_utilization(
    tmp_path: Path,
) -> None:
    machine = _Machine(tmp_path, counts_all=lambda pid: pid != "7")
    for look in (0, 1):
        machine.client(7, 1, f"engine-dma={_ns(look)} resident-vram=9")
        machine.client(8, 2, f"engine-dma={_ns(look)} resident-vram=1")
        shares = machine.shares()
    assert shares == {"7": None, "8": 0.1}


def test_other_files_and_other_gpus_are_not_opened(tmp_path: Path) -> None:
    machine = _Machine(tmp_path)
    write_tree(tmp_path, {"proc/7/comm": "app\n", "proc/self/x": "", "proc/version": ""})
    for fd, target in ((1, "/dev/null"), (2, "socket:[5]"), (3, "/dev/dri/renderD129")):
        (tmp_path / "proc/7/fd").mkdir(exist_ok=True)
        (tmp_path / f"proc/7/fd/{fd}").symlink_to(target)
        (tmp_path / f"proc/7/fdinfo/{fd}").mkdir(parents=True)  # opening it would be an error
    assert machine.look() == Use(0, None, ())
    assert machine.faults == []


_STEPS = st.lists(
    st.tuples(st.integers(1, 40_000), st.lists(st.integers(0, 60_000), min_size=2, max_size=2)),
    min_size=2,
    max_size=6,
)


@given(_STEPS)
def test_no_sequence_of_counters_gives_a_share_that_is_none(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, list[int]]]
) -> None:
    machine = _Machine(tmp_path_factory.mktemp("machine"))
    for milliseconds, counters in steps:
        for client, busy in enumerate(counters, 1):
            machine.client(client, client, f"engine-render={busy * 1_000_000} resident-vram=1")
        use = machine.look(after=milliseconds / 1000)
        assert use.processes == 2
        for share in (use.busy, *(one.utilization for one in use.shown)):
            assert share is None or 0 <= share <= 1


@given(
    st.lists(
        st.tuples(st.integers(1_000, 20_000), st.integers(0, 1000), st.integers(0, 1000)),
        min_size=2,
        max_size=6,
    )
)
def test_the_time_that_clients_used_is_the_sum_of_their_shares(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, int]]
) -> None:
    machine = _Machine(tmp_path_factory.mktemp("machine"))
    machine.client(1, 1, "engine-render=0 resident-vram=1")
    machine.client(2, 2, "engine-render=0 resident-vram=1")
    machine.look()
    used = [0, 0]
    for milliseconds, *shares in steps:
        halves = [milliseconds * 1000 * share // 2 for share in shares]  # each at most half of it
        used = [before + ns for before, ns in zip(used, halves, strict=True)]
        for client, ns in enumerate(used, 1):
            machine.client(client, client, f"engine-render={ns} resident-vram=1")
        use = machine.look(after=milliseconds / 1000)
        assert use.busy == pytest.approx(sum(halves) / (milliseconds * 1e6), abs=1e-9)
        assert [one.utilization for one in use.shown] == pytest.approx(
            [ns / (milliseconds * 1e6) for ns in halves], abs=1e-9
        )

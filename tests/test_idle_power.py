"""The power of a device that does nothing for nobody: learned, faded, kept over restarts."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.energy_feed import SPLIT, Feed, Reading, component, cpu_share, energy, gpu

from telemetryd.derivation import DerivedConfig, EnergyConfig
from telemetryd.derived.balance.balance import EnergyBalance
from telemetryd.derived.balance.idle import ENOUGH_S, IdlePower
from telemetryd.state import StateFile

DAY = 86_400
GPU_IDLE = 'telemetryd_energy_idle_power_watts{device_kind="gpu",device="0"}'
CPU_IDLE = 'telemetryd_energy_idle_power_watts{device_kind="cpu",device="0"}'


def observe(idle: IdlePower, watts: float, seconds: float, each: float = 1.0) -> None:
    for _ in range(round(seconds / each)):
        idle.observe(watts, each)


# The percentile


def test_it_is_not_known_before_enough_was_seen() -> None:
    idle = IdlePower()
    observe(idle, 70.0, ENOUGH_S - 1)
    assert idle.watts is None
    observe(idle, 70.0, 3)
    assert idle.watts == pytest.approx(70, abs=1)


def test_slow_readings_count_for_as_long_as_they_took() -> None:
    idle = IdlePower()
    observe(idle, 70.0, ENOUGH_S + 30, each=10)
    assert idle.watts == pytest.approx(70, abs=1)


def test_it_is_the_5th_percentile() -> None:
    idle = IdlePower()
    for _ in range(20):
        for watts in range(100):
            idle.observe(100.5 + watts, 1.0)
    assert idle.watts == pytest.approx(105, abs=1)


def test_a_few_readings_that_are_far_too_low_do_not_spoil_it() -> None:
    idle = IdlePower()
    observe(idle, 0.0, 10)
    observe(idle, 80.5, 600)
    assert idle.watts == pytest.approx(80, abs=1)


def test_what_was_seen_fades_over_days() -> None:
    idle = IdlePower()
    observe(idle, 60.5, 2 * DAY, each=60)
    observe(idle, 90.5, 4 * DAY, each=60)
    assert idle.watts == pytest.approx(60, abs=1), "a quarter of it is left"
    observe(idle, 90.5, 8 * DAY, each=60)
    assert idle.watts == pytest.approx(90, abs=1)


def test_decades_of_readings_overflow_nothing() -> None:
    idle = IdlePower()
    observe(idle, 75.5, 6000 * DAY, each=3600)
    assert idle.watts == pytest.approx(75, abs=1)
    assert sum(idle.save().values()) < 10 * DAY


def test_what_is_configured_is_not_learned() -> None:
    idle = IdlePower(55.0)
    observe(idle, 90, 2 * ENOUGH_S)
    assert idle.watts == 55.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 2000), st.floats(0.1, 100)), min_size=1, max_size=100))
def test_it_is_between_the_lowest_and_the_highest_that_was_seen(
    seen: list[tuple[float, float]],
) -> None:
    idle = IdlePower()
    for watts, seconds in seen:
        idle.observe(watts, seconds)
    powers = [watts for watts, _ in seen]
    if idle.watts is not None:
        assert min(powers) - 1 <= idle.watts <= max(powers) + 1
    again = IdlePower()
    again.restore(idle.save())
    assert (again.watts is None) == (sum(idle.save().values()) < ENOUGH_S)
    if again.watts is not None:
        assert min(powers) - 1 <= again.watts <= max(powers) + 1


@pytest.mark.parametrize(
    "saved",
    [
        {"abc": 1.0}, {"-5": 1.0}, {"70": -1.0}, {"70": "x"}, {"70": None}, {"70": True},
        {"²": 1000.0}, {"9" * 5000: 1000.0}, {"70": float("inf")}, {"70": float("nan")},
        {"70": 1e300}, {"70": [1]}, {"999999999": 1000.0}, {"7.5": 1000.0}, {"": 400.0},
    ],
)  # fmt: skip
def test_what_makes_no_sense_in_what_was_saved_is_left_out(saved: dict[str, object]) -> None:
    idle = IdlePower()
    idle.restore({**saved, "80": 600.0})
    assert idle.watts == pytest.approx(80, abs=1)


# Of a node


class Node:
    """A GPU and a CPU package that may be busy, read every second."""

    def __init__(self, config: EnergyConfig | None = None) -> None:
        self.feed = Feed(config)
        self.gpu_w, self.gpu_share, self.processes = 70.5, 0.0, 0
        self.cpu_w, self.cpu_share = 90.5, 0.01
        self._gpu_j = self._cpu_j = 0.0

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self._gpu_j += self.gpu_w
            self._cpu_j += self.cpu_w
            self.feed.run(1, **self._readings())

    def _readings(self) -> dict[str, tuple[float, Reading]]:
        return {
            "cpu": (1, lambda: cpu_share(self.cpu_share)),
            "rapl": (1, lambda: [component("rapl", self._cpu_j, "package")]),
            "gpu_nvidia": (1, lambda: gpu(self._gpu_j, self.gpu_share, self.processes)),
            "redfish": (30, lambda: [energy("redfish", (self._gpu_j + self._cpu_j) * 1.2)]),
        }


def test_idle_devices_are_learned_within_minutes_and_the_split_begins() -> None:
    node = Node()
    node.run(290)
    assert GPU_IDLE not in node.feed.values
    node.run(140)
    assert node.feed.values[GPU_IDLE] == pytest.approx(70, abs=1)
    assert node.feed.values[CPU_IDLE] == pytest.approx(90, abs=1)
    assert node.feed.values[SPLIT % "unallocated"] > 0


def test_a_busy_start_teaches_nothing() -> None:
    node = Node()
    node.gpu_w, node.gpu_share, node.processes = 650.0, 0.9, 1
    node.cpu_w, node.cpu_share = 300.0, 0.8
    node.run(700)
    assert GPU_IDLE not in node.feed.values
    assert not any("energy_split" in name for name in node.feed.values)
    node.gpu_share, node.gpu_w = 0.0, 120.0
    node.run(400)
    assert GPU_IDLE not in node.feed.values, "somebody holds it, which costs power"
    node.gpu_w, node.processes = 70.5, 0
    node.run(320)
    assert node.feed.values[GPU_IDLE] == pytest.approx(70, abs=1)


def test_without_a_word_on_the_activity_nothing_is_learned() -> None:
    node = Node()
    feed = node.feed
    feed.run(
        500,
        rapl=(1, lambda: [component("rapl", 300 * feed.now, "package")]),
        gpu_nvidia=(1, lambda: [component("nvml", 500 * feed.now)]),
    )
    assert not any("idle_power" in name for name in feed.values)


def test_what_is_configured_holds_from_the_start() -> None:
    node = Node(EnergyConfig(idle_watts={"gpu 0": 65.0, "cpu *": 88.0, "*": 1.0}))
    node.run(5)
    assert node.feed.values[GPU_IDLE] == 65.0
    assert node.feed.values[CPU_IDLE] == 88.0


def test_what_was_learned_outlives_a_restart() -> None:
    node = Node()
    node.run(320)
    saved = json.loads(json.dumps(node.feed.balance.save()))
    other = Node()
    other.feed.balance.restore(saved)
    assert other.feed.balance.save() == saved, "also if no device is seen before it is kept again"
    other.gpu_share, other.gpu_w, other.processes = 0.9, 500.0, 1
    other.run(3)
    assert other.feed.values[GPU_IDLE] == pytest.approx(70, abs=1)
    assert other.feed.values[CPU_IDLE] == pytest.approx(90, abs=1)


def test_it_goes_with_the_gpu_not_with_its_number() -> None:
    node = Node()
    node.run(320)
    saved = node.feed.balance.save()
    assert "GPU-0" in saved
    assert "cpu 0" in saved


def test_a_configured_idle_power_stands_above_what_was_saved() -> None:
    node = Node()
    node.run(320)
    other = Node(EnergyConfig(idle_watts={"gpu *": 50.0}))
    other.feed.balance.restore(node.feed.balance.save())
    other.run(3)
    assert other.feed.values[GPU_IDLE] == 50.0


@pytest.mark.parametrize("saved", [{"gpu 0": None}, {"gpu 0": [1]}, {"": {"70": 600.0}}, {"x": {}}])
def test_what_another_version_saved_is_no_reason_to_fail(saved: dict[str, object]) -> None:
    balance = EnergyBalance(DerivedConfig())
    balance.restore(saved)
    json.dumps(balance.save())


# The file


def test_the_file_lies_in_the_folder_that_systemd_makes(tmp_path: Path) -> None:
    folders = {"STATE_DIRECTORY": f"{tmp_path}:/var/lib/other"}
    assert StateFile.of_service(folders).path == str(tmp_path / "learned.json")
    assert StateFile.of_service({}).path is None
    assert StateFile(None).load() == {}
    assert not StateFile(None).save({"a": {}})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = StateFile(str(tmp_path / "learned.json"))
    assert file.load() == {}
    assert file.save({"EnergyBalance": {"cpu 0": {"70": 600.5}}})
    assert file.load() == {"EnergyBalance": {"cpu 0": {"70": 600.5}}}
    assert os.listdir(tmp_path) == ["learned.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 2, "learned": {}}',
        b'{"learned": {"x": {}}}', b"[" * 200_000, b'{"format": "1"}',
    ],
    ids=["empty", "cut", "list", "null", "binary", "future", "no-format", "deep", "text"],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_set_aside_and_learned_again(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "learned.json"
    path.write_bytes(content)
    file = StateFile(str(path))
    assert file.load() == {}
    assert "cannot use" in caplog.text
    assert (tmp_path / "learned.json.unusable").read_bytes() == content
    assert file.save({"a": {"b": {}}})
    assert file.load() == {"a": {"b": {}}}


def test_a_file_whose_content_is_of_no_use_is_as_good_as_none(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    path.write_text('{"format": 1, "learned": 5}')
    assert StateFile(str(path)).load() == {}


def test_a_folder_that_cannot_be_written_is_said_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    file = StateFile(str(tmp_path / "gone" / "learned.json"))
    assert not file.save({"a": {}})
    assert "cannot keep what was learned" in caplog.text


def test_a_crash_in_the_middle_of_saving_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(str(tmp_path / "learned.json"))
    file.save({"a": {"old": {}}})

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert not file.save({"a": {"new": {}}})
    assert file.load() == {"a": {"old": {}}}

"""The load that the demo plays on fake GPUs, stepped with a clock of our own; and the demo."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fakes.nvml.load import THERMAL_FIELD, THERMAL_SLOWDOWN, Node
from fakes.nvml.models import ALL_LINKS
from support.daemon import eventually, free_port
from support.nvml import FakeNvml

DEMO = Path(__file__).parent / "fakes/nvml/demo.py"
TRAINING, INFERENCE, HOLDING = 101, 102, 103
STEP_S = 2.0


@pytest.fixture
def fake(tmp_path) -> FakeNvml:
    made = FakeNvml(tmp_path)
    made.advance(0)
    return made


@pytest.fixture
def node(fake) -> Node:
    return Node(fake, training=TRAINING, inference=INFERENCE, holding=HOLDING)


def step(node: Node) -> None:
    node.step(STEP_S)
    node.fake.advance(STEP_S)


def test_energy_is_the_integral_of_the_power_that_is_told(node, fake):
    start = [fake.value(gpu, "energy_mj") for gpu in range(8)]
    integral = [0.0] * 8
    for _ in range(50):
        step(node)
        for gpu in range(8):
            integral[gpu] += fake.value(gpu, "power_average_mw") * STEP_S
    used = [fake.value(gpu, "energy_mj") - start[gpu] for gpu in range(8)]
    assert used == pytest.approx(integral, rel=1e-9)


def test_nvlink_counters_grow_as_fast_as_their_rate_says(node, fake):
    transmitted = f"fi.138.{ALL_LINKS}"
    expected = 0.0
    for _ in range(20):
        step(node)
        expected += float(fake.state["g0.gpm.61"]) * 1024 * STEP_S
    assert fake.value(0, transmitted) == pytest.approx(expected, rel=1e-6)
    assert expected > 0
    assert fake.value(0, "fi.138.*") == pytest.approx(expected / 18, rel=1e-6)
    assert fake.value(7, transmitted) == 0


def test_readings_stay_within_what_a_gpu_can_be(node, fake):
    for _ in range(150):
        step(node)
        for gpu in range(8):
            used = fake.value(gpu, "mem_used") + fake.value(gpu, "mem_reserved")
            assert used < fake.value(gpu, "mem_total")
            assert 60_000 < fake.value(gpu, "power_average_mw") <= 700_000
            assert 27 < fake.value(gpu, "temp") < 95
            assert 0 <= fake.value(gpu, "gpm.5") <= fake.value(gpu, "gpm.2") <= 100


def test_a_gpu_gets_too_hot_now_and_then_and_is_slowed_down(node, fake):
    slowed = set()
    for _ in range(150):
        step(node)
        for gpu in range(8):
            if int(fake.state[f"g{gpu}.clock_reasons"]) & THERMAL_SLOWDOWN:
                slowed.add(gpu)
                assert fake.value(gpu, "clk.1") < 1980
    assert slowed == {2}
    assert 0 < fake.value(2, f"fi.{THERMAL_FIELD}") < 150 * STEP_S * 1e9


def test_one_gpu_is_held_idle_and_one_is_free(node, fake):
    for _ in range(30):
        step(node)
        assert fake.value(6, "gpm.2") == fake.value(7, "gpm.2") == 0
    assert fake.state["g6.proc.0.pid"] == HOLDING
    assert fake.value(6, "mem_used") > 10 << 30
    assert "g6.proc.0.sm" not in fake.state
    assert fake.state.get("g7.procs", 0) == fake.value(7, "mem_used") == 0


def test_an_xid_comes_now_and_then(node, fake):
    for _ in range(150):
        step(node)
    assert fake.state["event.last"] == 1
    assert fake.state["event.1"] == "5 8 94"


def test_the_demo_shows_a_node_and_ends_in_order(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler (gcc)")
    port = free_port()
    with (tmp_path / "log").open("w") as log:
        demo = subprocess.Popen(
            [sys.executable, str(DEMO), "--port", str(port)],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=log,
            stderr=log,
        )
    page = ""

    def shows() -> bool:
        nonlocal page
        assert demo.poll() is None, (tmp_path / "log").read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                page = answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return False
        return 'command="train-llm"' in page and "telemetryd_gpu_sm_active_ratio{" in page

    try:
        eventually(shows, "the demo shows its GPUs")
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(20) == 0
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()
    assert len(re.findall(r"^telemetryd_gpu_memory_used_bytes{", page, re.MULTILINE)) == 8
    pids = re.findall(r'telemetryd_gpu_process_memory_bytes{.*pid="(\d+)"', page)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert [each.name for each in tmp_path.iterdir()] == ["log"]

"""NVIDIA GPUs under the real daemon, and under `doctor` and `once`, as child processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.daemon import ROOT, Daemon, eventually, running
from support.nvml import FakeNvml

MEMORY = "nvmlDeviceGetMemoryInfo_v2"
ERRORS = 'telemetryd_collector_errors_total{{collector="gpu_nvidia",reason="{}"}}'


def configuration(fake: FakeNvml, more: str = "") -> str:
    return f'[collectors.gpu_nvidia]\nlibrary = "{fake.library}"\n{more}\n'


def lost(daemon: Daemon) -> list[float | None]:
    values = daemon.values()
    found = {
        match[1]: value
        for name, value in values.items()
        if (match := re.match(r'telemetryd_gpu_lost\{gpu="(\d+)"', name))
    }
    return [found.get(str(gpu)) for gpu in range(8)]


def read(daemon: Daemon) -> set[int]:
    pattern = r'telemetryd_gpu_busy_ratio\{gpu="(\d+)"'
    return {int(match[1]) for name in daemon.values() if (match := re.match(pattern, name))}


def command(tmp_path: Path, fake: FakeNvml, *arguments: str, more: str = "") -> str:
    """What telemetryd prints."""
    file = tmp_path / "telemetryd.toml"
    file.write_text('web.listen = "127.0.0.1:0"\n' + configuration(fake, more))
    done = subprocess.run(
        [sys.executable, "-m", "telemetryd", *arguments, "--config", str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert "misuse" not in done.stderr
    return done.stdout


def doctor(tmp_path: Path, fake: FakeNvml, more: str = "") -> dict[str, Any]:
    findings = json.loads(command(tmp_path, fake, "doctor", "--format", "json", more=more))
    return next(finding for finding in findings if finding["name"] == "gpu_nvidia")


def test_one_gpu_that_hangs_and_one_that_is_lost_leave_six_under_the_daemon(
    tmp_path: Path,
) -> None:
    fake = FakeNvml(tmp_path, gpus=8)
    everyone = set(range(8))
    with running(tmp_path, configuration(fake)) as daemon:
        eventually(lambda: read(daemon) == everyone, "all are read")
        fake.hang(MEMORY, gpu=1)
        fake.lose(5)
        eventually(lambda: read(daemon) == everyone - {1, 5}, "six are read")
        eventually(lambda: lost(daemon) == [0, 1, 0, 0, 0, 1, 0, 0], "two are lost")
        time.sleep(2.5)
        values = daemon.values()
        assert read(daemon) == everyone - {1, 5}
        assert values['telemetryd_collector_up{collector="gpu_nvidia"}'] == 1
        assert values[ERRORS.format("timeout")] >= 1
        assert values[ERRORS.format("lost")] >= 1
        fake.release()
        fake.find(5)
        eventually(lambda: lost(daemon) == [0] * 8, "they are back")
        assert read(daemon) == everyone
        assert daemon.stop() == 0
        assert "misuse" not in daemon.log
        assert "stuck_threads=no" in daemon.log


def test_sigterm_ends_a_daemon_in_order_while_a_call_to_a_gpu_hangs(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=8)
    with running(tmp_path, configuration(fake)) as daemon:
        eventually(lambda: read(daemon) == set(range(8)), "all are read")
        fake.hang(None, gpu=3)
        eventually(lambda: lost(daemon)[3] == 1, "it hangs")
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 8
        assert "misuse" not in daemon.log
        assert "does not close" not in daemon.log


def test_a_driver_that_comes_after_the_daemon_is_found(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=1)
    fake.set({"init.ret": 9})
    with running(tmp_path, configuration(fake)) as daemon:
        eventually(lambda: "collector not available" in daemon.log, "it is not there")
        (line,) = [line for line in daemon.log.splitlines() if "collector=gpu_nvidia" in line]
        assert "Driver Not Loaded" in line
        assert read(daemon) == set()
        assert daemon.stop() == 0


def test_doctor_says_ok_and_names_what_a_gpu_does_not_offer(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.error("nvmlDeviceGetEncoderUtilization", 3)
    finding = doctor(tmp_path, fake)
    assert finding["state"] == "ok"
    assert re.fullmatch(r"\d{3,} series", finding["why"])
    (remark,) = finding["remarks"]
    assert remark.startswith("GPU 0, 1: not supported: ")
    assert "encoder" in remark
    table = command(tmp_path, fake, "doctor")
    assert f"\n{'':33}{remark}\n" in table


def lose(fake: FakeNvml) -> None:
    fake.lose(1)


def hang(fake: FakeNvml) -> None:
    fake.hang(MEMORY, gpu=1)


def deny(fake: FakeNvml) -> None:
    fake.error("nvmlDeviceGetEncoderUtilization", 4, gpu=1)


@pytest.mark.parametrize(
    ("defect", "says"),
    [
        (lose, "GPU 1: nvmlDeviceGetHandleByIndex_v2: GPU is lost (15); drain the node"),
        (hang, "GPU 1: no answer within 0.3 s"),
        (deny, "GPU 1: encoder: Insufficient Permissions (4); run as root, or give the service"),
    ],
    ids=["lost", "hanging", "denied"],
)
def test_doctor_says_degraded_and_why(
    tmp_path: Path, defect: Callable[[FakeNvml], None], says: str
) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    defect(fake)
    finding = doctor(tmp_path, fake)
    assert finding["state"] == "degraded"
    assert says in finding["why"]
    assert "1 failed" in finding["why"]
    if defect is deny:
        assert finding["remarks"][-1] == (
            "GPU 1: permission denied (run as root, or give the service /dev/nvidia*): encoder"
        )


def test_doctor_names_what_an_old_driver_lacks(tmp_path: Path) -> None:
    finding = doctor(tmp_path, FakeNvml(tmp_path, gpus=1, old_driver=True))
    assert finding["state"] == "ok"
    (remark,) = [one for one in finding["remarks"] if "the driver is too old for: " in one]
    assert "fabric" in remark


def test_doctor_names_the_remedy_where_the_driver_is_not_loaded(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path)
    fake.set({"init.ret": 9})
    finding = doctor(tmp_path, fake, more="enabled = true")
    assert (finding["state"], finding["required"]) == ("missing", True)
    assert "modprobe nvidia" in finding["why"]


def test_once_prints_all_of_every_gpu(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=8)
    fake.busy()
    text = command(tmp_path, fake, "once", "--only", "gpu_nvidia", "--interval", "0.5")
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for gpu in range(8):
        uuid = fake.state[f"g{gpu}.uuid"]
        assert float(values[f'telemetryd_gpu_busy_ratio{{gpu="{gpu}",uuid="{uuid}"}}']) == 1
        assert float(values[f'telemetryd_gpu_lost{{gpu="{gpu}",uuid="{uuid}"}}']) == 0


def test_once_leaves_out_a_gpu_that_hangs(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.hang(MEMORY, gpu=0)
    text = command(tmp_path, fake, "once", "--only", "gpu_nvidia")
    assert 'telemetryd_gpu_busy_ratio{gpu="1"' in text
    assert 'telemetryd_gpu_busy_ratio{gpu="0"' not in text
    assert re.search(r'telemetryd_gpu_lost\{gpu="0",[^}]*\} 1\n', text)

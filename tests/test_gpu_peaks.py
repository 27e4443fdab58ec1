"""telemetryd_gpu_peak_flops, and the utilization of a fleet weighted with it."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.trees import Bench

from telemetryd import gpus
from telemetryd.derivation import DerivedConfig, GpuPeaks
from telemetryd.derived import gpu_peaks
from telemetryd.derived.gpu_peaks import PeakFlops
from telemetryd.derived.gpu_utilization import GpuUtilization
from telemetryd.metric import Point

TEN_TFLOPS = DerivedConfig(gpu_peaks={"Ten*": GpuPeaks(bf16_flops=10e12)})


def info(model: str, gpu: str = "0", uuid: str = "GPU-a") -> Point:
    return gpus.INFO.at(gpu, uuid, gpu, "nvidia", model, "", "", "", "", ""), 1


def peak(gpu: str = "0", uuid: str = "GPU-a") -> str:
    return f'telemetryd_gpu_peak_flops{{gpu="{gpu}",uuid="{uuid}",precision="bf16"}}'


def test_a_gpu_has_the_peak_of_its_model() -> None:
    bench = Bench(PeakFlops(DerivedConfig()))
    points = [info("NVIDIA H100 80GB HBM3"), info("NVIDIA L4", "1", "GPU-b")]
    for _ in range(2):
        assert bench.feed(points) == {peak(): 989e12, peak("1", "GPU-b"): 121e12}


def test_an_unknown_model_and_a_mig_instance_have_none() -> None:
    bench = Bench(PeakFlops(DerivedConfig()))
    assert bench.feed([info("NVIDIA X1"), (gpus.SM_ACTIVE.at("0/3/0", "MIG-a"), 1)]) == {}


def test_the_configuration_gives_an_unknown_model_its_peak() -> None:
    assert Bench(PeakFlops(TEN_TFLOPS)).feed([info("Ten 1")]) == {peak(): 10e12}


def test_a_gpu_that_is_gone_has_no_peak() -> None:
    bench = Bench(PeakFlops(TEN_TFLOPS))
    bench.feed([info("Ten 1"), info("Ten 1", "1", "GPU-b")])
    assert bench.feed([info("Ten 1", "1", "GPU-b")]) == {peak("1", "GPU-b"): 10e12}


def test_a_slot_whose_gpu_was_exchanged_has_the_peak_of_the_new_one() -> None:
    bench = Bench(PeakFlops(TEN_TFLOPS))
    bench.feed([info("Ten 1")])
    assert bench.feed([info("NVIDIA L4", uuid="GPU-b")]) == {peak(uuid="GPU-b"): 121e12}


def fleet() -> dict[str, float]:
    """100 GPUs of 10 TFLOPS, 80 of them fully busy; every other one of an older kind without
    activity of the multiprocessors."""
    points: list[Point] = []
    for index in range(100):
        gpu, uuid = str(index), f"GPU-{index}"
        activity = float(index < 80)
        points.append(info("Ten 1", gpu, uuid))
        points.append((gpus.BUSY.at(gpu, uuid), activity))
        if index % 2:
            points.append((gpus.SM_ACTIVE.at(gpu, uuid), activity))
    utilization, peaks = Bench(GpuUtilization(TEN_TFLOPS)), Bench(PeakFlops(TEN_TFLOPS))
    return utilization.feed(points) | peaks.feed(points)


def test_80_of_100_equal_gpus_busy_are_08_weighted_by_capacity() -> None:
    values = fleet()
    weighted, capacity = 0.0, 0.0
    for index in range(100):
        device = f'device="{index}"}}'
        ratio = values.get(
            f'telemetryd_utilization_ratio{{resource="gpu_sm",{device}',
            values[f'telemetryd_utilization_ratio{{resource="gpu",{device}'],
        )
        flops = values[peak(str(index), f"GPU-{index}")]
        weighted += ratio * flops
        capacity += flops
    assert weighted / capacity == 0.8


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_documented_expression_gives_the_same_in_prometheus(tmp_path: Path) -> None:
    documented = inspect.cleandoc(gpu_peaks.__doc__ or "")
    expression = documented[documented.index("    sum(") :]
    case = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name.replace("{", '{job="t",instance="n",'), "values": f"{value}"}
                    for name, value in fleet().items()
                ],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": "0m", "exp_samples": [{"value": 0.8}]}
                ],
            }
        ],
    }
    # JSON is YAML too.
    (tmp_path / "case.yaml").write_text(json.dumps(case))
    done = subprocess.run(
        ["promtool", "test", "rules", "case.yaml"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

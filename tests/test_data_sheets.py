"""Data-sheet peaks: which model has which, and what the configuration makes of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.trees import RECORDED

from telemetryd.config import load
from telemetryd.derivation import DerivedConfig, GpuPeaks
from telemetryd.derived import data_sheets
from telemetryd.derived.data_sheets import UNKNOWN, DataSheet, data_sheet
from telemetryd.errors import ConfigError, Problem

FACTS = RECORDED.parent / "GPU.md"
# The models of the table of facts, as their drivers name them.
DRIVER_NAMES = {
    "A100 SXM": "NVIDIA A100-SXM4-80GB",
    "A100 PCIe": "NVIDIA A100 80GB PCIe",
    "H100 SXM": "NVIDIA H100 80GB HBM3",
    "H100 PCIe": "NVIDIA H100 PCIe",
    "H200 SXM": "NVIDIA H200",
    "B200": "NVIDIA B200",
    "GB200 per GPU": "NVIDIA GB200",
    "B300": "NVIDIA B300 SXM6 AC",
    "GB300": "NVIDIA GB300",
    "L40S": "NVIDIA L40S",
    "L4": "NVIDIA L4",
    "MI300X": "AMD Instinct MI300X OAM",
    "MI325X": "AMD Instinct MI325X",
    "MI355X": "AMD Instinct MI355X",
}


def read(tmp_path: Path, text: str) -> DerivedConfig:
    file = tmp_path / "telemetryd.toml"
    file.write_text(text)
    return load([str(file)], {}).derived


def problem(tmp_path: Path, text: str) -> Problem:
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    [only] = refused.value.problems
    return only


@pytest.mark.skipif(not FACTS.exists(), reason="the table of facts is not part of the repository")
@pytest.mark.parametrize("name", DRIVER_NAMES)
def test_the_table_agrees_with_the_facts_that_were_collected(name: str) -> None:
    row = re.search(rf"(?:^|\| ){re.escape(name)} (\d[^|]*)", FACTS.read_text(), re.MULTILINE)
    assert row is not None
    tflops, terabytes, watts, link = row[1].split(", ", 3)
    sheet = data_sheet(DRIVER_NAMES[name], {})
    assert sheet.bf16_flops == float(tflops) * 1e12
    # The facts are rounded.
    assert sheet.memory_bytes_per_second == pytest.approx(float(terabytes) * 1e12, rel=0.005)
    assert sheet.watts == float(watts)
    gigabytes = re.match(r"\d+", link)
    expected = None if gigabytes is None else float(gigabytes[0]) * 1e9
    assert sheet.link_bytes_per_second == expected


@pytest.mark.parametrize(
    ("model", "tflops", "terabytes"),
    [
        ("NVIDIA A100-SXM4-40GB", 312, 1.555),
        ("A100-SXM4-40GB", 312, 1.555),
        ("NVIDIA A100-PCIE-40GB", 312, 1.555),
        ("NVIDIA H100 NVL", 835, 3.9),
        ("NVIDIA H200 NVL", 835, 4.8),
        ("NVIDIA GH200 480GB", 989, 4.0),
        ("NVIDIA GH200 144G HBM3e", 989, 4.9),
    ],
)
def test_models_that_look_alike_have_their_own_figures(
    model: str, tflops: float, terabytes: float
) -> None:
    sheet = data_sheet(model, {})
    assert sheet.bf16_flops == tflops * 1e12
    assert sheet.memory_bytes_per_second == terabytes * 1e12


@pytest.mark.parametrize(
    "model", ["", "NVIDIA L40", "NVIDIA H20", "NVIDIA H100", "Tesla T4", "AMD Instinct MI308X"]
)
def test_a_model_that_is_not_known_has_no_peaks(model: str) -> None:
    assert data_sheet(model, {}) is UNKNOWN


def test_every_figure_of_the_table_is_in_base_units() -> None:
    for sheet in data_sheets._SHEETS.values():
        assert 1e14 < (sheet.bf16_flops or 0) < 1e16
        assert 1e11 < (sheet.memory_bytes_per_second or 0) < 1e14
        assert 50 < (sheet.watts or 500) < 2000
        assert 1e11 < (sheet.link_bytes_per_second or 1e12) < 1e13


def test_the_configuration_replaces_single_figures_of_the_first_pattern_that_matches(
    tmp_path: Path,
) -> None:
    config = read(
        tmp_path,
        """
        [derived.gpu_peaks."NVIDIA H100*"]
        bf16_flops = 9e14
        [derived.gpu_peaks."NVIDIA H100 80GB HBM3"]
        bf16_flops = 1e12
        memory_bytes_per_second = 1e12
        [derived.gpu_peaks."NVIDIA X*"]
        memory_bytes_per_second = 2_000_000_000_000
        link_bytes_per_second = 6e11
        """,
    )
    assert data_sheet("NVIDIA H100 80GB HBM3", config.gpu_peaks) == DataSheet(
        9e14, 3.35e12, 700, 900e9
    )
    assert data_sheet("NVIDIA X1", config.gpu_peaks) == DataSheet(None, 2e12, None, 6e11)
    assert data_sheet("NVIDIA H200", config.gpu_peaks) == data_sheet("NVIDIA H200", {})


def test_a_misspelled_key_is_refused_with_its_place(tmp_path: Path) -> None:
    wrong = problem(tmp_path, '[derived.gpu_peaks."NVIDIA H100*"]\nbf16_flop = 1e15\n')
    assert wrong.key == "derived.gpu_peaks.NVIDIA H100*.bf16_flop"
    assert "there is no such key" in wrong.allowed


@pytest.mark.parametrize("value", ["0", "-1e12", '"many"', "{}"])
def test_a_peak_that_cannot_be_is_refused(tmp_path: Path, value: str) -> None:
    wrong = problem(tmp_path, f'[derived.gpu_peaks."*"]\nmemory_bytes_per_second = {value}\n')
    assert wrong.key == "derived.gpu_peaks.*.memory_bytes_per_second"


def test_a_figure_without_a_model_is_refused(tmp_path: Path) -> None:
    wrong = problem(tmp_path, "[derived.gpu_peaks]\nbf16_flops = 1e15\n")
    assert wrong.key == "derived.gpu_peaks.bf16_flops"


def test_every_key_of_the_tables_is_described_where_an_operator_looks() -> None:
    described = DerivedConfig.model_fields["gpu_peaks"].description or ""
    for key, field in GpuPeaks.model_fields.items():
        assert key in described
        assert field.description

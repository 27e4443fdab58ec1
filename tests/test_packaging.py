"""The wheel, as a user installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_each_module_once_and_no_package_of_a_common_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"telemetryd"}
    assert "telemetryd/collectors/cpu.py" in names
    assert "telemetryd/exporters/prometheus.py" in names
    assert "telemetryd/py.typed" in names


def test_the_wheel_runs_once_from_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env/bin/python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", str(wheel)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    done = subprocess.run(
        [str(tmp_path / "env/bin/telemetryd"), "once", "--interval", "0.2", "--only", "cpu,memory"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert 'telemetryd_utilization_ratio{resource="cpu",device="all"}' in done.stdout
    assert done.stderr == ""


def test_a_bare_checkout_runs_and_a_folder_called_collectors_does_not_disturb_it(
    tmp_path: Path,
) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(
        ROOT, checkout, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".git", ".*_cache")
    )
    (checkout / "collectors" / "json.py").write_text("raise SystemExit('imported by accident')\n")
    done = subprocess.run(
        [sys.executable, "-m", "telemetryd", "once", "--interval", "0.1", "--only", "memory"],
        check=True,
        capture_output=True,
        text=True,
        cwd=checkout,
    )
    assert "telemetryd_memory_total_bytes" in done.stdout


def test_coverage_sees_each_file_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    subprocess.run(
        [
            *(sys.executable, "-m", "coverage", "run", f"--data-file={data}"),
            *("-m", "telemetryd", "once", "--interval", "0.1", "--only", "memory"),
        ],
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    report = subprocess.run(
        [sys.executable, "-m", "coverage", "report", f"--data-file={data}"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    files = [line.split()[0] for line in report.splitlines() if ".py" in line]
    measured = [os.path.realpath(ROOT / file) for file in files]
    assert len(measured) == len(set(measured))
    assert str(ROOT / "collectors" / "memory.py") in measured

"""The pressure collector on trees with one defect each."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.trees import host_at, values_of, write_tree

from telemetryd.collector import CollectorConfig
from telemetryd.collectors.pressure import Pressure
from telemetryd.errors import Unavailable
from telemetryd.host import Attribute, Host

# As Linux 6.18 prints them; irq only where CONFIG_IRQ_TIME_ACCOUNTING is set.
PRESSURE = {
    "proc/pressure/cpu": "some avg10=0.48 avg60=0.60 avg300=0.27 total=8434684\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "proc/pressure/memory": "some avg10=1.50 avg60=0.20 avg300=0.00 total=42\n"
    "full avg10=0.75 avg60=0.10 avg300=0.00 total=21\n",
    "proc/pressure/io": "some avg10=100.00 avg60=0.17 avg300=0.08 total=3787555\n"
    "full avg10=0.43 avg60=0.15 avg300=0.08 total=3612219\n",
    "proc/pressure/irq": "full avg10=0.00 avg60=0.25 avg300=0.00 total=5000000\n",
}


def pressure_at(root: Path) -> tuple[Pressure, list[tuple[str, str]]]:
    """The collector on a tree, and the faults it reports."""
    faults: list[tuple[str, str]] = []
    pressure = Pressure(CollectorConfig(), host_at(root))
    pressure.on_fault = lambda reason, what: faults.append((reason, what))
    return pressure, faults


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(tmp_path, PRESSURE)
    return tmp_path


def replace(path: Path, target: str) -> None:
    """Let `path` be another file of the kernel's, one that fails in a way of its own."""
    path.unlink()
    path.symlink_to(target)


def labels(name: str) -> list[str]:
    """The label values of a series: cpu, some."""
    return name.split('"')[1::2]


def total(resource: str, kind: str) -> str:
    return f'telemetryd_pressure_stalled_seconds_total{{resource="{resource}",kind="{kind}"}}'


def ratio(resource: str, kind: str, window: str) -> str:
    pairs = f'resource="{resource}",kind="{kind}",window="{window}"'
    return f"telemetryd_pressure_stalled_ratio{{{pairs}}}"


def test_totals_are_in_seconds_and_averages_are_ratios(tree: Path) -> None:
    pressure, faults = pressure_at(tree)
    values = values_of(pressure)
    assert values[total("cpu", "some")] == 8.434684
    assert values[total("memory", "full")] == 21e-6
    assert values[total("irq", "full")] == 5
    assert values[ratio("io", "some", "10s")] == 1
    assert values[ratio("memory", "full", "60s")] == pytest.approx(0.001)
    assert len(values) == 18
    assert not faults


def test_cpu_has_no_full_pressure_of_a_whole_machine(tree: Path) -> None:
    assert total("cpu", "full") not in values_of(pressure_at(tree)[0])


def test_a_value_that_changes_is_read_again(tree: Path) -> None:
    pressure, _ = pressure_at(tree)
    values_of(pressure)
    later = PRESSURE["proc/pressure/irq"].replace("total=5", "total=6")
    write_tree(tree, {"proc/pressure/irq": later})
    assert values_of(pressure)[total("irq", "full")] == 6


def test_a_kernel_without_full_and_without_irq_gives_what_it_has(tree: Path) -> None:
    cpu = PRESSURE["proc/pressure/cpu"].splitlines(keepends=True)[0]
    write_tree(tree, {"proc/pressure/cpu": cpu})
    (tree / "proc/pressure/irq").unlink()
    pressure, faults = pressure_at(tree)
    values = values_of(pressure)
    assert values[total("cpu", "some")] == 8.434684
    assert not any("irq" in name for name in values)
    assert not faults


def test_without_psi_the_collector_is_unavailable_and_says_how_to_boot(tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/stat": ""})
    with pytest.raises(Unavailable, match=r"proc/pressure/cpu: No such file.*psi=1.*CONFIG_PSI"):
        pressure_at(tmp_path)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EOPNOTSUPP, "boot with psi=1"), (errno.EACCES, "let the daemon's user read it")],
    ids=["psi=0", "no-permission"],
)
def test_files_that_are_there_and_refuse_to_be_read_make_it_unavailable_with_the_remedy(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    # The kernel at hand refuses neither way, least of all to root.
    class Refusing(Attribute):
        def read(self) -> bytes:
            raise OSError(number, os.strerror(number), self.path)

    monkeypatch.setattr("telemetryd.collectors.pressure.Attribute", Refusing)
    with pytest.raises(Unavailable, match=f"pressure/cpu: {os.strerror(number)}; {remedy}"):
        pressure_at(tree)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "some avg10=0.48 avg60=0.60 avg300=0.27\n",
        "some avg10=0.48 avg60=0.60 avg300=0.27 total=84\nfull avg10=0.4",
        "some avg10=x avg60=0.60 avg300=0.27 total=84\n",
        PRESSURE["proc/pressure/io"].replace("avg10", "avg").replace("avg60", "avg10"),
    ],
    ids=["empty", "without-total", "torn", "no-number", "other-order"],
)
def test_a_file_of_another_form_costs_its_own_series_only(tree: Path, content: str) -> None:
    pressure, faults = pressure_at(tree)
    healthy = values_of(pressure)
    write_tree(tree, {"proc/pressure/io": content})
    values = values_of(pressure)
    assert values == {name: value for name, value in healthy.items() if "io" not in labels(name)}
    assert [reason for reason, _ in faults] == ["parse"]
    assert "pressure/io" in faults[0][1]
    write_tree(tree, PRESSURE)
    assert values_of(pressure) == healthy


def test_a_file_that_fails_costs_its_own_series_only(tree: Path) -> None:
    # Address 0 of our own memory is not mapped: reading it fails with EIO.
    replace(tree / "proc/pressure/io", "/proc/self/mem")
    pressure, faults = pressure_at(tree)
    values = values_of(pressure)
    assert total("memory", "some") in values
    assert total("io", "some") not in values
    assert [reason for reason, _ in faults] == ["io"]
    assert "pressure/io" in faults[0][1]


def test_when_every_file_fails_the_collector_becomes_unavailable(tree: Path) -> None:
    pressure, _ = pressure_at(tree)
    values_of(pressure)
    pressure.close()
    for name in PRESSURE:
        (tree / name).unlink()
    with pytest.raises(Unavailable, match=r"psi=1"):
        values_of(pressure)


def test_this_machine_has_pressure_or_says_why_not() -> None:
    try:
        pressure = Pressure(CollectorConfig(), Host())
    except Unavailable as gone:
        pytest.skip(str(gone))
    first = values_of(pressure)
    second = values_of(pressure)
    assert first.keys() == second.keys()
    assert all(second[name] >= value for name, value in first.items() if "_total" in name)
    assert all(0 <= value <= 1 for name, value in second.items() if "_ratio" in name)

"""What holds for every collector, told of none of them by name."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
from support.nvml import FakeNvml
from support.trees import host_at

from telemetryd import plugins
from telemetryd.collector import Collector
from telemetryd.errors import Unavailable
from telemetryd.host import Host
from telemetryd.metric import Kind, Series

COLLECTORS = sorted(plugins.COLLECTORS)
ROOT = Path(__file__).parent.parent


def _open(name: str, host: Host, folder: Path) -> Collector:
    kind = plugins.collector_class(name)
    settings = {"library": str(FakeNvml(folder).library)} if name == "gpu_nvidia" else {}
    try:
        return kind(kind.Config(**settings), host)
    except Unavailable as gone:
        pytest.skip(f"not on this machine: {gone.why}")


def _samples(collector: Collector, count: int) -> list[dict[Series, float]]:
    taken = []
    for _ in range(count):
        points = list(collector.sample())
        assert len({series for series, _ in points}) == len(points), "a series twice"
        taken.append(dict(points))
    return taken


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_collector_yields_only_declared_metrics_and_finite_values(
    name: str, tmp_path: Path
) -> None:
    collector = _open(name, Host(), tmp_path)
    declared = set(collector.metrics)
    for values in _samples(collector, 2):
        for series, value in values.items():
            assert series.metric in declared or collector.open_ended
            assert type(value) in {int, float}
            assert math.isfinite(value), series
    collector.close()


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_counter_never_falls(name: str, tmp_path: Path) -> None:
    collector = _open(name, Host(), tmp_path)
    first, second = _samples(collector, 2)
    for series, value in first.items():
        # iowait is the one counter of the kernel's that may fall: proc_stat(5).
        if series.metric.kind is Kind.COUNTER and "iowait" not in series.labels:
            assert second.get(series, value) >= value, series
    collector.close()


@pytest.mark.parametrize("name", COLLECTORS)
def test_the_same_series_are_the_same_objects_from_sample_to_sample(
    name: str, tmp_path: Path
) -> None:
    collector = _open(name, Host(), tmp_path)
    first, second = _samples(collector, 2)
    names = {repr(series): series for series in first}
    for series in second:
        assert names.get(repr(series), series) is series
    collector.close()


@pytest.mark.parametrize("name", [name for name in COLLECTORS if name != "self"])
def test_missing_files_make_a_collector_unavailable_with_a_remedy(
    name: str, tmp_path: Path
) -> None:
    kind = plugins.collector_class(name)
    # Not one of its files, and it may be on this machine, or loaded by another test.
    settings = {"library": str(tmp_path / "libnvidia-ml.so.1")} if name == "gpu_nvidia" else {}
    with pytest.raises(Unavailable) as gone:
        kind(kind.Config(**settings), host_at(tmp_path))
    assert gone.value.why
    assert gone.value.remedy


@pytest.mark.parametrize("name", COLLECTORS)
def test_closing_twice_is_safe(name: str, tmp_path: Path) -> None:
    collector = _open(name, Host(), tmp_path)
    _samples(collector, 1)
    collector.close()
    collector.close()


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_collector_watches_only_names_that_its_own_metrics_declare(name: str) -> None:
    kind = plugins.collector_class(name)
    assert len(set(kind.metrics)) == len(kind.metrics)
    for field in kind.Config.model_fields.values():
        assert field.description, "every setting is documented"
    for metric in kind.metrics:
        assert metric.help.endswith(".")
        assert metric.source


@pytest.mark.parametrize("path", sorted((ROOT / "collectors").rglob("*.py")), ids=lambda p: p.stem)
def test_no_collector_opens_an_absolute_path_on_its_own(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "Metric":
                continue  # names its source, opens nothing
            assert called not in {"open", "os.open", "io.open", "Path"}, f"line {node.lineno}"
            for argument in node.args:
                text = argument.value if isinstance(argument, ast.Constant) else None
                assert not (isinstance(text, str) and text.startswith(("/proc", "/sys"))), (
                    f"line {node.lineno}: {text}"
                )


def test_no_tag_and_field_of_a_measurement_share_a_name_which_influxdb_cannot_query() -> None:
    metrics = {m for name in COLLECTORS for m in plugins.collector_class(name).metrics}
    for metric in metrics:
        field = metric.name.removeprefix(f"telemetryd_{metric.subsystem}_")
        assert not any(field in m.labels for m in metrics if m.subsystem == metric.subsystem)


def test_no_two_metrics_share_a_name_or_disagree_about_their_family() -> None:
    headers: dict[str, tuple[object, ...]] = {}
    objects = {
        metric for name in COLLECTORS for metric in plugins.collector_class(name).metrics
    } | {metric for kind in plugins.derivation_classes() for metric in kind.metrics}
    for metric in objects:
        assert metric.family not in headers, metric.name
        headers[metric.family] = (metric.kind, metric.unit, metric.help)

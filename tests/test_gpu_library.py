"""A driver package that is updated under the running daemon: two libraries in one process."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.nvml.library import build
from support.gpus import Node
from support.nvml import FakeNvml

Make = Callable[..., Node]
NEW = "595.10.02"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Make]:
    """Makes a node of fake GPUs; at the end the library was never misused."""
    nodes: list[Node] = []

    def make(gpus: int = 1, model: str = "H100", **settings: Any) -> Node:
        settings.setdefault("events", False)  # their thread takes a moment to end
        nodes.append(Node(tmp_path, gpus, model, **settings))
        return nodes[-1]

    yield make
    for one in nodes:
        one.close()
        assert (one.fake.misuse, one.fake.gpm_samples) == (0, 0)


def lost(values: dict[str, float]) -> dict[str, float]:
    prefix = 'gpu_lost{gpu="'
    return {
        name.removeprefix(prefix)[:-2]: value
        for name, value in values.items()
        if name.startswith(prefix)
    }


def packaged(tmp_path: Path) -> FakeNvml:
    """As packages do it: the library's name is a link to a file with the version in its name."""
    fake = FakeNvml(tmp_path, gpus=2)
    file = fake.folder / "libnvidia-ml.so.590.48.01"
    fake.library.rename(file)
    fake.library.symlink_to(file.name)
    return fake


def update(fake: FakeNvml) -> Path:
    fresh = fake.folder / "fresh"
    fresh.mkdir()
    file = fake.folder / f"libnvidia-ml.so.{NEW}"
    build(fresh, version=NEW).rename(file)
    (fresh / "link").symlink_to(file.name)
    (fresh / "link").rename(fake.library)
    return file


def rename_over(fake: FakeNvml) -> Path:
    """The new file gets the old one's name."""
    fresh = fake.folder / "fresh"
    fresh.mkdir()
    return build(fresh, version=NEW).rename(os.path.realpath(fake.library))


def driver_of(values: dict[str, float]) -> list[str]:
    return [name.split('"')[3] for name in values if name.startswith("gpu_driver_info")]


@pytest.mark.parametrize(
    ("prepare", "replace"),
    [(packaged, update), (packaged, rename_over), (FakeNvml, rename_over)],
    ids=["link to another file", "link to another file of the same name", "another file"],
)
def test_an_updated_driver_is_used_in_the_same_process_once_its_module_is_loaded(
    node: Make,
    tmp_path: Path,
    prepare: Callable[[Path], FakeNvml],
    replace: Callable[[FakeNvml], Path],
) -> None:
    fake = prepare(tmp_path)
    one = node(fake=fake, include=["0000:1b:*"])
    assert driver_of(one.sample()) == ["590.48.01"]
    fake.set({"kernel.version": NEW})
    fake.reload_driver()
    one.sample()
    assert lost(one.sample(after=5)) == {"0": 1}
    reason, what = one.faults[-1]
    assert reason == "driver"
    assert "version mismatch" in what.lower()
    replace(fake)
    one.sample(after=10)
    values = one.sample()
    assert lost(values) == {"0": 0}
    assert driver_of(values) == [NEW]
    one.collector.close()
    loaded = one.collector._driver._loaded
    assert loaded is not fake.so, "the old one stays beside it"
    assert ctypes.c_int.in_dll(loaded, "fake_nvml_misuse").value == 0
    assert ctypes.c_int.in_dll(loaded, "fake_nvml_gpm_samples").value == 0


def test_an_updated_library_is_not_used_while_the_old_module_is_loaded(
    node: Make, tmp_path: Path
) -> None:
    fake = packaged(tmp_path)
    fake.set({"kernel.version": "590.48.01"})
    one = node(fake=fake)
    one.sample()
    update(fake)
    fake.lose(1)
    one.sample()
    values = one.sample(after=5)
    assert one.fake.call_counts()["nvmlInitWithFlags"] == 2
    assert lost(values) == {"0": 0, "1": 1}
    assert driver_of(values) == ["590.48.01"]


def test_a_new_library_that_cannot_be_loaded_is_named_and_tried_again(
    node: Make, tmp_path: Path
) -> None:
    fake = packaged(tmp_path)
    one = node(fake=fake)
    one.sample()
    fake.set({"kernel.version": NEW})
    fake.reload_driver()
    file = update(fake)
    good = file.read_bytes()
    shutil.copyfile(__file__, fake.folder / "half")
    (fake.folder / "half").rename(file)
    one.sample()
    one.sample(after=5)
    assert f"loading {fake.folder}" in one.faults[-1][1]
    (fake.folder / "whole").write_bytes(good)
    (fake.folder / "whole").rename(file)
    one.sample(after=10)
    assert lost(one.sample()) == {"0": 0, "1": 0}


def test_a_library_that_was_removed_from_the_disk_goes_on_working(
    node: Make, tmp_path: Path
) -> None:
    fake = packaged(tmp_path)
    one = node(fake=fake)
    one.sample()
    Path(os.path.realpath(fake.library)).unlink()
    fake.reload_driver()
    one.sample()
    one.sample(after=5)
    assert lost(one.sample()) == {"0": 0, "1": 0}

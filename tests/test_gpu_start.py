"""Where the collector of NVIDIA GPUs finds something to watch, and what it says if not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gpus import Node
from support.nvml import FakeNvml

from telemetryd.collectors.gpu_nvidia import GpuNvidia, GpuNvidiaConfig
from telemetryd.errors import Unavailable
from telemetryd.host import Host

ROOT = Path(__file__).parent.parent
Make = Callable[..., Node]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Make]:
    """Makes a node of fake GPUs; at the end the library was never misused."""
    nodes: list[Node] = []

    def make(gpus: int = 1, model: str = "H100", **settings: Any) -> Node:
        nodes.append(Node(tmp_path, gpus, model, **settings))
        return nodes[-1]

    yield make
    for one in nodes:
        one.close()
        assert (one.fake.misuse, one.fake.gpm_samples) == (0, 0)


def unavailable(fake: FakeNvml, **settings: Any) -> Unavailable:
    settings.setdefault("library", str(fake.library))
    with pytest.raises(Unavailable) as refused:
        GpuNvidia(GpuNvidiaConfig(**settings), Host())
    assert fake.misuse == 0
    return refused.value


# Nothing to watch

IMPORTS = """
import sys
import telemetryd.collectors.gpu_nvidia as gpu_nvidia
from telemetryd.errors import Unavailable
from telemetryd.host import Host
assert "pynvml" not in sys.modules and "ctypes" not in sys.modules, "by importing it"
config = gpu_nvidia.GpuNvidiaConfig(library="libnvidia-ml-of-nobody.so.1")
try:
    gpu_nvidia.GpuNvidia(config, Host())
except Unavailable as gone:
    print(gone.why, gone.remedy, sep="|")
assert "pynvml" not in sys.modules, "by looking for it"
"""


def test_a_machine_without_a_driver_says_so_and_loads_no_binding() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    why, _, remedy = done.stdout.partition("|")
    assert "no NVIDIA driver: libnvidia-ml-of-nobody.so.1" in why
    assert "collectors.gpu_nvidia.library" in remedy


def test_a_library_that_is_no_library_is_no_driver(tmp_path: Path) -> None:
    text = tmp_path / "libnvidia-ml.so.1"
    text.write_text("not ELF")
    with pytest.raises(Unavailable, match="no NVIDIA driver"):
        GpuNvidia(GpuNvidiaConfig(library=str(text)), Host())


def test_a_library_of_something_else_is_not_used() -> None:
    with pytest.raises(Unavailable, match="nvmlInit: Function Not Found"):
        GpuNvidia(GpuNvidiaConfig(library="libc.so.6"), Host())


def test_without_nvidia_ml_py_the_remedy_is_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gone = unavailable(FakeNvml(tmp_path))
    assert gone.remedy == "install the Python package nvidia-ml-py"


def test_a_driver_that_is_not_loaded_names_the_remedy(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path)
    fake.set({"init.ret": 9})
    gone = unavailable(fake)
    assert "nvmlInit: Driver Not Loaded (9); load the driver (modprobe nvidia)" in gone.why
    fake.remove("init.ret")
    GpuNvidia(GpuNvidiaConfig(library=str(fake.library)), Host()).close()


def test_a_driver_without_a_gpu_leaves_nothing_open(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=0)
    assert "shows no GPU to watch" in unavailable(fake).why
    counts = fake.call_counts()
    assert counts["nvmlShutdown"] == counts["nvmlInitWithFlags"] == 1


def test_gpus_that_are_all_filtered_out_are_none(tmp_path: Path) -> None:
    gone = unavailable(FakeNvml(tmp_path, gpus=2), exclude=["GPU-*"])
    assert "include and exclude of collectors.gpu_nvidia" in gone.remedy


def test_gpus_that_all_fail_at_the_start_say_why(tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    fake.lose(0)
    fake.lose(1)
    assert "GPU 0: nvmlDeviceGetHandleByIndex_v2: GPU is lost (15)" in unavailable(fake).why
    counts = fake.call_counts()
    assert counts["nvmlShutdown"] == counts["nvmlInitWithFlags"]
    assert counts["nvmlEventSetFree"] == counts["nvmlEventSetCreate"]


def test_looking_for_a_gpu_again_and_again_takes_no_more_memory(tmp_path: Path) -> None:
    import ctypes

    fake = FakeNvml(tmp_path, gpus=0)
    unavailable(fake)
    before = len(ctypes.Structure.__subclasses__())
    for _ in range(5):
        unavailable(fake)
    assert len(ctypes.Structure.__subclasses__()) == before


# Filters


def uuid(node: Node, gpu: int) -> str:
    return str(node.fake.state[f"g{gpu}.uuid"])


@pytest.mark.parametrize(
    ("settings", "watched"),
    [
        ({"include": ["0000:2b:00.0"]}, {"1"}),
        ({"include": ["00000000:2B:00.0"]}, {"1"}),
        ({"exclude": ["0000:2b:*"]}, {"0", "2"}),
        ({"include": ["0000:1b:*", "0000:2b:*"], "exclude": ["0000:1b:00.0"]}, {"1"}),
    ],
)
def test_gpus_are_chosen_by_pci_address(
    node: Make, settings: dict[str, list[str]], watched: set[str]
) -> None:
    values = node(gpus=3, **settings).sample()
    assert {gpu for gpu in "012" if f'gpu_busy_ratio{{gpu="{gpu}"}}' in values} == watched
    assert {gpu for gpu in "012" if f'gpu_lost{{gpu="{gpu}"}}' in values} == watched
    assert {gpu for gpu in "012" if f'gpu_xid_errors_total{{gpu="{gpu}",xid="79"}}' in values} == (
        watched
    )


def test_gpus_are_chosen_by_uuid(node: Make, tmp_path: Path) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    values = node(fake=fake, exclude=[str(fake.state["g0.uuid"])]).sample()
    assert 'gpu_busy_ratio{gpu="1"}' in values
    assert not [name for name in values if 'gpu="0"' in name]

"""The gpu_amd collector on copies of trees that a test changes, on a fake clock."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.clock import FakeClock
from support.trees import FIXTURES, host_at, values_of
from telemetryd.collectors.gpu_amd import GpuAmd

TREES = FIXTURES / "gpu_amd"
MI300X = "sys/devices/pci0000:00/0000:00:01.1/0000:05:00.0"
SECOND = "sys/devices/pci0000:00/0000:00:01.1/0000:15:00.0"
ANSWERS_EIO = "/proc/self/mem"


class Machine:
    """A copy of a tree that can be changed, read on a fake clock."""

    def __init__(self, tree: str, root: Path, **config: object) -> None:
        self.root = shutil.copytree(TREES / tree, root / "machine", symlinks=True)
        self.clock = FakeClock()
        self.faults: list[tuple[str, str]] = []
        chosen = GpuAmd.Config.model_validate(config)
        self.gpus = GpuAmd(chosen, host_at(self.root, self.clock))
        self.gpus.on_fault = lambda reason, what: self.faults.append((reason, what))

    def values(self, after: float = 1.0) -> dict[str, float]:
        self.clock.tick(after)
        return {_short(name): value for name, value in values_of(self.gpus).items()}

    def write(self, file: str, text: str, gpu: str = MI300X) -> None:
        path = self.root / gpu / file
        if path.is_symlink():
            path.unlink()
        path.write_text(text)

    def break_(self, file: str, gpu: str = MI300X) -> None:
        path = self.root / gpu / file
        path.unlink()
        path.symlink_to(ANSWERS_EIO)
        self.gpus.close()  # what is open would answer on; it is opened again

    def break_all(self, gpu: str = MI300X) -> None:
        """As if the GPU did not answer its driver: what asks the hardware fails."""
        for file in ("gpu_busy_percent", "mem_busy_percent"):
            self.break_(file, gpu)
        for path in (self.root / gpu).glob("hwmon/*/*_input"):
            self.break_(str(path.relative_to(self.root / gpu)), gpu)


def _short(name: str) -> str:
    """'busy_ratio{gpu="card1"}' of a name with its uuid and prefix."""
    family, _, labels = name.removeprefix("telemetryd_gpu_").partition("{")
    kept = [one for one in labels.rstrip("}").split(",") if not one.startswith("uuid=")]
    return f"{family}{{{','.join(kept)}}}"


def values_of_tree(tree: str, tmp_path: Path) -> dict[str, float]:
    machine = Machine(tree, tmp_path)
    values = machine.values()
    assert machine.faults == []
    infos = ("info{", "driver_info{")
    return {name: value for name, value in values.items() if not name.startswith(infos)}


def of_card(card: str, **values: float) -> dict[str, float]:
    """Expected values: `clock_hertz__clock__graphics` has a label."""
    named = {}
    for key, value in values.items():
        family, *labels = key.split("__")
        texts = [f'{k}="{v}"' for k, v in zip(labels[::2], labels[1::2], strict=True)]
        texts.insert(0, f'gpu="{card}"')
        named[f"{family}{{{','.join(texts)}}}"] = value
    return named

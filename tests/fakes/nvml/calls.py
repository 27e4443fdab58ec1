"""Calls of nvidia-ml-py that the tests of the fake library make again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pynvml
from support.nvml import FakeNvml


@contextmanager
def two_h100(folder: Path) -> Iterator[FakeNvml]:
    """Two fake H100, their clock standing, initialised."""
    fake = FakeNvml(folder, gpus=2)
    fake.advance(0)
    with fake.bound():
        pynvml.nvmlInit()
        yield fake


def gpu(index: int = 0) -> Any:
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def code(call: Callable[..., Any], *arguments: Any) -> int:
    """The error that a call answers with; 0 if none."""
    try:
        call(*arguments)
    except pynvml.NVMLError as error:
        return int(error.value)
    return 0


def field(handle: Any, field_id: int, scope: int = 0) -> Any:
    return pynvml.nvmlDeviceGetFieldValues(handle, [(field_id, scope)])[0]

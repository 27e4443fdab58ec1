"""The fake driver library, compiled with gcc from the files beside this one."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
SONAME = "libnvidia-ml.so.1"
FLAGS = ["-std=gnu11", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wall"]


@functools.cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="telemetryd-fake-nvml-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def compile_library(*, old_driver: bool, version: str, without: Sequence[str] = ()) -> Path:
    """The library of such a driver, compiled unless this run of the tests has it already."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler (gcc)")
    sources = sorted(SOURCES.glob("*.c"))
    flags = [*FLAGS, f'-DFAKE_VERSION="{version}"', *["-DOLD_DRIVER"] * old_driver]
    digest = hashlib.sha256(repr((flags, sorted(without))).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    library = _scratch() / f"{digest.hexdigest()[:16]}.so"
    if not library.exists():
        if without:
            script = library.with_suffix(".map")
            script.write_text("{ local: " + " ".join(f"{name};" for name in without) + " };\n")
            flags.append(f"-Wl,--version-script={script}")
        command = ["gcc", *flags, f"-Wl,-soname,{SONAME}", "-o", library, *sources, "-ldl"]
        subprocess.run(command, check=True)
    return library


def build(
    folder: Path,
    *,
    old_driver: bool = False,
    version: str = "590.48.01",
    without: Sequence[str] = (),
) -> Path:
    """A fresh copy of the library in `folder`; `without` names functions that it shall lack."""
    compiled = compile_library(old_driver=old_driver, version=version, without=without)
    return Path(shutil.copyfile(compiled, folder / SONAME))

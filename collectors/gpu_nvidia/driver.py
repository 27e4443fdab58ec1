"""The NVIDIA driver's library, NVML: loading it, opening and closing it, what its codes mean.

nvidia-ml-py (imported as pynvml) costs 5 MiB, and so is imported only where the library is. It
keeps the library in a global of its own, so that one Driver is open at a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING

from telemetryd.errors import ReadError, Unavailable

if TYPE_CHECKING:
    from ctypes import CDLL

Function = Callable[..., int]

_RTLD_DI_LINKMAP = 2  # dlinfo(3)

OK = 0
UNSUPPORTED = frozenset({2, 3, 13, 25, 26})  # also an argument or a structure it does not know
NO_PERMISSION = 4
ABSENT = frozenset({6, 21, 27})  # not found, no data, not ready
INSUFFICIENT_SIZE = 7
TIMEOUT = 10
FUNCTION_NOT_FOUND = 13
MISMATCH = 18
# Uninitialized, driver not loaded, GPU lost, library of another version, GPU not found.
LIFECYCLE = frozenset({1, 9, 15, MISMATCH, 28})
# Reset required, unknown: a GPU that is on its way there, if it goes on.
ODD = frozenset({16, 999})

_REASONS = {
    **dict.fromkeys(UNSUPPORTED, "unsupported"),
    **dict.fromkeys(LIFECYCLE, "driver"),
    NO_PERMISSION: "permission",
    TIMEOUT: "timeout",
    15: "lost",
    28: "lost",
    16: "lost",
}
_REMEDIES = {
    1: "the driver was reloaded; NVML is opened again",
    NO_PERMISSION: "run as root, or give the service the device /dev/nvidia*",
    9: "load the driver (modprobe nvidia); see dmesg for why it is not",
    15: "drain the node and reset the GPU (nvidia-smi -r), or reboot; see dmesg for its XID",
    16: "drain the node and reset the GPU (nvidia-smi -r), or reboot",
    MISMATCH: "the driver was updated: reload its kernel module, or reboot",
    28: "see dmesg",
    999: "see dmesg",
}


class NvmlError(ReadError):
    """NVML answered with an error. `code` is its number, `what` the call and the GPU."""

    def __init__(self, code: int, what: str) -> None:
        remedy = _REMEDIES.get(code)
        super().__init__(
            _REASONS.get(code, "io"),
            f"{what}: {_name(code)}" + (f"; {remedy}" if remedy else ""),
        )
        self.code = code

    @property
    def is_lifecycle(self) -> bool:
        return self.code in LIFECYCLE


def _name(code: int) -> str:
    pynvml = sys.modules.get("pynvml")
    try:
        return f"{pynvml.NVMLError(code)} ({code})" if pynvml is not None else f"NVML error {code}"
    except Exception:  # noqa: BLE001  (a library that is gone cannot name its errors)
        return f"NVML error {code}"


class Driver:
    """NVML, loaded from `library` (a name that the loader finds, or a path) and not yet open.

    Raises Unavailable if there is no such library, or no nvidia-ml-py to use it with.
    """

    def __init__(self, library: str) -> None:
        from ctypes import CDLL  # noqa: PLC0415  (costs memory where there is no GPU)

        try:
            self._load = CDLL
            loaded = CDLL(library)
        except OSError as error:
            raise Unavailable(
                f"no NVIDIA driver: {error}",
                "install the NVIDIA driver, or set collectors.gpu_nvidia.library to its "
                "libnvidia-ml.so.1",
            ) from error
        try:
            import pynvml  # noqa: PLC0415  (the same)
        except ImportError as error:
            raise Unavailable(
                f"nvidia-ml-py cannot be imported: {error}",
                "install the Python package nvidia-ml-py",
            ) from error
        self._loaded = loaded
        self._name = _name_of(loaded)
        self._libraries = {_file_at(self._name): loaded}
        self.nvml: ModuleType = pynvml
        self.is_open = False

    def open(self) -> None:
        """Begin, or begin again. Raises NvmlError.

        The library that is loaded suits the kernel's module until that is replaced, too: however
        new the file on the disk is, it is loaded only when the old one does not suit any more.
        """
        self.close()
        code, before = self._begin(), self._loaded
        if code == MISMATCH and self._load_newer():
            code = self._begin()
            if code != OK:
                self._loaded = before
        if code != OK:
            raise NvmlError(code, "nvmlInit")
        self.is_open = True

    def close(self) -> None:
        """End. To be called when no call is under way and nothing is held any more."""
        if self.is_open:
            self.is_open = False
            with suppress(NvmlError):  # it may be gone already
                self.call("nvmlShutdown")

    def _begin(self) -> int:
        """Let nvidia-ml-py use this library, and begin. Returns NVML's code."""
        vars(self.nvml)["nvmlLib"] = self._loaded
        self.nvml._nvmlGetFunctionPointer_cache.clear()  # noqa: SLF001  (it has no other way)
        try:
            self.nvml.nvmlInit()
        except self.nvml.NVMLError as error:
            return int(error.value)
        return OK

    def _load_newer(self) -> bool:
        """Load the file that has taken the library's place; the old one stays beside it. False if
        there is none."""
        file, before = _file_at(self._name), self._loaded
        if file is None:
            return False
        if file not in self._libraries:
            folder, name = os.path.split(file[0])
            # The loader knows files by their names: the same one would be the old library again.
            path = os.path.join(folder, *["."] * len(self._libraries), name)
            try:
                self._libraries[file] = self._load(path)
            except OSError as error:
                raise NvmlError(MISMATCH, f"loading {path}: {error}") from error
        self._loaded = self._libraries[file]
        return self._loaded is not before

    def function(self, name: str) -> Function | None:
        """A function of the library, which returns NVML's code; None if this version has none."""
        found: Function | None = getattr(self._loaded, name, None)
        return found

    def call(self, name: str, *arguments: object) -> None:
        """Call a function that is not called again and again. Raises NvmlError."""
        function = self.function(name)
        code = FUNCTION_NOT_FOUND if function is None else function(*arguments)
        if code != OK:
            raise NvmlError(code, name)

    def number(self, name: str, *arguments: object) -> int:
        """The unsigned number that a function gives for these arguments. Raises NvmlError."""
        from ctypes import byref, c_uint  # noqa: PLC0415

        value = c_uint()
        self.call(name, *arguments, byref(value))
        return value.value

    def text(self, name: str, *arguments: object) -> str:
        """The text that a function gives; bytes that are not UTF-8 as surrogates.

        Raises NvmlError.
        """
        from ctypes import create_string_buffer  # noqa: PLC0415

        buffer = create_string_buffer(96)
        self.call(name, *arguments, buffer, len(buffer))
        return os.fsdecode(buffer.value).strip()


def _name_of(loaded: CDLL) -> str | None:
    """The name under which the loader found a library; None if it does not tell."""
    from ctypes import CDLL, byref, c_char_p, c_void_p, sizeof  # noqa: PLC0415

    where = c_void_p()
    dlinfo = getattr(CDLL(None), "dlinfo", None)
    handle = c_void_p(loaded._handle)  # noqa: SLF001  (ctypes' own way, dlclose needs it too)
    if dlinfo is None or dlinfo(handle, _RTLD_DI_LINKMAP, byref(where)) != 0 or not where.value:
        return None
    # struct link_map is an address, and then the name.
    name = c_char_p.from_address(where.value + sizeof(c_void_p)).value
    return os.fsdecode(name) if name else None


def _file_at(name: str | None) -> tuple[str, int, int] | None:
    """The file that a name stands for now: its path, device and inode; None if there is none."""
    if name is None:
        return None
    path = os.path.realpath(name)
    try:
        found = os.stat(path)
    except OSError:
        return None
    return path, found.st_dev, found.st_ino

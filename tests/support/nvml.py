"""A driver library for tests: fake GPUs that the real nvidia-ml-py talks to.

    fake = FakeNvml(tmp_path, gpus=8, model="H100")
    pynvml.nvmlLib = ctypes.CDLL(str(fake.library))     # or `with fake.bound():`
    fake.busy(0)                        # GPU 0 as under a burn-in load
    fake.gpu(0, temp=84)                # one reading; {"fi.185.ret": 4} for those with dots
    fake.error("nvmlDeviceGetPowerUsage", 4, gpu=1)
    fake.advance(10)                    # stops the fake's clock, and moves it

The library is compiled from tests/fakes/nvml with gcc, once per run of the tests; every FakeNvml
has a copy of its own, so that nothing is left over from the test before. It reads its state from
`fake_nvml.state` beside it, whichever process loads it: a daemon needs no more than its path. The
keys of the state and their grammar stand at the top of tests/fakes/nvml/state.c; what GPUs answer
to begin with in tests/fakes/nvml/models.py.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fakes.nvml.library import build
from fakes.nvml.mig import Layout, divide
from fakes.nvml.models import MODELS, Value, identity, power_mw

XID = 8


@dataclass(frozen=True)
class Process:
    """A process on a GPU. `sm` is its share of the multiprocessors in percent, None: no sample."""

    pid: int
    memory: int
    name: str = ""
    sm: int | None = None
    kind: str = "C"
    gi: int | None = None
    ci: int | None = None


class FakeNvml:
    """A node's fake GPUs: the library's file and the state that it reads.

    `old_driver` is one of 2021. Each method writes the state once; `with fake.batch():` once for
    all that is in it.
    """

    def __init__(
        self,
        folder: Path,
        gpus: int = 8,
        model: str = "H100",
        *,
        old_driver: bool = False,
        version: str | None = None,
        without: Sequence[str] = (),
    ) -> None:
        version = version or ("470.256.02" if old_driver else "590.48.01")
        self.folder = Path(tempfile.mkdtemp(prefix="nvml-", dir=folder))
        self.library = build(self.folder, old_driver=old_driver, version=version, without=without)
        self.state_file = self.folder / "fake_nvml.state"
        self.model = MODELS[model]
        self.state: dict[str, Value] = {"count": gpus, "event.last": 0}
        self._batches = 0
        self._saves = 0
        self._mig_ids = 0
        with self.batch():
            for gpu in range(gpus):
                self.gpu(gpu, identity(self.model, gpu) | self.model.facts)
                self.gpu(gpu, energy_mj=f"{1_000_000_000 + gpu * 1_000_000}+0@{self.seconds}")
                self.idle(gpu)
        self._so: ctypes.CDLL | None = None

    # --- the state ------------------------------------------------------------------------------

    def set(self, changes: Mapping[str, Value | None] | None = None, **more: Value | None) -> None:
        """Set keys of the state; None removes one."""
        for key, value in {**(changes or {}), **more}.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        self.save()

    def gpu(
        self, gpu: int, changes: Mapping[str, Value | None] | None = None, **more: Value | None
    ) -> None:
        """Set keys of one GPU."""
        self.set({f"g{gpu}.{key}": value for key, value in {**(changes or {}), **more}.items()})

    def remove(self, *keys: str) -> None:
        self.set(dict.fromkeys(keys))

    def remove_from(self, gpu: int, *keys: str) -> None:
        self.gpu(gpu, dict.fromkeys(keys))

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is changed herein is seen all at once."""
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1
            self.save()

    def save(self) -> None:
        if self._batches:
            return
        self._saves += 1
        new = self.state_file.with_suffix(".new")
        new.write_text("".join(f"{key}={value}\n" for key, value in self.state.items()))
        # The library looks at size, inode and time: two files within one tick of the file
        # system's clock may have all three in common, unless their times are ours.
        os.utime(new, ns=(self._saves, self._saves))
        new.rename(self.state_file)

    # --- time -----------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """The fake's clock."""
        return float(self.state.get("clock", 0)) or time.monotonic()

    def advance(self, seconds: float) -> None:
        """Stop the fake's clock if it still runs, and move it."""
        self.set(clock=self.seconds + seconds)

    def run_clock(self) -> None:
        """Let the fake's clock be the machine's again."""
        self.remove("clock")

    def value(self, gpu: int, key: str) -> float:
        """What a number is now."""
        base, _, rest = str(self.state[f"g{gpu}.{key}"]).partition("+")
        rate, _, since = rest.partition("@")
        return float(base) + (float(rate) * (self.seconds - float(since or 0)) if rate else 0)

    def rate(self, gpu: int, key: str, per_second: float) -> None:
        """Let a counter grow so fast from now on; it goes on from where it is."""
        now = self.seconds
        start = self.value(gpu, key) if f"g{gpu}.{key}" in self.state else 0
        self.gpu(gpu, {key: f"{start:.6f}+{per_second}@{now!r}"})

    # --- load -----------------------------------------------------------------------------------

    def _gpus(self, gpu: int | None) -> Iterable[int]:
        return range(int(self.state["count"])) if gpu is None else (gpu,)

    def idle(self, gpu: int | None = None) -> None:
        """A GPU, or all, as without any work."""
        self._load(gpu, {"mem_used": 0, "bar1_used": 0} | self.model.idle)

    def busy(self, gpu: int | None = None) -> None:
        """A GPU, or all, as under a burn-in load."""
        self._load(gpu, self.model.busy)

    def _load(self, gpu: int | None, readings: Mapping[str, Value]) -> None:
        with self.batch():
            for each in self._gpus(gpu):
                self.gpu(each, readings)
                if f"g{each}.energy_mj" in self.state:
                    self.rate(each, "energy_mj", power_mw(dict(readings)))

    def processes(self, gpu: int, *processes: Process) -> None:
        """Who uses a GPU from now on."""
        with self.batch():
            for key in [key for key in self.state if key.startswith(f"g{gpu}.proc.")]:
                del self.state[key]
            self.gpu(gpu, procs=len(processes))
            for i, process in enumerate(processes):
                keys = {
                    "pid": process.pid,
                    "mem": process.memory,
                    "type": process.kind,
                    "sm": process.sm,
                    "gi": process.gi,
                    "ci": process.ci,
                }
                self.gpu(gpu, {f"proc.{i}.{key}": value for key, value in keys.items()})
                if process.name:
                    self.set({f"name.{process.pid}": process.name})

    # --- what goes wrong --------------------------------------------------------------------------

    def _rule(self, function: str | None, what: str, gpu: int | None) -> str:
        of_gpu = "" if gpu is None else f"g{gpu}."
        return of_gpu + ("" if function is None else f"fn.{function}.") + what

    def error(self, function: str | None, code: int, gpu: int | None = None) -> None:
        """Let a function (None: all) fail, of one GPU or everywhere."""
        self.set({self._rule(function, "ret", gpu): code})

    def clear_error(self, function: str | None, gpu: int | None = None) -> None:
        self.remove(self._rule(function, "ret", gpu))

    def delay(self, function: str | None, seconds: float, gpu: int | None = None) -> None:
        """Let a function (None: all) take so long; 0 as long as it takes."""
        us = int(seconds * 1e6)
        self.set({self._rule(function, "delay_us", gpu): us or None})

    def hang(self, function: str | None = None, gpu: int | None = None) -> None:
        """Let a function (None: all) not return until `release`."""
        self.set({self._rule(function, "hang", gpu): 1})

    def release(self) -> None:
        """Let every call that hangs go on."""
        self.remove(*[key for key in self.state if key.endswith("hang")])

    def lose(self, gpu: int) -> None:
        """A GPU falls off the bus."""
        self.gpu(gpu, lost=1)

    def find(self, gpu: int) -> None:
        """A lost GPU is back."""
        self.gpu(gpu, lost=None)

    def xid(
        self, gpu: int, *xids: int, gi: int | None = None, ci: int | None = None, kind: int = XID
    ) -> None:
        """The driver reports XIDs, all at once."""
        with self.batch():
            for xid in xids:
                last = int(self.state["event.last"]) + 1
                instance = "" if gi is None else f" {gi} {ci or 0}"
                self.set({f"event.{last}": f"{gpu} {kind} {xid}{instance}", "event.last": last})
                self.remove(f"event.{last - 100}")

    def reload_driver(self) -> None:
        """Unload and load the driver: the library must be shut down, and counters start anew."""
        with self.batch():
            self.set({"driver.generation": int(self.state.get("driver.generation", 0)) + 1})
            for key, value in list(self.state.items()):
                if key.startswith("g") and "+" in str(value):
                    rate = str(value).partition("+")[2].partition("@")[0]
                    self.state[key] = f"0+{rate}@{self.seconds!r}"

    # --- MIG --------------------------------------------------------------------------------------

    def mig(self, gpu: int, layout: Layout | None) -> None:
        """Divide a GPU anew: profiles of GPU instances, or (profile, its compute instances).

        `["3g.40gb", ("2g.20gb", ["1c", "1c"])]`; [] leaves MIG on without an instance, None turns
        it off. Every instance is a new one. Their ids are as the driver gives them.
        """
        with self.batch():
            for key in [
                key for key in self.state if key.startswith((f"g{gpu}.mig.", f"g{gpu}.gi."))
            ]:
                del self.state[key]
            self.gpu(gpu, mig=int(layout is not None), mig_pending=int(layout is not None))
            keys, self._mig_ids = divide(self.model, gpu, layout or (), self._mig_ids)
            self.gpu(gpu, keys)

    # --- what the library counted, in this process ------------------------------------------------

    @property
    def so(self) -> ctypes.CDLL:
        if self._so is None:
            self._so = ctypes.CDLL(str(self.library))
        return self._so

    @property
    def busy_ns(self) -> int:
        """CPU time that callers spent in the library."""
        return int(ctypes.c_ulonglong.in_dll(self.so, "fake_nvml_busy_ns").value)

    @property
    def calls(self) -> int:
        return int(ctypes.c_ulonglong.in_dll(self.so, "fake_nvml_calls").value)

    @property
    def misuse(self) -> int:
        """What a real driver would punish: use after free, shutdown in the midst of calls."""
        return int(ctypes.c_int.in_dll(self.so, "fake_nvml_misuse").value)

    @property
    def gpm_samples(self) -> int:
        """GPM samples that were not freed."""
        return int(ctypes.c_int.in_dll(self.so, "fake_nvml_gpm_samples").value)

    def call_counts(self) -> dict[str, int]:
        """How often each function was called."""
        self.so.fake_nvml_call_counts.restype = ctypes.c_char_p
        text: bytes = self.so.fake_nvml_call_counts()
        pairs = (line.partition("=") for line in text.decode().splitlines())
        return {name: int(count) for name, _, count in pairs}

    @contextmanager
    def bound(self) -> Iterator[None]:
        """pynvml talks to this library; it is shut down and forgotten at the end."""
        import pynvml

        before = pynvml.nvmlLib
        pynvml.nvmlLib = self.so
        pynvml._nvmlGetFunctionPointer_cache.clear()
        try:
            yield
        finally:
            self.release()
            while self.so.nvmlShutdown() == 0:
                pass
            pynvml.nvmlLib = before
            pynvml._nvmlGetFunctionPointer_cache.clear()
            pynvml._nvmlLib_refcount = 0

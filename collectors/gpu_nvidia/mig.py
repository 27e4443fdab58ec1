"""MIG: a GPU divided into GPU instances, each with memory of its own, and these into compute
instances, which share the memory of theirs.

A compute instance is what a job sees as a GPU; here it is a device of its own, called
GPU / GPU instance / compute instance ("0/3/0"). Two of one GPU instance report the same memory and
activity, so that sums go over distinct GPU instances.
"""

from __future__ import annotations

from ctypes import byref, c_uint, c_void_p

from telemetryd.clock import Clock
from telemetryd.collectors.gpu_nvidia import activity
from telemetryd.collectors.gpu_nvidia.driver import (
    ABSENT,
    LIFECYCLE,
    OK,
    UNSUPPORTED,
    Driver,
    NvmlError,
)
from telemetryd.collectors.gpu_nvidia.families import (
    INSTANCE,
    MIG_ENABLED,
    MIG_MEMORY_TOTAL,
    MIG_MEMORY_USED,
)
from telemetryd.collectors.gpu_nvidia.gpm import Gpm
from telemetryd.collectors.gpu_nvidia.identity import Identity
from telemetryd.collectors.gpu_nvidia.reading import Reading
from telemetryd.collectors.gpu_nvidia.settings import GpuNvidiaConfig
from telemetryd.gpus import MEMORY_TOTAL, MEMORY_USED
from telemetryd.metric import Point, Series

# GPU instance, compute instance, UUID.
_Key = tuple[int, int, str]


class Instance:
    """One compute instance. `info` is what it is, `is_gone` that it answered before and does not
    any more: somebody has taken it apart."""

    def __init__(self, driver: Driver, handle: c_void_p, info: Series, gpm: Gpm | None) -> None:
        self.handle = handle
        self.info = info
        self.labels = info.labels[0], info.labels[1]
        self.total, self.used = MEMORY_TOTAL.at(*self.labels), MEMORY_USED.at(*self.labels)
        self.is_gone = False
        self._memory = Reading("memory", *activity.memory(driver, handle, self.labels))
        self._has_answered = False
        self._gpm = gpm

    def read(self, points: list[Point]) -> int:
        """Its memory, and its activity, which may be refused while the memory is not."""
        code = self._read_memory(points)
        if self._gpm is None or self.is_gone:
            return code
        of_activity = self._gpm.read(points)
        if of_activity in UNSUPPORTED:
            self.close()
            return code
        return code if of_activity in ABSENT else code or of_activity

    def close(self) -> None:
        """Give back what the activity needs; it is not read any more."""
        if self._gpm is not None:
            self._gpm.close()
            self._gpm = None

    def _read_memory(self, points: list[Point]) -> int:
        memory = self._memory
        if memory.read is None:
            return OK
        code = memory.read(points)
        if self._has_answered:
            self.is_gone = code in UNSUPPORTED or code in ABSENT
            return OK if self.is_gone else code
        while code in UNSUPPORTED and memory.fall_back():
            code = memory.read(points)
        self._has_answered = code == OK
        if code in UNSUPPORTED:
            memory.read = None
            return OK
        return OK if code in ABSENT else code


class Instances:
    """The instances of one GPU as they were when last looked at."""

    def __init__(
        self,
        driver: Driver,
        handle: c_void_p,
        identity: Identity,
        config: GpuNvidiaConfig,
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._handle = handle
        self._identity = identity
        self._wants_gpm = config.gpm
        self._clock = clock
        self._is_enabled: bool | None = None
        self._enabled = MIG_ENABLED.at(*identity.labels)
        self._total = MIG_MEMORY_TOTAL.at(*identity.labels)
        self._used = MIG_MEMORY_USED.at(*identity.labels)
        self.all: dict[_Key, Instance] = {}
        self.has_changed = False

    def look(self, points: list[Point]) -> bool:
        """Look at the layout again, and say whether MIG was switched on or off since.

        Raises NvmlError if the GPU is gone.
        """
        self.has_changed = False
        before = self._is_enabled
        try:
            mode = self._mode()
        except NvmlError as code:
            if code.is_lifecycle:
                raise
            mode = before  # what was known holds until the next look
        else:
            if mode is not None:
                points.append((self._enabled, int(mode)))
            self._rebuild(self._find() if mode else {})
        points += [(one.info, 1) for one in self.all.values()]
        self._is_enabled = mode
        return before is not None and before != mode

    def read(self, points: list[Point]) -> int:
        """A reading of all instances, and of their memory together. The code is that of the last
        which failed."""
        if not self.all:
            return OK
        start, failed = len(points), OK
        for instance in self.all.values():
            code = instance.read(points)
            if code in LIFECYCLE:
                return code
            failed = code or failed
            if instance.is_gone:
                self.has_changed = True
        values = dict(points[start:])
        totals: dict[int, float] = {}
        used: dict[int, float] = {}
        for (gpu_instance, _, _), instance in self.all.items():
            if instance.total not in values:
                return failed
            totals[gpu_instance] = values[instance.total]
            used[gpu_instance] = values[instance.used]
        points += ((self._total, sum(totals.values())), (self._used, sum(used.values())))
        return failed

    @property
    def labels(self) -> list[tuple[str, str]]:
        return [one.labels for one in self.all.values()]

    def labels_of(self, gpu_instance: int, compute_instance: int) -> tuple[str, str] | None:
        """The labels of an instance by its numbers; None if it is not known."""
        for key, one in self.all.items():
            if key[:2] == (gpu_instance, compute_instance):
                return one.labels
        return None

    def close(self) -> None:
        self._rebuild({})

    def _mode(self) -> bool | None:
        """None for a GPU that cannot be divided. Raises NvmlError."""
        now, after_reset = c_uint(), c_uint()
        try:
            self._driver.call("nvmlDeviceGetMigMode", self._handle, byref(now), byref(after_reset))
        except NvmlError as code:
            if code.code not in UNSUPPORTED:
                raise
            return None
        return bool(now.value)

    def _find(self) -> dict[_Key, c_void_p]:
        """The handles of the instances that are there. Raises NvmlError if the GPU is gone."""
        found: dict[_Key, c_void_p] = {}
        for place in range(self._places()):
            handle = c_void_p()
            try:
                self._driver.call(
                    "nvmlDeviceGetMigDeviceHandleByIndex", self._handle, place, byref(handle)
                )
                key = (
                    self._driver.number("nvmlDeviceGetGpuInstanceId", handle),
                    self._driver.number("nvmlDeviceGetComputeInstanceId", handle),
                    self._driver.text("nvmlDeviceGetUUID", handle),
                )
            except NvmlError as code:
                if code.is_lifecycle:
                    raise
                continue  # nothing in this place, or taken apart at this very moment
            found[key] = handle
        return found

    def _places(self) -> int:
        try:
            return self._driver.number("nvmlDeviceGetMaxMigDeviceCount", self._handle)
        except NvmlError as code:
            if code.is_lifecycle:
                raise
            return 0

    def _rebuild(self, found: dict[_Key, c_void_p]) -> None:
        """Close the instances that are not there any more, and make those that are new. Raises
        NvmlError if the GPU is gone; what was made until then is closed with the others."""
        for key, instance in list(self.all.items()):
            if key not in found or found[key].value != instance.handle.value or instance.is_gone:
                instance.close()
                del self.all[key]
        for key, handle in found.items():
            if key not in self.all:
                self.all[key] = self._instance(handle, *key)
        self.all = {key: self.all[key] for key in found}

    def _instance(
        self, handle: c_void_p, gpu_instance: int, compute_instance: int, uuid: str
    ) -> Instance:
        info = INSTANCE.at(
            f"{self._identity.gpu}/{gpu_instance}/{compute_instance}",
            uuid,
            *self._identity.labels,
            self._profile(handle),
            str(gpu_instance),
            str(compute_instance),
        )
        gpm = None
        if self._wants_gpm:
            labels = info.labels[0], info.labels[1]
            gpm = Gpm.of_instance(self._driver, self._handle, gpu_instance, labels, self._clock)
        return Instance(self._driver, handle, info, gpm)

    def _profile(self, handle: c_void_p) -> str:
        """Of an instance named "NVIDIA H100 80GB HBM3 MIG 3g.40gb" the last word."""
        try:
            return self._driver.text("nvmlDeviceGetName", handle).rpartition(" MIG ")[2]
        except NvmlError as code:
            if code.is_lifecycle:
                raise
            return ""

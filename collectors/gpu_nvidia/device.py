"""One GPU: its readings of every tick, the slow ones, and what hangs on it."""

from __future__ import annotations

from collections.abc import Iterator
from ctypes import c_void_p
from dataclasses import dataclass, field

from telemetryd.collectors.gpu_nvidia import activity, health, links, power
from telemetryd.collectors.gpu_nvidia.driver import NO_PERMISSION, Driver, NvmlError
from telemetryd.collectors.gpu_nvidia.fields import FieldValues
from telemetryd.collectors.gpu_nvidia.gpm import Gpm
from telemetryd.collectors.gpu_nvidia.identity import Identity
from telemetryd.collectors.gpu_nvidia.mig import Instances
from telemetryd.collectors.gpu_nvidia.processes import Processes
from telemetryd.collectors.gpu_nvidia.reading import Plan, Reading, Report
from telemetryd.collectors.gpu_nvidia.settings import GpuNvidiaConfig
from telemetryd.gpus import MISSING
from telemetryd.host import Host
from telemetryd.metric import Point

_WHY_MISSING = ("unsupported", "permission", "old_driver")


@dataclass(slots=True)
class Answer:
    """What one look at a GPU gave: points, the readings that failed, and whether the GPU or its
    driver is gone; then there are no points."""

    points: list[Point] = field(default_factory=list)
    faults: list[NvmlError] = field(default_factory=list)
    gone: NvmlError | None = None


class Gpu:
    """A GPU that is there, with everything that was looked up of it once.

    `read` is called by one thread at a time. It is not called again before it has returned, so
    that a call that hangs is never doubled.
    """

    def __init__(
        self,
        driver: Driver,
        host: Host,
        handle: c_void_p,
        identity: Identity,
        config: GpuNvidiaConfig,
    ) -> None:
        self.identity = identity
        self.handle = handle
        self._driver = driver
        self._host = host
        self._config = config
        self._answer = Answer()
        self._due_ns = 0
        self._slow: list[Point] = []
        self._plans: tuple[Plan, ...] = ()
        self._values: tuple[FieldValues, ...] = ()
        self._lacking: dict[str, str] = {}
        self._missing_size = -1
        self._missing_points: list[Point] = []
        self._instances = Instances(driver, handle, identity, config, host.clock)
        self._processes: Processes | None = None
        self._gpm: Gpm | None = None
        self._is_prepared = False
        self._is_fresh = False

    def read(self) -> Answer:
        """Everything that is due."""
        answer = self._answer = Answer()
        try:
            if not self._is_prepared:
                self._prepare()
            now_ns = self._host.clock.mono_ns()
            if now_ns >= self._due_ns:
                self._due_ns = now_ns + int(self._config.slow_interval * 1e9)
                self._read_slowly()
            answer.points += self._slow
            self._tick.run(answer.points)
            answer.points += self._count_missing()
            if self._instances.has_changed:
                self._due_ns = 0
        except NvmlError as code:
            # Part of it may have been read; of a GPU that is gone, it would be the last seen.
            answer.gone = code
            answer.points = []
            self._slow = []
            self._due_ns = 0
        return answer

    def lacks(self, name: str, code: NvmlError) -> None:
        """Take note that what is not read here is not there: events."""
        self._lacking[name] = "permission" if code.code == NO_PERMISSION else "unsupported"

    @property
    def missing(self) -> dict[str, str]:
        """The readings that this GPU does not give, and why."""
        missing = dict(self._lacking)
        for part in self._parts():
            missing |= part.missing
        made = {name for plan in self._plans for name in plan.names}
        return {name: why for name, why in missing.items() if name not in made}

    def _parts(self) -> list[Plan | FieldValues]:
        return [*self._plans, *self._values]

    def _count_missing(self) -> list[Point]:
        """How many they are; counted anew when there are more or fewer, or some may be others."""
        size = sum(len(part.missing) for part in self._parts())
        if size != self._missing_size:
            self._missing_size = size
            reasons = list(self.missing.values())
            self._missing_points = [
                (MISSING.at(*self.identity.labels, why), reasons.count(why)) for why in _WHY_MISSING
            ]
        return self._missing_points

    def close(self) -> None:
        """Give back what the library holds for this GPU; to be called while it is open."""
        self._instances.close()
        if self._gpm is not None:
            self._gpm.close()

    def _report(self, code: NvmlError) -> None:
        self._answer.faults.append(code)

    def _prepare(self) -> None:
        """Look up everything, or look it up again after a change of MIG mode."""
        driver, handle, identity, config = self._driver, self.handle, self.identity, self._config
        report: Report = self._report
        scopes = FieldValues(driver, handle, power.scopes(identity), report)
        module = power.has_module(scopes.names)
        fields = [*power.fields(identity, module=module), *activity.fields(identity)]
        values = FieldValues(driver, handle, fields, report)
        slow_values = FieldValues(driver, handle, health.fields(identity), report)
        self._values = (scopes, values, slow_values)
        if self._gpm is not None:
            self._gpm.close()
        self._gpm = Gpm.of_gpu(driver, handle, identity, self._host.clock) if config.gpm else None
        self._processes = (
            Processes(driver, self._host, handle, identity, config.max_processes, self._instances)
            if config.processes
            else None
        )
        self._tick = Plan(self._each_tick(scopes, values, module=module), report)
        self._slowly = Plan(
            [
                Reading("slow fields", slow_values.read),
                *health.readings(driver, handle, identity),
                *links.readings(driver, handle, identity, report),
            ],
            report,
        )
        self._plans = (self._tick, self._slowly)
        self._is_prepared = True
        self._is_fresh = True

    def _each_tick(
        self, scopes: FieldValues, values: FieldValues, *, module: bool
    ) -> Iterator[Reading]:
        yield Reading("power fields", scopes.read)
        yield Reading("fields", values.read)
        asks_pcie = self._config.pcie_throughput and (self._gpm is None)
        gpu = self._driver, self.handle, self.identity
        yield from power.readings(*gpu, scopes.names | values.names, module=module)
        yield from activity.readings(*gpu, pcie_throughput=asks_pcie)
        if self._gpm is not None:
            yield Reading("GPM", self._gpm.read)
        yield Reading("MIG instances", self._instances.read)
        if self._processes is not None:
            yield from self._processes.readings()

    def _read_slowly(self) -> None:
        points: list[Point] = list(self.identity.facts)
        if self._instances.look(points):
            # Another MIG mode: what was not supported may be now, and the other way round.
            self._prepare()
        if not self._is_fresh:
            for part in self._parts():
                part.try_denied()
        self._is_fresh = False
        self._slowly.run(points)
        self._slow = points
        self._missing_size = -1

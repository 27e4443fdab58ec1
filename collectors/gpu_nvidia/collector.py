"""The NVIDIA GPUs of a machine as one collector.

Each GPU is looked up and read by a Relay: a thread that is left behind when a call to the driver
hangs, so that the other GPUs go on. The library is opened once and held: opening it, or a GPU that
nobody holds open, can take more than a second. When a GPU or the driver is gone it is opened again,
later each time, until everything answers; what is left of the others is read meanwhile.

Stopping is ordered: no call is under way, the thread of events has ended, samples are given back,
and only then is the library closed. A call that hangs keeps it open: to end in the middle of a
call to the driver can freeze a GPU.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from telemetryd import gpus, meters
from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.collectors.gpu_nvidia import families
from telemetryd.collectors.gpu_nvidia.driver import UNSUPPORTED, Driver, NvmlError
from telemetryd.collectors.gpu_nvidia.settings import GpuNvidiaConfig
from telemetryd.errors import ReadError, Unavailable
from telemetryd.gpus import DRIVER, LOST
from telemetryd.host import Host
from telemetryd.metric import Point
from telemetryd.worker import Relay

if TYPE_CHECKING:
    from telemetryd.collectors.gpu_nvidia.device import Answer, Gpu
    from telemetryd.collectors.gpu_nvidia.events import Events, XidCounts
    from telemetryd.collectors.gpu_nvidia.identity import Identity

log = logging.getLogger("telemetryd.collectors.gpu_nvidia")

# For all GPUs together; the lane gives up a little later.
_DEADLINE_INTERVALS, _LONGEST_DEADLINE_S = 0.9, 4.5
# Of that, for one GPU: its first look takes a hundred calls.
_PATIENCE = 1 / 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 600.0


class _State(enum.Enum):
    """What came of the last visit to a place."""

    NEW = "not visited yet, or not in time"
    UNWANTED = "the configuration leaves it alone"
    ANSWERS = "read"
    HANGS = "a call has not returned"
    GONE = "lost, or its driver is"


class _Place:
    """Where NVML has a GPU. To look it up may fail or hang just like to read it."""

    __slots__ = ("gpu", "index", "state")

    def __init__(self, index: int) -> None:
        self.index = index
        self.gpu: Gpu | None = None
        self.state = _State.NEW

    @property
    def is_open(self) -> bool:
        """Whether there is any use in a visit before NVML is opened again."""
        if self.gpu is None:
            return self.state not in {_State.UNWANTED, _State.GONE}
        return True


class GpuNvidia(Collector):
    """Raises Unavailable if there is no NVIDIA driver, or it has no GPU."""

    Config = GpuNvidiaConfig
    metrics = (
        *gpus.METRICS, *families.METRICS, meters.ENERGY, meters.POWER,
    )  # fmt: skip
    may_block = True

    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config, host)
        assert isinstance(config, GpuNvidiaConfig)
        self._settings = config
        self._driver = Driver(config.library)
        # Those below need ctypes, which costs memory where there is no GPU.
        from telemetryd.collectors.gpu_nvidia.events import XidCounts  # noqa: PLC0415

        self._xids: XidCounts = XidCounts()
        self._events: Events | None = None
        self._no_events: NvmlError | None = None
        self._places: list[_Place] = []
        self._constants: list[Point] = []
        # The labels of every GPU that was ever here, by UUID.
        self._known: dict[str, tuple[str, str]] = {}
        # Faults from where nobody listens: the start, and other threads.
        self._unreported: list[tuple[Exception, str]] = []
        deadline_s = min(config.interval * _DEADLINE_INTERVALS, _LONGEST_DEADLINE_S)
        self._relay: Relay[_Place, Answer | None] = Relay(
            self._visit, deadline_s, host.clock, name="gpu", patience=_PATIENCE
        )
        self._is_starting = True
        self._opened_ns = 0
        self._again_ns = 0
        self._pause_s = _FIRST_PAUSE_S
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def sample(self) -> list[Point]:
        if self._again_ns and self.host.clock.mono_ns() >= self._again_ns:
            self._reopen()
        while self._unreported:
            self.fault(*self._unreported.pop(0))
        points: list[Point] = []
        for place, answer in self._relay.run(p for p in self._places if p.is_open).items():
            points += self._points_of(place, answer)
        points += self._losses()
        points += self._xids.points()
        points += self._constants
        self._tend()
        return points

    def remarks(self) -> Iterable[str]:
        """One for each reason and set of readings, with the GPUs that it is true of."""
        of: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for gpu in self._gpus():
            reasons: dict[str, list[str]] = {}
            for name, why in gpu.missing.items():
                reasons.setdefault(why, []).append(name)
            for why, names in reasons.items():
                of.setdefault((why, tuple(names)), []).append(gpu.identity.gpu)
        for (why, missing), where in of.items():
            yield f"GPU {', '.join(where)}: {_WHY[why]}: {'; '.join(missing)}"

    def close(self) -> None:
        self._relay.close()
        if self._events is not None:
            self._events.stop()
        if self._relay.stuck:
            return
        if self._events is not None and not self._events.close():
            return
        self._events = None
        for gpu in self._gpus():
            gpu.close()
        self._places = []
        self._constants = []
        self._driver.close()

    def _gpus(self) -> list[Gpu]:
        return [place.gpu for place in self._places if place.gpu is not None]

    # --- opening ----------------------------------------------------------------------------------

    def _start(self) -> None:
        """Open, and see whether there is anything to watch. Raises Unavailable."""
        try:
            self._open()
        except NvmlError as code:
            raise Unavailable(str(code), _REMEDY) from code
        failures = []
        for place, answer in self._relay.run(self._places).items():
            if isinstance(answer, NvmlError):
                place.state = _State.GONE
                failures.append((answer, f"GPU {place.index}"))
        self._unreported += failures
        self._is_starting = False
        if any(place.is_open for place in self._places):
            return
        if failures:
            error, where = failures[0]
            raise Unavailable(f"{where}: {error}", _REMEDY)
        raise Unavailable(
            f"the NVIDIA driver ({self._settings.library}) shows no GPU to watch",
            "check nvidia-smi -L, and include and exclude of collectors.gpu_nvidia",
        )

    def _open(self) -> None:
        """Open the library. Raises NvmlError."""
        from telemetryd.collectors.gpu_nvidia.events import Events  # noqa: PLC0415

        self._driver.open()
        self._opened_ns = self.host.clock.mono_ns()
        self._constants = [(DRIVER.at("nvidia", *_versions(self._driver)), 1)]
        self._no_events = None
        if self._settings.events:
            try:
                self._events = Events(self._driver, self._xids, self.host.clock, self._report)
            except NvmlError as code:
                if code.is_lifecycle:
                    raise
                self._no_events = code
        count = self._driver.number("nvmlDeviceGetCount_v2")
        self._places = [_Place(index) for index in range(count)]

    def _open_again_soon(self) -> None:
        """After a pause that doubles until everything has answered for a while."""
        if not self._again_ns:
            self._again_ns = self.host.clock.mono_ns() + int(self._pause_s * 1e9)
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _reopen(self) -> None:
        if self._relay.stuck:  # a call is inside the library: it cannot be closed under it
            return
        self._again_ns = 0
        self.close()
        if self._driver.is_open:
            self.fault(ReadError("timeout", "its thread hangs in the driver"), "events")
            return
        try:
            self._open()
        except NvmlError as code:
            self.fault(code)
        else:
            log.info('msg="NVML opened again" gpus=%d', len(self._places))

    # --- visits, in the relay's thread ------------------------------------------------------------

    def _visit(self, place: _Place) -> Answer | None:
        """Look a GPU up if it was not yet, and read it. Raises NvmlError if it cannot be found."""
        if place.gpu is None:
            place.gpu = self._look_up(place)
            if place.gpu is None or self._is_starting:
                return None
        return place.gpu.read()

    def _look_up(self, place: _Place) -> Gpu | None:
        from telemetryd.collectors.gpu_nvidia.device import Gpu  # noqa: PLC0415
        from telemetryd.collectors.gpu_nvidia.identity import handle_of, identify  # noqa: PLC0415

        handle = handle_of(self._driver, place.index)
        identity = identify(self._driver, self.host, handle, place.index)
        if not self._wants(identity):
            place.state = _State.UNWANTED
            return None
        gpu = Gpu(self._driver, self.host, handle, identity, self._settings)
        missing = self._no_events
        if self._events is not None:
            try:
                self._events.watch(identity.labels, handle)
            except NvmlError as code:
                if code.is_lifecycle:
                    raise
                missing = code
        if missing is not None:
            gpu.lacks("XID events", missing)
            if missing.code not in UNSUPPORTED:
                self._report(missing, f"GPU {place.index}")
        return gpu

    def _wants(self, identity: Identity) -> bool:
        # nvidia-smi writes addresses as 00000000:1B:00.0.
        names = (identity.uuid, identity.pci, identity.pci.upper().rjust(16, "0"))
        any_name = Filters(include=self._settings.include)
        no_name = Filters(exclude=self._settings.exclude)
        return any(map(any_name.wants, names)) and all(map(no_name.wants, names))

    def _report(self, error: Exception, what: str) -> None:
        self._unreported.append((error, what))

    # --- what comes of them -----------------------------------------------------------------------

    def _points_of(self, place: _Place, answer: Answer | Exception | None) -> Sequence[Point]:
        """The points of an answer. Its faults are reported, and `place` knows what it means."""
        before, where = place.state, f"GPU {place.index}"
        if place.gpu is not None:
            self._known[place.gpu.identity.uuid] = place.gpu.identity.labels
        if answer is None:
            return ()
        if isinstance(answer, Exception):
            place.state = self._state_after(place, answer)
            if place.state is not _State.HANGS or before is not _State.HANGS:
                self.fault(answer, where)
            return ()
        for fault in answer.faults:
            self.fault(fault, where)
        if answer.gone is not None:
            self.fault(answer.gone, where)
        place.state = _State.ANSWERS if answer.gone is None else _State.GONE
        return answer.points

    def _state_after(self, place: _Place, error: Exception) -> _State:
        if isinstance(error, NvmlError):
            return _State.GONE
        if place in self._relay.stuck:
            return _State.HANGS
        return _State.NEW if isinstance(error, ReadError) else _State.ANSWERS

    def _losses(self) -> Iterator[Point]:
        places = {one.gpu.identity.uuid: one for one in self._places if one.gpu is not None}
        for uuid, labels in self._known.items():
            state = places[uuid].state if uuid in places else _State.GONE
            if state is not _State.NEW:
                yield LOST.at(*labels), 0 if state is _State.ANSWERS else 1

    def _tend(self) -> None:
        """See to it that the library is opened again if there is need for that."""
        states = {place.state for place in self._places}
        may_come = any(place.gpu is None and place.is_open for place in self._places)
        if (
            _State.GONE in states
            or (len(self._gpus()) < len(self._known) and not may_come)
            or (self._events is not None and self._events.has_failed)
        ):
            self._open_again_soon()
            return
        self._again_ns = 0
        open_ns = self.host.clock.mono_ns() - self._opened_ns
        if _State.HANGS not in states and open_ns >= self._pause_s * 1e9:
            self._pause_s = _FIRST_PAUSE_S


_REMEDY = "see `nvidia-smi`, which needs the same"
_WHY = {
    "unsupported": "not supported",
    "permission": "permission denied (run as root, or give the service /dev/nvidia*)",
    "old_driver": "the driver is too old for",
}


def _versions(driver: Driver) -> tuple[str, str, str]:
    """Of the driver, of NVML, and of CUDA ("13.1"); empty where it is not told."""
    texts = []
    for name in ("nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion"):
        try:
            texts.append(driver.text(name))
        except NvmlError:
            texts.append("")
    try:
        cuda = driver.number("nvmlSystemGetCudaDriverVersion_v2")
    except NvmlError:
        return texts[0], texts[1], ""
    return texts[0], texts[1], f"{cuda // 1000}.{cuda % 1000 // 10}"

"""The interface that a source implements. A complete one fits in 25 lines: see CONTRIBUTING.md."""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from telemetryd.duration import Seconds
from telemetryd.errors import reason_of
from telemetryd.host import Host
from telemetryd.metric import Metric, Point

Fault = tuple[str, str]


class CollectorConfig(BaseModel):
    """What every collector can be told. A collector with more to say subclasses this."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    enabled: bool | Literal["auto"] = Field(
        "auto",
        description='"auto" uses it where its hardware is there, true requires it, false leaves it',
    )
    interval: Seconds = Field(1.0, ge=0.05, le=3600, description="time between two samples")
    max_series: int = Field(
        5000, ge=1, description="series beyond this many are dropped and counted"
    )


class Filters(BaseModel):
    """Names to watch, as shell patterns; an excluded one is never opened."""

    include: tuple[str, ...] = Field(("*",), description="shell patterns of the names to watch")
    exclude: tuple[str, ...] = Field((), description="shell patterns of the names to leave alone")

    def wants(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.include) and not any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.exclude
        )


class DaemonView(Protocol):
    """What the daemon shows of itself to a collector that asks."""

    def health(self) -> Iterable[CollectorHealth]:
        """How each collector is doing that the configuration wants."""

    def instrument_points(self) -> Iterable[Point]:
        """The daemon's own counters."""


class CollectorHealth(Protocol):
    """How one collector is doing. Times in nanoseconds; `up` is None before the first sample."""

    name: str
    samples: int
    overruns: int
    busy_ns: int
    duration_ns: int

    @property
    def up(self) -> bool | None: ...


class Collector(ABC):
    """One source of readings.

    The constructor looks for the hardware and raises Unavailable, with the remedy, when it is not
    there. `sample` yields points; what it yielded before an error still counts. A reading that
    fails while others go on is reported with `fault` and yields nothing.

    Set `may_block` when a read can hang (a remote or sick device): the collector then gets a
    lane, and so a thread, of its own. Set `open_ended` when the metrics are somebody else's and
    cannot be declared beforehand.
    """

    Config: ClassVar[type[CollectorConfig]] = CollectorConfig
    metrics: ClassVar[tuple[Metric, ...]]
    may_block: ClassVar[bool] = False
    open_ended: ClassVar[bool] = False
    on_fault: Callable[[str, str], None] | None = None

    def __init__(self, config: CollectorConfig, host: Host) -> None:
        self.config = config
        self.host = host

    def attach(self, daemon: DaemonView) -> None:  # noqa: B027  (only `self` looks at the daemon)
        """Called once, before the first sample."""

    @abstractmethod
    def sample(self) -> Iterable[Point]:
        """Read everything once. Values in base units, finite."""

    def fault(self, error: Exception, what: str = "") -> None:
        """Report a reading that failed: it is counted by reason and logged once a minute."""
        if self.on_fault is not None:
            self.on_fault(reason_of(error), f"{what}: {error}" if what else str(error))

    def text(self, path: str) -> str:
        """A short file that describes something, as text; empty where there is none, or where it
        cannot be read, which is a fault."""
        try:
            return self.host.text(path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            self.fault(error, path)
            return ""

    def remarks(self) -> Iterable[str]:
        """What an operator may want to know and is no fault, such as readings that this hardware
        does not offer; asked for after a sample, and shown by `doctor`."""
        return ()

    def close(self) -> None:  # noqa: B027  (most have nothing to close)
        """Give back what is held. Calling it twice is safe."""

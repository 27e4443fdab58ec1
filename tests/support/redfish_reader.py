"""The redfish collector at work on a BMC of a test, on a clock that the test moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.clock import FakeClock
from support.redfish_server import PASSWORD, USER, RedfishServer, Tree, serving, tree
from support.trees import named
from telemetryd.clock import Clock
from telemetryd.collectors.redfish import Redfish, RedfishConfig
from telemetryd.errors import ReadError
from telemetryd.host import Host

ROOT = "/redfish/v1"


def watts(domain: str, device: str, boundary: str = "enclosing") -> str:
    return (
        f'telemetryd_power_watts{{source="redfish",domain="{domain}",device="{device}",'
        f'boundary="{boundary}"}}'
    )


def joules(domain: str, device: str, boundary: str = "enclosing") -> str:
    return watts(domain, device, boundary).replace("power_watts", "energy_joules_total")


class Machine:
    """A BMC with this tree, which wants no login, and a collector that reads it."""

    def __init__(self, stack: ExitStack, resources: str | Tree, **config: object) -> None:
        self.bmc = RedfishServer(tree(resources) if isinstance(resources, str) else resources)
        self.bmc.needs_login = False
        stack.enter_context(serving(self.bmc))
        self.clock = FakeClock()
        self.faults: list[tuple[str, str]] = []
        chosen = RedfishConfig.model_validate({"url": self.bmc.url, **config})
        self.collector = Redfish(chosen, Host(clock=self.clock))
        stack.callback(self.collector.close)
        self.collector.on_fault = lambda reason, what: self.faults.append((reason, what))

    def values(self) -> dict[str, float]:
        """One sample, 30 s after the last."""
        self.clock.tick(30)
        return named(self.collector.sample())

    def fails(self) -> str:
        """What a sample says that gives nothing."""
        self.clock.tick(30)
        points = []
        with pytest.raises(ReadError) as error:
            points.extend(self.collector.sample())
        assert not points
        return f"{error.value.reason}: {error.value}"


class Reader:
    """A collector that logs in."""

    def __init__(self, url: str, password_file: Path | None, clock: Clock, **config: object):
        login = {"username": USER, "password_file": str(password_file)} if password_file else {}
        self.clock = clock
        self.faults: list[tuple[str, str]] = []
        chosen = RedfishConfig.model_validate({"url": url, **login, **config})
        self.collector = Redfish(chosen, Host(clock=clock))
        self.collector.on_fault = lambda reason, what: self.faults.append((reason, what))

    def values(self) -> dict[str, float]:
        if isinstance(self.clock, FakeClock):
            self.clock.tick(30)
        return named(self.collector.sample())

    def fails(self) -> str:
        with pytest.raises(ReadError) as error:
            self.values()
        return f"{error.value.reason}: {error.value}"

    def whatever(self) -> dict[str, float]:
        """One sample; an error that ends it counts as a fault."""
        assert isinstance(self.clock, FakeClock)
        self.clock.tick(30)
        points = []
        try:
            points.extend(self.collector.sample())
        except ReadError as error:
            self.faults.append((error.reason, str(error)))
        return named(points)


class Impatient(FakeClock):
    """Every wait is over after a moment."""

    def wait_until(self, mono_ns: int, stop: threading.Event) -> bool:
        return stop.wait(0.2)


def eventually(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


Open = Callable[..., Reader]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def bmc(stack: ExitStack) -> RedfishServer:
    return stack.enter_context(serving(RedfishServer(tree("newer"))))


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    return path


@pytest.fixture
def reader(stack: ExitStack, bmc: RedfishServer, password_file: Path) -> Open:
    def make(login: bool = True, clock: Clock | None = None, url: str = "", **config: object):
        path = password_file if login else None
        made = Reader(url or bmc.url, path, clock or FakeClock(), **config)
        stack.callback(made.collector.close)
        return made

    return make

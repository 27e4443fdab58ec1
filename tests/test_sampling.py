"""Collectors as they are opened, watched, changed and closed, whatever they do meanwhile."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support.daemon import eventually
from support.trees import named

from telemetryd import plugins, sampling
from telemetryd.attempt import Attempt
from telemetryd.clock import Clock
from telemetryd.collector import Collector, CollectorConfig, DaemonView
from telemetryd.config import Config, load
from telemetryd.errors import Broken, Unavailable
from telemetryd.host import Host
from telemetryd.instruments import Instruments
from telemetryd.metric import Kind, Metric, Point, Unit
from telemetryd.pipeline import Pipeline
from telemetryd.sampling import Sampling, _close_late

VALUE = Metric("site", "value", Kind.GAUGE, Unit.NONE, "A value.", "a test", ("of",))
PATIENCE_S = 10.0


class Fine(Collector):
    metrics = (VALUE,)

    def sample(self) -> Iterator[Point]:
        yield VALUE.at(type(self).__name__), 1


class Gated(Fine):
    """Hangs where a subclass says, until `gate` is opened. One that is left behind ends with it."""

    gate: threading.Event
    entered: threading.Event
    threads: list[threading.Thread]
    closed: list[Collector]

    def hang(self) -> None:
        self.threads.append(threading.current_thread())
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)


class HangsOpening(Gated):
    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config, host)
        self.hang()


class HangsClosing(Gated):
    def close(self) -> None:
        self.hang()


class HangsSampling(Gated):
    def sample(self) -> Iterator[Point]:
        self.hang()
        yield VALUE.at("late"), 1

    def close(self) -> None:
        self.closed.append(self)


class Room:
    """Sampling of some collectors by name; each hangs in its own way until the end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.defaults = load([], {})
        monkeypatch.setattr(sampling, "OPENING_S", 1.0)
        monkeypatch.setattr(sampling, "SLOW_S", 0.1)
        monkeypatch.setattr(sampling, "CLOSING_S", 0.3)
        monkeypatch.setattr(plugins, "collector_class", lambda name: self.kinds[name])
        self.kinds: dict[str, type[Collector]] = {"fine": Fine}
        self.instruments = Instruments()
        self.pipeline = Pipeline(self.instruments, ())
        self.gate = threading.Event()

    def gated(self, kind: type[Gated]) -> type[Gated]:
        """A class like `kind`, whose events and threads are this test's alone."""
        own = {
            "gate": self.gate,
            "entered": threading.Event(),
            "threads": [],
            "closed": [],
            "metrics": (VALUE,),
        }
        return type(kind.__name__, (kind,), own)

    def config(self, *names: str, interval: float = 0.05) -> Config:
        settings = dict.fromkeys(names, CollectorConfig(interval=interval))
        return dataclasses.replace(self.defaults, collectors=settings)

    def begin(self, *names: str) -> Sampling:
        self.sampling = Sampling(self.config(*names), Host(), self.pipeline, self.instruments)
        self.sampling.start()
        return self.sampling

    def up(self, name: str) -> bool | None:
        return next(one.up for one in self.sampling.health() if one.name == name)

    def samples(self, name: str) -> int:
        return next(one.samples for one in self.sampling.health() if one.name == name)

    def errors(self, name: str, reason: str) -> float:
        series = f'telemetryd_collector_errors_total{{collector="{name}",reason="{reason}"}}'
        return named(self.instruments.points()).get(series, 0)

    def goes_on(self, name: str = "fine") -> None:
        """Two more samples are taken."""
        before = self.samples(name)
        eventually(lambda: self.samples(name) >= before + 2, f"{name} is sampled")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    room = Room(monkeypatch)
    yield room
    room.gate.set()
    room.sampling.stop(PATIENCE_S)


def test_a_collector_that_hangs_when_it_is_opened_is_down_and_the_others_are_sampled(
    room: Room,
) -> None:
    room.kinds["hangs"] = room.gated(HangsOpening)
    room.begin("hangs", "fine")
    room.goes_on()
    assert room.up("hangs") is False
    assert room.errors("hangs", "timeout") == 1


def test_those_who_are_open_are_sampled_while_another_is_slow_to_open(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "OPENING_S", PATIENCE_S)
    kind = room.kinds["hangs"] = room.gated(HangsOpening)
    starting = threading.Thread(target=room.begin, args=("fine", "hangs"))
    starting.start()
    assert kind.entered.wait(PATIENCE_S)
    eventually(lambda: room.samples("fine") >= 2, "fine is sampled")
    assert starting.is_alive()
    room.gate.set()
    starting.join(PATIENCE_S)
    room.goes_on("hangs")


def test_it_is_not_opened_a_second_time_before_the_first_one_returns(room: Room) -> None:
    kind = room.kinds["hangs"] = room.gated(HangsOpening)
    sampling = room.begin("hangs", "fine")
    sampling.look_again()
    sampling.apply(room.config("hangs", "fine", interval=0.06), Host())
    assert len(kind.threads) == 1
    room.gate.set()
    kind.threads[0].join(PATIENCE_S)
    sampling.look_again()
    room.goes_on("hangs")
    assert room.up("hangs") is True


@pytest.mark.parametrize("way", ["look_again", "apply"])
def test_a_collector_that_hangs_while_it_is_opened_does_not_hold_up_a_stop(
    room: Room, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(sampling, "OPENING_S", PATIENCE_S)
    kind = room.gated(HangsOpening)
    room.kinds["hangs"] = _absent()
    sampled = room.begin("hangs", "fine")
    room.kinds["hangs"] = kind
    changed = room.config("hangs", "fine", interval=0.06)
    other = threading.Thread(
        target=sampled.look_again if way == "look_again" else lambda: sampled.apply(changed, Host())
    )
    other.start()
    assert kind.entered.wait(PATIENCE_S)
    started = time.monotonic()
    assert sampled.stop(1.0) is False, "a thread is left behind"
    assert time.monotonic() - started < PATIENCE_S / 2
    other.join(PATIENCE_S)
    assert not sampled.lanes


def _absent() -> type[Collector]:
    class Absent(Fine):
        def __init__(self, config: CollectorConfig, host: Host) -> None:
            raise Unavailable("no such device", "plug it in")

    return Absent


def _raises(error: BaseException) -> type[Collector]:
    class Raises(Fine):
        def __init__(self, config: CollectorConfig, host: Host) -> None:
            raise error

    return Raises


class ForgetsSuper(Fine):
    def __init__(self, config: CollectorConfig, host: Host) -> None:
        pass


class RaisesWhenAttached(Fine):
    def attach(self, daemon: DaemonView) -> None:
        raise RuntimeError("no")


class HasNoInterval(Fine):
    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config.model_copy(update={"interval": 0.0}), host)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (_raises(RuntimeError("no")), "exception"),
        (_raises(PermissionError(13, "denied")), "permission"),
        (_raises(SystemExit(3)), "exception"),
        (_raises(KeyboardInterrupt()), "exception"),
        (_raises(Broken("cannot be imported", "repair it")), "exception"),
        (ForgetsSuper, "exception"),
        (RaisesWhenAttached, "exception"),
        (HasNoInterval, "parse"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_whatever_a_collector_does_when_it_is_opened_it_is_down_and_the_others_are_sampled(
    room: Room, kind: type[Collector], reason: str
) -> None:
    room.kinds["bad"] = kind
    room.begin("bad", "fine")
    room.goes_on()
    assert room.up("bad") is False
    assert room.errors("bad", reason) == 1
    room.kinds["bad"] = Fine
    room.sampling.look_again()
    room.goes_on("bad")


def test_hardware_that_is_not_there_is_no_error_unless_it_is_required(room: Room) -> None:
    room.kinds["absent"] = _absent()
    room.begin("absent", "fine")
    assert room.up("absent") is None
    required = CollectorConfig(enabled=True)
    config = dataclasses.replace(room.config("fine"), collectors={"absent": required})
    room.sampling.apply(config, Host())
    assert room.up("absent") is False
    assert "errors_total" not in str(named(room.instruments.points()))


def test_a_collector_that_hangs_when_it_is_closed_is_left_behind_and_the_others_go_on(
    room: Room,
) -> None:
    room.kinds["hangs"] = room.gated(HangsClosing)
    sampling = room.begin("hangs", "fine")
    room.goes_on("hangs")
    sampling.apply(room.config("fine"), Host())
    live = room.pipeline.latest.live(Host().clock.mono_ns())
    assert "hangs" not in {batch.collector for batch in live}
    assert room.errors("hangs", "timeout") == 1
    room.goes_on()


def test_a_stop_tells_that_a_collector_hangs_when_it_is_closed(room: Room) -> None:
    room.kinds["hangs"] = room.gated(HangsClosing)
    sampling = room.begin("hangs", "fine")
    room.goes_on("hangs")
    started = time.monotonic()
    assert sampling.stop(1.0) is False
    assert time.monotonic() - started < PATIENCE_S / 2


def test_a_stuck_sample_is_not_doubled_by_a_reload_that_changes_its_collector(room: Room) -> None:
    kind = room.kinds["hangs"] = room.gated(HangsSampling)
    sampling = room.begin("hangs", "fine")
    assert kind.entered.wait(PATIENCE_S)
    _guard_until(sampling, lambda: room.up("hangs") is False)
    sampling.apply(room.config("hangs", "fine", interval=0.06), Host())
    sampling.look_again()
    assert len(kind.threads) == 1
    assert room.up("hangs") is False
    room.goes_on()
    room.gate.set()
    kind.threads[0].join(PATIENCE_S)
    sampling.look_again()
    room.goes_on("hangs")
    assert len(kind.closed) == 1, "the one that was stuck has been closed"


def _guard_until(sampling: Sampling, check: Callable[[], bool]) -> None:
    def guarded() -> bool:
        for lane in sampling.lanes:
            lane.guard()
        return check()

    eventually(guarded, "it is abandoned")


def test_a_stop_tells_that_a_sample_from_before_a_reload_is_stuck(room: Room) -> None:
    kind = room.kinds["hangs"] = room.gated(HangsSampling)
    sampling = room.begin("hangs", "fine")
    assert kind.entered.wait(PATIENCE_S)
    _guard_until(sampling, lambda: room.up("hangs") is False)
    sampling.apply(room.config("fine"), Host())
    assert sampling.stop(1.0) is False


def test_after_a_stop_neither_a_reload_nor_another_look_starts_anything(room: Room) -> None:
    room.kinds["absent"] = _absent()
    sampling = room.begin("fine", "absent")
    assert sampling.stop(PATIENCE_S) is True
    room.kinds["absent"] = Fine
    sampling.look_again()
    sampling.apply(room.config("fine"), Host())
    assert not sampling.lanes
    assert not sampling.runners


def test_a_collector_that_opens_after_it_was_given_up_is_closed() -> None:
    closed = threading.Event()

    class Late:
        def close(self) -> None:
            closed.set()

    def fail() -> Late:
        raise Unavailable("not here", "bring it")

    opened, failed = Attempt(Late, "open-late"), Attempt(fail, "open-late")
    assert opened.wait(5, Clock())
    assert failed.wait(5, Clock())
    _close_late("late", opened)  # type: ignore[arg-type]
    _close_late("late", failed)  # type: ignore[arg-type]
    assert closed.wait(5)

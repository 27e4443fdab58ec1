"""The relay with calls that return, fail, and hang until a test lets them go."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from support.clock import FakeClock

from telemetryd.errors import ReadError
from telemetryd.worker import Relay

DEADLINE_S = 8.0
# A call that takes longer than this is stuck: an eighth of the deadline.
PATIENCE_S = 1.0


class Calls:
    """Answers with the key in capitals. A key in `hangs` lets the clock run past the patience and
    then waits to be released; one in `fails` raises."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.made: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.hangs: dict[str, threading.Event] = {}
        self.takes: dict[str, float] = {}
        self.threads: set[threading.Thread] = set()

    def hang(self, *keys: str) -> None:
        self.hangs.update({key: threading.Event() for key in keys})

    def release(self, key: str) -> None:
        self.hangs.pop(key).set()

    def __call__(self, key: str) -> str:
        self.made.append(key)
        self.threads.add(threading.current_thread())
        self.clock.tick(self.takes.get(key, 0.0))
        if key in self.hangs:
            released = self.hangs[key]
            self.clock.tick(PATIENCE_S)
            assert released.wait(30)
        if key in self.fails:
            raise self.fails[key]
        return key.upper()

    def alive(self) -> int:
        return sum(thread.is_alive() for thread in self.threads)


@pytest.fixture
def calls() -> Iterator[Calls]:
    made = Calls(FakeClock())
    yield made
    for key in list(made.hangs):
        made.release(key)


@pytest.fixture
def relay(calls: Calls) -> Iterator[Relay[str, str]]:
    made: Relay[str, str] = Relay(calls, DEADLINE_S, calls.clock)
    yield made
    made.close()


def _settled(relay: Relay[str, str], *stuck: str) -> None:
    """Wait until exactly these keys are stuck: a released call returns in its own time."""
    for _ in range(3000):
        if relay.stuck == frozenset(stuck):
            return
        threading.Event().wait(0.01)
    pytest.fail(f"stuck are {set(relay.stuck)}, not {set(stuck)}")


def test_keys_are_called_in_order_in_one_other_thread(calls: Calls, relay: Relay[str, str]) -> None:
    assert relay.run(["b", "a", "c"]) == {"b": "B", "a": "A", "c": "C"}
    assert relay.run(["a"]) == {"a": "A"}
    assert calls.made == ["b", "a", "c", "a"]
    assert len(calls.threads) == 1
    assert threading.current_thread() not in calls.threads


def test_no_keys_need_no_thread(relay: Relay[str, str]) -> None:
    before = threading.active_count()
    assert relay.run([]) == {}
    assert threading.active_count() == before


def test_an_error_is_the_answer_of_its_key_alone(calls: Calls, relay: Relay[str, str]) -> None:
    failure = PermissionError(13, "no")
    calls.fails["b"] = failure
    assert relay.run("abc") == {"a": "A", "b": failure, "c": "C"}


def test_a_stuck_call_costs_the_others_nothing(calls: Calls, relay: Relay[str, str]) -> None:
    calls.hang("b")
    answers = relay.run("abc")
    assert (answers["a"], answers["c"]) == ("A", "C")
    assert isinstance(answers["b"], ReadError)
    assert answers["b"].reason == "timeout"
    assert relay.stuck == {"b"}


def test_a_stuck_call_is_not_doubled_and_is_made_again_once_it_has_returned(
    calls: Calls, relay: Relay[str, str]
) -> None:
    calls.hang("b")
    relay.run("abc")
    for _ in range(3):
        answers = relay.run("abc")
        assert isinstance(answers["b"], ReadError)
        assert (answers["a"], answers["c"]) == ("A", "C")
    assert calls.made.count("b") == 1
    calls.release("b")
    _settled(relay)
    assert relay.run("abc") == {"a": "A", "b": "B", "c": "C"}
    assert calls.made.count("b") == 2


def test_there_are_never_more_threads_than_stuck_keys_and_one(
    calls: Calls, relay: Relay[str, str]
) -> None:
    calls.hang("a", "c", "e")
    for _ in range(4):
        answers = relay.run("abcdef")
        assert [answers[key] for key in "bdf"] == ["B", "D", "F"]
    assert relay.stuck == {"a", "c", "e"}
    assert calls.alive() == 4
    calls.release("a")
    calls.release("c")
    _settled(relay, "e")
    relay.run("abcdef")
    for _ in range(3000):
        if calls.alive() == 2:
            return
        threading.Event().wait(0.01)
    pytest.fail(f"{calls.alive()} threads for one stuck key")


def test_a_run_ends_at_its_deadline_however_many_are_stuck(
    calls: Calls, relay: Relay[str, str]
) -> None:
    calls.hang(*"abcdefghij")
    since = calls.clock.mono_ns()
    answers = relay.run("abcdefghijz")
    assert calls.clock.mono_ns() - since <= (DEADLINE_S + PATIENCE_S) * 1e9
    assert list(relay.stuck ^ set("abcdefgh")) == []
    assert "not asked" in str(answers["z"])
    assert relay.run("abcdefghijz")["z"] == "Z"


def test_slow_calls_that_return_are_waited_for_until_the_time_is_up(
    calls: Calls, relay: Relay[str, str]
) -> None:
    calls.takes = dict.fromkeys("abcdefgh", 0.9 * PATIENCE_S)
    calls.hang("i")
    answers = relay.run("abcdefghij")
    assert [answers[key] for key in "abcdefgh"] == list("ABCDEFGH")
    assert relay.stuck == {"i"}
    assert "not asked" in str(answers["j"])


def test_closing_ends_the_thread_and_may_be_done_twice(
    calls: Calls, relay: Relay[str, str]
) -> None:
    relay.run("a")
    relay.close()
    relay.close()
    for thread in calls.threads:
        thread.join(30)
    assert calls.alive() == 0

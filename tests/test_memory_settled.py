"""What is there a minute after the start is left alone by the cycle collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from telemetryd.memory import settle


class Ring:
    """Refers to itself: only the cycle collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_is_there_is_not_looked_through_any_more() -> None:
    stays = Ring()
    settle()
    assert all(one is not stays for one in gc.get_objects())
    new = Ring()
    assert any(one is new for one in gc.get_objects())


def test_what_was_kept_and_is_of_no_use_any_more_is_freed_the_next_time() -> None:
    ring = Ring()
    settle()
    seen = weakref.ref(ring)
    del ring
    gc.collect()
    assert seen() is not None
    settle()
    assert seen() is None


def test_cycles_made_later_are_still_collected() -> None:
    settle()
    ring = Ring()
    seen = weakref.ref(ring)
    del ring
    gc.collect()
    assert seen() is None

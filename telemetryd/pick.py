"""Choosing positions out of a row in one C call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any


def picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function that gives the items at `positions`, always as a tuple.

    operator.itemgetter alone gives a bare item for one position and takes no empty list.
    """
    match list(positions):
        case []:
            return lambda _row: ()
        case [only]:
            return lambda row: (row[only],)
        case several:
            return itemgetter(*several)

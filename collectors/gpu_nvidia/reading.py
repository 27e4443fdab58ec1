"""One call to the driver, and what becomes of its answers.

A Reading appends points to a list and returns NVML's code; a Plan makes its readings in turn and
remembers what a GPU does not offer, so that it is not asked for again before the library is opened
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ctypes import byref, c_uint

from telemetryd.collectors.gpu_nvidia.driver import (
    ABSENT,
    INSUFFICIENT_SIZE,
    LIFECYCLE,
    NO_PERMISSION,
    ODD,
    OK,
    UNSUPPORTED,
    Driver,
    NvmlError,
)
from telemetryd.metric import Point, Series

Read = Callable[[list[Point]], int]
Report = Callable[[NvmlError], None]

# So many runs in a row in which most answers are odd, and the GPU counts as gone. One reading that
# is always answered so is a fault and no more: some drivers do that for years.
_PATIENCE = 3


class Reading:
    """`reads` are the ways to get it, the best first; None stands for one whose function this
    version of the library does not have."""

    __slots__ = ("_others", "name", "read")

    def __init__(self, name: str, *reads: Read | None) -> None:
        self.name = name
        ways = [read for read in reads if read is not None]
        self.read: Read | None = ways[0] if ways else None
        self._others = ways[1:]

    def fall_back(self) -> bool:
        """Take the next way; False if there is none."""
        if not self._others:
            return False
        self.read = self._others.pop(0)
        return True


class Plan:
    """Readings that are made together. `missing` has the names of those that this GPU does not
    give, with the reason: unsupported, permission, old_driver."""

    def __init__(self, readings: Iterable[Reading], report: Report) -> None:
        self._report = report
        self._due: list[Reading] = []
        self._denied: list[Reading] = []
        self._odd_runs = 0
        self.missing: dict[str, str] = {}
        for reading in readings:
            if reading.read is None:
                self.missing[reading.name] = "old_driver"
            else:
                self._due.append(reading)

    @property
    def names(self) -> list[str]:
        """The readings that are made."""
        return [reading.name for reading in self._due]

    def run(self, points: list[Point]) -> None:
        """Make all readings. Raises NvmlError if the GPU or the driver is gone."""
        odd: list[NvmlError] = []
        for reading in self._due:
            code = reading.read(points)  # type: ignore[misc]
            if code != OK:
                code = self._settle(reading, code, points)
                if code in ODD:
                    odd.append(NvmlError(code, reading.name))
        self._odd_runs = self._odd_runs + 1 if 2 * len(odd) > len(self._due) else 0
        if self._odd_runs >= _PATIENCE:
            raise odd[0]

    def try_denied(self) -> None:
        """Make those again that lacked a permission; those that have it now are due again. Raises
        NvmlError if the GPU is gone."""
        for reading in list(self._denied):
            code = reading.read([])  # type: ignore[misc]
            if code in LIFECYCLE:
                raise NvmlError(code, reading.name)
            if code == NO_PERMISSION:
                self._report(NvmlError(code, reading.name))
                continue
            self._denied.remove(reading)
            del self.missing[reading.name]
            self._due = [*self._due, reading]

    def _settle(self, reading: Reading, code: int, points: list[Point]) -> int:
        """Do what there is to do about a code, and return the one that stands in the end."""
        if code == INSUFFICIENT_SIZE:  # the reading has made more room
            code = reading.read(points)  # type: ignore[misc]
        while code in UNSUPPORTED and reading.fall_back():
            code = reading.read(points)  # type: ignore[misc]
        if code == OK or code in ABSENT:
            return code
        if code in LIFECYCLE:
            raise NvmlError(code, reading.name)
        if code in UNSUPPORTED:
            self.missing[reading.name] = "unsupported"
        else:
            self._report(NvmlError(code, reading.name))
            if code != NO_PERMISSION:
                return code
            self.missing[reading.name] = "permission"
            self._denied.append(reading)
        self._due = [other for other in self._due if other is not reading]
        return code


def number(
    driver: Driver,
    name: str,
    handle: object,
    *before: object,
    to: Series,
    scale: int = 1,
    per: int = 1,
) -> Read | None:
    """The way to read one unsigned number as `to`, times `scale` and divided by `per`; None if
    there is no such function."""
    function = driver.function(name)
    if function is None:
        return None
    value = c_uint()
    arguments = (handle, *before, byref(value))

    def read(points: list[Point]) -> int:
        code = function(*arguments)
        if code == OK:
            points.append((to, value.value * scale if per == 1 else value.value / per))
        return code

    return read

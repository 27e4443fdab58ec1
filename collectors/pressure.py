"""Pressure stall information: how long tasks stood still for want of CPU, memory or I/O.

From /proc/pressure/{cpu,memory,io,irq} (Documentation/accounting/psi.rst). `some` is time in which
at least one task was stalled, `full` time in which all were at once. irq has only `full`, and only
where the kernel accounts interrupt time. `full` of cpu is left out: it does not exist for a whole
machine, and the kernel prints zeros for it (5.13 and a few after it: numbers without meaning).

The kernel's own 300 s average is left out too: the rate of the counter gives it over any window.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from telemetryd.collector import Collector, CollectorConfig
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Attribute, Host
from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker

RESOURCES = ("cpu", "memory", "io", "irq")
# `some avg10=0.48 avg60=0.60 avg300=0.27 total=8434684`, with the equals signs as blanks.
_WIDTH = 9
_NAMES = [b"avg10", b"avg60", b"avg300", b"total"]
# A kernel built without a resource has no file; one told psi=0 has files that answer EOPNOTSUPP.
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EOPNOTSUPP})

STALLED = Metric(
    "pressure", "stalled", Kind.COUNTER, Unit.SECONDS,
    "Time in which some or all tasks were stalled for want of a resource.",
    "/proc/pressure total (microseconds), accounting/psi.rst", ("resource", "kind"),
)  # fmt: skip
STALLED_RATIO = Metric(
    "pressure", "stalled", Kind.GAUGE, Unit.RATIO,
    "Share of time in which some or all tasks were stalled, as the kernel's moving average over "
    "the window.",
    "/proc/pressure avg10 and avg60 (percent), accounting/psi.rst",
    ("resource", "kind", "window"),
)  # fmt: skip


class Pressure(Collector):
    """Raises Unavailable if the kernel keeps no pressure, or lets nobody read it."""

    metrics = (STALLED, STALLED_RATIO)

    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config, host)
        self._files: list[_File] = []
        readable = False
        failure: OSError | None = None
        for resource in RESOURCES:
            file = _File(resource, Attribute(host.proc("pressure", resource)))
            try:
                file.attribute.read()
                readable = True
            except OSError as error:
                failure = failure or error
                if error.errno in _NOT_THERE:
                    continue
            self._files.append(file)
        if not readable:
            assert failure is not None
            self.close()
            raise _unavailable(failure) from failure

    def sample(self) -> Iterator[Point]:
        failures: list[OSError] = []
        for file in self._files:
            try:
                yield from file.points()
            except OSError as error:
                failures.append(error)
                self.fault(error, file.attribute.path)
            except ValueError as error:
                self.fault(error, file.attribute.path)
            except ReadError as error:
                self.fault(error)
        if len(failures) == len(self._files):
            raise _unavailable(failures[0]) from failures[0]

    def close(self) -> None:
        for file in self._files:
            file.attribute.close()


def _unavailable(error: OSError) -> Unavailable:
    why = f"cannot read {error.filename}: {error.strerror}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Unavailable(why, "let the daemon's user read it")
    return Unavailable(why, "boot with psi=1, on a kernel built with CONFIG_PSI")


class _File:
    """The pressure of one resource: a row for each kind."""

    def __init__(self, resource: str, attribute: Attribute) -> None:
        self.attribute = attribute
        self._resource = resource
        self._length = -1
        self._marks: tuple[bytes, ...] = ()
        self._pick_marks = picker(())
        self._pick = picker(())
        self._series: list[tuple[Series, Series, Series]] = []

    def points(self) -> Iterator[Point]:
        words = self.attribute.read().replace(b"=", b" ").split()
        if len(words) != self._length or self._pick_marks(words) != self._marks:
            self._look(words)
        values = iter(self._pick(words))
        for (ten, sixty, stalled), avg10, avg60, total in zip(
            self._series, values, values, values, strict=True
        ):
            yield ten, float(avg10) / 100
            yield sixty, float(avg60) / 100
            yield stalled, int(total) / 1e6

    def _look(self, words: list[bytes]) -> None:
        """Find the rows. Their kinds and the names in them are the marks by which they are known
        again. Raises ReadError if the file is not of the form known."""
        kinds = words[::_WIDTH]
        names = [words[i + 1 : i + _WIDTH : 2] for i in range(0, len(words), _WIDTH)]
        if not kinds or len(words) % _WIDTH or any(row != _NAMES for row in names):
            raise ReadError("parse", f"{self.attribute.path}: not the form of psi.rst")
        rows = [
            (row * _WIDTH, kind.decode("ascii"))
            for row, kind in enumerate(kinds)
            if (self._resource, kind) != ("cpu", b"full")
        ]
        self._series = [
            (
                STALLED_RATIO.at(self._resource, kind, "10s"),
                STALLED_RATIO.at(self._resource, kind, "60s"),
                STALLED.at(self._resource, kind),
            )
            for _, kind in rows
        ]
        self._pick = picker([begin + column for begin, _ in rows for column in (2, 4, 8)])
        self._pick_marks = picker([begin + column for begin, _ in rows for column in (0, 1, 3, 7)])
        self._marks = self._pick_marks(words)
        self._length = len(words)

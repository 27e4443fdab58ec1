"""What can go wrong, as one small tree.

TelemetrydError
|-- ConfigError      the configuration is refused; carries every problem found
|-- Unavailable      a source or destination is not there; carries the remedy
|   `-- Broken       what should make use of it does not work, which is never normal
|-- ReadError        one reading failed; the others of the same source go on
`-- StartError       the daemon cannot start
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

REASONS = frozenset(
    {
        *("permission", "missing", "io", "timeout", "parse", "invalid"),
        *("lost", "driver", "unsupported"),  # of GPUs
        *("undeclared", "duplicate", "conflict", "limit", "exception"),
    }
)


class TelemetrydError(Exception):
    """Base of every error that this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: file, key path (empty: all of the file), value, and
    what is allowed."""

    file: str
    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        where = f": {self.key}{shown}" if self.key else ""
        return f"{self.file}{where}: {self.allowed}"


class ConfigError(TelemetrydError):
    """The configuration is refused. `problems` has one entry for each thing to mend."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class Unavailable(TelemetrydError):  # noqa: N818  (a state of the machine, not a fault)
    """What a collector or exporter needs is not here.

    `why` says what was looked for and where; `remedy` says what would make it work.
    """

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"{why}; {remedy}")
        self.why = why
        self.remedy = remedy


class Broken(Unavailable):
    """A collector or exporter cannot be imported, or does not open: a fault, unlike hardware that
    is not there."""


class ReadError(TelemetrydError):
    """One reading failed. `reason` becomes a label: one of REASONS, any other is `exception`."""

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason if reason in REASONS else "exception"


class StartError(TelemetrydError):
    """The daemon cannot start; the message says why and what to do."""


_REASONS = {
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ENOENT: "missing",
    errno.ENODEV: "missing",
    errno.ENXIO: "missing",
    errno.ETIMEDOUT: "timeout",
}


def reason_of(error: BaseException) -> str:
    """The label under which `error` is counted; any OSError not named above is `io`."""
    if isinstance(error, ReadError):
        return error.reason
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0, "io")
    if isinstance(error, ValueError | IndexError | KeyError):
        return "parse"
    return "exception"

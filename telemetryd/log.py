"""Logging: one key=value line per change of state; a repeated cause at most once a minute."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

REPEAT_AFTER_S = 60.0
# Causes told apart in a minute; a guess that no sound host reaches. It bounds memory, and the lines
# of a host on which thousands of things fail at once.
_CAUSES = 1000
_OTHERS = "others"
# Characters of a line: an error may quote a whole file.
_LONGEST = 1000


class QuietLog:
    """Warnings that may come every tick, written at most once a minute for each cause.

    The line that ends a silence says how many were left out. Beyond 1000 causes in a minute the
    rest count as one.
    """

    def __init__(
        self, logger: logging.Logger, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._monotonic = monotonic
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def warning(self, cause: str, message: str) -> None:
        with self._lock:
            left_out = self._left_out(cause)
        if left_out is not None:
            repeated = f" repeated={left_out}" if left_out else ""
            self._logger.warning("%s%s", printable(message[:_LONGEST]), repeated)

    def _left_out(self, cause: str) -> int | None:
        """How many lines of this cause were left out before this one; None leaves it out too."""
        now, cause = self._monotonic(), cause[:_LONGEST]
        last = self._seen.get(cause)
        if last is None and cause != _OTHERS and len(self._seen) >= _CAUSES:
            oldest, (written, _) = next(iter(self._seen.items()))
            if now - written < REPEAT_AFTER_S:
                return self._left_out(_OTHERS)
            del self._seen[oldest]
        if last is not None and now - last[0] < REPEAT_AFTER_S:
            self._seen[cause] = (last[0], last[1] + 1)
            return None
        self._seen[cause] = (now, 0)
        self._seen.move_to_end(cause)
        return 0 if last is None else last[1]


def printable(text: str) -> str:
    """`text` on one line: names from the kernel and from users may carry line breaks."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def set_up(level: str) -> None:
    """Log to standard error, where systemd takes it; the journal adds the time itself."""
    logging.basicConfig(
        stream=sys.stderr, level=level.upper(), format="%(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("apscheduler").setLevel(logging.WARNING)

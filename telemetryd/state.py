"""What the daemon has learned, kept over restarts: one small JSON file.

It lies in the folder that systemd makes for the service (StateDirectory=, $STATE_DIRECTORY); a
daemon that is started by hand without one keeps nothing. The file is replaced whole, so that a
crash leaves the one before. One that cannot be read is set aside and learned again: nothing in it
is worth a daemon that does not start.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping

log = logging.getLogger("telemetryd.state")

_NAME = "learned.json"
_FORMAT = 1
# Some KiB for each device; what is so large is not ours.
_MOST_BYTES = 16 << 20


class StateFile:
    """`path` is None where nothing is kept."""

    def __init__(self, path: str | None) -> None:
        self.path = path

    @classmethod
    def of_service(cls, environ: Mapping[str, str]) -> StateFile:
        """That of the service; systemd separates several folders by colons, the first is ours."""
        folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]
        return cls(os.path.join(folder, _NAME) if folder else None)

    def load(self) -> dict[str, object]:
        """What was saved; nothing if that cannot be read."""
        if self.path is None:
            return {}
        try:
            with open(self.path, "rb") as file:
                saved = json.loads(file.read(_MOST_BYTES))
            if not isinstance(saved, dict) or saved.get("format") != _FORMAT:
                raise ValueError("not of a format that this version knows")  # noqa: TRY301
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            aside = f"{self.path}.unusable"
            log.warning('msg="cannot use %s: %s; it is %s now"', self.path, error, aside)
            try:
                os.replace(self.path, aside)
            except OSError:
                log.warning('msg="cannot set %s aside"', self.path)
            return {}
        learned = saved.get("learned")
        return learned if isinstance(learned, dict) else {}

    def save(self, learned: Mapping[str, object]) -> bool:
        """Replace the file. False, and a line in the log, if that does not work."""
        if self.path is None:
            return False
        new = f"{self.path}.new"
        try:
            with open(new, "w", encoding="utf-8") as file:
                json.dump({"format": _FORMAT, "learned": learned}, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self.path)
        except OSError as error:
            log.warning('msg="cannot keep what was learned in %s: %s"', self.path, error)
            return False
        return True

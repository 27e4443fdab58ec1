"""What becomes of bodies that a destination will not take: quarantine, a count, a log line."""

from __future__ import annotations

from dataclasses import replace

from telemetryd.clock import Clock
from telemetryd.delivery.body_text import first_line
from telemetryd.delivery.destination import Outcome, Verdict
from telemetryd.delivery.quarantine import Quarantine
from telemetryd.delivery.queue import Body, Queue
from telemetryd.instruments import SPOOL_ERRORS, Instruments

# Characters of a body that are logged.
_SHOWN = 200


class Refusals:
    """Those of the destination `name`, whose bodies are of the kind `kind`. Without a quarantine
    only the log has them."""

    def __init__(
        self,
        name: str,
        kind: str,
        queue: Queue,
        quarantine: Quarantine | None,
        instruments: Instruments,
        clock: Clock,
    ) -> None:
        self._name = name
        self._kind = kind
        self._queue = queue
        self._quarantine = quarantine
        self._instruments = instruments
        self._clock = clock

    def give_up(self, body: Body, verdict: Verdict, reason: str) -> int:
        """Drop `body`, the head, for `reason`; how many points of it are delivered, because the
        destination took them although it refused the others."""
        taken = min(max(verdict.taken or 0, 0), body.points)
        if 0 < taken == body.points:
            self._queue.acknowledge()
            return taken
        if taken:
            body = self._part(body, taken)
        # What is too old now is not going to be any younger.
        is_kept = verdict.outcome is not Outcome.TOO_OLD and self._keep(body, verdict, reason)
        see = ' see="telemetryd spool quarantine list"' if is_kept else ""
        self.warn(
            "points dropped",
            verdict,
            f" reason={reason} points={body.points} "
            f"first={first_line(self._kind, body.data, _SHOWN)!r}{see}",
        )
        self._queue.drop(reason)
        return taken

    def _part(self, body: Body, taken: int) -> Body:
        """Acknowledge so many points of the head; which ones they are is not known, so that all of
        its bytes stay with the rest."""
        rest = replace(body, points=body.points - taken)
        self._queue.split([replace(body, data=b"", points=taken), rest])
        self._queue.peek()
        self._queue.acknowledge()
        self._queue.peek()
        return rest

    def warn(self, what: str, verdict: Verdict, more: str) -> None:
        """Say `what` became of it, at most once a minute."""
        self._instruments.warn(
            f"{self._name}/{what}/{verdict.outcome.value}",
            f'msg="{what}" destination={self._name} outcome={verdict.outcome.value} '
            f'answer="{verdict.detail}"{more}',
        )

    def _keep(self, body: Body, verdict: Verdict, reason: str) -> bool:
        """Put it in quarantine; whether there is anything in it."""
        quarantine = self._quarantine
        if quarantine is None:
            return False
        try:
            quarantine.add(
                body, self._kind, reason, verdict.status, verdict.detail, self._clock.wall_ns()
            )
        except OSError as error:
            self._instruments.count(SPOOL_ERRORS, self._name)
            self._instruments.warn(
                f"{self._name}/quarantine",
                f'msg="cannot keep in quarantine what was refused" destination={self._name} '
                f'error="{error.strerror or error}"',
            )
            return False
        # None, if none may be kept.
        return quarantine.records > 0

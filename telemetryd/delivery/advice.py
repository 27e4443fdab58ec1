"""What an operator can do about an answer, beside the answer itself."""

from __future__ import annotations

from dataclasses import dataclass

from telemetryd.delivery.destination import Verdict


@dataclass(frozen=True, slots=True)
class Advised(Verdict):
    """A verdict that only an operator can change. `url` is where the request went, without what may
    be secret; `remedy` is what `doctor` says of it."""

    url: str = ""
    remedy: str = ""


def advised(verdict: Verdict, url: str, remedy: str) -> Advised:
    """`verdict` with that."""
    return Advised(
        verdict.outcome,
        verdict.detail,
        verdict.retry_after,
        verdict.status,
        verdict.server_ns,
        verdict.taken,
        url,
        remedy,
    )


def advice(verdict: Verdict) -> str:
    """What a line of the log has of it: nothing, where there is no advice."""
    if not isinstance(verdict, Advised):
        return ""
    remedy = verdict.remedy.replace('"', "'")
    return f' url={verdict.url} remedy="{remedy}"'

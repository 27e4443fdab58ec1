"""What all destinations over HTTP have in common: credentials, timeouts, what an answer means,
and what `doctor` says of it.

Retrying is the sender's affair, and a redirect is not followed: it could carry the credentials to
another host. Imports urllib3: only for a destination that is wanted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from urllib3 import exceptions
from urllib3.response import BaseHTTPResponse

from telemetryd.clock import Clock
from telemetryd.delivery import answer as answers
from telemetryd.delivery.answer import Answer
from telemetryd.delivery.destination import Outcome, Verdict
from telemetryd.delivery.http_config import HttpConfig
from telemetryd.delivery.queue import Body
from telemetryd.delivery.secret_file import SecretFile
from telemetryd.errors import Unavailable


class HttpDestination(ABC):
    """A Destination (telemetryd.delivery.destination) for the server that `config` names; `name`
    is that of the exporter."""

    # A body without any points.
    nothing: ClassVar[bytes] = b""
    # Outcomes of a write of nothing that mean that we are let in.
    welcomes: ClassVar[frozenset[Outcome]] = frozenset({Outcome.OK})

    def __init__(
        self, name: str, config: HttpConfig, secrets: Sequence[SecretFile], clock: Clock
    ) -> None:
        self._section = f"exporters.{name}"
        self._http = config
        self._secrets = secrets
        self._clock = clock
        self.renew()

    def send(self, body: Body, timeout: float | None = None) -> Verdict:
        """Send once. `timeout` in seconds shortens the usual one, never lengthens it."""
        for secret in self._secrets:
            if secret.trouble:
                return Verdict(Outcome.UNAUTHORIZED, secret.trouble)
        answer = self._post(body.data, self._seconds(timeout))
        return answer.verdict(self._clock.wall_ns() / 1e9, self._taken(body, answer))

    def probe(self, timeout: float | None = None) -> Verdict:
        """Write no points. OK if a server that is up answers, whatever it thinks of that."""
        answer = self._post(self.nothing, self._seconds(timeout))
        verdict = answer.verdict(self._clock.wall_ns() / 1e9)
        return replace(verdict, outcome=Outcome.OK) if 0 < answer.status < 500 else verdict

    @abstractmethod
    def halve(self, body: Body) -> Sequence[Body]:
        """Two bodies with the same points; none if there is only one."""

    def renew(self) -> bool:
        """Read the credentials again; True if they are different now."""
        changed = [secret.read() for secret in self._secrets]
        return any(changed)

    @abstractmethod
    def close(self) -> None:
        """Close the connection. Calling it twice is safe."""

    def check(self) -> None:
        """Write no points at all. Raises Unavailable with the remedy."""
        for secret in self._secrets:
            if secret.trouble:
                raise Unavailable(
                    secret.trouble,
                    "put it there, readable by the user that telemetryd runs as, or set "
                    f"{self._section}.{secret.key}",
                )
        answer = self._post(self.nothing, self._http.timeout)
        if answer.outcome in self.welcomes:
            return
        where = f"{self._http.url} {'answers' if answer.status else 'cannot be reached:'}"
        raise Unavailable(f"{where} {answer}", self._remedy(answer) or self._usual_remedy(answer))

    @abstractmethod
    def _post(self, data: bytes, seconds: float) -> Answer:
        """Send a body once. Never raises what a network or a server can be the reason of."""

    @abstractmethod
    def _remedy(self, answer: Answer) -> str:
        """What an operator can do about an answer; empty for what is the same everywhere."""

    def _taken(self, _body: Body, _answer: Answer) -> int | None:
        """How many points of a body that it refused the server took; None if it is not told."""
        return None

    def _seconds(self, timeout: float | None) -> float:
        return self._http.timeout if timeout is None else min(timeout, self._http.timeout)

    def _usual_remedy(self, answer: Answer) -> str:
        if answer.status == 0:
            return self._network_remedy(answer)
        if 300 <= answer.status < 400:
            return f"set {self._section}.url to the address it redirects to"
        return f"look into the log of the server, or of the proxy at {self._http.url}"

    def _network_remedy(self, answer: Answer) -> str:
        url = f"{self._section}.url"
        match answer.error:
            case exceptions.NameResolutionError():
                return f"correct the name in {url}, or make it known to DNS or /etc/hosts"
            case exceptions.NewConnectionError():
                return f"start the server there, or correct host and port in {url}"
            case exceptions.ConnectTimeoutError() | exceptions.ReadTimeoutError():
                return (
                    f"see that no firewall is between here and the server, and that it answers "
                    f"within {self._section}.timeout = {self._http.timeout:g}"
                )
            case exceptions.SSLError() if "CERTIFICATE_VERIFY_FAILED" in answer.text:
                return (
                    f"set {self._section}.ca_file to the certificate of the authority that signed "
                    f"the server's, and use a name in {url} that the certificate has"
                )
            case exceptions.SSLError():
                return f"see that the server speaks TLS on that port; otherwise http:// in {url}"
            case _:
                return f"see that the right server listens there; with TLS, https:// in {url}"


def read_answer(response: BaseHTTPResponse) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers, and the begin of the body of an answer that is not read yet. The
    connection can be used again only if nothing was left unread."""
    try:
        return response.status, response.headers, response.read(answers.LONGEST)
    finally:
        # Only if part of the answer was left unread is the connection still its own to close.
        response.close()

"""What all destinations over HTTP have in common: credentials, TLS, timeouts, what an answer
means, and what `doctor` says of it.

Retrying is the sender's affair, and a redirect is not followed: it could carry the credentials to
another host. Imports urllib3: only for a destination that is wanted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import urllib3
from urllib3 import exceptions

from telemetryd.clock import Clock
from telemetryd.delivery.answer import Answer
from telemetryd.delivery.destination import Outcome, Verdict
from telemetryd.delivery.http_config import HttpConfig
from telemetryd.delivery.http_pool import HttpPool
from telemetryd.delivery.queue import Body
from telemetryd.delivery.secret_file import SecretFile
from telemetryd.delivery.tls import Tls
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
        self._tls = Tls(name, config)
        self._pool = HttpPool(None)
        if config.url.startswith("https:") and not config.verify:
            urllib3.disable_warnings(exceptions.InsecureRequestWarning)
        self.renew()

    def send(self, body: Body, timeout: float | None = None) -> Verdict:
        """Send once. `timeout` in seconds shortens the usual one, never lengthens it."""
        self._renew_tls()
        if trouble := self._tls.trouble or self._without_secret():
            return self._unauthorized(trouble)
        answer = self._post(body.data, self._seconds(timeout))
        return self._verdict(answer, self._taken(body, answer))

    def probe(self, timeout: float | None = None) -> Verdict:
        """Write no points. OK if a server that is up answers, whatever it thinks of that; but not
        if it sends elsewhere, or shows a web page: there may be no receiver."""
        self._renew_tls()
        if self._tls.trouble:
            return self._unauthorized(self._tls.trouble)
        answer = self._post(self.nothing, self._seconds(timeout))
        verdict = self._verdict(answer)
        is_there = answer.outcome is Outcome.OK or 400 <= answer.status < 500
        return replace(verdict, outcome=Outcome.OK) if is_there else verdict

    @abstractmethod
    def halve(self, body: Body) -> Sequence[Body]:
        """Two bodies with the same points; none if there is only one."""

    def renew(self) -> bool:
        """Read the credentials again, and the files of TLS; True if they are different now."""
        changed = [secret.read() for secret in self._secrets]
        return any([*changed, self._renew_tls(again=True)])

    def close(self) -> None:
        """Close the connection. Calling it twice is safe."""
        self._pool.clear()

    def check(self) -> None:
        """Write no points at all. Raises Unavailable with the remedy."""
        self._renew_tls()
        if trouble := self._tls.trouble or self._without_secret():
            raise trouble
        answer = self._post(self.nothing, self._http.timeout)
        if answer.outcome in self.welcomes:
            return
        where = f"{self._where()} {'answers' if answer.status else 'cannot be reached:'}"
        raise Unavailable(f"{where} {answer}", self._advice(answer))

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

    def _renew_tls(self, *, again: bool = False) -> bool:
        """Look at the files of TLS: those that are new are for a new connection."""
        if not self._tls.renew(again=again):
            return False
        self._pool.clear()
        self._pool = HttpPool(self._tls.context)
        return True

    def _without_secret(self) -> Unavailable | None:
        """Which secret could never be read."""
        for secret in self._secrets:
            if secret.trouble:
                return Unavailable(
                    secret.trouble,
                    "put it there, readable by the user that telemetryd runs as, or set "
                    f"{self._section}.{secret.key}",
                )
        return None

    def _unauthorized(self, trouble: Unavailable) -> Verdict:
        """Nothing was sent."""
        return Verdict(Outcome.UNAUTHORIZED, trouble.why, url=self._where(), remedy=trouble.remedy)

    def _verdict(self, answer: Answer, taken: int | None = None) -> Verdict:
        verdict = answer.verdict(self._clock.wall_ns() / 1e9, taken)
        if verdict.outcome not in {Outcome.UNAUTHORIZED, Outcome.MISSING}:
            return verdict
        return replace(verdict, url=self._where(), remedy=self._advice(answer))

    def _where(self) -> str:
        """The address without its query, in which there may be a key."""
        return self._http.url.partition("?")[0]

    def _advice(self, answer: Answer) -> str:
        return self._remedy(answer) or self._usual_remedy(answer)

    def _usual_remedy(self, answer: Answer) -> str:
        if answer.status == 0:
            return self._network_remedy(answer)
        if answer.is_page:
            return f"correct the address in {self._section}.url: it is that of a web server"
        if 300 <= answer.status < 400:
            return f"set {self._section}.url to the address it redirects to"
        return f"look into the log of the server, or of the proxy at {self._where()}"

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

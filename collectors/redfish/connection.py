"""One HTTP(S) connection to a BMC: kept open, one request at a time, answers bounded.

urllib3's connection without its pool: nothing is retried or redirected that was not decided here.
Imported only once a BMC is configured.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from telemetryd.clock import Clock
from telemetryd.collectors.redfish.settings import RedfishConfig
from telemetryd.errors import ReadError, Unavailable

SECTION = "collectors.redfish"
# A PowerSubsystem is 10 KiB, the largest collection seen 60 KiB.
LONGEST_ANSWER = 1 << 20
_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FAILURES = (exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)
# How a server that closed an idle connection shows, when the next request is sent on it.
_CLOSED = (ConnectionError, http.client.BadStatusLine, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class BmcError(ReadError):
    """The BMC did not give what it was asked for. `ends_round`: nor would it give anything else."""

    def __init__(self, reason: str, what: str, remedy: str, *, ends_round: bool = False) -> None:
        super().__init__(reason, f"{what}; {remedy}")
        self.what = what
        self.remedy = remedy
        self.ends_round = ends_round


class LoginError(BmcError):
    """The BMC is there, and does not let us in."""

    def __init__(self, reason: str, what: str, remedy: str) -> None:
        super().__init__(reason, what, remedy, ends_round=True)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """To the host of `config.url`, and to no other."""

    def __init__(self, config: RedfishConfig, clock: Clock) -> None:
        assert config.url is not None
        self._url = config.url
        self._timeout = config.timeout
        self._clock = clock
        self.has_answered = False
        self._is_busy = False
        self._is_aborted = False
        parts = urlsplit(config.url)
        host = parts.hostname or ""
        self._http: HTTPConnection
        if parts.scheme == "https":
            context = _tls_context(config)
            self._http = HTTPSConnection(host, parts.port or 443, ssl_context=context)
        else:
            self._http = HTTPConnection(host, parts.port or 80)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        deadline_ns: int,
        body: object = None,
    ) -> Answer:
        """The answer to one request, redirects within the host followed. Raises BmcError."""
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._once(method, path, headers, deadline_ns, body)
            if answer.status not in _REDIRECTS or method != "GET":
                return answer
            path = self._target(path, answer.headers.get("Location", ""))
        raise BmcError("invalid", f"{path}: redirects without end", "see the BMC's log")

    @property
    def is_reached(self) -> bool:
        """Whether somebody has answered ever, or at least accepted our connection now."""
        return self.has_answered or self._http.sock is not None

    def abort(self) -> None:
        """Called from another thread: end the wait for an answer that takes too long."""
        sock = self._http.sock
        if self._is_busy and sock is not None:
            self._is_aborted = True
            with suppress(OSError):  # it may be closed by now
                # Not ssl's own, which would pull the TLS state from under the reader.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._http.close()

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], deadline_ns: int, body: object
    ) -> Answer:
        left = (deadline_ns - self._clock.mono_ns()) / 1e9
        if left <= 0:
            raise BmcError(
                "timeout",
                f"{path}: not asked, the time is up",
                f"the BMC is slow: choose a longer {SECTION}.interval",
                ends_round=True,
            )
        seconds = min(self._timeout, left)
        was_open = self._http.sock is not None
        self._is_aborted, self._is_busy = False, True
        try:
            try:
                return self._exchange(method, path, headers, seconds, body)
            except _CLOSED:
                self.close()
                if not was_open or self._is_aborted:
                    raise
                return self._exchange(method, path, headers, seconds, body)
        except _FAILURES as error:
            self.close()
            raise self._explained(error, path, seconds) from error
        finally:
            self._is_busy = False

    def _exchange(
        self, method: str, path: str, headers: Mapping[str, str], seconds: float, body: object
    ) -> Answer:
        sent = {"Accept": "application/json", "OData-Version": "4.0", **headers}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection = self._http
        connection.timeout = seconds
        if connection.sock is not None:
            connection.sock.settimeout(seconds)
        connection.request(method, path, body=data, headers=sent, preload_content=False)
        response = connection.getresponse()
        self.has_answered = True
        content = response.read(LONGEST_ANSWER + 1)
        if len(content) > LONGEST_ANSWER:
            self.close()
            raise BmcError(
                "invalid",
                f"{path}: an answer of more than {LONGEST_ANSWER} bytes",
                f"see that a BMC answers at {self._url}",
            )
        return Answer(response.status, response.headers, content)

    def _target(self, path: str, location: str) -> str:
        """The path that `location` redirects to. Raises BmcError if it is another host's."""
        here = urlsplit(self._url)
        try:
            there = urlsplit(urljoin(self._url + path, location))
            is_here = (there.scheme, there.hostname, _port(there)) == (
                here.scheme,
                here.hostname,
                _port(here),
            )
        except ValueError:
            is_here = False
        if not location or not is_here:
            raise BmcError(
                "invalid",
                f"{self._url}{path} redirects to {location[:200]!r}, which is not followed",
                f"set {SECTION}.url to the address of the BMC itself",
                ends_round=True,
            )
        return there.path + (f"?{there.query}" if there.query else "")

    def _explained(self, error: Exception, path: str, seconds: float) -> BmcError:
        where = f"{self._url}{path}"
        match error:
            case BmcError():
                return error
            case ssl.SSLCertVerificationError():
                return BmcError(
                    "invalid",
                    f"{self._url}: the certificate is not trusted: {error.verify_message}",
                    self._certificate_remedy(error.verify_code),
                    ends_round=True,
                )
            case ssl.SSLError() if not isinstance(error, _CLOSED):
                return BmcError(
                    "io",
                    f"{self._url}: no TLS connection: {error.reason or error}",
                    f"see that the BMC speaks TLS 1.2 or later on that port, or correct "
                    f"{SECTION}.url",
                    ends_round=True,
                )
            case exceptions.NameResolutionError():
                return BmcError(
                    "io",
                    f"{self._url}: {_words(error)}",
                    f"correct the name in {SECTION}.url, or make it known to DNS or /etc/hosts",
                    ends_round=True,
                )
            case exceptions.NewConnectionError():
                return BmcError(
                    "io",
                    f"{self._url} cannot be reached: {_words(error)}",
                    f"see that the BMC is up and reachable from here, or correct {SECTION}.url",
                    ends_round=True,
                )
            case exceptions.TimeoutError() | TimeoutError():
                return BmcError(
                    "timeout",
                    f"{where}: no answer within {seconds:.3g} s",
                    f"see that no firewall is in the way, or raise {SECTION}.timeout",
                    ends_round=isinstance(error, exceptions.ConnectTimeoutError),
                )
            case _:
                return BmcError(
                    "io",
                    f"{where}: {_words(error)}",
                    "see that a BMC answers there; with TLS, https:// in the url",
                )

    def _certificate_remedy(self, code: int) -> str:
        parts = urlsplit(self._url)
        place = f"{parts.hostname}:{_port(parts)}"
        mismatches = {62, 64}  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        if code in mismatches:
            return (
                f"use a name in {SECTION}.url that the certificate has, or give the BMC another "
                f"certificate; {SECTION}.verify = false accepts any"
            )
        return (
            f"set {SECTION}.ca_file to the authority's certificate, or for a self-signed one to "
            f"the output of: openssl s_client -connect {place} </dev/null | openssl x509; "
            f"{SECTION}.verify = false accepts any"
        )


def _words(error: BaseException) -> str:
    """What the system said, without the objects that urllib3 names."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)[:200]


def _port(parts: Any) -> int:
    return int(parts.port or (443 if parts.scheme == "https" else 80))


def _tls_context(config: RedfishConfig) -> ssl.SSLContext:
    """Raises Unavailable if `ca_file` is not a readable PEM file."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        named = config.ca_file or "the system's certificate authorities"
        raise Unavailable(
            f"cannot use {named} for TLS: {error.strerror or error}",
            f"set {SECTION}.ca_file to a readable PEM file",
        ) from error
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

"""One request to /api/v2/write through influxdb-client, and what its answer means.

The client's own retries and redirects are off: a redirect could carry the token to another host,
and retrying is telemetryd.delivery's affair.
"""

from __future__ import annotations

import gzip
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3 import exceptions

from telemetryd.clock import Clock
from telemetryd.delivery.backoff import parse_retry_after
from telemetryd.delivery.queue import Body
from telemetryd.delivery.sender import Outcome, Verdict
from telemetryd.errors import Unavailable
from telemetryd.exporters import line_protocol

if TYPE_CHECKING:
    from telemetryd.exporters.influxdb import InfluxDBConfig

# Of an answer, in bytes: enough for an error message. The rest is not read.
_LONGEST_ANSWER = 4096
# Of that, in characters, what is logged.
_LONGEST_DETAIL = 300
# A third of the CPU time of level 6 for a tenth more bytes.
_GZIP_LEVEL = 1
# Nothing to write, but the token, the organization and the bucket are looked at.
_NO_POINTS = b"\n"
# Answers 400 and 422 that say that points come too late: no part of the body is any better.
_TOO_OLD = (
    "beyond retention policy",
    "outside retention policy",
    "out of order",
    "too old",
    "duplicate sample",
)
_OUTCOMES = {
    400: Outcome.REFUSED,
    401: Outcome.UNAUTHORIZED,
    403: Outcome.UNAUTHORIZED,
    408: Outcome.RETRY,
    413: Outcome.TOO_LARGE,
    422: Outcome.REFUSED,
    425: Outcome.RETRY,
    429: Outcome.RETRY,
}

_log = logging.getLogger("telemetryd.exporters")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a server answered: `text` is its error message. Status 0: nothing; `error` says why."""

    status: int
    text: str
    headers: Mapping[str, str]
    error: Exception | None = None

    @property
    def outcome(self) -> Outcome:
        if 200 <= self.status < 300:
            return Outcome.OK
        if self.status == 0 or self.status >= 500:
            return Outcome.RETRY
        outcome = _OUTCOMES.get(self.status, Outcome.MISSING)
        if outcome is Outcome.REFUSED and any(mark in self.text for mark in _TOO_OLD):
            return Outcome.TOO_OLD
        return outcome

    def __str__(self) -> str:
        shown = f"{self.status} {self.text}" if self.status else self.text
        if 300 <= self.status < 400:
            shown = f"{self.status} redirects to {self.headers.get('Location', '?')}"
        return shown[:_LONGEST_DETAIL].strip()


class Transport:
    """A Destination (telemetryd.delivery.sender) for the server that `config` names."""

    def __init__(self, name: str, config: InfluxDBConfig, clock: Clock) -> None:
        self._name = name
        self._config = config
        self._clock = clock
        # Neither the client nor what it is made of has types.
        self._client: Any = InfluxDBClient(
            config.url,
            timeout=config.timeout * 1000,
            verify_ssl=config.verify,
            ssl_context=_tls_context(name, config),
            connection_pool_maxsize=1,
            retries=False,
        )
        if config.url.startswith("https:") and not config.verify:
            urllib3.disable_warnings(exceptions.InsecureRequestWarning)
            _log.warning('msg="the server\'s certificate is not checked" exporter=%s', name)
        rest: Any = self._client.api_client.rest_client
        rest.pool_manager = _Pool(rest.pool_manager)
        service: Any = WriteService
        self._post_write = service(self._client.api_client).post_write
        self._token: str | None = None
        self._no_token = ""
        self.renew()

    def send(self, body: Body, timeout: float | None = None) -> Verdict:
        if self._no_token:
            return Verdict(Outcome.UNAUTHORIZED, self._no_token)
        seconds = self._config.timeout if timeout is None else min(timeout, self._config.timeout)
        answer = self._post(body.data, seconds)
        wall_s = self._clock.wall_ns() / 1e9
        retry_after = parse_retry_after(answer.headers.get("Retry-After"), wall_s)
        return Verdict(answer.outcome, str(answer), retry_after)

    def halve(self, body: Body) -> Sequence[Body]:
        return line_protocol.halve(body)

    def renew(self) -> bool:
        path = self._config.token_file
        if path is None:
            return False
        before = self._token
        try:
            self._token = _read_token(path)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            # One that was good may still be: the file is just being replaced, perhaps.
            if self._token is None:
                self._no_token = f"cannot read a token from {path}: {why}"
            return False
        self._no_token = ""
        self._client.api_client.set_default_header("Authorization", f"Token {self._token}")
        return self._token != before

    def close(self) -> None:
        """Close the connection. Calling it twice is safe."""
        self._client.close()

    def check(self) -> None:
        """Write no points at all. Raises Unavailable with the remedy."""
        if self._no_token:
            raise Unavailable(
                self._no_token,
                f"put the token there, readable by the user that telemetryd runs as, or set "
                f"exporters.{self._name}.token_file",
            )
        answer = self._post(_NO_POINTS, self._config.timeout)
        # That there is nothing to write is not to everybody's liking, and means we are let in.
        if answer.outcome in {Outcome.OK, Outcome.REFUSED}:
            return
        where = f"{self._config.url} {'answers' if answer.status else 'cannot be reached:'}"
        raise Unavailable(f"{where} {answer}", self._remedy(answer))

    def _post(self, data: bytes, seconds: float) -> _Answer:
        config = self._config
        try:
            self._post_write(
                config.org,
                config.bucket,
                gzip.compress(data, _GZIP_LEVEL, mtime=0) if config.gzip else data,
                precision="ns",
                content_encoding="gzip" if config.gzip else "identity",
                _request_timeout=seconds * 1000,
            )
        except ApiException as error:
            if not error.status:  # the client's way to tell of a TLS error
                return _Answer(0, str(error.reason).replace("\n", ": "), {}, error)
            return _Answer(error.status, str(error.message), error.headers)
        except (exceptions.HTTPError, OSError) as error:
            return _Answer(0, str(error) or type(error).__name__, {}, error)
        # Or another 2xx: the client does not tell.
        return _Answer(204, "", {})

    def _remedy(self, answer: _Answer) -> str:
        config, section = self._config, f"exporters.{self._name}"
        match answer.status:
            case 0:
                return _network_remedy(answer, config, section)
            case 401 | 403 if config.token_file is None:
                return f"set {section}.token_file to a file with a token that may write"
            case 401 | 403:
                return (
                    f"put a token that may write to bucket {config.bucket} into {config.token_file}"
                )
            case 404:
                return (
                    f"create bucket {config.bucket} in organization {config.org or '(none)'}, or "
                    f"correct {section}.bucket and {section}.org; a server that has no "
                    "/api/v2/write, such as InfluxDB 1.7, cannot be used"
                )
            case status if 300 <= status < 400:
                return f"set {section}.url to the address it redirects to, without /api/v2/write"
            case _:
                return f"look into the log of the server, or of the proxy at {config.url}"


class _Pool:
    """The client's connections, from which each answer comes in full but short.

    Left alone the client would read answers of any length, and fail on those that are not UTF-8.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def request(self, method: str, url: str, **options: Any) -> Any:
        options.update(preload_content=False, decode_content=False, redirect=False, retries=False)
        response = self._pool.request(method, url, **options)
        try:
            text = response.read(_LONGEST_ANSWER).decode("utf-8", "replace")
        finally:
            # Only if part of the answer was left unread is the connection still its own to close.
            response.close()
        return _Response(response.status, response.reason, text.encode(), response.headers)

    def clear(self) -> None:
        self._pool.clear()


@dataclass(frozen=True, slots=True)
class _Response:
    """As much of urllib3's response as the client looks at."""

    status: int
    reason: str
    data: bytes
    headers: Mapping[str, str]


def _read_token(path: str) -> str:
    """The only word in the file. Raises OSError, and ValueError if it cannot be a token: never
    with what was read, which may be a secret all the same."""
    with open(path, "rb") as stream:
        words = stream.read(65536).split()
    if len(words) != 1:
        raise ValueError("it is empty" if not words else "there is more than one word")
    token = words[0].decode("latin-1")
    if not token.isascii() or not token.isprintable():
        raise ValueError("it is not plain ASCII")
    return token


def _tls_context(name: str, config: InfluxDBConfig) -> ssl.SSLContext | None:
    if not config.url.startswith("https:"):
        return None
    key = "ca_file"
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if not config.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if config.cert_file is not None:
            key = "cert_file"
            # Without a password OpenSSL would ask for one at the terminal.
            context.load_cert_chain(config.cert_file, config.key_file, password=lambda: b"")
    except OSError as error:
        files = [config.ca_file] if key == "ca_file" else [config.cert_file, config.key_file]
        named = " and ".join(filter(None, files)) or "the system's certificate authorities"
        raise Unavailable(
            f"cannot use {named} for TLS: {error.strerror or error}",
            f"set exporters.{name}.{key} to readable PEM files",
        ) from error
    return context


def _network_remedy(answer: _Answer, config: InfluxDBConfig, section: str) -> str:
    match answer.error:
        case exceptions.NameResolutionError():
            return f"correct the name in {section}.url, or make it known to DNS or /etc/hosts"
        case exceptions.NewConnectionError():
            return f"start the server there, or correct host and port in {section}.url"
        case exceptions.ConnectTimeoutError() | exceptions.ReadTimeoutError():
            return (
                f"see that no firewall is between here and the server, and that it answers "
                f"within {section}.timeout = {config.timeout:g}"
            )
        case ApiException() if "CERTIFICATE_VERIFY_FAILED" in answer.text:
            return (
                f"set {section}.ca_file to the certificate of the authority that signed the "
                f"server's, and use a name in {section}.url that the certificate has"
            )
        case ApiException():
            return (
                f"see that the server speaks TLS on that port; otherwise http:// in {section}.url"
            )
        case _:
            return f"see that an InfluxDB listens there; with TLS, https:// in {section}.url"

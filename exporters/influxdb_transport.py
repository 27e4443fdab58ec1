"""One request to /api/v2/write through influxdb-client.

The client's own retries are off: retrying is telemetryd.delivery's affair.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from influxdb_client.service.write_service import WriteService
from urllib3 import exceptions

from telemetryd.clock import Clock
from telemetryd.delivery.answer import Answer
from telemetryd.delivery.destination import Outcome
from telemetryd.delivery.http import HttpDestination
from telemetryd.delivery.queue import Body
from telemetryd.delivery.secret_file import SecretFile
from telemetryd.exporters import influxdb_partial, line_protocol

if TYPE_CHECKING:
    from telemetryd.exporters.influxdb import InfluxDBConfig

# A third of the CPU time of level 6 for a tenth more bytes.
_GZIP_LEVEL = 1


class Transport(HttpDestination):
    """A Destination for the server that `config` names."""

    # The token, the organization and the bucket are looked at all the same.
    nothing = b"\n"
    # That there is nothing to write is not to everybody's liking, and means we are let in.
    welcomes = frozenset({Outcome.OK, Outcome.REFUSED})

    def __init__(self, name: str, config: InfluxDBConfig, clock: Clock) -> None:
        self._config = config
        # Neither the client nor what it is made of has types.
        self._client: Any = InfluxDBClient(config.url, retries=False)
        rest: Any = self._client.api_client.rest_client
        self._wire = rest.pool_manager = _Wire(self._exchange)
        service: Any = WriteService
        self._post_write = service(self._client.api_client).post_write
        self._token = (
            None
            if config.token_file is None
            else SecretFile("a token", config.token_file, "token_file")
        )
        super().__init__(name, config, [] if self._token is None else [self._token], clock)

    def halve(self, body: Body) -> Sequence[Body]:
        return line_protocol.halve(body)

    def renew(self) -> bool:
        is_new = super().renew()
        if is_new and self._token is not None and self._token.value is not None:
            token = f"Token {self._token.value}"
            self._client.api_client.set_default_header("Authorization", token)
        return is_new

    def close(self) -> None:
        super().close()
        self._client.close()

    def _exchange(
        self, url: str, body: bytes, headers: Mapping[str, str], seconds: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        return self._pool.post(url, body, headers, seconds)

    def _post(self, data: bytes, seconds: float) -> Answer:
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
                cause = error.__context__
                return Answer.none(cause if isinstance(cause, exceptions.SSLError) else error)
        except (exceptions.HTTPError, OSError) as error:
            return Answer.none(error)
        return self._wire.answer

    def _taken(self, body: Body, answer: Answer) -> int | None:
        if answer.outcome not in {Outcome.REFUSED, Outcome.TOO_OLD}:
            return None
        return influxdb_partial.taken(body, self._wire.body)

    def _remedy(self, answer: Answer) -> str:
        config, section = self._config, self._section
        match answer.status:
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
        return ""


class _Wire:
    """Where the client's requests go: by `exchange`, so that they end in time and each answer comes
    in full but short.

    Left alone the client would read answers of any length, fail on those that are not UTF-8, and
    keep the headers of a success to itself. `answer` and `body` are of the last request.
    """

    def __init__(self, exchange: Callable[..., tuple[int, Mapping[str, str], bytes]]) -> None:
        self._exchange = exchange
        self.answer = Answer(0, "", {})
        self.body = b""

    def request(self, _method: str, url: str, **options: Any) -> Any:
        seconds = options["timeout"].total
        status, headers, self.body = self._exchange(
            url, options["body"], options["headers"], seconds
        )
        self.answer = Answer.of(status, headers, self.body)
        return _Response(status, "", headers)

    def clear(self) -> None:
        """There is nothing of its own to close."""


@dataclass(frozen=True, slots=True)
class _Response:
    """As much of urllib3's response as the client looks at. It would look for an error message in
    `data`."""

    status: int
    reason: str
    headers: Mapping[str, str]
    data: bytes = b""

"""One request of remote write, through urllib3."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cramjam
from urllib3 import exceptions

from telemetryd import __version__
from telemetryd.clock import Clock
from telemetryd.delivery.answer import Answer
from telemetryd.delivery.http import HttpDestination
from telemetryd.delivery.queue import Body
from telemetryd.delivery.secret_file import SecretFile
from telemetryd.exporters import remote_write_message

if TYPE_CHECKING:
    from telemetryd.exporters.remote_write import RemoteWriteConfig

_HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
    "User-Agent": f"telemetryd/{__version__}",
}


class Transport(HttpDestination):
    """A Destination for the server that `config` names."""

    def __init__(self, name: str, config: RemoteWriteConfig, clock: Clock) -> None:
        self._config = config
        self._headers = {**_HEADERS, **config.headers}
        self._password = _secret("a password", config.password_file, "password_file", is_text=True)
        self._token = _secret("a token", config.token_file, "token_file")
        self._header_files = {
            header: SecretFile(f"the header {header}", path, "header_files", is_line=True)
            for header, path in config.header_files.items()
        }
        secrets = [self._password, self._token, *self._header_files.values()]
        super().__init__(name, config, [one for one in secrets if one is not None], clock)

    def halve(self, body: Body) -> Sequence[Body]:
        return remote_write_message.halve(body)

    def renew(self) -> bool:
        is_new = super().renew()
        if self._password is not None and self._password.value is not None:
            pair = f"{self._config.username}:{self._password.value}".encode()
            self._headers["Authorization"] = "Basic " + base64.b64encode(pair).decode()
        if self._token is not None and self._token.value is not None:
            self._headers["Authorization"] = f"Bearer {self._token.value}"
        for header, secret in self._header_files.items():
            if secret.value is not None:
                self._headers[header] = secret.value
        return is_new

    def _post(self, data: bytes, seconds: float) -> Answer:
        try:
            packed = bytes(cramjam.snappy.compress_raw(data))
            return Answer.of(*self._pool.post(self._config.url, packed, self._headers, seconds))
        except (exceptions.HTTPError, OSError) as error:
            return Answer.none(error)

    def _remedy(self, answer: Answer) -> str:
        config, section = self._config, self._section
        match answer.status:
            case 401 | 403 if "org id" in answer.text:
                return f'set {section}.headers to {{ X-Scope-OrgID = "the tenant" }}'
            case 401 | 403:
                files = [config.password_file, config.token_file, *config.header_files.values()]
                named = ", ".join(filter(None, files))
                if named:
                    return f"put credentials that may write into {named}"
                return f"set {section}.username and password_file, or token_file"
            case 404 | 405:
                return (
                    "start Prometheus with --web.enable-remote-write-receiver, or correct the "
                    f"path in {section}.url"
                )
            case 400 | 409 | 415 | 422:
                return f"see that {section}.url is an address that takes Prometheus remote write"
        return ""


def _secret(what: str, path: str | None, key: str, *, is_text: bool = False) -> SecretFile | None:
    # A password may have spaces in it.
    return None if path is None else SecretFile(what, path, key, is_line=is_text, is_text=is_text)

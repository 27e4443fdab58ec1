"""Whom to trust over TLS, and whom to show ourselves as.

Imports ssl, which costs memory: only for a destination over HTTP.
"""

from __future__ import annotations

import logging
import os
import ssl

from telemetryd.delivery.http_config import HttpConfig
from telemetryd.errors import Unavailable

_log = logging.getLogger("telemetryd.exporters")

# What tells one version of a file from the next; None if it cannot be seen.
_Version = tuple[int, ...] | None


class Tls:
    """That of the exporter called `name`, from the files that `config` names. They are used as soon
    as they are there, and again when they were renewed.

    `context` is None as long as they cannot be used, and `trouble` then says why; it is None, too,
    where the address is not https, and then there is no trouble.
    """

    def __init__(self, name: str, config: HttpConfig) -> None:
        self.context: ssl.SSLContext | None = None
        self.trouble: Unavailable | None = None
        self._name = name
        self._config = config
        self._is_https = config.url.startswith("https:")
        self._seen: list[_Version] | None = None
        self._is_stale = False
        if self._is_https and not config.verify:
            _log.warning('msg="the server\'s certificate is not checked" exporter=%s', name)

    def renew(self, *, again: bool = False) -> bool:
        """Look whether the files are others than at the last time, and use them then; True if there
        is a new context. Those that could not be used are tried as they are if it is `again`. What
        was good is kept as long as what is there now cannot be used."""
        if not self._is_https:
            return False
        seen = self._versions()
        is_same = seen == self._seen
        if is_same and not (again and self._is_stale):
            return False
        self._seen, self._is_stale = seen, True
        try:
            self.context = self._load()
        except Unavailable as error:
            if self.context is None:
                self.trouble = error
            elif not is_same:
                _log.warning(
                    'msg="the old TLS files are used on, the new ones cannot be" exporter=%s '
                    'error="%s"',
                    self._name,
                    error,
                )
            return False
        self._is_stale = False
        self.trouble = None
        return True

    def _versions(self) -> list[_Version]:
        config = self._config
        return [_version(path) for path in (config.ca_file, config.cert_file, config.key_file)]

    def _load(self) -> ssl.SSLContext:
        config = self._config
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
                f"set exporters.{self._name}.{key} to readable PEM files",
            ) from error
        return context


def _version(path: str | None) -> _Version:
    try:
        found = os.stat(path) if path is not None else None
    except OSError:
        return None
    return found and (
        found.st_dev,
        found.st_ino,
        found.st_size,
        found.st_mtime_ns,
        # A new mode or owner.
        found.st_ctime_ns,
    )

"""Whom to trust over TLS, and whom to show ourselves as.

Imports ssl, which costs memory: only for a destination that has an https address.
"""

from __future__ import annotations

import logging
import ssl

from telemetryd.delivery.http_config import HttpConfig
from telemetryd.errors import Unavailable

_log = logging.getLogger("telemetryd.exporters")


def tls_context(name: str, config: HttpConfig) -> ssl.SSLContext | None:
    """For the exporter called `name`; None if its address is not https. Raises Unavailable for
    files that cannot be used."""
    if not config.url.startswith("https:"):
        return None
    key = "ca_file"
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if not config.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            _log.warning('msg="the server\'s certificate is not checked" exporter=%s', name)
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

"""Names and namespaces of pods, from the kubelet of this node: GET /pods.

The read-only port needs no credentials and is off on most clusters; the other wants TLS and a
token that may `get` `nodes/proxy` (kubernetes.io, "Kubelet authentication/authorization").
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from telemetryd.collectors.owners.lookup import Lookup
from telemetryd.collectors.owners.settings import OwnersConfig
from telemetryd.errors import ReadError, reason_of
from telemetryd.host import Host

_TIMEOUT_S = 5.0
# 250 pods with long specifications take some 5 MiB.
_LONGEST_ANSWER = 64 << 20
# The control group of a static pod has the hash of its file for an id.
_OTHER_IDS = ("kubernetes.io/config.hash", "kubernetes.io/config.mirror")


@dataclass(frozen=True, slots=True)
class Pod:
    name: str
    namespace: str


class Kubelet(Lookup[Pod]):
    """Asks for all pods at once, at most every 30 s and only while one has no name yet."""

    what = "kubelet"
    pause = 30.0

    def __init__(self, config: OwnersConfig, host: Host) -> None:
        super().__init__(host.clock)
        assert config.kubelet_url is not None
        self._config = config
        self._host = host
        self._url = urlsplit(config.kubelet_url)
        self.what = f"{config.kubelet_url}/pods"

    def _ask(self, keys: list[str], answers: dict[str, Pod]) -> None:
        wanted = set(keys)
        answers |= {uid: pod for uid, pod in pods_of(self._fetch()) if uid in wanted}

    def _fetch(self) -> bytes:
        headers = {"Accept": "application/json", "Connection": "close"}
        if self._config.kubelet_token_file:
            headers["Authorization"] = f"Bearer {self._token(self._config.kubelet_token_file)}"
        connection = self._connection()
        try:
            connection.request("GET", "/pods", headers=headers)
            with connection.getresponse() as response:
                if response.status != http.client.OK:
                    raise self._refusal(response.status)
                return self._read(response)
        except http.client.HTTPException as error:
            raise ReadError("io", f"no answer in HTTP: {error!r}") from None
        except OSError as error:
            # ssl.SSLCertVerificationError, where there is ssl at all
            if not hasattr(error, "verify_code"):
                raise
            remedy = "set kubelet_ca_file to what signed it, or kubelet_verify to false"
            raise ReadError("invalid", f"{error}; {remedy}") from None
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port or 10255, timeout=_TIMEOUT_S)
        import ssl  # noqa: PLC0415  (4 MiB, needed by few)

        try:
            context = ssl.create_default_context(cafile=self._config.kubelet_ca_file)
        except OSError as error:
            what = f"cannot use kubelet_ca_file: {error.strerror or error}"
            raise ReadError(reason_of(error), what) from None
        if not self._config.kubelet_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, port or 10250, timeout=_TIMEOUT_S, context=context)

    def _token(self, path: str) -> str:
        # Read anew each time: a token of a service account is replaced every hour.
        try:
            token = self._host.text(path)
        except OSError as error:
            what = f"cannot read kubelet_token_file {path}: {error.strerror}"
            raise ReadError(reason_of(error), f"{what}; let the daemon's user read it") from None
        if not token.isascii() or not token.isprintable() or not token or " " in token:
            raise ReadError("invalid", f"kubelet_token_file {path} does not hold a token")
        return token

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        deadline_ns = self._host.clock.mono_ns() + int(_TIMEOUT_S * 1e9)
        parts, length = [], 0
        while part := response.read1(1 << 16):
            parts.append(part)
            length += len(part)
            if length > _LONGEST_ANSWER:
                raise ReadError("parse", f"an answer of more than {_LONGEST_ANSWER} bytes")
            if self._host.clock.mono_ns() > deadline_ns:
                raise ReadError("timeout", f"no whole answer within {_TIMEOUT_S:g} s")
        return b"".join(parts)

    def _refusal(self, status: int) -> ReadError:
        if status in {401, 403}:
            return ReadError(
                "permission",
                f"HTTP {status}; set kubelet_token_file to a token that may get nodes/proxy",
            )
        return ReadError("io", f"HTTP {status}; see that kubelet_url is a kubelet's")


def pods_of(answer: bytes) -> Iterator[tuple[str, Pod]]:
    """Ids and names of a list of pods. Raises ReadError if it is none."""
    try:
        items = json.loads(answer)["items"] or []
        for item in items:
            metadata: dict[str, Any] = item["metadata"]
            pod = Pod(str(metadata["name"]), str(metadata.get("namespace", "")))
            notes = metadata.get("annotations") or {}
            for uid in (metadata["uid"], *(notes.get(key) for key in _OTHER_IDS)):
                if uid:
                    yield str(uid), pod
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ReadError("parse", f"not a list of pods: {error!r:.100}") from None

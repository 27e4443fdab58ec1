"""Resources of a BMC as documents, behind a login that is renewed when the BMC forgot it.

A session (SessionService, X-Auth-Token: DSP0266, "Redfish session login authentication") costs the
BMC one check of the password; where it refuses to open one, each request carries the password.
"""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from telemetryd.collectors.redfish.connection import (
    SECTION,
    Answer,
    BmcError,
    Connection,
    LoginError,
)
from telemetryd.collectors.redfish.settings import RedfishConfig
from telemetryd.errors import ReadError
from telemetryd.host import Host

ROOT = "/redfish/v1/"
_SESSIONS = "/redfish/v1/SessionService/Sessions"
Document = dict[str, Any]
# A password that was refused is not sent again for so long: BMCs lock an account, or an address,
# after a few failures.
_REFUSED_S = 600.0
# One that was good before is, soon: a BMC that boots refuses everybody for a while.
_REFUSED_ONCE_S = 60.0
# How a BMC says that it has no session left (DSP0268, base messages).
_NONE_LEFT = (b"SessionLimitExceeded", b"CreateLimitReachedForResource")
# A guess; the BMC drops the session by itself, mostly after half an hour.
_LOGOUT_S = 2.0


class Session:
    """The documents behind `config.url`. Not for several threads, except `abort`."""

    def __init__(self, config: RedfishConfig, host: Host) -> None:
        self._config = config
        self._host = host
        self._connection = Connection(config, host.clock)
        self._sessions = _SESSIONS
        self._headers: dict[str, str] | None = None if config.username else {}
        self._location: str | None = None
        self._uses_sessions = True
        self._was_let_in = False
        self._refused = ""
        self._refused_until_ns = 0
        self._refused_file: object = None

    @property
    def is_reached(self) -> bool:
        """Whether there is a BMC that answers, or at least accepts a connection."""
        return self._connection.is_reached

    @property
    def is_basic(self) -> bool:
        """Whether the BMC gave no session, so that each request carries the password."""
        return not self._uses_sessions

    def begin(self, deadline_ns: int) -> Document:
        """The service root, which needs no login; where sessions are is taken from it."""
        self._uses_sessions = True
        if self._config.username and self._location is None:
            self._headers = None
        answer = self._connection.request("GET", ROOT, {}, deadline_ns)
        if answer.status == 401:
            return self.get(ROOT, deadline_ns)
        try:
            root = _document(ROOT, answer)
        except BmcError as error:
            if error.reason not in {"missing", "parse", "invalid"}:
                raise
            raise BmcError(
                error.reason,
                f"{self._config.url} is no Redfish service: {error.what}",
                f"correct {SECTION}.url, or switch Redfish on in the BMC",
                ends_round=True,
            ) from error
        self._sessions = link(root, "Links", "Sessions") or _SESSIONS
        return root

    def get(self, path: str, deadline_ns: int) -> Document:
        """The resource at `path`. Raises BmcError."""
        was_logged_in = self._headers is not None
        answer = self._connection.request("GET", path, self._credentials(deadline_ns), deadline_ns)
        if answer.status == 401 and was_logged_in and self._config.username:
            # The BMC has rebooted, or the session was idle for too long.
            self._headers = self._location = None
            answer = self._connection.request(
                "GET", path, self._credentials(deadline_ns), deadline_ns
            )
        if answer.status == 401 and self.is_basic:
            raise self._refusal("the account")
        document = _document(path, answer)
        self._was_let_in = True
        return document

    def abort(self) -> None:
        """Called from another thread: end the wait for an answer that takes too long."""
        self._connection.abort()

    def close(self) -> None:
        """Log out, briefly, and close the connection. Calling it twice is safe."""
        location, headers = self._location, self._headers
        self._location = None
        if location is not None and headers is not None:
            self._headers = None
            deadline_ns = self._host.clock.mono_ns() + int(_LOGOUT_S * 1e9)
            with suppress(ReadError):  # it ends by itself, and there is nobody left to be told
                self._connection.request("DELETE", location, headers, deadline_ns)
        self._connection.close()

    def _credentials(self, deadline_ns: int) -> dict[str, str]:
        if self._headers is None:
            self._headers = self._log_in(deadline_ns)
        return self._headers

    def _log_in(self, deadline_ns: int) -> dict[str, str]:
        """The headers that let us in. Raises BmcError."""
        name = self._config.username or ""
        password = self._password()
        if self._refused:
            waits = self._host.clock.mono_ns() < self._refused_until_ns
            if waits and self._refused_file == self._stamp():
                raise self._refusal()
            self._refused = ""
        if self._uses_sessions:
            wanted = {"UserName": name, "Password": password}
            answer = self._connection.request("POST", self._sessions, {}, deadline_ns, wanted)
            if answer.status in {401, 403}:
                raise self._refusal(f"the login of {name}")
            token = answer.headers.get("X-Auth-Token")
            if 200 <= answer.status < 300 and token:
                self._location = _session_of(answer)
                return {"X-Auth-Token": token}
            is_down = answer.status in {429, 500, 502, 503, 504}
            if is_down and not any(mark in answer.body for mark in _NONE_LEFT):
                raise _refused_with(answer.status, self._sessions)
            self._uses_sessions = False
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}

    def _refusal(self, what: str = "") -> LoginError:
        """The error to raise; with `what` it is new, and kept until the password is another."""
        if what:
            seconds = _REFUSED_ONCE_S if self._was_let_in else _REFUSED_S
            self._headers = None
            self._refused = what
            self._refused_until_ns = self._host.clock.mono_ns() + int(seconds * 1e9)
            self._refused_file = self._stamp()
        return LoginError(
            "permission",
            f"{self._config.url} refuses {self._refused}",
            f"correct {SECTION}.username, or the password in {self._config.password_file}; tried "
            f"again when that file changes, or after {_REFUSED_S / 60:g} minutes, lest the BMC "
            "locks the account",
        )

    def _password(self) -> str:
        """The only line of the file. Raises BmcError, never with what was read."""
        path = self._config.password_file or ""
        try:
            password = self._host.read(path).decode().rstrip("\r\n")
        except OSError as error:
            why = error.strerror or type(error).__name__
            reason = "missing" if isinstance(error, FileNotFoundError) else "permission"
        except ValueError:
            why, reason = "it is not UTF-8", "parse"
        else:
            if password and password.isprintable():
                return password
            why, reason = "it is empty" if not password else "it has more than a line", "parse"
        raise LoginError(
            reason,
            f"cannot read a password from {path}: {why}",
            "write it there, one line, readable by the user that telemetryd runs as, or set "
            f"{SECTION}.password_file",
        )

    def _stamp(self) -> object:
        try:
            status = os.stat(self._config.password_file or "")
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns


def link(document: Document, *keys: str) -> str | None:
    """The path that a reference points to, without its fragment; None if there is none."""
    found: object = document
    for key in (*keys, "@odata.id"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str) or not found.startswith("/") or found.startswith("//"):
        return None
    path = found.partition("#")[0]
    return path if path.isascii() and path.isprintable() and " " not in path else None


def _session_of(answer: Answer) -> str | None:
    """Where the session that was opened can be deleted."""
    location = answer.headers.get("Location")
    if location:
        try:
            return link({"@odata.id": urlsplit(location).path})
        except ValueError:
            return None
    try:
        body = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return link(body) if isinstance(body, dict) else None


def _document(path: str, answer: Answer) -> Document:
    """Raises BmcError if there is none."""
    status = answer.status
    if status == 200:
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            raise BmcError("parse", f"{path}: is not JSON", "see the BMC's log") from error
        if isinstance(found, dict):
            return found
        raise BmcError("parse", f"{path}: is no object of JSON", "see the BMC's log")
    if status == 401:
        raise LoginError(
            "permission",
            f"{path}: the BMC wants a login",
            f"set {SECTION}.username and {SECTION}.password_file",
        )
    if status == 403:
        raise BmcError(
            "permission",
            f"{path}: the account may not read it",
            "give it the role ReadOnly on the BMC, and change a password that has to be changed",
        )
    if status in {404, 410}:
        raise BmcError("missing", f"{path}: is not there", "another firmware may have it")
    raise _refused_with(status, path)


def _refused_with(status: int, path: str) -> BmcError:
    reason = "io" if status >= 500 or status == 429 else "invalid"
    return BmcError(reason, f"{path}: the BMC answers {status}", "see the BMC's log")

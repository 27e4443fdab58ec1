"""The collector: where the words of the programs come from."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator

from telemetryd.collector import Collector
from telemetryd.collectors.ipmi.answer import complaint_in, watts_in
from telemetryd.collectors.ipmi.settings import IpmiConfig
from telemetryd.errors import Broken, ReadError, Unavailable, reason_of
from telemetryd.host import Attribute, Host
from telemetryd.meters import POWER
from telemetryd.metric import Point
from telemetryd.program import Program, TooSlow

SOURCE, DOMAIN = "ipmi", "system"
_TIMER, _SERVICE = "telemetryd-ipmi.timer", "telemetryd-ipmi.service"
_PACKAGES = {"ipmitool": "ipmitool", "ipmi-dcmi": "freeipmi-tools"}
# ipmi-dcmi is in /usr/sbin, which a user's own PATH may not have.
_MORE_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
# Far more than either program says, and nothing to the daemon.
_LONGEST = 1 << 16
# IPMI 2.0, 22.30 "Set User Password".
_LONGEST_PASSWORD = 20


class Ipmi(Collector):
    """Watts of the system; nothing without an answer that is one.

    Raises Unavailable if the file is not there, or if the BMC knows no DCMI power reading; Broken
    if the program that is to ask the host is not installed.
    """

    Config = IpmiConfig
    config: IpmiConfig
    metrics = (POWER,)
    may_block = True

    def __init__(self, config: IpmiConfig, host: Host) -> None:
        super().__init__(config, host)
        self._program = Program(config.timeout, _LONGEST)
        self._series = POWER.at(SOURCE, DOMAIN, config.host or "bmc", config.boundary)
        self._path = host.root(config.file)
        if config.host is not None:
            _place_of(config.command)
            return
        # What is garbled or too old is a fault of the moment: each sample reports it.
        with contextlib.suppress(ReadError):
            self._from_file()

    def sample(self) -> Iterator[Point]:
        watts = self._from_file() if self.config.host is None else self._from_network()
        yield self._series, watts

    def close(self) -> None:
        self._program.close()

    def _from_file(self) -> int:
        """Raises Unavailable, ReadError."""
        path = self._path
        try:
            # Before it is read: should a newer one come between, it is only thought to be older.
            written_ns = os.stat(path).st_mtime_ns
            data = _short(path)
        except FileNotFoundError as error:
            raise Unavailable(f"{path} is not there", f"systemctl enable --now {_TIMER}") from error
        except PermissionError as error:
            raise Unavailable(
                f"cannot read {path}: {error.strerror}",
                f"systemctl restart {_SERVICE}, which opens it to the group telemetryd; run as the "
                "user telemetryd or as root",
            ) from error
        except OSError as error:
            raise ReadError(reason_of(error), f"cannot read {path}: {error.strerror}") from error
        except ReadError as error:
            raise ReadError(error.reason, f"cannot read {path}: {error}") from None
        age = (self.host.clock.wall_ns() - written_ns) / 1e9
        if age > self.config.max_age:
            why = f"{path} was written {age:.0f} s ago"
            raise ReadError("timeout", f"{why}; see systemctl status {_TIMER} {_SERVICE}")
        if age < -self.config.max_age:
            raise ReadError("invalid", f"{path} was written {-age:.0f} s ahead of the clock")
        return watts_in(data.decode("utf-8", "replace"), path)

    def _from_network(self) -> int:
        """Raises Unavailable, ReadError."""
        config = self.config
        password = self._password()
        environment = {b"PATH": os.fsencode(_search_path()), b"LC_ALL": b"C"}
        asked = f"{config.command}, asking {config.host}"
        try:
            if config.command == "ipmitool":
                environment[b"IPMI_PASSWORD"] = password
                text = self._program.run(_ipmitool(config), environment)
            else:
                with _settings_of_freeipmi(config, password) as fd:
                    text = self._program.run(_ipmi_dcmi(config, fd), environment, (fd,))
        except TooSlow as error:
            why = complaint_in(error.said) or (
                "see that the BMC can be reached, has IPMI over LAN (lanplus) switched on, and "
                "knows the user"
            )
            raise ReadError("timeout", f"{asked}: no answer: {error}; {why}") from None
        return watts_in(text, asked)

    def _password(self) -> bytes:
        """Raises ReadError, never with what was read."""
        # The daemon's own, so not below the root of the host that is watched.
        path = self.config.password_file
        assert path is not None
        problem: OSError | ReadError
        try:
            password = _short(path).removesuffix(b"\n").removesuffix(b"\r")
            if password and len(password) <= _LONGEST_PASSWORD and min(password) >= ord(" "):
                return password
            problem = ReadError("invalid", f"it is not one line of 1 to {_LONGEST_PASSWORD} bytes")
        except (OSError, ReadError) as error:
            problem = error
        why = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise ReadError(
            reason_of(problem),
            f"cannot read a password from {path}: {why}; put the password of {self.config.username}"
            " there, readable by the user that telemetryd runs as",
        )


def _short(path: str) -> bytes:
    """The whole of a file that is not long. Raises OSError, ReadError."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
        raise ReadError("invalid", "it is no regular file")
    file = Attribute(path, _LONGEST + 1)
    try:
        data = file.read()
    finally:
        file.close()
    if len(data) > _LONGEST:
        raise ReadError("parse", f"it is longer than {_LONGEST} bytes")
    return data


def _search_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{_MORE_PATH}"


def _place_of(command: str) -> str:
    """The program's path. Raises Broken: a host is to be asked, so its absence is not normal."""
    path = shutil.which(command, path=_search_path())
    if path is None:
        why = f"{command} is not installed"
        raise Broken(why, f"apt install {_PACKAGES[command]}") from ReadError("missing", why)
    return path


def _ipmitool(config: IpmiConfig) -> list[str]:
    """-E takes the password from the environment, which only root and we can see; -v tells a wrong
    one from a BMC that is silent."""
    assert config.host is not None
    assert config.username is not None
    command = [_place_of("ipmitool"), "-v", "-I", "lanplus", "-E"]
    command += ["-H", config.host, "-p", str(config.port), "-U", config.username]
    command += ["-L", config.privilege.upper()]
    if config.cipher_suite is not None:
        command += ["-C", str(config.cipher_suite)]
    return [*command, "dcmi", "power", "reading"]


def _ipmi_dcmi(config: IpmiConfig, settings: int) -> list[str]:
    address = f"[{config.host}]" if ":" in str(config.host) else config.host
    privilege = {"administrator": "admin"}.get(config.privilege, config.privilege)
    command = [_place_of("ipmi-dcmi"), f"--config-file=/proc/self/fd/{settings}"]
    command += ["-D", "LAN_2_0", "-h", f"{address}:{config.port}", "-l", privilege.upper()]
    if config.cipher_suite is not None:
        command += ["-I", str(config.cipher_suite)]
    return [*command, "--get-system-power-statistics"]


@contextlib.contextmanager
def _settings_of_freeipmi(config: IpmiConfig, password: bytes) -> Iterator[int]:
    """freeipmi.conf(5) with the password, in a file that is on no disk."""
    words = {b"username": os.fsencode(str(config.username)), b"password": password}
    fd = os.memfd_create("telemetryd-ipmi")
    try:
        for name, word in words.items():
            os.write(fd, b'%b "%b"\n' % (name, re.sub(rb'(["#\\])', rb"\\\1", word)))
        yield fd
    finally:
        os.close(fd)

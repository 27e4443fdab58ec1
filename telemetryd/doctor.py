"""`telemetryd doctor`: what works here, what does not, why, and the exact remedy."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from telemetryd import plugins
from telemetryd.attempt import Attempt
from telemetryd.clock import Clock
from telemetryd.collector import CollectorConfig
from telemetryd.config import Config
from telemetryd.delivery.spool_config import SpoolConfig
from telemetryd.errors import Broken, Unavailable
from telemetryd.exporter import ExporterConfig
from telemetryd.host import Host
from telemetryd.instruments import Instruments

# Longer than any read that is well; a sick device may take this long to show.
_PATIENCE_S = 5.0
# An exporter has timeouts of its own, which are of more help.
_EXPORTER_PATIENCE_S = 30.0
# StateDirectory= of the unit: an operator's shell does not know it.
_OF_THE_SERVICE = "/var/lib/telemetryd"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one collector or exporter.

    `state` is ok, degraded (some readings fail), missing (its hardware is not there), failing,
    stuck or off.
    """

    kind: str
    name: str
    state: str
    why: str
    remedy: str
    required: bool
    remarks: tuple[str, ...] = ()

    @property
    def is_bad(self) -> bool:
        """Whether something that the configuration requires is not working."""
        return self.required and self.state not in {"ok", "degraded", "off"}


def examine(config: Config, host: Host) -> Iterator[Finding]:
    """Look at every collector and exporter, one after the other."""
    for name in dict.fromkeys([*plugins.COLLECTORS, *config.collectors]):
        wanted = config.collectors.get(name)
        if wanted is None:
            remedy = f"set collectors.{name}.enabled to true to use it"
            yield Finding("collector", name, "off", "switched off", remedy, required=False)
        else:
            yield _examine_collector(name, wanted, host)
    if plugins.PROMETHEUS in config.exporters:
        yield _examine_endpoint(*config.web.address)
    pushed = {name: one for name, one in config.exporters.items() if name != plugins.PROMETHEUS}
    if pushed:
        yield _examine_spool(config.spool)
    for name, settings in pushed.items():
        yield _examine_exporter(name, settings, config.labels)


def _examine_collector(name: str, config: CollectorConfig, host: Host) -> Finding:
    required = config.enabled is True

    def found(state: str, why: str, remedy: str = "see the message") -> Finding:
        return Finding("collector", name, state, why, remedy, required, remarks)

    faults: list[str] = []
    remarks: tuple[str, ...] = ()
    series = 0

    def examine() -> None:
        nonlocal series, remarks
        collector = plugins.open_collector(name, config, host)
        collector.on_fault = lambda _reason, what: faults.append(what)
        try:
            for _ in collector.sample():
                series += 1
            remarks = tuple(collector.remarks())
        finally:
            collector.close()

    try:
        _within(_PATIENCE_S, examine)
    except Broken as broken:
        return found("failing", broken.why, broken.remedy)
    except Unavailable as gone:
        return found("missing", gone.why, gone.remedy)
    except _Silence as silence:
        return found("stuck", str(silence), "a device or file system hangs: see docs/service.md")
    except Exception as error:  # noqa: BLE001  (a broken collector is a finding like any other)
        return found("failing", f"{type(error).__name__}: {error}")
    if faults:
        return found("degraded", f"{series} series; {len(faults)} failed, first: {faults[0]}")
    return found("ok", f"{series} series", "")


class _Silence(Exception):  # noqa: N818
    """Neither a result nor an error."""

    def __str__(self) -> str:
        return f"no answer within {self.args[0]:g} s"


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises. Raises _Silence if it hangs; its thread is left behind."""
    attempt = Attempt(call, "doctor")
    if not attempt.wait(seconds, Clock()):
        raise _Silence(seconds)
    return attempt.outcome()


def _examine_endpoint(address: str, port: int) -> Finding:
    """Free to listen on, or already ours."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    where = f"{address}:{port}"
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            if _answers(address, port):
                why = f"a telemetryd answers on {where}"
                return Finding("exporter", "prometheus", "ok", why, "", required=True)
            why = f"cannot listen on {where}: {error.strerror}"
            remedy = "stop what holds the port, or set web.listen to another"
            return Finding("exporter", "prometheus", "failing", why, remedy, required=True)
    return Finding("exporter", "prometheus", "ok", f"{where} is free", "", required=True)


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return b"telemetryd" in connection.recv(4096)
    except OSError:
        return False


def _examine_spool(spool: SpoolConfig) -> Finding:
    def found(state: str, why: str, remedy: str = "") -> Finding:
        return Finding("delivery", "spool", state, why, remedy, required=False)

    if not spool.enabled:
        return found("off", "points wait in memory, where a crash loses them", "as configured")
    place = spool.place(os.environ)
    if place is None and os.path.isdir(_OF_THE_SERVICE):
        return found("ok", f"in {_OF_THE_SERVICE}/spool, as the service")
    if place is None:
        return found(
            "missing", "points wait in memory, where a crash loses them", "set spool.directory"
        )
    there = place
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        return found("failing", f"{there} is no directory", "set spool.directory to another place")
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".telemetryd-", dir=there))
    except OSError as error:
        return found(
            "failing",
            f"cannot write to {there}: {error.strerror}",
            "set spool.directory to a place that the user of telemetryd may write to",
        )
    return found("ok", f"in {place}")


def _examine_exporter(name: str, config: ExporterConfig, labels: dict[str, str]) -> Finding:
    def found(state: str, why: str, remedy: str) -> Finding:
        return Finding("exporter", name, state, why, remedy, required=True)

    def examine() -> None:
        kind = plugins.push_exporter_class(config.kind(name))
        kind(name, config, labels, Instruments(), SpoolConfig()).check()

    try:
        _within(_EXPORTER_PATIENCE_S, examine)
    except Unavailable as gone:
        return found("failing", gone.why, gone.remedy)
    except _Silence as silence:
        return found("stuck", str(silence), "see what holds up the destination")
    except Exception as error:  # noqa: BLE001  (it may be somebody else's)
        return found("failing", f"{type(error).__name__}: {error}", "see the message")
    return found("ok", "reached", "")


_GREEN, _YELLOW, _RED, _FAINT = "32", "33", "31", "2"
_COLOURS = {
    "ok": _GREEN,
    "off": _FAINT,
    "missing": _YELLOW,
    "degraded": _YELLOW,
    "failing": _RED,
    "stuck": _RED,
}


_BELOW = " " * 33


def as_table(findings: list[Finding], *, colour: bool) -> str:
    """Three columns and a line with the remedy below each that needs one."""
    lines = []
    for finding in findings:
        state = finding.state.ljust(9)
        if colour:
            code = _RED if finding.is_bad else _COLOURS[finding.state]
            state = f"\x1b[{code}m{state}\x1b[0m"
        lines.append(f"{finding.kind:9} {finding.name:12} {state} {finding.why}")
        if finding.remedy and finding.state not in {"ok", "off"}:
            lines.append(f"{_BELOW}remedy: {finding.remedy}")
        lines.extend(_BELOW + remark for remark in finding.remarks)
    return "\n".join(lines) + "\n"

"""`telemetryd doctor`: what works here, what does not, why, and the exact remedy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from telemetryd import plugins
from telemetryd.collector import Collector, CollectorConfig
from telemetryd.config import Config
from telemetryd.errors import Unavailable
from telemetryd.exporter import ExporterConfig
from telemetryd.host import Host
from telemetryd.instruments import Instruments

# Longer than any read that is well; a sick device may take this long to show.
_PATIENCE_S = 5.0


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
    for name, settings in config.exporters.items():
        if name != plugins.PROMETHEUS:
            yield _examine_exporter(name, settings, config.labels)


def _examine_collector(name: str, config: CollectorConfig, host: Host) -> Finding:
    required = config.enabled is True
    try:
        collector = plugins.collector_class(name)(config, host)
    except Unavailable as gone:
        return Finding("collector", name, "missing", gone.why, gone.remedy, required)
    except Exception as error:  # noqa: BLE001  (a broken collector is a finding like any other)
        return Finding("collector", name, "failing", repr(error), "report this", required)
    faults: list[str] = []
    collector.on_fault = lambda _reason, what: faults.append(what)
    trial = _Trial(collector)
    trial.start()
    trial.join(_PATIENCE_S)
    if trial.is_alive():
        why = f"no answer within {_PATIENCE_S:g} s"
        remedy = "a device or file system hangs: see docs/service.md, Reads that hang"
        return Finding("collector", name, "stuck", why, remedy, required)
    collector.close()
    if isinstance(trial.error, Unavailable):
        return Finding("collector", name, "missing", trial.error.why, trial.error.remedy, required)
    if trial.error is not None:
        return Finding("collector", name, "failing", str(trial.error), "see the message", required)
    if faults:
        why = f"{trial.series} series; {len(faults)} failed, first: {faults[0]}"
        return Finding("collector", name, "degraded", why, "see the message", required)
    return Finding("collector", name, "ok", f"{trial.series} series", "", required)


class _Trial(threading.Thread):
    """One sample in a thread that may be left behind."""

    def __init__(self, collector: Collector) -> None:
        super().__init__(daemon=True)
        self._collector = collector
        self.series = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            for _ in self._collector.sample():
                self.series += 1
        except Exception as error:  # noqa: BLE001  (shown to the operator)
            self.error = error


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


def _examine_exporter(name: str, config: ExporterConfig, labels: dict[str, str]) -> Finding:
    try:
        exporter = plugins.push_exporter_class(name)(name, config, labels, Instruments())
        exporter.check()
    except Unavailable as gone:
        return Finding("exporter", name, "failing", gone.why, gone.remedy, required=True)
    return Finding("exporter", name, "ok", "reached", "", required=True)


_GREEN, _YELLOW, _RED, _FAINT = "32", "33", "31", "2"
_COLOURS = {
    "ok": _GREEN,
    "off": _FAINT,
    "missing": _YELLOW,
    "degraded": _YELLOW,
    "failing": _RED,
    "stuck": _RED,
}


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
            lines.append(f"{'':33}remedy: {finding.remedy}")
    return "\n".join(lines) + "\n"

"""TCP and UDP: segments, retransmits, connections, and what was lost on the way to a program.

From /proc/net/snmp and /proc/net/netstat (net/ipv4/proc.c; names in RFC 4022, RFC 4113 and
Documentation/networking/snmp_counter.rst) and /proc/net/snmp6 (net/ipv6/proc.c). Which columns
there are, and in which order, depends on the kernel: they are found by name, and again whenever
the names change. A column that a kernel has not is absent.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from telemetryd.collector import Collector, CollectorConfig
from telemetryd.collectors.network import net_file
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Attribute, Host
from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker

# Longer than these files get: 130 names and as many values of up to 20 digits are 7 KB.
_SIZE = 32768

_SNMP = "/proc/net/snmp Tcp {}, RFC 4022"
_NETSTAT = "/proc/net/netstat TcpExt {}, networking/snmp_counter.rst"
_UDP = "/proc/net/snmp Udp {0}, /proc/net/snmp6 Udp6{0}, RFC 4113"

SEGMENTS = Metric(
    "tcp", "segments", Kind.COUNTER, Unit.NONE,
    "TCP segments received, and transmitted without those that only repeat.",
    _SNMP.format("InSegs and OutSegs"), ("direction",),
)  # fmt: skip
RETRANSMITTED = Metric(
    "tcp", "retransmitted_segments", Kind.COUNTER, Unit.NONE,
    "TCP segments transmitted again because no acknowledgement came.", _SNMP.format("RetransSegs"),
)  # fmt: skip
RECEIVE_ERRORS = Metric(
    "tcp", "receive_errors", Kind.COUNTER, Unit.NONE,
    "TCP segments received damaged, such as with a wrong checksum.", _SNMP.format("InErrs"),
)  # fmt: skip
RESETS_SENT = Metric(
    "tcp", "resets_sent", Kind.COUNTER, Unit.NONE,
    "TCP segments transmitted with the RST flag.", _SNMP.format("OutRsts"),
)  # fmt: skip
OPENS = Metric(
    "tcp", "opens", Kind.COUNTER, Unit.NONE,
    "TCP connections opened: active from here, passive from elsewhere.",
    _SNMP.format("ActiveOpens and PassiveOpens"), ("side",),
)  # fmt: skip
FAILED_ATTEMPTS = Metric(
    "tcp", "failed_attempts", Kind.COUNTER, Unit.NONE,
    "TCP connections that failed before they were established.", _SNMP.format("AttemptFails"),
)  # fmt: skip
RESETS = Metric(
    "tcp", "established_resets", Kind.COUNTER, Unit.NONE,
    "Established TCP connections that were reset.", _SNMP.format("EstabResets"),
)  # fmt: skip
ESTABLISHED = Metric(
    "tcp", "established_connections", Kind.GAUGE, Unit.NONE,
    "TCP connections that are established now, or closed by the other side only.",
    _SNMP.format("CurrEstab"),
)  # fmt: skip
LISTEN_OVERFLOWS = Metric(
    "tcp", "listen_overflows", Kind.COUNTER, Unit.NONE,
    "Connections refused because the queue of a listening socket was full: its program does not "
    "accept fast enough, or its backlog is too short.",
    _NETSTAT.format("ListenOverflows"),
)  # fmt: skip
LISTEN_DROPS = Metric(
    "tcp", "listen_drops", Kind.COUNTER, Unit.NONE,
    "Connections dropped by a listening socket for any reason, overflows included.",
    _NETSTAT.format("ListenDrops"),
)  # fmt: skip
TIMEOUTS = Metric(
    "tcp", "timeouts", Kind.COUNTER, Unit.NONE,
    "Times the retransmission timer of a connection ran out.", _NETSTAT.format("TCPTimeouts"),
)  # fmt: skip
SYN_RETRANSMITS = Metric(
    "tcp", "syn_retransmits", Kind.COUNTER, Unit.NONE,
    "SYN and SYN/ACK segments transmitted again.", _NETSTAT.format("TCPSynRetrans"),
)  # fmt: skip
SYNCOOKIES = Metric(
    "tcp", "syncookies", Kind.COUNTER, Unit.NONE,
    "SYN cookies sent, received back, and received but not valid.",
    _NETSTAT.format("SyncookiesSent, SyncookiesRecv and SyncookiesFailed"), ("event",),
)  # fmt: skip
OUT_OF_ORDER = Metric(
    "tcp", "out_of_order_segments", Kind.COUNTER, Unit.NONE,
    "TCP segments received ahead of their turn and queued.", _NETSTAT.format("TCPOFOQueue"),
)  # fmt: skip
RECEIVE_QUEUE_DROPS = Metric(
    "tcp", "receive_queue_drops", Kind.COUNTER, Unit.NONE,
    "TCP segments dropped because the receive queue of their socket was full.",
    _NETSTAT.format("TCPRcvQDrop"),
)  # fmt: skip
BACKLOG_DROPS = Metric(
    "tcp", "backlog_drops", Kind.COUNTER, Unit.NONE,
    "TCP segments dropped because the backlog of their socket was full.",
    _NETSTAT.format("TCPBacklogDrop"),
)  # fmt: skip
MEMORY_ABORTS = Metric(
    "tcp", "memory_aborts", Kind.COUNTER, Unit.NONE,
    "TCP connections given up because memory for sockets ran out.",
    _NETSTAT.format("TCPAbortOnMemory"),
)  # fmt: skip
MEMORY_PRESSURES = Metric(
    "tcp", "memory_pressures", Kind.COUNTER, Unit.NONE,
    "Times TCP came under memory pressure.", _NETSTAT.format("TCPMemoryPressures"),
)  # fmt: skip
DATAGRAMS = Metric(
    "udp", "datagrams", Kind.COUNTER, Unit.NONE,
    "UDP datagrams delivered to programs, and transmitted, over IPv4 and IPv6.",
    _UDP.format("InDatagrams and OutDatagrams"), ("ip", "direction"),
)  # fmt: skip
UDP_ERRORS = Metric(
    "udp", "receive_errors", Kind.COUNTER, Unit.NONE,
    "UDP datagrams that could not be delivered though their port was open, full receive buffers "
    "included.",
    _UDP.format("InErrors"), ("ip",),
)  # fmt: skip
UDP_NO_PORT = Metric(
    "udp", "no_port_datagrams", Kind.COUNTER, Unit.NONE,
    "UDP datagrams received for a port that nobody had open.", _UDP.format("NoPorts"), ("ip",),
)  # fmt: skip
UDP_BUFFER_ERRORS = Metric(
    "udp", "buffer_errors", Kind.COUNTER, Unit.NONE,
    "UDP datagrams dropped because the buffer of their socket was full.",
    _UDP.format("RcvbufErrors and SndbufErrors"), ("ip", "direction"),
)  # fmt: skip

_Columns = dict[bytes, Series]

_TCP: _Columns = {
    b"ActiveOpens": OPENS.at("active"),
    b"PassiveOpens": OPENS.at("passive"),
    b"AttemptFails": FAILED_ATTEMPTS.at(),
    b"EstabResets": RESETS.at(),
    b"CurrEstab": ESTABLISHED.at(),
    b"InSegs": SEGMENTS.at("receive"),
    b"OutSegs": SEGMENTS.at("transmit"),
    b"RetransSegs": RETRANSMITTED.at(),
    b"InErrs": RECEIVE_ERRORS.at(),
    b"OutRsts": RESETS_SENT.at(),
}
_TCP_EXT: _Columns = {
    b"SyncookiesSent": SYNCOOKIES.at("sent"),
    b"SyncookiesRecv": SYNCOOKIES.at("received"),
    b"SyncookiesFailed": SYNCOOKIES.at("failed"),
    b"ListenOverflows": LISTEN_OVERFLOWS.at(),
    b"ListenDrops": LISTEN_DROPS.at(),
    b"TCPTimeouts": TIMEOUTS.at(),
    b"TCPSynRetrans": SYN_RETRANSMITS.at(),
    b"TCPOFOQueue": OUT_OF_ORDER.at(),
    b"TCPRcvQDrop": RECEIVE_QUEUE_DROPS.at(),
    b"TCPBacklogDrop": BACKLOG_DROPS.at(),
    b"TCPAbortOnMemory": MEMORY_ABORTS.at(),
    b"TCPMemoryPressures": MEMORY_PRESSURES.at(),
}


def _udp(prefix: bytes, ip: str) -> _Columns:
    return {
        prefix + b"InDatagrams": DATAGRAMS.at(ip, "receive"),
        prefix + b"OutDatagrams": DATAGRAMS.at(ip, "transmit"),
        prefix + b"InErrors": UDP_ERRORS.at(ip),
        prefix + b"NoPorts": UDP_NO_PORT.at(ip),
        prefix + b"RcvbufErrors": UDP_BUFFER_ERRORS.at(ip, "receive"),
        prefix + b"SndbufErrors": UDP_BUFFER_ERRORS.at(ip, "transmit"),
    }


class _Row:
    """The wanted columns of one row of names, and where they are in it."""

    __slots__ = ("pick", "row", "series")

    def __init__(self, row: int, names: Sequence[bytes], wanted: _Columns) -> None:
        found = [(i, wanted[name]) for i, name in enumerate(names) if name in wanted]
        self.row = row
        self.series = [series for _, series in found]
        self.pick = picker([i for i, _ in found])

    def points(self, values: Sequence[bytes]) -> Iterator[Point]:
        return zip(self.series, map(int, self.pick(values)), strict=True)


class _Pairs:
    """snmp and netstat: a line `Tcp: name name ...`, then a line `Tcp: value value ...`."""

    def __init__(self, path: str, wanted: dict[bytes, _Columns]) -> None:
        self.file = Attribute(path, _SIZE)
        self._wanted = wanted
        self._headers: list[bytes] | None = None
        self._rows: list[_Row] = []

    def points(self) -> Iterator[Point]:
        lines = self.file.read().splitlines()
        headers = lines[::2]
        if headers != self._headers:
            self._find_columns(headers)
        for row in self._rows:
            yield from row.points(lines[row.row].split())

    def _find_columns(self, headers: list[bytes]) -> None:
        self._headers = headers
        rows = ((2 * i + 1, header.split()) for i, header in enumerate(headers))
        self._rows = [
            _Row(row, names, self._wanted[names[0]])
            for row, names in rows
            if names and names[0] in self._wanted
        ]
        if len(self._rows) != len(self._wanted):
            self._headers = None
            expected = b", ".join(self._wanted).decode()
            raise ReadError("parse", f"{self.file.path} has not the rows {expected}")


class _Lines:
    """snmp6: one name and one value to a line."""

    def __init__(self, path: str, wanted: _Columns) -> None:
        self.file = Attribute(path, _SIZE)
        self._wanted = wanted
        self._row = _Row(0, (), wanted)
        self._names: list[bytes] | None = None

    def points(self) -> Iterator[Point]:
        words = self.file.read().split()
        names = words[::2]
        if names != self._names:
            self._row = _Row(0, names, self._wanted)
            self._names = names
        yield from self._row.points(words[1::2])


class Tcp(Collector):
    """Raises Unavailable if /proc/net/snmp is not readable. Without IPv6 its series are absent."""

    metrics = (
        SEGMENTS, RETRANSMITTED, RECEIVE_ERRORS, RESETS_SENT, OPENS, FAILED_ATTEMPTS, RESETS,
        ESTABLISHED, LISTEN_OVERFLOWS, LISTEN_DROPS, TIMEOUTS, SYN_RETRANSMITS, SYNCOOKIES,
        OUT_OF_ORDER, RECEIVE_QUEUE_DROPS, BACKLOG_DROPS, MEMORY_ABORTS, MEMORY_PRESSURES,
        DATAGRAMS, UDP_ERRORS, UDP_NO_PORT, UDP_BUFFER_ERRORS,
    )  # fmt: skip

    def __init__(self, config: CollectorConfig, host: Host) -> None:
        super().__init__(config, host)
        snmp = _Pairs(net_file(host, "snmp"), {b"Tcp:": _TCP, b"Udp:": _udp(b"", "4")})
        try:
            snmp.file.read()
        except OSError as error:
            raise Unavailable(
                f"cannot read {snmp.file.path}: {error.strerror}", "mount procfs there"
            ) from error
        netstat = _Pairs(net_file(host, "netstat"), {b"TcpExt:": _TCP_EXT})
        self._files: list[_Pairs | _Lines] = [snmp, netstat]
        snmp6 = net_file(host, "snmp6")
        if os.path.exists(snmp6):
            self._files.append(_Lines(snmp6, _udp(b"Udp6", "6")))

    def sample(self) -> Iterator[Point]:
        for one in self._files:
            try:
                yield from one.points()
            except (OSError, ReadError, ValueError, IndexError) as error:
                self.fault(error, one.file.path)

    def close(self) -> None:
        for one in self._files:
            one.file.close()

"""Network interfaces: bytes, packets, errors, and the state of their links.

Counters come from /proc/net/dev (net/core/net-procfs.c), one read for all interfaces; link state
and attributes from /sys/class/net/X (Documentation/ABI/testing/sysfs-class-net). An interface that
comes or goes does so with its series at the next sample.

`speed`, `duplex` and `carrier` ask the driver under the lock that configures all networking, which
a busy machine may hold for long. So each tick reads only operstate and carrier_changes, which take
no lock, and the rest is read again when one of these has changed, and every 30 seconds.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence

from pydantic import Field

from telemetryd.collector import Collector, CollectorConfig, Filters
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Attribute, Host, Table
from telemetryd.metric import Kind, Metric, Point, Series, Unit
from telemetryd.pick import picker

# A guess: what an administrator changes by hand may be this old.
REFRESH_NS = 30_000_000_000

# Interfaces that exist only inside the machine. Bonds, VLANs and other uplinks stay: their traffic
# is of interest, and the label `physical` keeps it from being counted twice.
VIRTUAL = (
    "lo", "veth*", "docker*", "podman*", "br-*", "virbr*", "vnet*", "lxc*", "cni*", "cilium*",
    "flannel*", "cali*", "kube-*", "nodelocaldns", "tap*", "tun*", "ifb*", "dummy*", "sit0",
    "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0",
)  # fmt: skip

_DEV = "/proc/net/dev, net/core/net-procfs.c"
_SYSFS = "/sys/class/net/*/{}, Documentation/ABI/testing/sysfs-class-net"
_BOTH = ("device", "direction")

BYTES = Metric(
    "network", "", Kind.COUNTER, Unit.BYTES,
    "Bytes of frames that an interface received or transmitted.", f"{_DEV} bytes", _BOTH,
)  # fmt: skip
PACKETS = Metric(
    "network", "packets", Kind.COUNTER, Unit.NONE,
    "Packets that an interface received or transmitted.", f"{_DEV} packets", _BOTH,
)  # fmt: skip
ERRORS = Metric(
    "network", "errors", Kind.COUNTER, Unit.NONE,
    "Packets that were received damaged, or that could not be transmitted.", f"{_DEV} errs", _BOTH,
)  # fmt: skip
DROPS = Metric(
    "network", "drops", Kind.COUNTER, Unit.NONE,
    "Packets dropped: for want of buffers or of a protocol that takes them, and those that the "
    "interface itself missed.",
    f"{_DEV} drop", _BOTH,
)  # fmt: skip
FIFO_ERRORS = Metric(
    "network", "fifo_errors", Kind.COUNTER, Unit.NONE,
    "Packets lost because a FIFO buffer ran over or under.", f"{_DEV} fifo", _BOTH,
)  # fmt: skip
FRAME_ERRORS = Metric(
    "network", "frame_errors", Kind.COUNTER, Unit.NONE,
    "Received frames with a wrong length, checksum or alignment.", f"{_DEV} frame", ("device",),
)  # fmt: skip
CARRIER_ERRORS = Metric(
    "network", "carrier_errors", Kind.COUNTER, Unit.NONE,
    "Frames that were not transmitted because the carrier was lost or the transmission aborted.",
    f"{_DEV} carrier", ("device",),
)  # fmt: skip
COLLISIONS = Metric(
    "network", "collisions", Kind.COUNTER, Unit.NONE,
    "Collisions while transmitting: a half-duplex link, or a duplex mismatch.",
    f"{_DEV} colls", ("device",),
)  # fmt: skip
MULTICAST = Metric(
    "network", "multicast_packets", Kind.COUNTER, Unit.NONE,
    "Multicast packets received.", f"{_DEV} multicast", ("device",),
)  # fmt: skip
UP = Metric(
    "network", "up", Kind.GAUGE, Unit.NONE,
    "1 if the interface can carry traffic, 0 if not; absent if its driver does not say.",
    _SYSFS.format("operstate"), ("device",),
)  # fmt: skip
CARRIER_CHANGES = Metric(
    "network", "carrier_changes", Kind.COUNTER, Unit.NONE,
    "Times the link came or went.", _SYSFS.format("carrier_changes"), ("device",),
)  # fmt: skip
SPEED = Metric(
    "network", "speed", Kind.GAUGE, Unit.BYTES_PER_SECOND,
    "Speed of the link in each direction; absent if it is not known, as on a port that is down or "
    "virtual.",
    _SYSFS.format("speed (Mbit/s)"), ("device",),
)  # fmt: skip
MTU = Metric(
    "network", "mtu", Kind.GAUGE, Unit.BYTES,
    "Largest packet that the interface transmits.", _SYSFS.format("mtu"), ("device",),
)  # fmt: skip
INFO = Metric(
    "network", "", Kind.INFO, Unit.NONE,
    "An interface: its address, duplex, operational state, and whether it is a physical port: a "
    "device of its own, not built on another interface or a share of its port.",
    _SYSFS.format("{address,duplex,operstate,device}"),
    ("device", "address", "duplex", "operstate", "physical"),
)  # fmt: skip

# The columns of /proc/net/dev: what is made of them, and for which direction.
_RECEIVE = ("bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast")
_TRANSMIT = ("bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed")
_HEADER = " ".join(("face", *_RECEIVE, *_TRANSMIT)).encode()
_WIDTH = 1 + len(_RECEIVE) + len(_TRANSMIT)
_COLUMNS: tuple[tuple[int, Metric, tuple[str, ...]], ...] = (
    (1, BYTES, ("receive",)),
    (2, PACKETS, ("receive",)),
    (3, ERRORS, ("receive",)),
    (4, DROPS, ("receive",)),
    (5, FIFO_ERRORS, ("receive",)),
    (6, FRAME_ERRORS, ()),
    (8, MULTICAST, ()),
    (9, BYTES, ("transmit",)),
    (10, PACKETS, ("transmit",)),
    (11, ERRORS, ("transmit",)),
    (12, DROPS, ("transmit",)),
    (13, FIFO_ERRORS, ("transmit",)),
    (14, COLLISIONS, ()),
    (15, CARRIER_ERRORS, ()),
)

# What sysfs answers where a driver has nothing to say: that is no failure.
_NO_ANSWER = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT})
# Ports of a switch inside the NIC that stand for its functions (devlink-port.rst): pf0, pf0vf3.
_REPRESENTOR = re.compile(r"(c[0-9]+)?pf[0-9]+")
# SPEED_UNKNOWN (linux/ethtool.h) printed as unsigned.
_UNKNOWN_SPEED = 0xFFFFFFFF
_BYTES_PER_MEGABIT = 125_000


class NetworkConfig(CollectorConfig, Filters):
    """Which interfaces are watched."""

    exclude: tuple[str, ...] = Field(
        VIRTUAL, description="shell patterns of the interfaces to leave alone"
    )


def net_file(host: Host, name: str) -> str:
    """Path of a file of /proc/net of the machine that is watched.

    /proc/net is a link to self/net, the network namespace of whoever looks. In the procfs of
    another machine's root (a container that watches its host), process 1 stands for that machine.
    """
    of_init = host.proc("1/net", name)
    if host.procfs != "/proc" and os.path.exists(of_init):
        return of_init
    return host.proc("net", name)


class _Interface:
    """One interface: the attributes that are read each tick, and the points made of the others."""

    __slots__ = ("carrier_changes", "due_ns", "name", "operstate", "points", "state")

    def __init__(self, name: str, folder: str, due_ns: int) -> None:
        self.name = name
        self.operstate = Attribute(os.path.join(folder, "operstate"))
        self.carrier_changes = Attribute(os.path.join(folder, "carrier_changes"))
        self.state: tuple[bytes | None, bytes | None] | None = None
        self.due_ns = due_ns
        self.points: list[Point] = []

    def close(self) -> None:
        self.operstate.close()
        self.carrier_changes.close()


class Network(Collector):
    """Raises Unavailable if /proc/net/dev is not readable or no interface passes the filters."""

    Config = NetworkConfig
    metrics = (
        BYTES, PACKETS, ERRORS, DROPS, FIFO_ERRORS, FRAME_ERRORS, CARRIER_ERRORS, COLLISIONS,
        MULTICAST, UP, CARRIER_CHANGES, SPEED, MTU, INFO,
    )  # fmt: skip

    def __init__(self, config: NetworkConfig, host: Host) -> None:
        super().__init__(config, host)
        self._filters = config
        self._dev = Table(net_file(host, "dev"), 16384)
        self._names: list[bytes] | None = None
        self._wanted: dict[bytes, bool] = {}
        self._series: list[Series] = []
        self._pick = picker(())
        self._interfaces: list[_Interface] = []
        try:
            self._words()
        except OSError as error:
            raise Unavailable(
                f"cannot read {self._dev.path}: {error.strerror}", "mount procfs there"
            ) from error
        except ReadError as error:
            raise Unavailable(str(error), "mount procfs there") from error
        if not self._interfaces:
            raise Unavailable(
                f"no interface in {self._dev.path} passes the filters",
                "set include and exclude in [collectors.network]",
            )

    def sample(self) -> Iterator[Point]:
        words = self._words()
        yield from zip(self._series, map(int, self._pick(words)), strict=True)
        now_ns = self.host.clock.mono_ns()
        for interface in self._interfaces:
            state = self._read(interface.operstate), self._read(interface.carrier_changes)
            is_due = now_ns >= interface.due_ns
            if is_due or state != interface.state:
                interface.points = list(self._look_at(interface, *state))
                interface.state = state
            if is_due:
                interface.due_ns = now_ns + REFRESH_NS
            yield from interface.points

    def _words(self) -> list[bytes]:
        """The rows of the table, cut at blanks; what they mean is worked out when names change."""
        _, _, table = self._dev.read().partition(b"\n")
        header, _, rows = table.partition(b"\n")
        words = rows.split()
        names = words[::_WIDTH]
        if names != self._names:
            columns = b" ".join(header.replace(b"|", b" ").split())
            if columns != _HEADER or len(words) % _WIDTH or not all(map(_is_name, names)):
                what = f"{self._dev.path} has not the columns of net-procfs.c"
                raise ReadError("parse", what)
            self._look_for_interfaces(names)
            self._names = names
        return words

    def _look_for_interfaces(self, names: Sequence[bytes]) -> None:
        """Interfaces came or went: choose among them, keep those that stay, close the others."""
        # Virtual interfaces may be many and short-lived: match each name against the filters once.
        self._wanted = {
            word: self._filters.wants(os.fsdecode(word[:-1])) if known is None else known
            for word in names
            for known in (self._wanted.get(word),)
        }
        known = {interface.name: interface for interface in self._interfaces}
        self._series, positions, self._interfaces = [], [], []
        now_ns = self.host.clock.mono_ns()
        for row, word in enumerate(names):
            if not self._wanted[word]:
                continue
            name = os.fsdecode(word[:-1])
            interface = known.pop(name, None)
            if interface is None:
                # Spread over the period, so that no tick asks all drivers at once.
                due_ns = now_ns + REFRESH_NS * (row + 1) // len(names)
                interface = _Interface(name, self.host.sys("class/net", name), due_ns)
            self._interfaces.append(interface)
            self._series += [metric.at(name, *direction) for _, metric, direction in _COLUMNS]
            positions += [row * _WIDTH + column for column, _, _ in _COLUMNS]
        self._pick = picker(positions)
        for gone in known.values():
            gone.close()

    def _read(self, attribute: Attribute) -> bytes | None:
        try:
            return attribute.read()
        except OSError as error:
            self.fault(error, attribute.path)
            return None

    def _look_at(
        self, interface: _Interface, operstate: bytes | None, carrier_changes: bytes | None
    ) -> Iterator[Point]:
        """Everything that sysfs says of an interface; what cannot be read is left out."""
        name = interface.name
        folder = self.host.sys("class/net", name)
        if not os.path.isdir(folder):
            return  # operstate has just been reported
        state = "unknown" if operstate is None else os.fsdecode(operstate).strip()
        yield (
            INFO.at(
                name,
                self._text(folder, "address") or "",
                self._text(folder, "duplex") or "unknown",
                state,
                "true" if self._is_physical(folder) else "false",
            ),
            1,
        )
        if state != "unknown":
            yield UP.at(name), int(state == "up")
        numbers = (
            (CARRIER_CHANGES, "carrier_changes", carrier_changes),
            (SPEED, "speed", self._text(folder, "speed")),
            (MTU, "mtu", self._text(folder, "mtu")),
        )
        for metric, file, raw in numbers:
            try:
                value = None if raw is None else int(raw)
            except ValueError as error:
                self.fault(error, os.path.join(folder, file))
                continue
            if metric is SPEED and value is not None:
                known = 0 < value < _UNKNOWN_SPEED
                value = value * _BYTES_PER_MEGABIT if known else None
            if value is not None:
                yield metric.at(name), value

    def _text(self, folder: str, file: str) -> str | None:
        """An attribute, or None if the driver has no answer; a failure is reported."""
        path = os.path.join(folder, file)
        try:
            return self.host.text(path)
        except OSError as error:
            if error.errno not in _NO_ANSWER:
                self.fault(error, path)
            return None

    def _is_physical(self, folder: str) -> bool:
        """Whether bytes that pass here pass one port of the machine, and are counted only here.

        A device stands behind it (on a virtual machine, what it is given as one), but it is not
        - a virtual function beside its physical one: both share the port,
        - a representor in a switch inside the NIC (devlink-port.rst),
        - the accelerated path below a hypervisor's device, which counts the bytes of both (netvsc).
        """
        port = self._text(folder, "phys_port_name") or ""
        return (
            os.path.exists(os.path.join(folder, "device"))
            and not os.path.exists(os.path.join(folder, "device/physfn"))
            and not os.path.exists(os.path.join(folder, "master/device"))
            and _REPRESENTOR.match(port) is None
        )

    def close(self) -> None:
        self._dev.close()
        for interface in self._interfaces:
            interface.close()


def _is_name(word: bytes) -> bool:
    # A name holds neither blanks nor colons (net/core/dev.c, dev_valid_name).
    return word.endswith(b":")

"""Synthetic /proc and /sys of a machine with so many CPUs, disks and network interfaces.

What grows with the machine is made up here; the files that do not are copied from the machine we
run on. They lie on a tmpfs where there is one. Reading them skips the kernel's own work of making
up /proc and /sys, for both peers alike. CPU times go on when `Tree.advance` is called, so that
there is a utilization to derive; everything else stands still.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

_COPIED = (
    "meminfo", "vmstat", "loadavg", "uptime", "version", "cpuinfo", "pressure/cpu", "pressure/io",
    "pressure/memory", "net/snmp", "net/netstat", "net/snmp6", "net/sockstat", "net/sockstat6",
    "net/udp", "net/udp6", "net/arp", "sys/fs/file-nr", "sys/kernel/random/entropy_avail",
    "sys/kernel/random/poolsize", "sys/kernel/hostname", "sys/kernel/osrelease",
    "sys/kernel/arch", "sys/kernel/pid_max", "sys/kernel/threads-max",
    "sys/net/netfilter/nf_conntrack_count", "sys/net/netfilter/nf_conntrack_max",
)  # fmt: skip
_TMPFS = Path("/dev/shm")
_MOUNT_INFO = "22 1 259:0 / / rw,relatime - ext4 /dev/nvme0n1 rw\n"
_MOUNTS = "/dev/nvme0n1 / ext4 rw,relatime 0 0\n"
_NET_DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop \
fifo colls carrier compressed
"""
_BOOTED = 1795250358
# Of a row of /proc/stat: the digits of each number, and where those are that go on.
_DIGITS = (8, 4, 8, 9, 6, 0, 6, 3, 0, 0)
_USER, _IDLE = 0, 3


@dataclass(frozen=True, slots=True)
class Size:
    """How large the machine is."""

    cpus: int
    disks: int
    nics: int

    def __str__(self) -> str:
        return f"{self.cpus} CPUs, {self.disks} disks, {self.nics} NICs"


class Tree:
    """Where the trees are, and the CPU times in them."""

    def __init__(self, procfs: Path, sysfs: Path, cpus: list[list[int]], rest: str) -> None:
        self.procfs = str(procfs)
        self.sysfs = str(sysfs)
        self._cpus = cpus
        self._rest = rest
        self._file = os.open(procfs / "stat", os.O_WRONLY)

    def advance(self) -> None:
        """A second goes by: each CPU works for a share of it and idles for the rest.

        Written over what is there, because the peers keep the file open or may read it now. No
        number changes its length, so that they find each to be the old or the new one.
        """
        for i, cpu in enumerate(self._cpus):
            busy = 10 + i % 80
            cpu[_USER] += busy
            cpu[_IDLE] += 100 - busy
        os.pwrite(self._file, _stat(self._cpus, self._rest).encode(), 0)

    def close(self) -> None:
        os.close(self._file)


def _stat(cpus: list[list[int]], rest: str) -> str:
    rows = ["cpu  " + " ".join(map(str, map(sum, zip(*cpus, strict=True))))]
    rows += [f"cpu{i} {' '.join(map(str, cpu))}" for i, cpu in enumerate(cpus)]
    return "\n".join(rows) + rest


@contextmanager
def planted(size: Size) -> Iterator[Tree]:
    """The trees of such a machine, for as long as the block lasts."""
    where = _TMPFS if _TMPFS.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="telemetryd-bench-", dir=where) as folder,
        closing(_Planter(Path(folder), size).plant()) as tree,
    ):
        yield tree


class _Planter:
    def __init__(self, folder: Path, size: Size) -> None:
        self._proc, self._sys, self._size = folder / "proc", folder / "sys", size
        self._random = random.Random(7)

    def plant(self) -> Tree:
        for name in _COPIED:
            try:
                self._write(self._proc / name, Path("/proc", name).read_text())
            except OSError:
                continue  # a kernel without it
        cpus = [[self._time(digits) for digits in _DIGITS] for _ in range(self._size.cpus)]
        rest = self._rest_of_stat()
        self._write(self._proc / "stat", _stat(cpus, rest))
        self._write(self._proc / "diskstats", self._diskstats())
        self._write(self._proc / "net/softnet_stat", self._softnet())
        for process in ("1", "self"):
            self._write(self._proc / process / "mountinfo", _MOUNT_INFO)
            self._write(self._proc / process / "mounts", _MOUNTS)
        for folder in ("net", "1/net"):
            for name in ("snmp", "netstat", "snmp6"):
                source = self._proc / "net" / name
                if source.exists():
                    self._write(self._proc / folder / name, source.read_text())
        self._nics()
        self._cpus()
        self._sensors()
        return Tree(self._proc, self._sys, cpus, rest)

    def _number(self, below: int) -> int:
        return self._random.randrange(below)

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _attributes(self, folder: Path, values: dict[str, object]) -> None:
        for name, value in values.items():
            self._write(folder / name, f"{value}\n")

    def _time(self, digits: int) -> int:
        """A CPU time of so many digits, far from one more."""
        most = 10**digits
        return self._random.randrange(most // 10, most * 8 // 10) if digits else 0

    def _rest_of_stat(self) -> str:
        # A few dozen interrupts for each CPU, most of them never raised.
        lines = 20 * self._size.cpus + 200
        raised = [self._number(10**6) if self._random.random() < 0.3 else 0 for _ in range(lines)]
        return (
            f"\nintr {sum(raised)} {' '.join(map(str, raised))}\nctxt {self._number(10**11)}\n"
            f"btime {_BOOTED}\nprocesses {self._number(10**7)}\nprocs_running 3\n"
            f"procs_blocked 0\nsoftirq {' '.join(str(self._number(10**9)) for _ in range(11))}\n"
        )

    def _diskstats(self) -> str:
        rows = []
        for i in range(self._size.disks):
            numbers = [self._number(10**9) for _ in range(8)]
            numbers += [0, self._number(10**8), self._number(10**8)]
            numbers += [self._number(10**6) for _ in range(6)]
            rows.append(f" 259 {i:7d} nvme{i}n1 {' '.join(map(str, numbers))}\n")
            folder = self._sys / "block" / f"nvme{i}n1"
            self._attributes(
                folder,
                {
                    "size": 7501476528,
                    "queue/rotational": 0,
                    "queue/iostats": 1,
                    "device/model": "SAMPLE NVMe 3.84TB",
                },
            )
            (folder / "mq/0").mkdir(parents=True)
        return "".join(rows)

    def _softnet(self) -> str:
        rows = []
        for cpu in range(self._size.cpus):
            words = [self._number(2**31), self._number(50), self._number(50), *[0] * 9, cpu, 0, 0]
            rows.append(" ".join(f"{word:08x}" for word in words) + "\n")
        return "".join(rows)

    def _nics(self) -> None:
        names = ["lo", *(f"eth{i}" for i in range(self._size.nics))]
        rows = [_NET_DEV]
        for i, name in enumerate(names):
            received = f"{self._number(10**14)} {self._number(10**11)} 0 {self._number(1000)} 0 0 0"
            sent = f"{self._number(10**14)} {self._number(10**11)} 0 {self._number(1000)} 0 0 0 0"
            rows.append(f"{name:>6}: {received} {self._number(10**6)} {sent}\n")
            self._nic(i, name)
        for folder in ("net", "1/net"):
            self._write(self._proc / folder / "dev", "".join(rows))

    def _nic(self, i: int, name: str) -> None:
        is_port = name != "lo"
        folder = self._sys / "class/net" / name
        values: dict[str, object] = {
            "addr_assign_type": 0, "addr_len": 6, "address": f"02:00:00:00:00:{i:02x}",
            "broadcast": "ff:ff:ff:ff:ff:ff", "carrier": 1, "carrier_changes": 2,
            "carrier_down_count": 1, "carrier_up_count": 1, "dev_id": "0x0", "dev_port": 0,
            "dormant": 0, "duplex": "full" if is_port else "", "flags": "0x1003",
            "gro_flush_timeout": 0, "ifalias": "", "ifindex": i + 1, "iflink": i + 1,
            "link_mode": 0, "mtu": 9000 if is_port else 65536, "name_assign_type": 4,
            "netdev_group": 0, "operstate": "up" if is_port else "unknown", "phys_port_id": "",
            "phys_port_name": f"p{i}" if is_port else "", "phys_switch_id": "", "proto_down": 0,
            "testing": 0, "threaded": 0, "tx_queue_len": 1000, "type": 1 if is_port else 772,
        }  # fmt: skip
        if is_port:
            values["speed"] = 100000
            (folder / "device").mkdir(parents=True)
        self._attributes(folder, values)

    def _cpus(self) -> None:
        cpus = self._size.cpus
        base = self._sys / "devices/system/cpu"
        for cpu in range(cpus):
            folder = base / f"cpu{cpu}"
            frequency = 800_000 + self._number(3_000_000)
            self._attributes(
                folder / "topology",
                {"core_id": cpu // 2, "physical_package_id": cpu * 2 // cpus},
            )
            self._attributes(
                folder / "cpufreq",
                {
                    "affected_cpus": cpu, "cpuinfo_max_freq": 3_800_000,
                    "cpuinfo_min_freq": 800_000, "cpuinfo_transition_latency": 0,
                    "related_cpus": cpu, "scaling_available_governors": "performance powersave",
                    "scaling_cur_freq": frequency, "scaling_driver": "intel_pstate",
                    "scaling_governor": "performance", "scaling_max_freq": 3_800_000,
                    "scaling_min_freq": 800_000, "scaling_setspeed": "<unsupported>",
                },
            )  # fmt: skip
            self._attributes(
                folder / "thermal_throttle",
                {
                    "core_throttle_count": self._number(10),
                    "package_throttle_count": self._number(10),
                },
            )
        self._attributes(base, {"online": f"0-{cpus - 1}", "isolated": ""})

    def _sensors(self) -> None:
        """A board's sensors: as many on a large machine as on a small one."""
        for chip in range(2):
            folder = self._sys / f"class/hwmon/hwmon{chip}"
            self._attributes(folder, {"name": f"coretemp{chip}"})
            for sensor in range(1, 9):
                self._attributes(
                    folder,
                    {
                        f"temp{sensor}_input": 30_000 + self._number(50_000),
                        f"temp{sensor}_max": 95_000,
                        f"temp{sensor}_crit": 105_000,
                        f"temp{sensor}_label": f"Core {sensor}",
                    },
                )
            self._attributes(folder, {"fan1_input": self._number(12_000), "in0_input": 12_032})
        for zone in range(2):
            self._attributes(
                self._sys / f"class/thermal/thermal_zone{zone}",
                {"type": f"x86_pkg_temp{zone}", "temp": 45_000, "policy": "step_wise"},
            )
        self._attributes(
            self._sys / "devices/system/clocksource/clocksource0",
            {"available_clocksource": "tsc", "current_clocksource": "tsc"},
        )

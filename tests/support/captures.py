"""What nvidia-smi said of real GPUs, as the state of a fake one and as the series to expect.

A capture has sections for an idle GPU and one under load. `nvidia-smi -q` in it is a tree by
indentation; `N/A` stands for what the GPU does not tell. Each Figure says where a number stands in
that tree, which key of the fake GPU answers it, and which series it is to become.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from fakes.nvml.models import Value

from support.nvml import Process
from support.trees import RECORDED

CAPTURES = RECORDED / "nvidia-smi-captures"
MIB = 1 << 20
GPU = 'gpu="0"'
_RULE = "#" * 80
_ARCHITECTURES = {"Hopper": 9, "Ada Lovelace": 8, "Turing": 6}
Path = tuple[str, ...]


class Dump:
    """The output of `nvidia-smi -q` for one GPU: texts by their path; those of a path that occurs
    several times (MIG devices, processes) in their order."""

    def __init__(self, text: str) -> None:
        self._texts: dict[Path, list[str]] = {}
        above: list[tuple[int, str]] = []
        for line in text.splitlines():
            indent = len(line) - len(line.lstrip())
            key, _, value = line.partition(" : ")
            while above and above[-1][0] >= indent:
                above.pop()
            above.append((indent, key.strip()))
            if value:
                path = tuple(key for _, key in above if not key.startswith("GPU 0000"))
                self._texts.setdefault(path, []).append(value.strip())

    def texts(self, *path: str) -> list[str]:
        return self._texts.get(path, [])

    def text(self, *paths: Path) -> str | None:
        """The only text at the first of these paths that there is; None for N/A and for nothing."""
        for path in paths:
            if found := self._texts.get(path):
                return None if found[0] == "N/A" else found[0]
        return None


@dataclass(frozen=True)
class Figure:
    """`paths` are its names in the versions of nvidia-smi; `raw` makes from its number what the
    driver would answer under `key`, `base` what `series` is in base units."""

    paths: tuple[Path, ...]
    key: str
    series: str
    raw: Callable[[float], float] = round
    base: Callable[[float], float] = float

    def number(self, dump: Dump) -> float | None:
        """None for what the GPU does not tell."""
        text = dump.text(*self.paths)
        return None if text is None else _number(text)


_WORDS = {"No": 0.0, "Yes": 1.0, "Not Active": 0.0, "Active": 1.0, "None": 0.0}
_WORDS |= {"Disabled": 0.0, "Enabled": 1.0}


def _number(text: str) -> float:
    if text in _WORDS:
        return _WORDS[text]
    found = re.match(r"P?(-?[0-9.]+)(x| |%|$)", text)
    assert found, text
    return float(found[1])


def _mebibytes(number: float) -> int:
    return int(number) << 20


def _thousand(number: float) -> int:
    return round(number * 1000)


def _million(number: float) -> int:
    return round(number) * 1_000_000


def _percent(number: float) -> float:
    return number / 100


def _millionth(number: float) -> float:
    return number / 1_000_000


def _kibibytes(number: float) -> int:
    return round(number) * 1024


def _figures() -> Iterator[Figure]:
    def one(
        paths: str, key: str, series: str, *convert: Callable[[float], float], **labels: str
    ) -> Figure:
        ways = tuple(tuple(path.split(" / ")) for path in paths.split(" | "))
        pairs = "".join(f',{name}="{value}"' for name, value in labels.items())
        return Figure(ways, key, f"gpu_{series}{{{GPU}{pairs}}}", *convert)

    yield one("MIG Mode / Current", "mig", "mig_enabled")
    yield one("Persistence Mode", "persistence", "persistence_enabled")
    yield one("GPU Recovery Action", "fi.230", "recovery_action")
    link = "PCI / GPU Link Info"
    generation, width = f"{link} / PCIe Generation", f"{link} / Link Width"
    yield one(f"{generation} / Max", "pcie_gen_max", "pcie_link_generation_max")
    yield one(f"{generation} / Current", "pcie_gen", "pcie_link_generation")
    yield one(f"{width} / Max", "pcie_width_max", "pcie_link_width_max")
    yield one(f"{width} / Current", "pcie_width", "pcie_link_width")
    yield one("PCI / Replays Since Reset", "pcie_replay", "pcie_replays_total")
    yield one("PCI / Replay Number Rollovers", "fi.95", "pcie_replay_rollovers_total")
    for way, name, direction in (("Tx", "tx", "transmit"), ("Rx", "rx", "receive")):
        path, key = f"PCI / {way} Throughput", f"pcie_{name}_kbs"
        yield one(path, key, "pcie_bytes_per_second", round, _kibibytes, direction=direction)
    yield one("Fan Speed", "fan.0", "fan_speed_ratio", round, _percent, fan="0")
    yield one("Performance State", "pstate", "performance_state")
    for way, field, reason in (
        ("SW Power Capping", 74, "software_power_cap"),
        ("Sync Boost", 76, "sync_boost"),
        ("SW Thermal Slowdown", 269, "software_thermal"),
        ("HW Thermal Slowdown", 270, "hardware_thermal"),
        ("HW Power Braking", 271, "hardware_power_brake"),
    ):
        path = f"Clocks Event Reasons Counters / {way}"
        key, series = f"fi.{field}", "throttled_seconds_total"
        yield one(path, key, series, _thousand, _millionth, reason=reason)
    for what in ("total", "reserved", "used"):
        path, key = f"FB Memory Usage / {what.title()}", f"mem_{what}"
        yield one(path, key, f"memory_{what}_bytes", _mebibytes, _mebibytes)
    for way, key, name in (
        *(("GPU", "gpu", "busy"), ("Memory", "mem", "memory_busy")),
        *(("Encoder", "enc", "encoder_busy"), ("Decoder", "dec", "decoder_busy")),
    ):
        yield one(f"Utilization / {way}", f"util_{key}", f"{name}_ratio", round, _percent)
    yield one("ECC Mode / Current", "ecc", "ecc_enabled")
    retired = "retired_pages_total"
    yield one("Retired Pages / Single Bit ECC", "retired.sbe", retired, errors="single_bit")
    yield one("Retired Pages / Double Bit ECC", "retired.dbe", retired, errors="double_bit")
    pending = "Retired Pages / Pending Page Blacklist"
    yield one(pending, "retired.pending", "retired_pages_pending")
    rows, remapped = "Remapped Rows", "remapped_rows_total"
    yield one(f"{rows} / Correctable Error", "remap.cor", remapped, errors="correctable")
    yield one(f"{rows} / Uncorrectable Error", "remap.unc", remapped, errors="uncorrectable")
    yield one(f"{rows} / Pending", "remap.pending", "row_remap_pending")
    failed = f"{rows} / Remapping Failure Occurred"
    yield one(failed, "remap.failure", "row_remap_failed")
    celsius, heat = "temperature_celsius", "Temperature"
    yield one(f"{heat} / GPU Current Temp", "temp", celsius, sensor="gpu")
    yield one(f"{heat} / Memory Current Temp", "temp_memory", celsius, sensor="memory")
    margin = f"{heat} / GPU T.Limit Temp | {heat} / GPU Current T.Limit Temp"
    yield one(margin, "temp_margin", "temperature_margin_celsius")
    for way, field, limit in (
        ("GPU Shutdown", 193, "shutdown"),
        ("GPU Slowdown", 194, "slowdown"),
        ("Memory Max Operating", 195, "memory_max"),
        ("GPU Max Operating", 196, "gpu_max"),
    ):
        path, series = f"{heat} / {way} T.Limit Temp", "temperature_limit_margin_celsius"
        yield one(path, f"fi.{field}", series, limit=limit)
    yield from _power(one)
    for number, clock in enumerate(("Graphics", "SM", "Memory", "Video")):
        name = clock.lower()
        path, limit = f"Clocks / {clock}", f"Max Clocks / {clock}"
        yield one(path, f"clk.{number}", "clock_hertz", round, _million, clock=name)
        yield one(limit, f"clkmax.{number}", "clock_max_hertz", round, _million, clock=name)


def _power(one: Callable[..., Figure]) -> Iterator[Figure]:
    readings = "GPU Power Readings"
    for scope, group, average, instant in (
        ("gpu", readings, "power_average_mw", "power_instant_mw"),
        ("module", "Module Power Readings", "fi.185.1", "fi.186.1"),
        ("memory", "GPU Memory Power Readings", "fi.185.2", "fi.186.2"),
    ):
        path, series = f"{group} / Average Power Draw", "power_average_watts"
        yield one(path, average, series, _thousand, float, scope=scope)
        path, series = f"{group} / Instantaneous Power Draw", "power_instant_watts"
        yield one(path, instant, series, _thousand, float, scope=scope)
    for way, limit in (
        *(("Current", "enforced"), ("Requested", "requested"), ("Default", "default")),
        *(("Min", "min"), ("Max", "max")),
    ):
        name = f"{way} Power Limit"
        path = f"{readings} / {name} | {readings} / GPU Ceiling Power Limit / {name}"
        key, series = f"plimit_{limit}_mw", "power_limit_watts"
        yield one(path, key, series, _thousand, float, limit=limit)


FIGURES = tuple(_figures())
# Bits and labels of what holds the clocks down.
REASONS = {
    ("Idle",): (0x1, "gpu_idle"),
    ("Applications Clocks Setting",): (0x2, "application_clocks"),
    ("SW Power Cap",): (0x4, "software_power_cap"),
    ("HW Slowdown",): (0x8, "hardware_slowdown"),
    ("Sync Boost",): (0x10, "sync_boost"),
    ("SW Thermal Slowdown",): (0x20, "software_thermal"),
    ("HW Slowdown", "HW Thermal Slowdown"): (0x40, "hardware_thermal"),
    ("HW Slowdown", "HW Power Brake Slowdown"): (0x80, "hardware_power_brake"),
    ("Display Clock Setting",): (0x100, "display_clocks"),
}
# ECC errors in the order of the driver's numbers: what became of them, since when.
ECC = {
    (0, 0): ("Volatile", "Correctable"),
    (1, 0): ("Volatile", "Uncorrectable"),
    (0, 1): ("Aggregate", "Correctable"),
    (1, 1): ("Aggregate", "Uncorrectable"),
}


class Capture:
    """One recorded machine with one GPU, idle or under load."""

    def __init__(self, name: str, load: str) -> None:
        (path,) = CAPTURES.glob(f"*{name}__*.txt")
        text = path.read_text()
        self.dump = Dump(_section(text, f"{load} :: query (-q)"))
        self._pmon = _section(text, f"{load} :: pmon")
        self._links = _section(text, "capabilities :: nvlink -s")
        self._list = _section(text, "capabilities :: list (-L)")

    def state(self) -> dict[str, Value]:
        """What the fake GPU is to answer; a key that is not there is not supported."""
        state: dict[str, Value] = {
            figure.key: figure.raw(number)
            for figure in FIGURES
            if (number := figure.number(self.dump)) is not None
        }
        for path, key in {
            ("Product Name",): "name",
            ("Serial Number",): "serial",
            ("GPU UUID",): "uuid",
            ("PCI", "Bus Id"): "pci",
        }.items():
            if (text := self.dump.text(path)) is not None:
                state[key] = text
        architecture = self.dump.text(("Product Architecture",))
        state["arch"] = _ARCHITECTURES[str(architecture)]
        if "fan.0" in state:
            state["fans"] = 1
        state["clock_reasons"] = sum(
            bit for path, (bit, _) in REASONS.items() if self.is_active(*path)
        )
        for (kind, counter), _ in ECC.items():
            if (errors := self.ecc_errors(kind, counter)) is not None:
                state[f"ecc.{kind}.{counter}"] = errors
        return state | self._links_state() | self._fabric_state() | self._mig_state()

    def is_active(self, *reason: str) -> bool:
        return self.dump.text(("Clocks Event Reasons", *reason)) == "Active"

    def ecc_errors(self, kind: int, counter: int) -> int | None:
        """Of SRAM and DRAM together."""
        since, what = ECC[kind, counter]
        found = [
            self.dump.text(("ECC Errors", since, name))
            for name in (
                *(f"SRAM {what}", f"SRAM {what} Parity", f"SRAM {what} SEC-DED", f"DRAM {what}"),
            )
        ]
        known = [int(text) for text in found if text is not None]
        return sum(known) if known else None

    def link_speeds(self) -> list[int]:
        """Of each NVLink, in MB/s."""
        return [round(float(g) * 1000) for g in re.findall(r"Link \d+: ([\d.]+) GB/s", self._links)]

    def processes(self) -> list[Process]:
        """Those of the dump, with their share from pmon, where `-` is no sample."""
        shares = {
            int(row[1]): None if row[3] == "-" else int(row[3])
            for row in reversed([line.split() for line in self._pmon.splitlines()])
            if row and row[0] == "0" and row[1] != "-"
        }
        return [
            Process(
                int(pid),
                int(memory.split()[0]) * MIB,
                name=PurePath(name).name,
                sm=shares[int(pid)],
                kind=kind,
                gi=None if gi == "N/A" else int(gi),
                ci=None if ci == "N/A" else int(ci),
            )
            for gi, ci, pid, kind, name, memory in zip(
                self.dump.texts("Processes", "GPU instance ID"),
                self.dump.texts("Processes", "Compute instance ID"),
                self.dump.texts("Processes", "Process ID"),
                self.dump.texts("Processes", "Process ID", "Type"),
                self.dump.texts("Processes", "Process ID", "Name"),
                self.dump.texts("Processes", "Process ID", "Used GPU Memory"),
                strict=True,
            )
        ]

    def instances(self) -> list[tuple[int, int, str, dict[str, int]]]:
        """GPU instance, compute instance, profile, and bytes of memory by kind."""
        memory = ("MIG Device", "Shared FB Memory Usage")
        kinds = ("Total", "Reserved", "Used")
        return [
            (int(gi), int(ci), profile, {k: int(text.split()[0]) * MIB for k, text in sizes})
            for gi, ci, profile, sizes in zip(
                self.dump.texts("MIG Device", "GPU Instance ID"),
                self.dump.texts("MIG Device", "Compute Instance ID"),
                re.findall(r"MIG (\S+) +Device", self._list),
                [
                    list(zip(kinds, texts, strict=True))
                    for texts in zip(
                        *(self.dump.texts(*memory, kind) for kind in kinds), strict=True
                    )
                ],
                strict=True,
            )
        ]

    def _links_state(self) -> dict[str, Value]:
        if not (speeds := self.link_speeds()):
            return {}
        state: dict[str, Value] = {f"fi.164.{link}": speed for link, speed in enumerate(speeds)}
        return state | {"nvlink_count": len(speeds)}

    def _fabric_state(self) -> dict[str, Value]:
        state = self.dump.text(("Fabric", "State"))
        if state is None:
            return {}
        return {
            "fabric_state": {"Completed": 3}[state],
            "fabric_status": {"Success": 0}[str(self.dump.text(("Fabric", "Status")))],
            "fabric_clique": int(str(self.dump.text(("Fabric", "CliqueId")))),
            "fabric_uuid": str(self.dump.text(("Fabric", "ClusterUUID"))).replace("-", ""),
        }

    def _mig_state(self) -> dict[str, Value]:
        state: dict[str, Value] = {}
        for slot, (gi, ci, profile, memory) in enumerate(self.instances()):
            device: dict[str, Value] = {"id": slot + 1, "gi": gi, "ci": ci, "profile": profile}
            uuid = f"MIG-{slot:08x}-0000-0000-0000-{slot:012x}"
            state |= {f"mig.{slot}.{key}": value for key, value in device.items()}
            state[f"mig.{slot}.uuid"] = uuid
            state |= {f"gi.{gi}.mem_{kind.lower()}": size for kind, size in memory.items()}
        return state


def _section(text: str, title: str) -> str:
    """What stands between the head of a section and the next."""
    _, found, rest = text.partition(f"\n# {title}")
    assert found, title
    return rest.split(f"{_RULE}\n", 1)[1].split(f"\n{_RULE}", 1)[0]

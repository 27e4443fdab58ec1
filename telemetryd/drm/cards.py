"""The GPUs of /sys/class/drm, what PCI knows of them, and their links to the machine.

Documentation/gpu/drm-uapi.rst and Documentation/ABI/testing/sysfs-bus-pci. One PCI device is one
GPU, however many nodes it has: a card and a render node, or several of each. What is no PCI device
(simpledrm, the partitions of an MI300: amdgpu_xcp) or has another driver (virtio, bochs, ast,
mgag200) is not listed as one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from telemetryd.host import Host
from telemetryd.hwmon import Listing

_NODE = re.compile(r"(card|renderD)([0-9]+)\Z")
# Each partition of an MI300 has nodes of its own, on a platform device of this name
# (drivers/gpu/drm/amd/amdxcp/amdgpu_xcp_drv.c). Its clients name the PCI device.
_PARTITION = "amdgpu_xcp"

# Of GT/s.
_GENERATIONS = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6, 128.0: 7}
_WIDTHS = frozenset({1, 2, 4, 8, 12, 16, 32})


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU. `name` is its lowest card ("card1"), `folder` that of its PCI device, `pci` the
    address ("0000:c1:00.0"), `pci_id` maker and model ("1002:74a1"), `minor` that of its render
    node, by which device cgroups speak of it ("128").

    `entries` are its nodes with their inodes: they tell whether it is still what it was.
    """

    name: str
    folder: str
    driver: str
    pci: str
    pci_id: str
    minor: str
    entries: Listing

    def path(self, *parts: str) -> str:
        return os.path.join(self.folder, *parts)


def class_folder(host: Host) -> str:
    return host.sys("class/drm")


def find_cards(
    host: Host,
    found: Listing,
    drivers: frozenset[str],
    wants: Callable[[str], bool],
    fault: Callable[[Exception, str], None],
) -> list[Card]:
    """The GPUs among `found` that one of `drivers` drives and whose PCI address is wanted.

    A device that cannot be looked at is reported and left out.
    """
    nodes: dict[str, list[tuple[str, int]]] = {}
    for entry, inode in found:
        if _NODE.match(entry):
            folder = os.path.realpath(os.path.join(class_folder(host), entry, "device"))
            nodes.setdefault(folder, []).append((entry, inode))
    cards = []
    for folder, entries in nodes.items():
        try:
            facts = _uevent(host, folder)
        except OSError as error:
            fault(error, folder)
            continue
        pci = facts.get("PCI_SLOT_NAME", "")
        driver = facts.get("DRIVER", "")
        if driver not in drivers or not pci or not wants(pci):
            continue
        numbers = _numbers(entries)
        if not numbers["card"]:
            continue
        cards.append(
            Card(
                f"card{min(numbers['card'])}",
                folder,
                driver,
                pci,
                facts.get("PCI_ID", "").lower(),
                str(min(numbers["renderD"])) if numbers["renderD"] else "",
                tuple(entries),
            )
        )
    return sorted(cards, key=lambda card: int(card.name.removeprefix("card")))


def partition_nodes(host: Host, found: Listing) -> Iterator[str]:
    """The nodes among `found` that stand for a part of a GPU; sysfs does not tell of which."""
    for entry, _ in found:
        if _NODE.match(entry):
            folder = os.path.realpath(os.path.join(class_folder(host), entry, "device"))
            if os.path.basename(folder).startswith(_PARTITION):
                yield entry


def _numbers(entries: list[tuple[str, int]]) -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = {"card": [], "renderD": []}
    for entry, _ in entries:
        match = _NODE.match(entry)
        if match is not None:
            numbers[match[1]].append(int(match[2]))
    return numbers


def _uevent(host: Host, folder: str) -> dict[str, str]:
    """DRIVER, PCI_ID, PCI_SLOT_NAME of a device, which reading does not wake up."""
    try:
        text = host.text(os.path.join(folder, "uevent"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


@dataclass(frozen=True, slots=True)
class Link:
    """A PCIe link: the generation at which it runs and its lanes, and the highest that both of
    its ends can do. None where it is not known."""

    generation: int | None
    width: int | None
    generation_max: int | None
    width_max: int | None


def link_of(host: Host, folder: str) -> Link:
    """The link between the slot and the GPU of the PCI device in `folder`.

    Many cards have a PCIe switch of their own, behind which the GPU's own link says nothing of
    the slot (that of Intel Arc always claims 2.5 GT/s x1): there it is the link of the switch,
    as amdgpu sees it too (amdgpu_device_gpu_bandwidth). Raises OSError.
    """
    port = _upstream_port(host, folder)
    ends = [port]
    if _is_pci(os.path.dirname(port)):
        ends.append(os.path.dirname(port))
    generations = [_generation(host, end, "max_link_speed") for end in ends]
    widths = [_width(host, end, "max_link_width") for end in ends]
    return Link(
        _generation(host, port, "current_link_speed"),
        _width(host, port, "current_link_width"),
        _least(generations),
        _least(widths),
    )


def _least(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return min(known) if len(known) == len(values) else None


def _is_pci(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "vendor"))


def _upstream_port(host: Host, folder: str) -> str:
    """The device whose link leads to the slot: the GPU, or the upper end of its own switch.

    The switch is two bridges of the GPU's maker, of which the upper one hangs below another
    bridge: a port of the processor hangs below none.
    """
    vendor = _text(host, folder, "vendor")
    lower = os.path.dirname(folder)
    upper = os.path.dirname(lower)
    is_switch = (
        all(_is_pci(end) and _text(host, end, "vendor") == vendor for end in (lower, upper))
        and all(_text(host, end, "class").startswith("0x0604") for end in (lower, upper))
        and _is_pci(os.path.dirname(upper))
    )
    return upper if is_switch else folder


def _text(host: Host, folder: str, file: str) -> str:
    try:
        return host.text(os.path.join(folder, file))
    except FileNotFoundError:
        return ""


def _generation(host: Host, folder: str, file: str) -> int | None:
    """From "16.0 GT/s PCIe"; the kernel writes "Unknown" where it does not know."""
    try:
        return _GENERATIONS.get(float(_text(host, folder, file).partition(" ")[0]))
    except ValueError:
        return None


def _width(host: Host, folder: str, file: str) -> int | None:
    """Lanes; 0, and 63 or 255 of a device that is gone, are none."""
    text = _text(host, folder, file)
    return int(text) if text.isdecimal() and int(text) in _WIDTHS else None

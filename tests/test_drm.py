"""What DRM shows of GPUs: which cards there are, their links, and who uses them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.trees import FIXTURES, host_at, write_tree

from telemetryd.drm.cards import class_folder, find_cards, link_of, partition_nodes
from telemetryd.drm.fdinfo import Counter, parse_client
from telemetryd.hwmon import listing

PCI = "0000:03:00.0"
NODES = {"card1": PCI, "renderD128": PCI}
# A file of the real sysfs that nobody may read, not even root: the kernel refuses to open it.
UNREADABLE = Path("/sys/bus/platform/uevent")


def _cards(tree: Path, *drivers: str) -> list:
    host = host_at(tree)
    found = listing(class_folder(host))
    return find_cards(host, found, frozenset(drivers), lambda _: True, _no_fault)


def _no_fault(error: Exception, what: str) -> None:
    pytest.fail(f"{what}: {error}")


# --- cards and links ------------------------------------------------------------------------------


def test_a_device_is_one_gpu_however_many_nodes_it_has() -> None:
    (card,) = _cards(FIXTURES / "gpu_amd/two-cards-one-device", "amdgpu")
    assert (card.name, card.pci, card.pci_id, card.minor) == (
        "card9", "0000:05:00.0", "1002:74a1", "128",
    )  # fmt: skip
    assert [node for node, _ in card.entries] == ["card10", "card9", "renderD128", "renderD131"]


def test_partitions_are_no_gpus_of_their_own() -> None:
    tree = FIXTURES / "gpu_amd/mi300x"
    assert [card.name for card in _cards(tree, "amdgpu")] == ["card1"]
    found = listing(class_folder(host_at(tree)))
    assert list(partition_nodes(host_at(tree), found)) == [
        "card2", "card3", "renderD129", "renderD130",
    ]  # fmt: skip


def test_cards_without_a_gpu_of_these_drivers_are_left_out() -> None:
    assert _cards(FIXTURES / "gpu_amd/no-gpu", "amdgpu", "i915", "xe") == []


@pytest.mark.parametrize(
    ("tree", "driver", "link"),
    [
        ("gpu_amd/mi300x", "amdgpu", (5, 16, 5, 16)),
        # A slot of half the width.
        ("gpu_amd/mi210", "amdgpu", (4, 8, 4, 8)),
        # A switch on the card: the GPU's own link says x16, and on Arc 2.5 GT/s x1.
        ("gpu_amd/own-switch", "amdgpu", (4, 8, 4, 8)),
        ("gpu_intel/flex-170", "i915", (4, 16, 4, 16)),
        ("gpu_amd/inside-processor", "amdgpu", (None, None, None, None)),
        ("gpu_amd/busy-not-offered", "amdgpu", (None, None, None, None)),
    ],
)
def test_the_link_is_the_one_between_card_and_slot(
    tree: str, driver: str, link: tuple[int | None, ...]
) -> None:
    (card,) = _cards(FIXTURES / tree, driver)
    found = link_of(host_at(FIXTURES / tree), card.folder)
    assert (found.generation, found.width, found.generation_max, found.width_max) == link


@pytest.mark.parametrize(
    ("speed", "width", "expected"),
    [
        ("2.5 GT/s PCIe", "1", (1, 1)),
        ("8 GT/s", "16", (3, 16)),  # as kernels before 5.7 wrote it
        ("64.0 GT/s PCIe", "32", (6, 32)),
        ("Unknown", "0", (None, None)),
        ("Unknown speed", "63", (None, None)),
        ("", "", (None, None)),
    ],
)
def test_a_link_that_is_not_known_is_absent(
    speed: str, width: str, expected: tuple[int | None, int | None], tmp_path: Path
) -> None:
    files = {"current_link_speed": speed, "current_link_width": width, "vendor": "0x1002"}
    write_tree(tmp_path / "pci0000:00" / PCI, files)
    link = link_of(host_at(tmp_path), str(tmp_path / "pci0000:00" / PCI))
    assert (link.generation, link.width) == expected


def test_a_processors_port_is_no_switch_of_the_card_though_intel_made_all_of_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "pci0000:00"
    for name, width in (("0000:00:01.0", 8), ("0000:01:00.0", 4), ("0000:02:00.0", 16)):
        folder /= name
        kind = {"vendor": "0x8086", "class": "0x060400", "current_link_width": str(width)}
        write_tree(folder, kind)
    assert link_of(host_at(tmp_path), str(folder)).width == 16


# --- what a driver tells of a client -------------------------------------------------------------


def test_nanoseconds_capacities_and_resident_memory_of_i915_are_understood() -> None:
    text = (FIXTURES / "gpu_intel/flex-170/proc/700/fdinfo/5").read_bytes()
    client = parse_client(text)
    assert client is not None
    assert (client.id, client.pci, client.memory) == ("14", "0000:3d:00.0", 256 << 20)
    assert client.engines["render"] == Counter(1_000_000_000, None, 1)
    assert client.engines["video"] == Counter(4_000_000_000, None, 2)
    assert client.engines["video-enhance"] == Counter(0, None, 2)
    assert set(client.engines) == {"render", "copy", "video", "video-enhance", "compute"}


def test_cycles_of_xe_are_understood() -> None:
    client = parse_client((FIXTURES / "gpu_intel/b580/proc/700/fdinfo/5").read_bytes())
    assert client is not None
    assert client.engines == {"rcs": Counter(1000, 100000, 1), "ccs": Counter(4000, 100000, 4)}
    assert client.memory == 4 << 30


@pytest.mark.parametrize(
    ("lines", "memory"),
    [
        ("drm-memory-vram:\t64 KiB\n", 65536),
        ("drm-memory-vram:\t64 KiB\ndrm-resident-vram:\t32 KiB\n", 32768),
        ("drm-resident-vram0:\t1 MiB\ndrm-resident-vram1:\t1 MiB\n", 2 << 20),
        ("drm-resident-vram:\t512\n", 512),
        ("drm-total-vram:\t64 KiB\n", None),
        ("drm-resident-system0:\t64 KiB\n", None),
        ("", None),
    ],
)
def test_memory_is_what_is_resident_on_the_gpu(lines: str, memory: int | None) -> None:
    client = parse_client(f"drm-client-id:\t1\n{lines}".encode())
    assert client is not None
    assert client.memory == memory


def test_a_client_that_was_only_opened_is_told_from_one_that_is_not_known() -> None:
    def idle(lines: str) -> bool:
        client = parse_client(f"drm-client-id:\t1\n{lines}".encode())
        assert client is not None
        return client.is_idle_open

    assert idle("drm-total-system0:\t0\ndrm-engine-render:\t0 ns\n")
    assert not idle("drm-total-system0:\t4 KiB\ndrm-engine-render:\t0 ns\n")
    assert not idle("drm-total-system0:\t0\ndrm-engine-render:\t5 ns\n")
    assert not idle("")


def test_a_file_that_names_no_client_is_none() -> None:
    assert parse_client(b"pos:\t0\nflags:\t02\n") is None
    assert parse_client(b"drm-driver:\txe\n") is None


@pytest.mark.parametrize(
    "line", ["drm-engine-render: x ns", "drm-resident-vram: 3 KB", "drm-cycles-a: -\n"]
)
def test_a_number_that_is_none_is_an_error(line: str) -> None:
    text = f"drm-client-id: 1\ndrm-total-cycles-a: 1\n{line}\n"
    with pytest.raises(ValueError, match=r"invalid literal|a size in"):
        parse_client(text.encode())

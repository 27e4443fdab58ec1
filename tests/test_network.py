"""The network collector on trees with one defect each, and on the machine it runs on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.trees import host_at, values_of, write_tree

from telemetryd.collectors.network import VIRTUAL, Network, NetworkConfig
from telemetryd.errors import ReadError, Unavailable
from telemetryd.host import Host

HEADER = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast"
    "|bytes    packets errs drop fifo colls carrier compressed\n"
)
ETH0 = "  eth0: 1000 11 1 2 3 4 5 6 2000 22 7 8 9 10 12 13\n"
ALL = NetworkConfig(exclude=())
SAID = 'telemetryd_network_{}{{device="{}"}}'

Faults = list[tuple[str, str]]


def port(name: str, *, device: bool = True, **attributes: str) -> dict[str, str | bytes]:
    """The attributes of an interface in sysfs."""
    said = {
        "address": "02:00:00:00:00:01",
        "carrier_changes": "2",
        "duplex": "full",
        "mtu": "1500",
        "operstate": "up",
        "speed": "1000",
    } | attributes
    files: dict[str, str | bytes] = {
        f"sys/class/net/{name}/{file}": text + "\n" for file, text in said.items()
    }
    if device:
        files[f"sys/class/net/{name}/device/vendor"] = "0x1af4\n"
    return files


def row(name: str, received: int = 0, transmitted: int = 0) -> str:
    return f"{name:>6}: {received} 0 0 0 0 0 0 0 {transmitted} 0 0 0 0 0 0 0\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(tmp_path, {"proc/net/dev": HEADER + ETH0, **port("eth0")})
    return tmp_path


def network_at(
    tree: Path, config: NetworkConfig | None = None, clock: FakeClock | None = None
) -> tuple[Network, Faults]:
    network = Network(config or NetworkConfig(), host_at(tree, clock))
    faults: Faults = []
    network.on_fault = lambda reason, what: faults.append((reason, what))
    return network, faults


def open_below(folder: Path) -> list[str]:
    """The files below `folder` that this process holds open."""
    links = Path("/proc/self/fd").iterdir()
    paths = [os.readlink(link) for link in links if link.is_symlink()]
    return [path for path in paths if path.startswith(str(folder))]


def is_physical(values: dict[str, float], name: str) -> bool:
    (info,) = [one for one in values if one.startswith(f'telemetryd_network_info{{device="{name}"')]
    return 'physical="true"' in info


def test_each_column_goes_to_its_counter_and_direction(tree: Path) -> None:
    network, faults = network_at(tree)
    eth0 = 'device="eth0"'
    receive, transmit = f'{{{eth0},direction="receive"}}', f'{{{eth0},direction="transmit"}}'
    info = 'address="02:00:00:00:00:01",duplex="full",operstate="up",physical="true"'
    assert values_of(network) == {
        f"telemetryd_network_bytes_total{receive}": 1000,
        f"telemetryd_network_packets_total{receive}": 11,
        f"telemetryd_network_errors_total{receive}": 1,
        f"telemetryd_network_drops_total{receive}": 2,
        f"telemetryd_network_fifo_errors_total{receive}": 3,
        f"telemetryd_network_frame_errors_total{{{eth0}}}": 4,
        f"telemetryd_network_multicast_packets_total{{{eth0}}}": 6,
        f"telemetryd_network_bytes_total{transmit}": 2000,
        f"telemetryd_network_packets_total{transmit}": 22,
        f"telemetryd_network_errors_total{transmit}": 7,
        f"telemetryd_network_drops_total{transmit}": 8,
        f"telemetryd_network_fifo_errors_total{transmit}": 9,
        f"telemetryd_network_collisions_total{{{eth0}}}": 10,
        f"telemetryd_network_carrier_errors_total{{{eth0}}}": 12,
        f"telemetryd_network_info{{{eth0},{info}}}": 1,
        f"telemetryd_network_up{{{eth0}}}": 1,
        f"telemetryd_network_carrier_changes_total{{{eth0}}}": 2,
        f"telemetryd_network_speed_bytes_per_second{{{eth0}}}": 125e6,
        f"telemetryd_network_mtu_bytes{{{eth0}}}": 1500,
    }
    assert faults == []


@pytest.mark.parametrize("speed", ["-1", "0", "4294967295"])
def test_a_speed_that_the_driver_does_not_know_is_absent_and_no_error(
    tree: Path, speed: str
) -> None:
    write_tree(tree, port("eth0", speed=speed))
    network, faults = network_at(tree)
    values = values_of(network)
    assert SAID.format("speed_bytes_per_second", "eth0") not in values
    assert values[SAID.format("mtu_bytes", "eth0")] == 1500
    assert faults == []


def test_an_attribute_that_the_kernel_refuses_for_this_port_is_absent_and_no_error(
    tree: Path,
) -> None:
    refusing = Path("/sys/class/net/lo/speed")  # EINVAL, as that of a port that is down
    if not refusing.exists():
        pytest.skip("this machine shows no loopback interface in sysfs")
    for file in ("speed", "duplex"):
        attribute = tree / "sys/class/net/eth0" / file
        attribute.unlink()
        attribute.symlink_to(refusing)
    network, faults = network_at(tree)
    values = values_of(network)
    assert SAID.format("speed_bytes_per_second", "eth0") not in values
    assert any('duplex="unknown"' in name for name in values)
    assert faults == []


@pytest.mark.parametrize(
    ("file", "quantity"),
    [
        ("speed", "speed_bytes_per_second"),
        ("mtu", "mtu_bytes"),
        ("carrier_changes", "carrier_changes_total"),
    ],
)
def test_an_attribute_that_fails_is_absent_and_reported_and_the_others_stay(
    tree: Path, file: str, quantity: str
) -> None:
    attribute = tree / "sys/class/net/eth0" / file
    attribute.unlink()
    attribute.symlink_to("/proc/self/mem")  # EIO at its start
    network, faults = network_at(tree)
    before = {"speed_bytes_per_second", "mtu_bytes", "carrier_changes_total", "up"}
    values = values_of(network)
    left = {one for one in before if SAID.format(one, "eth0") in values}
    assert left == before - {quantity}
    assert is_physical(values, "eth0")
    assert [reason for reason, _ in faults] == ["io"]
    assert f"eth0/{file}" in faults[0][1]


def test_a_speed_that_is_no_number_is_absent_and_reported(tree: Path) -> None:
    write_tree(tree, port("eth0", speed="fast"))
    network, faults = network_at(tree)
    assert SAID.format("speed_bytes_per_second", "eth0") not in values_of(network)
    assert faults[0][0] == "parse"
    assert "eth0/speed" in faults[0][1]


def test_an_operational_state_that_cannot_be_read_leaves_the_rest_of_the_port(tree: Path) -> None:
    attribute = tree / "sys/class/net/eth0/operstate"
    attribute.unlink()
    attribute.symlink_to("/proc/self/mem")
    network, faults = network_at(tree)
    values = values_of(network)
    assert SAID.format("up", "eth0") not in values
    assert values[SAID.format("speed_bytes_per_second", "eth0")] == 125e6
    assert is_physical(values, "eth0")
    assert [reason for reason, _ in faults] == ["io"]


@pytest.mark.parametrize(
    ("operstate", "up"),
    [("up", 1), ("down", 0), ("lowerlayerdown", 0), ("dormant", 0), ("unknown", None)],
)
def test_up_is_what_the_operational_state_says_or_absent(
    tree: Path, operstate: str, up: int | None
) -> None:
    write_tree(tree, port("eth0", operstate=operstate))
    network, _ = network_at(tree)
    assert values_of(network).get(SAID.format("up", "eth0")) == up


def test_virtual_interfaces_are_left_alone_and_not_opened(tree: Path) -> None:
    names = ["lo", "veth12ab", "docker0", "br-0f3a", "virbr0", "cni0", "flannel.1", "cali7"]
    names += ["tap3", "tun0", "ifb0", "dummy0", "sit0"]
    # Nothing in sysfs for any of them: to open one would be reported.
    write_tree(tree, {"proc/net/dev": HEADER + "".join(map(row, names)) + ETH0})
    network, faults = network_at(tree)
    assert {name.split('"')[1] for name in values_of(network)} == {"eth0"}
    assert faults == []


def test_filters_choose_interfaces_by_shell_pattern(tree: Path) -> None:
    write_tree(tree, {"proc/net/dev": HEADER + ETH0 + row("lo", 5), **port("lo", device=False)})
    network, _ = network_at(tree, NetworkConfig(include=("l*",), exclude=()))
    assert {name.split('"')[1] for name in values_of(network)} == {"lo"}


def test_an_interface_that_comes_or_goes_does_so_with_the_next_sample(tree: Path) -> None:
    network, faults = network_at(tree)
    values_of(network)
    write_tree(tree, {"proc/net/dev": HEADER + row("eth1", 7) + ETH0, **port("eth1", speed="10")})
    values = values_of(network)
    assert values['telemetryd_network_bytes_total{device="eth1",direction="receive"}'] == 7
    assert values['telemetryd_network_bytes_total{device="eth0",direction="receive"}'] == 1000
    assert values[SAID.format("speed_bytes_per_second", "eth1")] == 1.25e6
    write_tree(tree, {"proc/net/dev": HEADER + row("eth1", 8)})
    values = values_of(network)
    assert {name.split('"')[1] for name in values} == {"eth1"}
    assert values['telemetryd_network_bytes_total{device="eth1",direction="receive"}'] == 8
    write_tree(tree, {"proc/net/dev": HEADER})
    assert values_of(network) == {}
    assert faults == []


def test_an_interface_that_sysfs_does_not_show_keeps_its_counters(tree: Path) -> None:
    write_tree(tree, {"proc/net/dev": HEADER + ETH0 + row("eth9", 9)})
    network, faults = network_at(tree)
    values = values_of(network)
    assert values['telemetryd_network_bytes_total{device="eth9",direction="receive"}'] == 9
    assert not any("_info" in name and "eth9" in name for name in values)
    assert values[SAID.format("up", "eth0")] == 1
    assert {reason for reason, _ in faults} == {"missing"}


def test_odd_names_become_valid_labels_and_still_find_their_files(tmp_path: Path) -> None:
    names = [b"\xffeth", b'q"uote', b"back\\slash", "ügli".encode()]
    table = HEADER.encode() + b"".join(name + b": 5" + b" 0" * 15 + b"\n" for name in names)
    write_tree(tmp_path, {"proc/net/dev": table})
    for name in names:
        write_tree(tmp_path, port(os.fsdecode(name)))
    network, faults = network_at(tmp_path)
    points = list(network.sample())
    devices = {series.labels[0] for series, _ in points}
    assert devices == {"\\udcffeth", 'q"uote', "back\\slash", "ügli"}
    assert [value for series, value in points if series.metric.name.endswith("_up")] == [1] * 4
    assert faults == []


def test_a_new_speed_shows_at_once_when_the_link_changed(tree: Path) -> None:
    network, _ = network_at(tree)
    speed = SAID.format("speed_bytes_per_second", "eth0")
    assert values_of(network)[speed] == 125e6
    write_tree(tree, port("eth0", speed="100", carrier_changes="4"))
    assert values_of(network)[speed] == 12.5e6
    write_tree(tree, port("eth0", speed="-1", carrier_changes="4", operstate="down"))
    values = values_of(network)
    assert speed not in values
    assert values[SAID.format("up", "eth0")] == 0


def test_drivers_are_asked_again_after_half_a_minute_and_not_on_every_tick(tree: Path) -> None:
    clock = FakeClock()
    network, _ = network_at(tree, clock=clock)
    values_of(network)
    write_tree(tree, port("eth0", speed="2500", mtu="9000"))
    mtu, speed = SAID.format("mtu_bytes", "eth0"), SAID.format("speed_bytes_per_second", "eth0")
    clock.tick(29)
    assert values_of(network)[mtu] == 1500
    clock.tick(1)
    values = values_of(network)
    assert (values[mtu], values[speed]) == (9000, 312.5e6)
    write_tree(tree, port("eth0", mtu="1400"))
    clock.tick(29)
    assert values_of(network)[mtu] == 9000
    clock.tick(1)
    assert values_of(network)[mtu] == 1400


def test_a_driver_is_not_asked_again_because_another_interface_came(tree: Path) -> None:
    network, _ = network_at(tree)
    values_of(network)
    write_tree(tree, {"proc/net/dev": HEADER + row("eth1") + ETH0, **port("eth1")})
    write_tree(tree, port("eth0", mtu="9000"))
    assert values_of(network)[SAID.format("mtu_bytes", "eth0")] == 1500


def test_a_physical_port_has_a_device_and_shares_it_with_nobody(tmp_path: Path) -> None:
    names = ["eth0", "bond0", "eth0.7", "vf0", "rep0", "uplink", "eth4", "enP1s1"]
    net = "sys/class/net/"
    write_tree(
        tmp_path,
        {
            "proc/net/dev": HEADER + "".join(map(row, names)),
            **port("eth0"),
            **port("bond0", device=False),
            **port("eth0.7", device=False),
            # a virtual function beside its physical one
            **port("vf0"),
            net + "vf0/device/physfn/vendor": "0x15b3\n",
            # ports of a NIC's switch: that of a virtual function, and the wire
            **port("rep0", phys_port_name="pf0vf3"),
            **port("uplink", phys_port_name="p0"),
            # a hypervisor's device with an accelerated path below it
            **port("eth4"),
            **port("enP1s1"),
        },
    )
    (tmp_path / net / "enP1s1/master").symlink_to("../eth4")
    (tmp_path / net / "eth0/master").symlink_to("../bond0")
    network, _ = network_at(tmp_path)
    values = values_of(network)
    assert {name for name in names if is_physical(values, name)} == {"eth0", "uplink", "eth4"}


def test_a_table_longer_than_one_read_is_read_to_its_end(tmp_path: Path) -> None:
    names = [f"eth{i}" for i in range(500)]
    write_tree(tmp_path, {"proc/net/dev": HEADER + "".join(row(n, 3) for n in names)})
    network, _ = network_at(tmp_path)
    assert values_of(network)[
        'telemetryd_network_bytes_total{device="eth499",direction="receive"}'
    ] == 3  # fmt: skip


def test_the_procfs_of_another_root_is_asked_for_the_network_of_its_init(tree: Path) -> None:
    write_tree(tree, {"proc/1/net/dev": HEADER + row("eth0", 77)})
    network, _ = network_at(tree)
    received = 'telemetryd_network_bytes_total{device="eth0",direction="receive"}'
    assert values_of(network)[received] == 77


def test_a_table_with_other_columns_is_refused_rather_than_misread(tree: Path) -> None:
    network, _ = network_at(tree)
    values_of(network)
    write_tree(tree, {"proc/net/dev": HEADER.replace("fifo", "lifo", 1) + row("eth5")})
    with pytest.raises(ReadError, match="net/dev has not the columns"):
        list(network.sample())
    with pytest.raises(Unavailable, match="net/dev has not the columns"):
        network_at(tree)


@pytest.mark.parametrize(
    "defect", ["  eth0: 1 2 3\n", "  eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n"]
)
def test_a_row_with_other_columns_is_refused_rather_than_misread(tree: Path, defect: str) -> None:
    write_tree(tree, {"proc/net/dev": HEADER + defect})
    with pytest.raises(Unavailable, match="net/dev"):
        network_at(tree)


def test_without_the_table_the_collector_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="net/dev"):
        network_at(tmp_path)


def test_without_an_interface_to_watch_the_collector_is_unavailable(tree: Path) -> None:
    write_tree(tree, {"proc/net/dev": HEADER + row("lo", 5)})
    with pytest.raises(Unavailable, match=r"\[collectors.network\]"):
        network_at(tree)


def test_closing_twice_is_safe_and_gives_back_every_file(tree: Path) -> None:
    network, _ = network_at(tree)
    values_of(network)
    assert open_below(tree)
    network.close()
    network.close()
    assert open_below(tree) == []


def test_the_default_filters_are_patterns_that_a_configuration_can_replace() -> None:
    assert NetworkConfig().exclude == VIRTUAL
    assert NetworkConfig(exclude=("ib*",)).wants("lo")


def test_the_counters_are_those_of_this_machine() -> None:
    network = Network(ALL, Host())
    faults: Faults = []
    network.on_fault = lambda reason, what: faults.append((reason, what))

    def received() -> dict[str, int]:
        rows = Path("/proc/net/dev").read_text().splitlines()[2:]
        return {r.partition(":")[0].strip(): int(r.partition(":")[2].split()[0]) for r in rows}

    before, values, after = received(), values_of(network), received()
    for name in before.keys() & after.keys():
        series = f'telemetryd_network_bytes_total{{device="{name}",direction="receive"}}'
        assert before[name] <= values[series] <= after[name]
    assert faults == []
    network.close()

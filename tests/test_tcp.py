"""The tcp collector on tables of several kernels, and on the machine it runs on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from support.trees import host_at, values_of, write_tree

from telemetryd.collector import CollectorConfig
from telemetryd.collectors.tcp import Tcp
from telemetryd.errors import Unavailable
from telemetryd.host import Host

SNMP = """Ip: Forwarding DefaultTTL InReceives
Ip: 2 64 4162
Icmp: InMsgs InErrors
Icmp: 1 0
Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets \
CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors
Tcp: 1 200 120000 -1 36 2 3 4 5 4088 2347 6 7 46 0
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors
Udp: 73 1 2 74 3 4 0
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors
UdpLite: 900 900 900 900 900 900 900
"""
NETSTAT = """TcpExt: SyncookiesSent SyncookiesRecv SyncookiesFailed PruneCalled ListenOverflows \
ListenDrops TCPTimeouts TCPAbortOnMemory TCPMemoryPressures TCPBacklogDrop TCPOFOQueue \
TCPSynRetrans TCPRcvQDrop
TcpExt: 1 2 3 99 4 5 6 7 8 9 10 11 12
IpExt: InNoRoutes InOctets
IpExt: 0 171842333
"""
SNMP6 = """Ip6InReceives                   \t81
Udp6InDatagrams                 \t21
Udp6NoPorts                     \t22
Udp6InErrors                    \t23
Udp6OutDatagrams                \t24
Udp6RcvbufErrors                \t25
Udp6SndbufErrors                \t26
"""

Faults = list[tuple[str, str]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(
        tmp_path,
        {"proc/net/snmp": SNMP, "proc/net/netstat": NETSTAT, "proc/net/snmp6": SNMP6},
    )
    return tmp_path


def tcp_at(tree: Path) -> tuple[Tcp, Faults]:
    tcp = Tcp(CollectorConfig(), host_at(tree))
    faults: Faults = []
    tcp.on_fault = lambda reason, what: faults.append((reason, what))
    return tcp, faults


def test_each_column_goes_to_its_counter(tree: Path) -> None:
    tcp, faults = tcp_at(tree)
    assert values_of(tcp) == {
        'telemetryd_tcp_opens_total{side="active"}': 36,
        'telemetryd_tcp_opens_total{side="passive"}': 2,
        "telemetryd_tcp_failed_attempts_total{}": 3,
        "telemetryd_tcp_established_resets_total{}": 4,
        "telemetryd_tcp_established_connections{}": 5,
        'telemetryd_tcp_segments_total{direction="receive"}': 4088,
        'telemetryd_tcp_segments_total{direction="transmit"}': 2347,
        "telemetryd_tcp_retransmitted_segments_total{}": 6,
        "telemetryd_tcp_receive_errors_total{}": 7,
        "telemetryd_tcp_resets_sent_total{}": 46,
        'telemetryd_tcp_syncookies_total{event="sent"}': 1,
        'telemetryd_tcp_syncookies_total{event="received"}': 2,
        'telemetryd_tcp_syncookies_total{event="failed"}': 3,
        "telemetryd_tcp_listen_overflows_total{}": 4,
        "telemetryd_tcp_listen_drops_total{}": 5,
        "telemetryd_tcp_timeouts_total{}": 6,
        "telemetryd_tcp_memory_aborts_total{}": 7,
        "telemetryd_tcp_memory_pressures_total{}": 8,
        "telemetryd_tcp_backlog_drops_total{}": 9,
        "telemetryd_tcp_out_of_order_segments_total{}": 10,
        "telemetryd_tcp_syn_retransmits_total{}": 11,
        "telemetryd_tcp_receive_queue_drops_total{}": 12,
        'telemetryd_udp_datagrams_total{ip="4",direction="receive"}': 73,
        'telemetryd_udp_datagrams_total{ip="4",direction="transmit"}': 74,
        'telemetryd_udp_no_port_datagrams_total{ip="4"}': 1,
        'telemetryd_udp_receive_errors_total{ip="4"}': 2,
        'telemetryd_udp_buffer_errors_total{ip="4",direction="receive"}': 3,
        'telemetryd_udp_buffer_errors_total{ip="4",direction="transmit"}': 4,
        'telemetryd_udp_datagrams_total{ip="6",direction="receive"}': 21,
        'telemetryd_udp_datagrams_total{ip="6",direction="transmit"}': 24,
        'telemetryd_udp_no_port_datagrams_total{ip="6"}': 22,
        'telemetryd_udp_receive_errors_total{ip="6"}': 23,
        'telemetryd_udp_buffer_errors_total{ip="6",direction="receive"}': 25,
        'telemetryd_udp_buffer_errors_total{ip="6",direction="transmit"}': 26,
    }
    assert faults == []


def test_columns_are_found_by_name_wherever_a_kernel_puts_them(tree: Path) -> None:
    tcp, faults = tcp_at(tree)
    values_of(tcp)
    # A row more before it, as IcmpMsg comes with the first message, and another order.
    moved = SNMP.replace("Tcp: Rto", "IcmpMsg: InType3\nIcmpMsg: 1\nTcp: Rto").replace(
        "ActiveOpens PassiveOpens", "PassiveOpens ActiveOpens"
    )
    write_tree(
        tree, {"proc/net/snmp": moved, "proc/net/snmp6": "Icmp6InMsgs \t5\nUdp6InErrors \t77\n"}
    )
    values = values_of(tcp)
    assert values['telemetryd_tcp_opens_total{side="active"}'] == 2
    assert values['telemetryd_tcp_opens_total{side="passive"}'] == 36
    assert values['telemetryd_udp_datagrams_total{ip="4",direction="receive"}'] == 73
    assert values['telemetryd_udp_receive_errors_total{ip="6"}'] == 77
    assert faults == []


def test_a_column_that_a_kernel_has_not_is_absent_and_no_error(tree: Path) -> None:
    older = NETSTAT.replace(" TCPRcvQDrop", "").replace(" 11 12\n", " 11\n")
    write_tree(tree, {"proc/net/netstat": older})
    tcp, faults = tcp_at(tree)
    values = values_of(tcp)
    assert "telemetryd_tcp_receive_queue_drops_total{}" not in values
    assert values["telemetryd_tcp_syn_retransmits_total{}"] == 11
    assert faults == []


def test_without_ipv6_its_series_are_absent_and_no_error(tree: Path) -> None:
    (tree / "proc/net/snmp6").unlink()
    tcp, faults = tcp_at(tree)
    assert not any('ip="6"' in name for name in values_of(tcp))
    assert faults == []


@pytest.mark.parametrize(
    ("defect", "reason"),
    [
        (NETSTAT.replace(" 11 12\n", "\n"), "parse"),
        (NETSTAT.replace(" 11 12\n", " 11 many\n"), "parse"),
        (NETSTAT.replace("TcpExt:", "Tcp2Ext:"), "parse"),
        ("", "parse"),
    ],
    ids=["values missing", "no number", "no such row", "empty"],
)
def test_a_table_that_makes_no_sense_is_reported_and_the_others_stay(
    tree: Path, defect: str, reason: str
) -> None:
    write_tree(tree, {"proc/net/netstat": defect})
    tcp, faults = tcp_at(tree)
    for sample in (1, 2):
        values = values_of(tcp)
        assert "telemetryd_tcp_receive_queue_drops_total{}" not in values
        assert values["telemetryd_tcp_retransmitted_segments_total{}"] == 6
        assert values['telemetryd_udp_receive_errors_total{ip="6"}'] == 23
        assert [one for one, _ in faults] == [reason] * sample
        assert "net/netstat" in faults[0][1]


def test_a_missing_netstat_is_reported_and_the_others_stay(tree: Path) -> None:
    (tree / "proc/net/netstat").unlink()
    tcp, faults = tcp_at(tree)
    assert values_of(tcp)["telemetryd_tcp_retransmitted_segments_total{}"] == 6
    assert [reason for reason, _ in faults] == ["missing"]


def test_without_snmp_the_collector_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="net/snmp"):
        tcp_at(tmp_path)


def test_the_procfs_of_another_root_is_asked_for_the_network_of_its_init(tree: Path) -> None:
    write_tree(tree, {"proc/1/net/snmp": SNMP.replace(" 46 0\n", " 47 0\n")})
    tcp, _ = tcp_at(tree)
    assert values_of(tcp)["telemetryd_tcp_resets_sent_total{}"] == 47


def test_closing_twice_is_safe(tree: Path) -> None:
    tcp, _ = tcp_at(tree)
    values_of(tcp)
    tcp.close()
    tcp.close()


def test_a_connection_and_a_full_queue_show_on_this_machine() -> None:
    tcp = Tcp(CollectorConfig(), Host())
    faults: Faults = []
    tcp.on_fault = lambda reason, what: faults.append((reason, what))
    before = values_of(tcp)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        after = values_of(tcp)
        for client in clients:
            client.close()
    tcp.close()
    grown = {name: after[name] - before[name] for name in after.keys() & before.keys()}
    assert grown['telemetryd_tcp_opens_total{side="active"}'] >= 4
    assert grown["telemetryd_tcp_listen_overflows_total{}"] >= 1
    assert grown["telemetryd_tcp_listen_drops_total{}"] >= 1
    assert faults == []

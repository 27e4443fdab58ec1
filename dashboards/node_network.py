"""Network interfaces of a node, and TCP and UDP on it."""

from __future__ import annotations

from layout import Row
from panels import Column, Query, graph, grid
from promql import increase, rate, series

_PORT = "{{device}} {{direction}}"
_RETRANSMITTED = rate("telemetryd_tcp_retransmitted_segments_total")
_INFO = series("telemetryd_network_info")
_ABOUT = {
    "device": "Interface",
    "address": "Address",
    "operstate": "State",
    "duplex": "Duplex",
    "physical": "Physical",
}


def _about_interface(name: str) -> str:
    """A figure of each interface with the labels of its `_info`."""
    labels = ", ".join(label for label in _ABOUT if label != "device")
    return f"{series(name)} * on (job, instance, device) group_left ({labels}) {_INFO}"


INTERFACES = Row(
    "Network interfaces",
    (
        grid(
            "Interfaces of this node",
            "State, speed and largest packet of each interface. The speed of a virtual one, or of "
            "one that is down, is not known.",
            _ABOUT,
            [
                Column(_INFO, "", is_hidden=True),
                Column(
                    # In bits, as links are sold.
                    f"8 * {_about_interface('telemetryd_network_speed_bytes_per_second')}",
                    "Speed",
                    "bps",
                ),
                Column(_about_interface("telemetryd_network_mtu_bytes"), "MTU in bytes", "none"),
            ],
            height=6,
        ),
        graph(
            "Throughput",
            "Bytes a second on each interface, virtual ones included.",
            "Bps",
            Query(rate("telemetryd_network_bytes_total"), _PORT),
            width=12,
        ),
        graph(
            "Packets",
            "Packets a second on each interface.",
            "pps",
            Query(rate("telemetryd_network_packets_total"), _PORT),
            width=12,
        ),
        graph(
            "Errors",
            "Packets that were received damaged or could not be transmitted. On a sound link: "
            "none. Look at cable, transceiver and the port of the switch.",
            "pps",
            Query(rate("telemetryd_network_errors_total"), _PORT),
        ),
        graph(
            "Drops",
            "Packets dropped for want of buffers, or because no protocol takes them. Bursts that "
            "the machine does not read fast enough show here.",
            "pps",
            Query(rate("telemetryd_network_drops_total"), _PORT),
        ),
        graph(
            "Link changes",
            "Times that each link came or went.",
            "short",
            Query(increase("telemetryd_network_carrier_changes_total"), "{{device}}"),
        ),
    ),
)

TRANSPORT = Row(
    "TCP and UDP",
    (
        graph(
            "Retransmitted",
            "Share of the TCP segments sent that were sent again because no acknowledgement came: "
            "packets get lost on the way, or a peer does not answer.",
            "percentunit",
            Query(
                f"{_RETRANSMITTED} / ({_RETRANSMITTED} + ignoring (direction)"
                f" {rate('telemetryd_tcp_segments_total', direction='transmit')})",
                "retransmitted",
            ),
        ),
        graph(
            "Connections",
            "TCP connections that are established now.",
            "short",
            Query(series("telemetryd_tcp_established_connections"), "established"),
        ),
        graph(
            "Connections opened",
            "TCP connections opened a second: active from here, passive from elsewhere.",
            "cps",
            Query(rate("telemetryd_tcp_opens_total"), "{{side}}"),
        ),
        graph(
            "Connections refused and lost",
            "Connections that a full listening queue refused, that failed to open, that were "
            "reset, and that were given up for want of memory.",
            "cps",
            Query(rate("telemetryd_tcp_listen_overflows_total"), "listening queue full"),
            Query(rate("telemetryd_tcp_listen_drops_total"), "dropped while listening"),
            Query(rate("telemetryd_tcp_failed_attempts_total"), "failed to open"),
            Query(rate("telemetryd_tcp_established_resets_total"), "reset"),
            Query(rate("telemetryd_tcp_memory_aborts_total"), "out of memory"),
        ),
        graph(
            "Signs of loss",
            "Timers that ran out, connection requests sent again, segments out of order.",
            "cps",
            Query(rate("telemetryd_tcp_timeouts_total"), "retransmission timeouts"),
            Query(rate("telemetryd_tcp_syn_retransmits_total"), "connection requests again"),
            Query(rate("telemetryd_tcp_out_of_order_segments_total"), "out of order"),
        ),
        graph(
            "UDP errors",
            "Datagrams that could not be delivered: for full buffers, for other reasons, or "
            "because nobody had their port open.",
            "pps",
            Query(rate("telemetryd_udp_receive_errors_total"), "not delivered, IPv{{ip}}"),
            Query(
                rate("telemetryd_udp_buffer_errors_total"), "buffer full, IPv{{ip}} {{direction}}"
            ),
            Query(rate("telemetryd_udp_no_port_datagrams_total"), "no port, IPv{{ip}}"),
        ),
    ),
)

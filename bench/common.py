"""The series that telemetryd and node_exporter both export: the same reading of the same thing.

A row of PAIRS has the name of each, and the labels by which their series are matched (`type=fstype`
where they call it differently). `*N` behind the second name: its number times N is the first's
unit. `!` at the end: the two may differ though they read the same, because it moves by itself or
because telemetryd counts from its own start. Everything else must agree on a tree that stands
still, and `disagreements` checks that it does.

Not in the list, though both read it: thermal throttling and RAPL energy (other labels, which
cannot be matched), and limits of sensors that telemetryd reads once.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from scrape import Series

_PAGE = os.sysconf("SC_PAGE_SIZE")

PAIRS = f"""
telemetryd_cpu_time_seconds_total                           node_cpu_seconds_total                  cpu mode !
telemetryd_cpu_context_switches_total                       node_context_switches_total             !
telemetryd_cpu_interrupts_total                             node_intr_total                         !
telemetryd_cpu_forks_total                                  node_forks_total                        !
telemetryd_cpu_tasks{{state="running"}}                     node_procs_running                      !
telemetryd_cpu_tasks{{state="blocked"}}                     node_procs_blocked                      !
telemetryd_cpu_load{{minutes="1"}}                          node_load1                              !
telemetryd_cpu_load{{minutes="5"}}                          node_load5                              !
telemetryd_cpu_load{{minutes="15"}}                         node_load15                             !
telemetryd_cpu_frequency_hertz                              node_cpu_scaling_frequency_hertz        cpu

telemetryd_memory_total_bytes                               node_memory_MemTotal_bytes
telemetryd_memory_free_bytes                                node_memory_MemFree_bytes
telemetryd_memory_available_bytes                           node_memory_MemAvailable_bytes
telemetryd_memory_buffers_bytes                             node_memory_Buffers_bytes
telemetryd_memory_cached_bytes                              node_memory_Cached_bytes
telemetryd_memory_shmem_bytes                               node_memory_Shmem_bytes
telemetryd_memory_slab_reclaimable_bytes                    node_memory_SReclaimable_bytes
telemetryd_memory_slab_unreclaimable_bytes                  node_memory_SUnreclaim_bytes
telemetryd_memory_dirty_bytes                               node_memory_Dirty_bytes
telemetryd_memory_writeback_bytes                           node_memory_Writeback_bytes
telemetryd_memory_anonymous_bytes                           node_memory_AnonPages_bytes
telemetryd_memory_anonymous_huge_bytes                      node_memory_AnonHugePages_bytes
telemetryd_memory_mapped_bytes                              node_memory_Mapped_bytes
telemetryd_memory_page_tables_bytes                         node_memory_PageTables_bytes
telemetryd_memory_kernel_stack_bytes                        node_memory_KernelStack_bytes
telemetryd_memory_committed_bytes                           node_memory_Committed_AS_bytes
telemetryd_memory_commit_limit_bytes                        node_memory_CommitLimit_bytes
telemetryd_memory_swap_total_bytes                          node_memory_SwapTotal_bytes
telemetryd_memory_swap_free_bytes                           node_memory_SwapFree_bytes
telemetryd_memory_swap_cached_bytes                         node_memory_SwapCached_bytes
telemetryd_memory_hardware_corrupted_bytes                  node_memory_HardwareCorrupted_bytes
telemetryd_memory_hugepage_size_bytes                       node_memory_Hugepagesize_bytes
telemetryd_memory_hugepages                                 node_memory_HugePages_Total
telemetryd_memory_hugepages_free                            node_memory_HugePages_Free
telemetryd_memory_hugepages_reserved                        node_memory_HugePages_Rsvd
telemetryd_memory_hugepages_surplus                         node_memory_HugePages_Surp
telemetryd_memory_page_faults_total                         node_vmstat_pgfault
telemetryd_memory_major_page_faults_total                   node_vmstat_pgmajfault
telemetryd_memory_oom_kills_total                           node_vmstat_oom_kill
telemetryd_memory_paged_bytes_total{{direction="in"}}       node_vmstat_pgpgin*1024
telemetryd_memory_paged_bytes_total{{direction="out"}}      node_vmstat_pgpgout*1024
telemetryd_memory_swapped_bytes_total{{direction="in"}}     node_vmstat_pswpin*{_PAGE}
telemetryd_memory_swapped_bytes_total{{direction="out"}}    node_vmstat_pswpout*{_PAGE}

telemetryd_pressure_stalled_seconds_total{{resource="cpu",kind="some"}}     node_pressure_cpu_waiting_seconds_total
telemetryd_pressure_stalled_seconds_total{{resource="memory",kind="some"}}  node_pressure_memory_waiting_seconds_total
telemetryd_pressure_stalled_seconds_total{{resource="memory",kind="full"}}  node_pressure_memory_stalled_seconds_total
telemetryd_pressure_stalled_seconds_total{{resource="io",kind="some"}}      node_pressure_io_waiting_seconds_total
telemetryd_pressure_stalled_seconds_total{{resource="io",kind="full"}}      node_pressure_io_stalled_seconds_total

telemetryd_disk_operations_total{{operation="read"}}        node_disk_reads_completed_total         device
telemetryd_disk_operations_total{{operation="write"}}       node_disk_writes_completed_total        device
telemetryd_disk_operations_total{{operation="discard"}}     node_disk_discards_completed_total      device
telemetryd_disk_operations_total{{operation="flush"}}       node_disk_flush_requests_total          device
telemetryd_disk_merged_operations_total{{operation="read"}}     node_disk_reads_merged_total        device
telemetryd_disk_merged_operations_total{{operation="write"}}    node_disk_writes_merged_total       device
telemetryd_disk_merged_operations_total{{operation="discard"}}  node_disk_discards_merged_total     device
telemetryd_disk_bytes_total{{operation="read"}}             node_disk_read_bytes_total              device
telemetryd_disk_bytes_total{{operation="write"}}            node_disk_written_bytes_total           device
telemetryd_disk_bytes_total{{operation="discard"}}          node_disk_discarded_sectors_total*512   device
telemetryd_disk_time_seconds_total{{operation="read"}}      node_disk_read_time_seconds_total       device !
telemetryd_disk_time_seconds_total{{operation="write"}}     node_disk_write_time_seconds_total      device !
telemetryd_disk_time_seconds_total{{operation="discard"}}   node_disk_discard_time_seconds_total    device !
telemetryd_disk_time_seconds_total{{operation="flush"}}     node_disk_flush_requests_time_seconds_total  device !
telemetryd_disk_queue_time_seconds_total                    node_disk_io_time_weighted_seconds_total     device !
telemetryd_disk_io_time_seconds_total                       node_disk_io_time_seconds_total         device
telemetryd_disk_in_flight_operations                        node_disk_io_now                        device
telemetryd_disk_info                                        node_disk_info                          device

telemetryd_filesystem_size_bytes                            node_filesystem_size_bytes              mountpoint device type=fstype
telemetryd_filesystem_free_bytes                            node_filesystem_free_bytes              mountpoint device type=fstype !
telemetryd_filesystem_available_bytes                       node_filesystem_avail_bytes             mountpoint device type=fstype !
telemetryd_filesystem_files                                 node_filesystem_files                   mountpoint device type=fstype
telemetryd_filesystem_files_free                            node_filesystem_files_free              mountpoint device type=fstype !
telemetryd_filesystem_read_only                             node_filesystem_readonly                mountpoint device type=fstype
telemetryd_filesystem_device_error                          node_filesystem_device_error            mountpoint device type=fstype

telemetryd_network_bytes_total{{direction="receive"}}       node_network_receive_bytes_total        device
telemetryd_network_bytes_total{{direction="transmit"}}      node_network_transmit_bytes_total       device
telemetryd_network_packets_total{{direction="receive"}}     node_network_receive_packets_total      device
telemetryd_network_packets_total{{direction="transmit"}}    node_network_transmit_packets_total     device
telemetryd_network_errors_total{{direction="receive"}}      node_network_receive_errs_total         device
telemetryd_network_errors_total{{direction="transmit"}}     node_network_transmit_errs_total        device
telemetryd_network_drops_total{{direction="receive"}}       node_network_receive_drop_total         device
telemetryd_network_drops_total{{direction="transmit"}}      node_network_transmit_drop_total        device
telemetryd_network_fifo_errors_total{{direction="receive"}}     node_network_receive_fifo_total     device
telemetryd_network_fifo_errors_total{{direction="transmit"}}    node_network_transmit_fifo_total    device
telemetryd_network_frame_errors_total                       node_network_receive_frame_total        device
telemetryd_network_multicast_packets_total                  node_network_receive_multicast_total    device
telemetryd_network_collisions_total                         node_network_transmit_colls_total       device
telemetryd_network_carrier_errors_total                     node_network_transmit_carrier_total     device
telemetryd_network_up                                       node_network_up                         device
telemetryd_network_carrier_changes_total                    node_network_carrier_changes_total      device
telemetryd_network_speed_bytes_per_second                   node_network_speed_bytes                device
telemetryd_network_mtu_bytes                                node_network_mtu_bytes                  device
telemetryd_network_info                                     node_network_info                       device address duplex operstate

telemetryd_tcp_opens_total{{side="active"}}                 node_netstat_Tcp_ActiveOpens
telemetryd_tcp_opens_total{{side="passive"}}                node_netstat_Tcp_PassiveOpens
telemetryd_tcp_segments_total{{direction="receive"}}        node_netstat_Tcp_InSegs
telemetryd_tcp_segments_total{{direction="transmit"}}       node_netstat_Tcp_OutSegs
telemetryd_tcp_retransmitted_segments_total                 node_netstat_Tcp_RetransSegs
telemetryd_tcp_receive_errors_total                         node_netstat_Tcp_InErrs
telemetryd_tcp_resets_sent_total                            node_netstat_Tcp_OutRsts
telemetryd_tcp_established_connections                      node_netstat_Tcp_CurrEstab
telemetryd_tcp_listen_overflows_total                       node_netstat_TcpExt_ListenOverflows
telemetryd_tcp_listen_drops_total                           node_netstat_TcpExt_ListenDrops
telemetryd_tcp_syncookies_total{{event="sent"}}             node_netstat_TcpExt_SyncookiesSent
telemetryd_tcp_syncookies_total{{event="received"}}         node_netstat_TcpExt_SyncookiesRecv
telemetryd_tcp_syncookies_total{{event="failed"}}           node_netstat_TcpExt_SyncookiesFailed
telemetryd_tcp_syn_retransmits_total                        node_netstat_TcpExt_TCPSynRetrans
telemetryd_tcp_timeouts_total                               node_netstat_TcpExt_TCPTimeouts
telemetryd_udp_datagrams_total{{ip="4",direction="receive"}}        node_netstat_Udp_InDatagrams
telemetryd_udp_datagrams_total{{ip="4",direction="transmit"}}       node_netstat_Udp_OutDatagrams
telemetryd_udp_receive_errors_total{{ip="4"}}                       node_netstat_Udp_InErrors
telemetryd_udp_no_port_datagrams_total{{ip="4"}}                    node_netstat_Udp_NoPorts
telemetryd_udp_buffer_errors_total{{ip="4",direction="receive"}}    node_netstat_Udp_RcvbufErrors
telemetryd_udp_buffer_errors_total{{ip="4",direction="transmit"}}   node_netstat_Udp_SndbufErrors
telemetryd_udp_datagrams_total{{ip="6",direction="receive"}}        node_netstat_Udp6_InDatagrams
telemetryd_udp_datagrams_total{{ip="6",direction="transmit"}}       node_netstat_Udp6_OutDatagrams
telemetryd_udp_receive_errors_total{{ip="6"}}                       node_netstat_Udp6_InErrors
telemetryd_udp_no_port_datagrams_total{{ip="6"}}                    node_netstat_Udp6_NoPorts
telemetryd_udp_buffer_errors_total{{ip="6",direction="receive"}}    node_netstat_Udp6_RcvbufErrors
telemetryd_udp_buffer_errors_total{{ip="6",direction="transmit"}}   node_netstat_Udp6_SndbufErrors

telemetryd_thermal_temperature_celsius                      node_hwmon_temp_celsius                 chip sensor
telemetryd_thermal_fan_rpm                                  node_hwmon_fan_rpm                      chip sensor
telemetryd_thermal_voltage_volts                            node_hwmon_in_volts                     chip sensor
telemetryd_thermal_current_amperes                          node_hwmon_curr_amps                    chip sensor
telemetryd_thermal_zone_temperature_celsius                 node_thermal_zone_temp                  zone type

telemetryd_system_boot_time_seconds                         node_boot_time_seconds
telemetryd_system_time_seconds                              node_time_seconds                       !
telemetryd_system_clock_synchronized                        node_timex_sync_status
telemetryd_system_clock_offset_seconds                      node_timex_offset_seconds               !
telemetryd_system_clock_max_error_seconds                   node_timex_maxerror_seconds             !
telemetryd_system_clock_estimated_error_seconds             node_timex_estimated_error_seconds      !
telemetryd_system_file_handles                              node_filefd_allocated
telemetryd_system_file_handles_limit                        node_filefd_maximum
telemetryd_system_info                                      node_uname_info                         hostname=nodename kernel=release architecture=machine
"""  # noqa: E501  (a table)

# What node_exporter needs to export them, and nothing else. os and dmi are in: what they tell is
# in telemetryd_system_info.
NODE_EXPORTER_COLLECTORS = (
    "cpu", "cpufreq", "stat", "loadavg", "meminfo", "vmstat", "pressure", "diskstats", "filesystem",
    "netdev", "netclass", "netstat", "hwmon", "thermal_zone", "time", "timex", "filefd", "uname",
    "os", "dmi",
)  # fmt: skip

# The same for telemetryd, which here reads everything every second, as node_exporter does when it
# is scraped every second. Its derived figures cannot be switched off.
TELEMETRYD_CONFIG = """
[collectors]
rapl.enabled = false
hwmon_power.enabled = false
textfile.enabled = false
self.enabled = false
filesystem.interval = 1
thermal.interval = 1
"""


@dataclass(frozen=True, slots=True)
class _Side:
    """The series of one peer in a row: a name, labels that must be so, labels to match by."""

    name: str
    fixed: frozenset[tuple[str, str]]
    by: tuple[str, ...]

    def key(self, series: Series) -> tuple[str, ...] | None:
        labels = dict(series.labels)
        if not self.fixed <= labels.items():
            return None
        return tuple(labels.get(label, "") for label in self.by)


@dataclass(frozen=True, slots=True)
class _Pair:
    ours: _Side
    theirs: _Side
    factor: int
    agrees: bool


def _pairs() -> Iterator[_Pair]:
    for row in filter(None, PAIRS.splitlines()):
        first, second, *labels = row.split()
        agrees = "!" not in labels
        by = [label.partition("=") for label in labels if label != "!"]
        name, _, fixed = first.partition("{")
        their_name, _, factor = second.partition("*")
        yield _Pair(
            _Side(
                name,
                frozenset(re.findall(r'(\w+)="(\w*)"', fixed)),
                tuple(ours for ours, _, _ in by),
            ),
            _Side(their_name, frozenset(), tuple(theirs or ours for ours, _, theirs in by)),
            int(factor or 1),
            agrees,
        )


@dataclass(frozen=True, slots=True)
class Matched:
    """A series that both have: its two names, and its two values in telemetryd's unit."""

    ours: Series
    theirs: Series
    our_value: float
    their_value: float
    agrees: bool


def match(ours: dict[Series, float], theirs: dict[Series, float]) -> list[Matched]:
    """The series that two scrapes have in common."""
    our_families = _by_name(ours)
    their_families = _by_name(theirs)
    found = []
    for pair in _pairs():
        known = {pair.theirs.key(one): one for one in their_families.get(pair.theirs.name, ())}
        for one in our_families.get(pair.ours.name, ()):
            other = known.get(pair.ours.key(one))
            if other is not None:
                their_value = theirs[other] * pair.factor
                found.append(Matched(one, other, ours[one], their_value, pair.agrees))
    return found


def disagreements(matched: list[Matched]) -> list[Matched]:
    """Those whose values differ though nothing moves: on a machine that runs, any may."""
    return [
        one
        for one in matched
        if one.agrees and not math.isclose(one.our_value, one.their_value, rel_tol=1e-9)
    ]


def _by_name(scrape: dict[Series, float]) -> dict[str, list[Series]]:
    families: dict[str, list[Series]] = {}
    for series in scrape:
        families.setdefault(series.name, []).append(series)
    return families

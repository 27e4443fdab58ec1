"""Disks and filesystems of a node."""

from __future__ import annotations

from layout import Row
from panels import ACT, FILLING, GOOD, WATCH, Column, Query, graph, grid
from promql import rate, series

_OPERATIONS = rate("telemetryd_disk_operations_total")
_OF_DISK = "{{device}} {{operation}}"

DISKS = Row(
    "Disks",
    (
        graph(
            "Operations",
            "Reads, writes, discards and flushes that each disk completed a second.",
            "iops",
            Query(_OPERATIONS, _OF_DISK),
        ),
        graph(
            "Throughput",
            "Bytes a second read, written and discarded.",
            "Bps",
            Query(rate("telemetryd_disk_bytes_total"), _OF_DISK),
        ),
        graph(
            "Latency",
            "Mean time from issuing an operation to its end, waiting in the queue included. A gap "
            "is a time without operations.",
            "s",
            Query(f"{rate('telemetryd_disk_time_seconds_total')} / {_OPERATIONS}", _OF_DISK),
        ),
        graph(
            "Queue",
            "Mean number of operations in flight. Beside a growing latency: the disk is saturated.",
            "short",
            Query(rate("telemetryd_disk_queue_time_seconds_total"), "{{device}}"),
            width=12,
        ),
        grid(
            "Disks of this node",
            "What each disk is, and how large.",
            {"device": "Disk", "model": "Model", "rotational": "Rotating"},
            [
                Column(series("telemetryd_disk_info"), "", is_hidden=True),
                Column(
                    f"{series('telemetryd_disk_size_bytes')} * on (job, instance, device)"
                    f" group_left (model, rotational) {series('telemetryd_disk_info')}",
                    "Size",
                    "decbytes",
                ),
            ],
            width=12,
        ),
    ),
)

_SIZE = series("telemetryd_filesystem_size_bytes")
_FREE = series("telemetryd_filesystem_free_bytes")
_AVAILABLE = series("telemetryd_filesystem_available_bytes")
_FILES = series("telemetryd_filesystem_files")
# A trend that one job's scratch files do not make.
_TREND = "6h"
_DAY_S, _YEAR_S = 86_400, 31_536_000
# As df shows it: what is reserved for root is not there for anybody else.
_USED = f"({_SIZE} - {_FREE}) / ({_SIZE} - {_FREE} + {_AVAILABLE})"

FILESYSTEMS = Row(
    "Filesystems",
    (
        grid(
            "Filesystems of this node",
            "How full each local filesystem is, and when it will be full if it goes on as in the "
            "last six hours. Anything beyond a year is no trend.",
            {"mountpoint": "Mounted on", "device": "Device", "type": "Type"},
            [
                Column(_SIZE, "Size", "bytes"),
                Column(_AVAILABLE, "Available", "bytes"),
                Column(_USED, "Used", "percentunit", FILLING, is_bar=True),
                Column(
                    f"predict_linear({_AVAILABLE}[{_TREND}], {_DAY_S})",
                    "Available in a day",
                    "bytes",
                    ((None, ACT), (0, GOOD)),
                ),
                Column(
                    # Filling by less than a byte a second is not filling.
                    f"{_AVAILABLE} / clamp_min(-deriv({_AVAILABLE}[{_TREND}]), 1)",
                    "Full in",
                    "s",
                    ((None, ACT), (_DAY_S, WATCH), (7 * _DAY_S, GOOD)),
                    beyond=(_YEAR_S, "not filling"),
                ),
                Column(
                    f"1 - {series('telemetryd_filesystem_files_free')} / {_FILES}",
                    "Inodes used",
                    "percentunit",
                    FILLING,
                ),
                Column(
                    f"{series('telemetryd_filesystem_read_only')}"
                    f" + 2 * {series('telemetryd_filesystem_device_error')}",
                    "State",
                    "none",
                    ((None, GOOD), (1, WATCH), (2, ACT)),
                    names={
                        "0": "writable",
                        "1": "read-only",
                        "2": "does not answer",
                        "3": "read-only, does not answer",
                    },
                ),
            ],
        ),
        graph(
            "Available",
            "Bytes that users can still write to each filesystem.",
            "bytes",
            Query(_AVAILABLE, "{{mountpoint}}"),
            width=12,
        ),
        graph(
            "Inodes used",
            "Share of the inodes that are taken: a filesystem without a free one is full however "
            "many bytes are left. Absent where their number is not fixed.",
            "percentunit",
            Query(f"1 - {series('telemetryd_filesystem_files_free')} / {_FILES}", "{{mountpoint}}"),
            width=12,
            highest=1,
        ),
    ),
)

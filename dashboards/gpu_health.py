"""Health of the GPUs: memory errors, what the driver asks for, XIDs; and what they are."""

from __future__ import annotations

from collections.abc import Mapping

from gpu_overview import ROWS
from gpu_promql import GPU, increase, series
from grafana_foundation_sdk.models import dashboard
from layout import Row
from panels import ACT, GOOD, NONE_IS_GOOD, WATCH, Column, Query, graph, grid
from promql import SHOWN

_PEAK = series("telemetryd_gpu_peak_flops", precision="bf16")
_YES_IS_BAD = {"0": "no", "1": "yes"}
_ON = {"0": "off", "1": "on"}
_XIDS = {
    "13": "13 program: graphics engine exception",
    "31": "31 program: memory page fault",
    "43": "43 program: GPU stopped processing",
    "48": "48 double-bit ECC error",
    "62": "62 micro-controller halted",
    "63": "63 row or page to be replaced",
    "64": "64 row or page could not be replaced",
    "74": "74 NVLink error",
    "79": "79 fallen off the bus",
    "92": "92 many corrected ECC errors",
    "94": "94 contained ECC error",
    "95": "95 uncontained ECC error",
    "119": "119 GSP does not answer",
    "120": "120 GSP error",
}
_MILLISECONDS = 1000


def _words(texts: Mapping[str, str]) -> dashboard.DynamicConfigValue:
    """Shows these texts for values."""
    options = {value: {"text": text} for value, text in texts.items()}
    return dashboard.DynamicConfigValue("mappings", [{"type": "value", "options": options}])


HEALTH = Row(
    "Health",
    (
        grid(
            "Health of each GPU",
            "What each GPU says of itself. Anything coloured is to be looked into; the alert of "
            "the same name says how. Empty: this GPU does not tell.",
            ROWS,
            [
                Column(
                    series("telemetryd_gpu_lost"), "Lost", "none", NONE_IS_GOOD, names=_YES_IS_BAD
                ),
                Column(
                    series("telemetryd_gpu_recovery_action"),
                    "Driver asks for",
                    "none",
                    NONE_IS_GOOD,
                    names={
                        "0": "nothing",
                        "1": "reset of the GPU",
                        "2": "reboot of the node",
                        "3": "drain of peer-to-peer",
                        "4": "drain and reset",
                        "5": "recovery of the IMEX domain",
                        "6": "reset of the bus",
                        "7": "reboot of the system",
                    },
                ),
                Column(
                    series("telemetryd_gpu_ecc_enabled"),
                    "ECC",
                    "none",
                    ((None, WATCH), (1, GOOD)),
                    names=_ON,
                ),
                Column(
                    increase(
                        "telemetryd_gpu_ecc_errors_total",
                        SHOWN,
                        type="uncorrected",
                        lifetime="volatile",
                    ),
                    "Uncorrected errors",
                    "none",
                    NONE_IS_GOOD,
                ),
                Column(
                    series("telemetryd_gpu_row_remap_pending"),
                    "Row waits for a reset",
                    "none",
                    ((None, GOOD), (1, WATCH)),
                    names=_YES_IS_BAD,
                ),
                Column(
                    series("telemetryd_gpu_row_remap_failed"),
                    "Row not replaced",
                    "none",
                    NONE_IS_GOOD,
                    names=_YES_IS_BAD,
                ),
                Column(
                    series("telemetryd_gpu_retired_pages_pending"),
                    "Page waits for a reset",
                    "none",
                    ((None, GOOD), (1, WATCH)),
                    names=_YES_IS_BAD,
                ),
                Column(
                    series("telemetryd_gpu_fabric_healthy"),
                    "Fabric",
                    "none",
                    ((None, ACT), (1, GOOD)),
                    names={"0": "faulty", "1": "sound"},
                ),
                Column(
                    series("telemetryd_gpu_persistence_enabled"), "Persistence", "none", names=_ON
                ),
                Column(
                    series("telemetryd_gpu_readings_missing", reason="permission"),
                    "Readings denied",
                    "none",
                    ((None, GOOD), (1, WATCH)),
                ),
            ],
        ),
        grid(
            "XID errors",
            "Errors that the driver reported: how many over the time shown, and when the last. "
            "13, 31, 43, 63 and 92 come from programs or mend themselves; all others are to be "
            "looked into.",
            {**ROWS, "xid": "XID"},
            [
                Column(
                    f"{increase('telemetryd_gpu_xid_errors_total', SHOWN)} > 0",
                    "Over the time shown",
                    "none",
                ),
                Column(
                    f"{series('telemetryd_gpu_xid_last_time_seconds')} * {_MILLISECONDS}",
                    "The last",
                    "dateTimeAsIso",
                ),
            ],
            width=12,
        ).override_by_name("XID", [_words(_XIDS)]),
        graph(
            "XID errors over time",
            "When XIDs came, of each kind, over all GPUs that are chosen. Many GPUs at once: a job "
            "or the driver; one again and again: that GPU.",
            "short",
            Query(f"sum by (xid) ({increase('telemetryd_gpu_xid_errors_total')})", "XID {{xid}}"),
            width=12,
        ),
        graph(
            "Memory errors",
            "Errors that ECC found. Corrected ones are mended at once and cost nothing; an "
            "uncorrected one ends the program that used the memory.",
            "short",
            Query(
                increase("telemetryd_gpu_ecc_errors_total", lifetime="volatile"),
                f"{GPU} {{{{type}}}}",
            ),
        ),
        graph(
            "Rows replaced",
            "Rows of memory that were replaced by spare ones over the life of the GPU. Few are "
            "normal; they only ever get more.",
            "short",
            Query(series("telemetryd_gpu_remapped_rows_total"), f"{GPU} {{{{errors}}}}"),
        ),
        graph(
            "Pages taken out of use",
            "Pages of memory that GPUs before Ampere no longer use. From about 60 on the GPU is "
            "to be replaced.",
            "short",
            Query(series("telemetryd_gpu_retired_pages_total"), f"{GPU} {{{{errors}}}}"),
        ),
        grid(
            "Fabric",
            "The NVLink fabric of GPUs behind switches: GPUs of one job should be registered with "
            "the same cluster and clique.",
            {
                **ROWS,
                "state": "State",
                "status": "Status",
                "cluster": "Cluster",
                "clique": "Clique",
            },
            [Column(series("telemetryd_gpu_fabric_info"), "", is_hidden=True)],
            width=12,
        ),
        graph(
            "Faults of the fabric",
            "1 while a fault of the NVLink fabric is reported.",
            "none",
            Query(series("telemetryd_gpu_fabric_fault"), f"{GPU} {{{{fault}}}}"),
            width=12,
            highest=1,
        ),
        grid(
            "What they are",
            "Identity of each GPU, with what it can do at most by its data sheet.",
            {
                **ROWS,
                "model": "Model",
                "architecture": "Architecture",
                "pci": "PCI address",
                "minor": "/dev/nvidiaN",
                "numa_node": "NUMA node",
                "serial": "Serial number",
                "uuid": "UUID",
            },
            [Column(series("telemetryd_gpu_info"), "", is_hidden=True)],
        ),
        grid(
            "Peak by the data sheet",
            "Operations a second in bf16 that each GPU can do at most, which weigh it in `Used, "
            "by capacity`. Missing for a model that is not known: the configuration can say it.",
            ROWS,
            [
                Column(
                    series("telemetryd_gpu_peak_flops", precision="bf16"), "Peak in bf16", "flops"
                )
            ],
            width=8,
        ),
        grid(
            "Drivers",
            "Versions of the GPU drivers of each node. Nodes of one cluster should agree.",
            {
                "instance": "Node",
                "vendor": "Maker",
                "driver": "Driver",
                "library": "Library",
                "cuda": "Newest CUDA",
            },
            [Column(series("telemetryd_gpu_driver_info"), "", is_hidden=True)],
            width=8,
        ),
        graph(
            "Readings that are missing",
            "Readings that the GPUs do not give, by reason. `unsupported` is normal; `permission` "
            "is to be mended; `old_driver` by a newer one. `telemetryd doctor` names them.",
            "short",
            Query(f"sum by (reason) ({series('telemetryd_gpu_readings_missing')})", "{{reason}}"),
        ),
    ),
)

"""What only NVIDIA's GPUs report; telemetryd/gpus.py has what other makers' do too."""

from __future__ import annotations

from telemetryd.gpus import GPU
from telemetryd.metric import Kind, Metric, Unit

# --- every tick -------------------------------------------------------------------------------
THROTTLE = Metric(
    "gpu", "throttle_active", Kind.GAUGE, Unit.NONE,
    "1 while a reason holds the clocks below their highest, else 0. `gpu_idle`, "
    "`application_clocks` and `display_clocks` are no faults.",
    "nvmlDeviceGetCurrentClocksEventReasons", (*GPU, "reason"),
)  # fmt: skip
THROTTLED = Metric(
    "gpu", "throttled", Kind.COUNTER, Unit.SECONDS,
    "Time for which a reason held the clocks down, as the driver counts it.",
    "NVML fields 74, 76, 269, 270, 271", (*GPU, "reason"),
)  # fmt: skip
TEMPERATURE_MARGIN = Metric(
    "gpu", "temperature_margin", Kind.GAUGE, Unit.CELSIUS,
    "Degrees that the GPU may get warmer before it slows down.",
    "nvmlDeviceGetMarginTemperature", GPU,
)  # fmt: skip
TEMPERATURE_LIMIT = Metric(
    "gpu", "temperature_limit_margin", Kind.GAUGE, Unit.CELSIUS,
    "The temperature margin at which something happens, below 0 being hotter: `slowdown`, "
    "`shutdown`, `gpu_max` and `memory_max` (highest in operation).",
    "NVML fields 193 to 196", (*GPU, "limit"),
)  # fmt: skip
PERFORMANCE_STATE = Metric(
    "gpu", "performance_state", Kind.GAUGE, Unit.NONE,
    "0 (P0, highest) to 15 (lowest).", "nvmlDeviceGetPerformanceState", GPU,
)  # fmt: skip

# --- slow ---------------------------------------------------------------------------------------
PERSISTENCE = Metric(
    "gpu", "persistence_enabled", Kind.GAUGE, Unit.NONE,
    "1 if the driver keeps the GPU initialized while nobody uses it, else 0.",
    "nvmlDeviceGetPersistenceMode", GPU,
)  # fmt: skip
ECC_ENABLED = Metric(
    "gpu", "ecc_enabled", Kind.GAUGE, Unit.NONE,
    "1 if ECC protects the memory, else 0.", "nvmlDeviceGetEccMode", GPU,
)  # fmt: skip
REMAPPED_ROWS = Metric(
    "gpu", "remapped_rows", Kind.COUNTER, Unit.NONE,
    "Rows of memory replaced by spare ones, over the life of the GPU, by what was wrong: "
    "`correctable` or `uncorrectable`. Absent under MIG.",
    "NVML fields 142 and 143", (*GPU, "errors"),
)  # fmt: skip
REMAP_PENDING = Metric(
    "gpu", "row_remap_pending", Kind.GAUGE, Unit.NONE,
    "1 if a row waits for the next reset of the GPU to be replaced, else 0.",
    "NVML field 144", GPU,
)  # fmt: skip
REMAP_FAILED = Metric(
    "gpu", "row_remap_failed", Kind.GAUGE, Unit.NONE,
    "1 if a row could not be replaced: the GPU is to be exchanged. Else 0.",
    "NVML field 145", GPU,
)  # fmt: skip
RETIRED_PAGES = Metric(
    "gpu", "retired_pages", Kind.COUNTER, Unit.NONE,
    "Pages of memory taken out of use (GPUs before Ampere), by what was wrong with them: "
    "`single_bit` or `double_bit` errors.",
    "NVML fields 29 and 30", (*GPU, "errors"),
)  # fmt: skip
RETIREMENT_PENDING = Metric(
    "gpu", "retired_pages_pending", Kind.GAUGE, Unit.NONE,
    "1 if a page waits for the next reset of the GPU to be taken out of use, else 0.",
    "NVML field 31", GPU,
)  # fmt: skip
RECOVERY_ACTION = Metric(
    "gpu", "recovery_action", Kind.GAUGE, Unit.NONE,
    "What the driver asks for: 0 nothing, 1 reset the GPU, 2 reboot the node, 3 drain peer-to-peer "
    "traffic, 4 drain and reset, 5 recover the IMEX domain, 6 reset the bus, 7 reboot the system.",
    "NVML field 230", GPU,
)  # fmt: skip
PCIE_ROLLOVERS = Metric(
    "gpu", "pcie_replay_rollovers", Kind.COUNTER, Unit.NONE,
    "Times that a packet was replayed so often over PCIe that the link was trained again.",
    "NVML field 95", GPU,
)  # fmt: skip
PCIE_ERRORS = Metric(
    "gpu", "pcie_errors", Kind.COUNTER, Unit.NONE,
    "Errors of the PCIe link that the GPU counted, by type.",
    "NVML fields 173 to 183", (*GPU, "type"),
)  # fmt: skip
POWER_PROFILE = Metric(
    "gpu", "power_profile", Kind.GAUGE, Unit.NONE,
    "1 for each workload power profile that is enforced, by its number in nvml.h (0 max_p, 1 "
    "max_q, 2 compute, 3 memory_bound, 4 network, ...); none without.",
    "nvmlDeviceWorkloadPowerProfileGetCurrentProfiles", (*GPU, "profile"),
)  # fmt: skip
NVLINK_ERRORS = Metric(
    "gpu", "nvlink_errors", Kind.COUNTER, Unit.NONE,
    "Errors of all NVLinks of a GPU together, by type. Replays and CRC errors are mended by the "
    "link; recoveries and failed recoveries are not so harmless.",
    "NVML fields 38, 45, 52, 59, 160; else 161 to 163, 208, 214, 221 of each link",
    (*GPU, "type"),
)  # fmt: skip
FABRIC = Metric(
    "gpu", "fabric", Kind.INFO, Unit.NONE,
    "The NVLink fabric of a GPU behind switches: state, status of its registration, cluster and "
    "clique.",
    "nvmlDeviceGetGpuFabricInfoV", (*GPU, "state", "status", "cluster", "clique"),
)  # fmt: skip
FABRIC_HEALTHY = Metric(
    "gpu", "fabric_healthy", Kind.GAUGE, Unit.NONE,
    "1 if the GPU is registered with its NVLink fabric and no fault is reported, else 0; absent "
    "without a fabric.",
    "nvmlDeviceGetGpuFabricInfoV", GPU,
)  # fmt: skip
FABRIC_FAULT = Metric(
    "gpu", "fabric_fault", Kind.GAUGE, Unit.NONE,
    "1 while the fabric reports a fault, else 0: `degraded_bandwidth`, `route_recovery`, "
    "`route_unhealthy`, `access_timeout_recovery`, `incorrect_configuration`. Absent where the "
    "driver does not tell.",
    "nvmlDeviceGetGpuFabricInfoV", (*GPU, "fault"),
)  # fmt: skip

# --- MIG ----------------------------------------------------------------------------------------
MIG_ENABLED = Metric(
    "gpu", "mig_enabled", Kind.GAUGE, Unit.NONE,
    "1 if the GPU is divided into MIG instances, else 0; absent where it cannot be.",
    "nvmlDeviceGetMigMode", GPU,
)  # fmt: skip
INSTANCE = Metric(
    "gpu", "instance", Kind.INFO, Unit.NONE,
    "A MIG instance: its profile, the GPU that it is part of, its GPU and compute instance.",
    "nvmlDeviceGetMigDeviceHandleByIndex and others",
    (*GPU, "parent", "parent_uuid", "profile", "gpu_instance", "compute_instance"),
)  # fmt: skip
MIG_MEMORY_TOTAL = Metric(
    "gpu", "mig_memory_total", Kind.GAUGE, Unit.BYTES,
    "Memory of all GPU instances of a GPU, each counted once, however many compute instances "
    "share it.",
    "nvmlDeviceGetMemoryInfo_v2 of the instances", GPU,
)  # fmt: skip
MIG_MEMORY_USED = Metric(
    "gpu", "mig_memory_used", Kind.GAUGE, Unit.BYTES,
    "Memory in use in all GPU instances of a GPU, each counted once, however many compute "
    "instances share it.",
    "nvmlDeviceGetMemoryInfo_v2 of the instances", GPU,
)  # fmt: skip

# --- events -------------------------------------------------------------------------------------
XID_ERRORS = Metric(
    "gpu", "xid_errors", Kind.COUNTER, Unit.NONE,
    "XID errors that the driver reported since the daemon started. The known ones are there from "
    "the start, so that the first is an increase.",
    "nvmlEventSetWait_v2", (*GPU, "xid"),
)  # fmt: skip
XID_LAST = Metric(
    "gpu", "xid_last_time", Kind.GAUGE, Unit.SECONDS,
    "When an XID error was last reported, in seconds since 1970; absent before the first.",
    "nvmlEventSetWait_v2", (*GPU, "xid"),
)  # fmt: skip

METRICS = (
    THROTTLE, THROTTLED, TEMPERATURE_MARGIN, TEMPERATURE_LIMIT, PERFORMANCE_STATE, PERSISTENCE,
    ECC_ENABLED, REMAPPED_ROWS, REMAP_PENDING, REMAP_FAILED, RETIRED_PAGES, RETIREMENT_PENDING,
    RECOVERY_ACTION, PCIE_ROLLOVERS, PCIE_ERRORS, POWER_PROFILE, NVLINK_ERRORS, FABRIC,
    FABRIC_HEALTHY, FABRIC_FAULT, MIG_ENABLED, INSTANCE, MIG_MEMORY_TOTAL, MIG_MEMORY_USED,
    XID_ERRORS, XID_LAST,
)  # fmt: skip

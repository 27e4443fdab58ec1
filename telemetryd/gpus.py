"""What GPUs report, whoever made them: the families that their collectors share.

Every series has the labels `gpu` and `uuid`. `gpu` is short and may change when the machine boots:
NVML's index ("0"), for a MIG instance GPU / GPU instance / compute instance ("0/3/0"), for the
GPUs of other makers the kernel's name ("card1"). `uuid` never changes: NVML's UUID, a unique id or
the PCI address. All other identity is on telemetryd_gpu_info.
"""

from __future__ import annotations

from telemetryd.metric import Kind, Metric, Unit

GPU = ("gpu", "uuid")

INFO = Metric(
    "gpu", "", Kind.INFO, Unit.NONE,
    "Identity of a GPU: index, maker, model, architecture, PCI address, serial number, minor "
    "number of /dev/nvidiaN or of the render node (Slurm's device cgroup speaks of it) and NUMA "
    "node; empty where the driver does not tell.",
    "NVML; AMD and Intel: /sys/class/drm",
    (*GPU, "index", "vendor", "model", "architecture", "pci", "serial", "minor", "numa_node"),
)  # fmt: skip
DRIVER = Metric(
    "gpu", "driver", Kind.INFO, Unit.NONE,
    "Versions of a GPU driver, of its management library, and of the newest CUDA it can serve.",
    "NVML; /sys/module/*/version", ("vendor", "driver", "library", "cuda"),
)  # fmt: skip
LOST = Metric(
    "gpu", "lost", Kind.GAUGE, Unit.NONE,
    "1 while a GPU that was here does not answer any more (it fell off the bus, its driver is "
    "gone, or a call to it hangs), else 0.",
    "NVML; AMD and Intel: sysfs", GPU,
)  # fmt: skip
MISSING = Metric(
    "gpu", "readings_missing", Kind.GAUGE, Unit.NONE,
    "Readings that a GPU does not give, by reason: `unsupported` by it or its driver, `permission` "
    "denied, `old_driver` without the function. `telemetryd doctor` names them.",
    "NVML", (*GPU, "reason"),
)  # fmt: skip

# --- how busy ---------------------------------------------------------------------------------
BUSY = Metric(
    "gpu", "busy", Kind.GAUGE, Unit.RATIO,
    "Share of the driver's last sampling period (1/6 to 1 s) in which at least one kernel ran. It "
    "says nothing of how full the GPU was; telemetryd_gpu_sm_active_ratio does. Absent under MIG.",
    "nvmlDeviceGetUtilizationRates; AMD: gpu_busy_percent; Intel: engine time in fdinfo", GPU,
)  # fmt: skip
MEMORY_BUSY = Metric(
    "gpu", "memory_busy", Kind.GAUGE, Unit.RATIO,
    "Share of the driver's last sampling period in which the GPU's memory was read or written.",
    "nvmlDeviceGetUtilizationRates; AMD: mem_busy_percent", GPU,
)  # fmt: skip
ENCODER_BUSY = Metric(
    "gpu", "encoder_busy", Kind.GAUGE, Unit.RATIO,
    "Share of the driver's sampling period in which the video encoder worked.",
    "nvmlDeviceGetEncoderUtilization", GPU,
)  # fmt: skip
DECODER_BUSY = Metric(
    "gpu", "decoder_busy", Kind.GAUGE, Unit.RATIO,
    "Share of the driver's sampling period in which the video decoder worked.",
    "nvmlDeviceGetDecoderUtilization", GPU,
)  # fmt: skip
GRAPHICS_ACTIVE = Metric(
    "gpu", "graphics_active", Kind.GAUGE, Unit.RATIO,
    "Share of the interval in which the graphics or compute engine was active.",
    "NVML GPM metric 1", GPU,
)  # fmt: skip
SM_ACTIVE = Metric(
    "gpu", "sm_active", Kind.GAUGE, Unit.RATIO,
    "Share of the streaming multiprocessors that were busy, over the interval: how full a GPU or "
    "MIG instance was.",
    "NVML GPM metric 2", GPU,
)  # fmt: skip
SM_OCCUPANCY = Metric(
    "gpu", "sm_occupancy", Kind.GAUGE, Unit.RATIO,
    "Warps that were resident, of those that the multiprocessors could hold, over the interval.",
    "NVML GPM metric 3", GPU,
)  # fmt: skip
TENSOR_ACTIVE = Metric(
    "gpu", "tensor_active", Kind.GAUGE, Unit.RATIO,
    "Share of the interval in which the tensor cores worked.", "NVML GPM metric 5", GPU,
)  # fmt: skip
DRAM_ACTIVE = Metric(
    "gpu", "dram_active", Kind.GAUGE, Unit.RATIO,
    "Memory bandwidth used, of the highest possible, over the interval.",
    "NVML GPM metric 10", GPU,
)  # fmt: skip

# --- memory -----------------------------------------------------------------------------------
MEMORY_TOTAL = Metric(
    "gpu", "memory_total", Kind.GAUGE, Unit.BYTES,
    "Memory of a GPU or MIG instance: reserved + used + free. Compute instances of one GPU "
    "instance share it and report the same.",
    "nvmlDeviceGetMemoryInfo_v2; AMD: mem_info_vram_total", GPU,
)  # fmt: skip
MEMORY_USED = Metric(
    "gpu", "memory_used", Kind.GAUGE, Unit.BYTES,
    "Memory in use, without what the driver reserves for itself. Compute instances of one GPU "
    "instance share it and report the same.",
    "nvmlDeviceGetMemoryInfo_v2; AMD: mem_info_vram_used", GPU,
)  # fmt: skip
MEMORY_FREE = Metric(
    "gpu", "memory_free", Kind.GAUGE, Unit.BYTES,
    "Memory that is free.", "nvmlDeviceGetMemoryInfo_v2", GPU,
)  # fmt: skip
MEMORY_RESERVED = Metric(
    "gpu", "memory_reserved", Kind.GAUGE, Unit.BYTES,
    "Memory that the driver and firmware keep for themselves; absent where an old driver counts "
    "it as used.",
    "nvmlDeviceGetMemoryInfo_v2", GPU,
)  # fmt: skip

# --- clocks, temperature, power -----------------------------------------------------------------
CLOCK = Metric(
    "gpu", "clock", Kind.GAUGE, Unit.HERTZ,
    "Clocks as they are: `graphics`, `sm`, `memory`, `video`.",
    "nvmlDeviceGetClockInfo; AMD: freq1_input, freq2_input; Intel: gt_act_freq_mhz",
    (*GPU, "clock"),
)  # fmt: skip
CLOCK_MAX = Metric(
    "gpu", "clock_max", Kind.GAUGE, Unit.HERTZ,
    "The highest that each clock can be.",
    "nvmlDeviceGetMaxClockInfo; AMD: pp_dpm_sclk; Intel: gt_RP0_freq_mhz", (*GPU, "clock"),
)  # fmt: skip
TEMPERATURE = Metric(
    "gpu", "temperature", Kind.GAUGE, Unit.CELSIUS,
    "Temperature of the GPU (`gpu`), its memory (`memory`) and what else has a sensor.",
    "nvmlDeviceGetTemperatureV, NVML field 82; AMD and Intel: hwmon", (*GPU, "sensor"),
)  # fmt: skip
POWER_AVERAGE = Metric(
    "gpu", "power_average", Kind.GAUGE, Unit.WATTS,
    "Mean power over the driver's averaging time, 1 s on most. `scope`: the GPU (`gpu`), its "
    "memory (`memory`, inside it), the module with its CPU (`module`, contains it).",
    "NVML field 185, else nvmlDeviceGetPowerUsage; AMD: power1_average", (*GPU, "scope"),
)  # fmt: skip
POWER_INSTANT = Metric(
    "gpu", "power_instant", Kind.GAUGE, Unit.WATTS,
    "Power at the moment; differs from the average by far under a load that changes.",
    "NVML field 186, else nvmlDeviceGetPowerUsage (GA100 and older); AMD: power1_input",
    (*GPU, "scope"),
)  # fmt: skip
POWER_LIMIT = Metric(
    "gpu", "power_limit", Kind.GAUGE, Unit.WATTS,
    "Power limits: `enforced` (what holds, the lowest of all limiters), `requested`, `default`, "
    "and `min` and `max` that may be requested.",
    "NVML fields 187 to 190 and 192; AMD: power1_cap", (*GPU, "limit"),
)  # fmt: skip
ENERGY = Metric(
    "gpu", "energy", Kind.COUNTER, Unit.JOULES,
    "Energy since the driver was loaded, as the GPU counts it, in steps of about 100 ms. On "
    "modules such as Grace Hopper it is that of the whole module.",
    "NVML field 83, else nvmlDeviceGetTotalEnergyConsumption; Intel: energy1_input", GPU,
)  # fmt: skip
FAN_SPEED = Metric(
    "gpu", "fan_speed", Kind.GAUGE, Unit.RATIO,
    "Speed that each fan is meant to have, of its highest.",
    "nvmlDeviceGetFanSpeed_v2; AMD: pwm1", (*GPU, "fan"),
)  # fmt: skip

# --- links and health ---------------------------------------------------------------------------
PCIE_GENERATION = Metric(
    "gpu", "pcie_link_generation", Kind.GAUGE, Unit.NONE,
    "PCIe generation at which the link runs; an idle GPU lowers it.",
    "nvmlDeviceGetCurrPcieLinkGeneration; current_link_speed", GPU,
)  # fmt: skip
PCIE_GENERATION_MAX = Metric(
    "gpu", "pcie_link_generation_max", Kind.GAUGE, Unit.NONE,
    "Highest PCIe generation that the GPU and its slot have in common.",
    "nvmlDeviceGetMaxPcieLinkGeneration; max_link_speed", GPU,
)  # fmt: skip
PCIE_WIDTH = Metric(
    "gpu", "pcie_link_width", Kind.GAUGE, Unit.NONE,
    "PCIe lanes in use.", "nvmlDeviceGetCurrPcieLinkWidth; current_link_width", GPU,
)  # fmt: skip
PCIE_WIDTH_MAX = Metric(
    "gpu", "pcie_link_width_max", Kind.GAUGE, Unit.NONE,
    "PCIe lanes that the GPU and its slot have in common.",
    "nvmlDeviceGetMaxPcieLinkWidth; max_link_width", GPU,
)  # fmt: skip
PCIE_REPLAYS = Metric(
    "gpu", "pcie_replays", Kind.COUNTER, Unit.NONE,
    "Packets sent again over PCIe because they were not acknowledged.",
    "NVML field 94; AMD: pcie_replay_count", GPU,
)  # fmt: skip
PCIE_RATE = Metric(
    "gpu", "pcie", Kind.GAUGE, Unit.BYTES_PER_SECOND,
    "PCIe traffic of the GPU over the interval; `receive` is to the GPU.",
    "NVML GPM metrics 20 and 21; nvmlDeviceGetPcieThroughput where the configuration asks for it",
    (*GPU, "direction"),
)  # fmt: skip
NVLINK_BYTES = Metric(
    "gpu", "nvlink", Kind.COUNTER, Unit.BYTES,
    "Data that all NVLinks of a GPU carried together, without protocol overhead.",
    "NVML fields 138 and 139", (*GPU, "direction"),
)  # fmt: skip
NVLINK_RATE = Metric(
    "gpu", "nvlink", Kind.GAUGE, Unit.BYTES_PER_SECOND,
    "Traffic of all NVLinks of a GPU or MIG instance over the interval; `receive` is to the GPU.",
    "NVML GPM metrics 60 and 61", (*GPU, "direction"),
)  # fmt: skip
NVLINK_SPEED = Metric(
    "gpu", "nvlink_speed", Kind.GAUGE, Unit.BYTES_PER_SECOND,
    "Speed of one NVLink as the driver states it. Most drivers state one direction, some both.",
    "NVML field 90, else 164", GPU,
)  # fmt: skip
NVLINK_UP = Metric(
    "gpu", "nvlink_up", Kind.GAUGE, Unit.NONE,
    "1 if an NVLink is active, else 0.", "nvmlDeviceGetNvLinkState", (*GPU, "link"),
)  # fmt: skip
ECC_ERRORS = Metric(
    "gpu", "ecc_errors", Kind.COUNTER, Unit.NONE,
    'Memory errors that ECC found, `corrected` or `uncorrected`. lifetime="volatile" counts since '
    'the driver was loaded, "aggregate" over the life of the GPU.',
    "NVML fields 3 to 6; AMD: ras/umc_err_count", (*GPU, "type", "lifetime"),
)  # fmt: skip

# --- who uses it --------------------------------------------------------------------------------
PROCESSES = Metric(
    "gpu", "processes", Kind.GAUGE, Unit.NONE,
    "Processes that hold a context on a GPU or MIG instance.",
    "nvmlDeviceGetComputeRunningProcesses_v3 and ...Graphics...; fdinfo", GPU,
)  # fmt: skip
PROCESS_MEMORY = Metric(
    "gpu", "process_memory", Kind.GAUGE, Unit.BYTES,
    "GPU memory of each process; absent where the driver does not tell.",
    "nvmlDeviceGetComputeRunningProcesses_v3 and ...Graphics...; fdinfo drm-memory-*",
    (*GPU, "pid", "command"), per_process=True,
)  # fmt: skip
PROCESS_UTILIZATION = Metric(
    "gpu", "process_utilization", Kind.GAUGE, Unit.RATIO,
    "Share of the multiprocessors (other makers: of the time of the engines) that a process used "
    "lately; absent where the driver has no sample. Not under MIG.",
    "nvmlDeviceGetProcessUtilization; fdinfo drm-engine-*",
    (*GPU, "pid", "command"), per_process=True,
)  # fmt: skip
OWNER_PROCESSES = Metric(
    "gpu", "owner_processes", Kind.GAUGE, Unit.NONE,
    "Processes of an owner (job, pod, container, unit, or command where the configuration says so) "
    "that hold a context on a GPU or MIG instance; absent where it has none. AMD and Intel: those "
    "that the daemon may look at.",
    "NVML, fdinfo; /proc/PID/cgroup", (*GPU, "owner_kind", "owner"),
)  # fmt: skip
OWNER_MEMORY = Metric(
    "gpu", "owner_memory", Kind.GAUGE, Unit.BYTES,
    "GPU memory of all processes of an owner on a GPU or MIG instance; absent where the driver "
    "does not tell that of one of them.",
    "NVML, fdinfo; /proc/PID/cgroup", (*GPU, "owner_kind", "owner"),
)  # fmt: skip
OWNER_UTILIZATION = Metric(
    "gpu", "owner_utilization", Kind.GAUGE, Unit.RATIO,
    "Share of a GPU's multiprocessors that the processes of an owner used lately; absent where the "
    "driver has no sample. Not under MIG.",
    "NVML, fdinfo; /proc/PID/cgroup", (*GPU, "owner_kind", "owner"),
)  # fmt: skip

METRICS = (
    INFO, DRIVER, LOST, MISSING, BUSY, MEMORY_BUSY, ENCODER_BUSY, DECODER_BUSY, GRAPHICS_ACTIVE,
    SM_ACTIVE, SM_OCCUPANCY, TENSOR_ACTIVE, DRAM_ACTIVE, MEMORY_TOTAL, MEMORY_USED, MEMORY_FREE,
    MEMORY_RESERVED, CLOCK, CLOCK_MAX, TEMPERATURE, POWER_AVERAGE, POWER_INSTANT, POWER_LIMIT,
    ENERGY, FAN_SPEED, PCIE_GENERATION, PCIE_GENERATION_MAX, PCIE_WIDTH, PCIE_WIDTH_MAX,
    PCIE_REPLAYS, PCIE_RATE, NVLINK_BYTES, NVLINK_RATE, NVLINK_SPEED, NVLINK_UP, ECC_ERRORS,
    PROCESSES, PROCESS_MEMORY, PROCESS_UTILIZATION, OWNER_PROCESSES, OWNER_MEMORY,
    OWNER_UTILIZATION,
)  # fmt: skip

/* What is read on every tick: load, memory, clocks, temperature, power. */
#include "fake.h"

#define NUMBER(function, key)                                                                     \
    EXPORT int function(Handle device, unsigned *number)                                          \
    {                                                                                             \
        GPU_CALL(device);                                                                         \
        return answer_uint(&call, number, key);                                                   \
    }
NUMBER(nvmlDeviceGetEnforcedPowerLimit, "plimit_enforced_mw")
NUMBER(nvmlDeviceGetPowerManagementLimit, "plimit_requested_mw")
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, "plimit_default_mw")

/* --- power -------------------------------------------------------------------------------------- */

EXPORT int nvmlDeviceGetPowerUsage(Handle device, unsigned *milliwatts)
{
    GPU_CALL(device);
    /* The average where a GPU knows one, as the driver does it. */
    int answer = answer_uint(&call, milliwatts, "power_mw");
    if (answer == NOT_SUPPORTED)
        answer = answer_uint(&call, milliwatts, "power_average_mw");
    return answer == NOT_SUPPORTED ? answer_uint(&call, milliwatts, "power_instant_mw") : answer;
}

EXPORT int nvmlDeviceGetPowerManagementLimitConstraints(Handle device, unsigned *least,
                                                        unsigned *most)
{
    GPU_CALL(device);
    REFUSE_IF(answer_uint(&call, least, "plimit_min_mw"));
    return answer_uint(&call, most, "plimit_max_mw");
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(Handle device, unsigned long long *millijoules)
{
    GPU_CALL(device);
    return answer_u64(&call, millijoules, "energy_mj");
}

/* --- load --------------------------------------------------------------------------------------- */

struct Utilization {
    unsigned gpu, memory;
};

EXPORT int nvmlDeviceGetUtilizationRates(Handle device, struct Utilization *utilization)
{
    UNDIVIDED_CALL(device);
    if (!utilization)
        return INVALID_ARGUMENT;
    REFUSE_IF(answer_uint(&call, &utilization->gpu, "util_gpu"));
    return answer_uint(&call, &utilization->memory, "util_mem");
}

#define ENGINE(visibility, function, key)                                                         \
    visibility int function(Handle device, unsigned *percent, unsigned *period_us)                \
    {                                                                                             \
        UNDIVIDED_CALL(device);                                                                   \
        if (!period_us)                                                                           \
            return INVALID_ARGUMENT;                                                              \
        *period_us = 167000;                                                                      \
        return answer_uint(&call, percent, key);                                                  \
    }
ENGINE(EXPORT, nvmlDeviceGetEncoderUtilization, "util_enc")
ENGINE(EXPORT, nvmlDeviceGetDecoderUtilization, "util_dec")
ENGINE(SINCE_2022, nvmlDeviceGetJpgUtilization, "util_jpg")
ENGINE(SINCE_2022, nvmlDeviceGetOfaUtilization, "util_ofa")

/* --- memory ------------------------------------------------------------------------------------- */

struct Memory {
    unsigned long long total, reserved, free, used;
};

/* `what` is "mem" or "bar1". A MIG device has the memory of its GPU instance. */
static int read_memory(const struct Call *call, const char *what, struct Memory *memory)
{
    unsigned gi = mig_instance(call, "gi");
    if (call->slot < 0) {
        REFUSE_IF(answer_u64(call, &memory->total, "%s_total", what));
        REFUSE_IF(answer_u64(call, &memory->used, "%s_used", what));
        memory->reserved = as_u64(number_or(call, 0, "%s_reserved", what));
    } else {
        REFUSE_IF(answer_u64(call, &memory->total, "gi.%u.%s_total", gi, what));
        REFUSE_IF(answer_u64(call, &memory->used, "gi.%u.%s_used", gi, what));
        memory->reserved = as_u64(number_or(call, 0, "gi.%u.%s_reserved", gi, what));
    }
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

struct MemoryV1 {
    unsigned long long total, free, used;
};

static int answer_memory(const struct Call *call, const char *what, struct MemoryV1 *out)
{
    struct Memory memory;
    if (!out)
        return INVALID_ARGUMENT;
    REFUSE_IF(read_memory(call, what, &memory));
    out->total = memory.total;
    out->free = memory.free;
    out->used = memory.used + memory.reserved; /* the old call does not tell them apart */
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMemoryInfo(Handle device, struct MemoryV1 *memory)
{
    DEVICE_CALL(device);
    return answer_memory(&call, "mem", memory);
}

EXPORT int nvmlDeviceGetBAR1MemoryInfo(Handle device, struct MemoryV1 *memory)
{
    DEVICE_CALL(device);
    return answer_memory(&call, "bar1", memory);
}

struct MemoryV2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

SINCE_2022 int nvmlDeviceGetMemoryInfo_v2(Handle device, struct MemoryV2 *out)
{
    struct Memory memory;
    DEVICE_CALL(device);
    if (!out)
        return INVALID_ARGUMENT;
    if (out->version != (sizeof *out | 2u << 24))
        return ARGUMENT_VERSION_MISMATCH;
    REFUSE_IF(read_memory(&call, "mem", &memory));
    out->total = memory.total;
    out->reserved = memory.reserved;
    out->free = memory.free;
    out->used = memory.used;
    return SUCCESS;
}

/* --- clocks ------------------------------------------------------------------------------------- */

EXPORT int nvmlDeviceGetClockInfo(Handle device, unsigned type, unsigned *mhz)
{
    GPU_CALL(device);
    return type > 3 ? INVALID_ARGUMENT : answer_uint(&call, mhz, "clk.%u", type);
}

EXPORT int nvmlDeviceGetMaxClockInfo(Handle device, unsigned type, unsigned *mhz)
{
    GPU_CALL(device);
    return type > 3 ? INVALID_ARGUMENT : answer_uint(&call, mhz, "clkmax.%u", type);
}

#define REASONS(visibility, function, key)                                                        \
    visibility int function(Handle device, unsigned long long *reasons)                           \
    {                                                                                             \
        GPU_CALL(device);                                                                         \
        return answer_u64(&call, reasons, key);                                                   \
    }
REASONS(EXPORT, nvmlDeviceGetCurrentClocksThrottleReasons, "clock_reasons")
REASONS(EXPORT, nvmlDeviceGetSupportedClocksThrottleReasons, "clock_reasons_supported")
REASONS(SINCE_2022, nvmlDeviceGetCurrentClocksEventReasons, "clock_reasons")
REASONS(SINCE_2022, nvmlDeviceGetSupportedClocksEventReasons, "clock_reasons_supported")

/* --- temperature -------------------------------------------------------------------------------- */

EXPORT int nvmlDeviceGetTemperature(Handle device, unsigned sensor, unsigned *celsius)
{
    GPU_CALL(device);
    return sensor ? INVALID_ARGUMENT : answer_uint(&call, celsius, "temp");
}

struct Temperature {
    unsigned version, sensor;
    int celsius;
};

SINCE_2022 int nvmlDeviceGetTemperatureV(Handle device, struct Temperature *temperature)
{
    GPU_CALL(device);
    if (!temperature)
        return INVALID_ARGUMENT;
    if (temperature->version != (sizeof *temperature | 1u << 24))
        return ARGUMENT_VERSION_MISMATCH;
    return temperature->sensor ? INVALID_ARGUMENT
                               : answer_int(&call, &temperature->celsius, "temp");
}

struct Margin {
    unsigned version;
    int celsius;
};

SINCE_2022 int nvmlDeviceGetMarginTemperature(Handle device, struct Margin *margin)
{
    GPU_CALL(device);
    if (!margin)
        return INVALID_ARGUMENT;
    if (margin->version != (sizeof *margin | 1u << 24))
        return ARGUMENT_VERSION_MISMATCH;
    return answer_int(&call, &margin->celsius, "temp_margin");
}

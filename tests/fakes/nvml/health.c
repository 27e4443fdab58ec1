/* Fans, the PCIe link, ECC and row remapping. */
#define _DEFAULT_SOURCE
#include "fake.h"

#include <time.h>

#define NUMBER(visibility, function, key)                                                         \
    visibility int function(Handle device, unsigned *number)                                      \
    {                                                                                             \
        GPU_CALL(device);                                                                         \
        return answer_uint(&call, number, key);                                                   \
    }
NUMBER(EXPORT, nvmlDeviceGetNumFans, "fans")
NUMBER(EXPORT, nvmlDeviceGetFanSpeed, "fan.0")
NUMBER(EXPORT, nvmlDeviceGetCurrPcieLinkGeneration, "pcie_gen")
NUMBER(EXPORT, nvmlDeviceGetMaxPcieLinkGeneration, "pcie_gen_max")
NUMBER(SINCE_2022, nvmlDeviceGetGpuMaxPcieLinkGeneration, "pcie_gen_gpu_max")
NUMBER(EXPORT, nvmlDeviceGetCurrPcieLinkWidth, "pcie_width")
NUMBER(EXPORT, nvmlDeviceGetMaxPcieLinkWidth, "pcie_width_max")
NUMBER(EXPORT, nvmlDeviceGetPcieReplayCounter, "pcie_replay")

EXPORT int nvmlDeviceGetFanSpeed_v2(Handle device, unsigned fan, unsigned *percent)
{
    GPU_CALL(device);
    long double fans = number_or(&call, 0, "fans");
    if (fans == 0)
        return NOT_SUPPORTED;
    return fan >= fans ? INVALID_ARGUMENT : answer_uint(&call, percent, "fan.%u", fan);
}

EXPORT int nvmlDeviceGetPcieThroughput(Handle device, unsigned counter, unsigned *kilobytes)
{
    static const struct timespec WINDOW = {0, 20 * 1000 * 1000}; /* the driver measures so long */
    GPU_CALL(device);
    if (counter > 1)
        return INVALID_ARGUMENT;
    nanosleep(&WINDOW, NULL);
    return answer_uint(&call, kilobytes, counter ? "pcie_rx_kbs" : "pcie_tx_kbs");
}

EXPORT int nvmlDeviceGetEccMode(Handle device, unsigned *current, unsigned *pending)
{
    GPU_CALL(device);
    if (!pending)
        return INVALID_ARGUMENT;
    REFUSE_IF(answer_uint(&call, current, "ecc"));
    *pending = (unsigned)number_or(&call, *current, "ecc_pending");
    return SUCCESS;
}

EXPORT int nvmlDeviceGetTotalEccErrors(Handle device, unsigned type, unsigned counter,
                                       unsigned long long *errors)
{
    GPU_CALL(device);
    if (type > 1 || counter > 1)
        return INVALID_ARGUMENT;
    return answer_u64(&call, errors, "ecc.%u.%u", type, counter);
}

EXPORT int nvmlDeviceGetRemappedRows(Handle device, unsigned *corrected, unsigned *uncorrected,
                                     unsigned *pending, unsigned *failed)
{
    UNDIVIDED_CALL(device);
    REFUSE_IF(answer_uint(&call, corrected, "remap.cor"));
    REFUSE_IF(answer_uint(&call, uncorrected, "remap.unc"));
    REFUSE_IF(answer_uint(&call, pending, "remap.pending"));
    return answer_uint(&call, failed, "remap.failure");
}

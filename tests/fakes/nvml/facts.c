/* What a GPU is: names, numbers, addresses, modes. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

#define TEXT(function, key)                                                                       \
    EXPORT int function(Handle device, char *text, unsigned size)                                 \
    {                                                                                             \
        GPU_CALL(device);                                                                         \
        return answer_text(&call, text, size, key);                                               \
    }
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
TEXT(nvmlDeviceGetBoardPartNumber, "part")

#define NUMBER(function, key)                                                                     \
    EXPORT int function(Handle device, unsigned *number)                                          \
    {                                                                                             \
        GPU_CALL(device);                                                                         \
        return answer_uint(&call, number, key);                                                   \
    }
NUMBER(nvmlDeviceGetArchitecture, "arch")
NUMBER(nvmlDeviceGetBrand, "brand")
NUMBER(nvmlDeviceGetPersistenceMode, "persistence")
NUMBER(nvmlDeviceGetComputeMode, "compute_mode")
NUMBER(nvmlDeviceGetPerformanceState, "pstate")

EXPORT int nvmlDeviceGetName(Handle device, char *name, unsigned size)
{
    DEVICE_CALL(device);
    char text[256];
    const char *gpu = read_text(&call, "name");
    if (!gpu)
        return NOT_SUPPORTED;
    if (call.slot < 0)
        return copy_text(gpu, name, size);
    const char *profile = read_text(&call, "mig.%d.profile", call.slot);
    snprintf(text, sizeof text, "%s MIG %s", gpu, profile ? profile : "");
    return copy_text(text, name, size);
}

EXPORT int nvmlDeviceGetUUID(Handle device, char *uuid, unsigned size)
{
    DEVICE_CALL(device);
    return call.slot < 0 ? answer_text(&call, uuid, size, "uuid")
                         : answer_text(&call, uuid, size, "mig.%d.uuid", call.slot);
}

EXPORT int nvmlDeviceGetMinorNumber(Handle device, unsigned *minor)
{
    GPU_CALL(device);
    if (!minor)
        return INVALID_ARGUMENT;
    *minor = (unsigned)number_or(&call, call.gpu, "minor");
    return SUCCESS;
}

EXPORT int nvmlDeviceGetCudaComputeCapability(Handle device, int *major, int *minor)
{
    DEVICE_CALL(device);
    REFUSE_IF(answer_int(&call, major, "cc_major"));
    return answer_int(&call, minor, "cc_minor");
}

SINCE_2022 int nvmlDeviceGetNumaNodeId(Handle device, unsigned *node)
{
    GPU_CALL(device);
    return answer_uint(&call, node, "numa");
}

struct Pci {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char address[32];
};

EXPORT int nvmlDeviceGetPciInfo_v3(Handle device, struct Pci *pci)
{
    GPU_CALL(device);
    if (!pci)
        return INVALID_ARGUMENT;
    memset(pci, 0, sizeof *pci);
    REFUSE_IF(answer_text(&call, pci->address, sizeof pci->address, "pci"));
    if (sscanf(pci->address, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) != 3)
        return UNKNOWN;
    snprintf(pci->legacy, sizeof pci->legacy, "%04X:%02X:%02X.0", pci->domain & 0xFFFF,
             pci->bus & 0xFF, pci->device & 0xFF);
    pci->device_id = (unsigned)number_or(&call, 0, "pci_device_id");
    pci->subsystem_id = (unsigned)number_or(&call, 0, "pci_subsystem_id");
    return SUCCESS;
}

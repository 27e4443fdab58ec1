/* MIG: GPUs that are divided into instances, each with compute instances in it. */
#include "fake.h"

#include <string.h>

bool mig_enabled(const struct Call *call)
{
    return call->gpu >= 0 && number_or(call, 0, "mig") == 1;
}

unsigned mig_instance(const struct Call *call, const char *which)
{
    return call->slot < 0 ? NOT_MIG : (unsigned)number_or(call, 0, "mig.%d.%s", call->slot, which);
}

bool mig_has_instance(const struct Call *call, unsigned gpu_instance)
{
    for (int slot = 0; mig_enabled(call) && slot < MAX_MIG_DEVICES; slot++)
        if (number_or(call, -1, "mig.%d.gi", slot) == gpu_instance)
            return true;
    return false;
}

EXPORT int nvmlDeviceGetMigMode(Handle device, unsigned *current, unsigned *pending)
{
    GPU_CALL(device);
    if (!current || !pending)
        return INVALID_ARGUMENT;
    REFUSE_IF(answer_uint(&call, current, "mig"));
    *pending = (unsigned)number_or(&call, *current, "mig_pending");
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(Handle device, unsigned *count)
{
    GPU_CALL(device);
    if (!count)
        return INVALID_ARGUMENT;
    *count = mig_enabled(&call) ? (unsigned)number_or(&call, 7, "mig_max") : 0;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(Handle device, unsigned index, Handle *instance)
{
    GPU_CALL(device);
    long double id;
    if (!read_number(&call, &id, "mig"))
        return NOT_SUPPORTED;
    if (!instance || index >= (unsigned)number_or(&call, 7, "mig_max"))
        return INVALID_ARGUMENT;
    if (!mig_enabled(&call) || !read_number(&call, &id, "mig.%u.id", index))
        return NOT_FOUND;
    *instance = handle_of_mig_device(&call, call.gpu, (int)index);
    return SUCCESS;
}

EXPORT int nvmlDeviceIsMigDeviceHandle(Handle device, unsigned *is_mig_device)
{
    DEVICE_CALL(device);
    if (!is_mig_device)
        return INVALID_ARGUMENT;
    *is_mig_device = call.slot >= 0;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Handle device, Handle *gpu)
{
    DEVICE_CALL(device);
    if (!gpu || call.slot < 0)
        return INVALID_ARGUMENT;
    *gpu = handle_of_gpu(call.gpu);
    return SUCCESS;
}

static int answer_instance(const struct Call *call, const char *which, unsigned *id)
{
    if (!id || call->slot < 0)
        return INVALID_ARGUMENT;
    *id = mig_instance(call, which);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetGpuInstanceId(Handle device, unsigned *id)
{
    DEVICE_CALL(device);
    return answer_instance(&call, "gi", id);
}

EXPORT int nvmlDeviceGetComputeInstanceId(Handle device, unsigned *id)
{
    DEVICE_CALL(device);
    return answer_instance(&call, "ci", id);
}

struct Attributes {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpeg, ofa, gpu_slices,
        compute_slices;
    unsigned long long memory_mib;
};

EXPORT int nvmlDeviceGetAttributes_v2(Handle device, struct Attributes *attributes)
{
    DEVICE_CALL(device);
    if (!attributes)
        return INVALID_ARGUMENT;
    if (call.slot < 0)
        return NOT_SUPPORTED;
    unsigned gi = mig_instance(&call, "gi");
    unsigned all = (unsigned)number_or(&call, 0, "gi.%u.sm", gi);
    unsigned slices = (unsigned)number_or(&call, 0, "gi.%u.slices", gi);
    memset(attributes, 0, sizeof *attributes);
    attributes->multiprocessors = (unsigned)number_or(&call, all, "mig.%d.sm", call.slot);
    attributes->copy_engines = (unsigned)number_or(&call, 0, "gi.%u.copy", gi);
    attributes->decoders = (unsigned)number_or(&call, 0, "gi.%u.dec", gi);
    attributes->encoders = (unsigned)number_or(&call, 0, "gi.%u.enc", gi);
    attributes->jpeg = (unsigned)number_or(&call, 0, "gi.%u.jpg", gi);
    attributes->ofa = (unsigned)number_or(&call, 0, "gi.%u.ofa", gi);
    attributes->gpu_slices = slices;
    attributes->compute_slices = (unsigned)number_or(&call, slices, "mig.%d.slices", call.slot);
    attributes->memory_mib = as_u64(number_or(&call, 0, "gi.%u.mem_total", gi)) / MIB;
    return SUCCESS;
}

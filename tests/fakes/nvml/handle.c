/* Handles of GPUs and MIG devices.
 *
 * A handle is no address but says what it stands for: a GPU, the slot and id of a MIG device, and
 * the initialisation it belongs to. So a handle that was kept too long is found out.
 */
#include "fake.h"

#include <string.h>

enum { MAGIC = 0x4E56 };

static Handle encode(int gpu, int slot, unsigned id)
{
    uint64_t bits = (uint64_t)MAGIC << 48 | (uint64_t)(library_epoch() & 0xFF) << 40 |
                    (uint64_t)gpu << 32 | (uint64_t)(slot + 1) << 24 | (id & 0xFFFFFF);
    return (Handle)(uintptr_t)bits;
}

Handle handle_of_gpu(int gpu)
{
    return encode(gpu, -1, 0);
}

Handle handle_of_mig_device(const struct Call *call, int gpu, int slot)
{
    return encode(gpu, slot, (unsigned)number_or(call, 0, "mig.%d.id", slot));
}

int gpu_count(const struct Call *call)
{
    long double count = 0;
    state_number(call->state, -1, "count", call->seconds, &count);
    return count < MAX_GPUS ? (int)count : MAX_GPUS;
}

int handle_open(struct Call *call, Handle handle)
{
    uint64_t bits = (uint64_t)(uintptr_t)handle;
    int gpu = (int)(bits >> 32 & 0xFF), slot = (int)(bits >> 24 & 0xFF) - 1;
    if (bits >> 48 != MAGIC)
        return INVALID_ARGUMENT;
    if ((bits >> 40 & 0xFF) != (library_epoch() & 0xFF)) {
        library_misused("a handle from before the last shutdown");
        return INVALID_ARGUMENT;
    }
    if (gpu >= gpu_count(call))
        return INVALID_ARGUMENT;
    call->gpu = gpu;
    call->slot = slot;
    /* A MIG device that is gone: its slot is empty or another one's. */
    if (slot >= 0 &&
        (!mig_enabled(call) || number_or(call, -1, "mig.%d.id", slot) != (bits & 0xFFFFFF)))
        return INVALID_ARGUMENT;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *count)
{
    SYSTEM_CALL();
    if (!count)
        return INVALID_ARGUMENT;
    *count = (unsigned)gpu_count(&call);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *device)
{
    BEGIN_CALL();
    if (!call_ready(&call))
        return UNINITIALIZED;
    if (index < (unsigned)gpu_count(&call))
        call.gpu = (int)index; /* its rules hold, too */
    REFUSE_IF(call_obey(&call));
    if (!device || call.gpu < 0)
        return INVALID_ARGUMENT;
    *device = handle_of_gpu((int)index);
    return SUCCESS;
}

/* Whether the call's GPU, or a MIG device of it, has that UUID. */
static bool has_uuid(struct Call *call, const char *uuid)
{
    const char *text = read_text(call, "uuid");
    if (text && strcmp(text, uuid) == 0)
        return true;
    for (int slot = 0; mig_enabled(call) && slot < MAX_MIG_DEVICES; slot++) {
        text = read_text(call, "mig.%d.uuid", slot);
        if (text && strcmp(text, uuid) == 0) {
            call->slot = slot;
            return true;
        }
    }
    return false;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *device)
{
    BEGIN_CALL();
    if (!call_ready(&call))
        return UNINITIALIZED;
    if (!uuid || !device)
        return INVALID_ARGUMENT;
    int gpus = gpu_count(&call);
    for (call.gpu = 0; call.gpu < gpus && !has_uuid(&call, uuid);)
        call.gpu++;
    call.gpu = call.gpu < gpus ? call.gpu : -1;
    REFUSE_IF(call_obey(&call));
    if (call.gpu < 0)
        return NOT_FOUND;
    *device = call.slot < 0 ? handle_of_gpu(call.gpu)
                            : handle_of_mig_device(&call, call.gpu, call.slot);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetIndex(Handle device, unsigned *index)
{
    DEVICE_CALL(device);
    if (!index)
        return INVALID_ARGUMENT;
    *index = (unsigned)number_or(&call, call.slot < 0 ? call.gpu : call.slot, "index");
    return SUCCESS;
}

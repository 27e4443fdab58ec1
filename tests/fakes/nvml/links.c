/* NVLink, the fabric behind it, and power profiles. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

/* Whether a link exists; the driver speaks of none while a GPU is divided. */
static int check_link(const struct Call *call, unsigned link)
{
    long double links;
    if (mig_enabled(call) || !read_number(call, &links, "nvlink_count"))
        return NOT_SUPPORTED;
    return link < links ? SUCCESS : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceGetNvLinkState(Handle device, unsigned link, unsigned *active)
{
    GPU_CALL(device);
    if (!active)
        return INVALID_ARGUMENT;
    REFUSE_IF(check_link(&call, link));
    *active = (unsigned)number_or(&call, 1, "nvlink.%u.state", link);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetNvLinkVersion(Handle device, unsigned link, unsigned *version)
{
    GPU_CALL(device);
    REFUSE_IF(check_link(&call, link));
    return answer_uint(&call, version, "nvlink_version");
}

enum { UUID_BYTES = 16 };

struct Fabric {
    unsigned char uuid[UUID_BYTES];
    int status;
    unsigned clique;
    unsigned char state;
};

struct FabricV { /* version 2 ends after health_mask */
    unsigned version;
    unsigned char uuid[UUID_BYTES];
    int status;
    unsigned clique;
    unsigned char state;
    unsigned health_mask;
    unsigned char health_summary;
};

static int read_fabric(const struct Call *call, struct Fabric *fabric)
{
    unsigned state;
    const char *uuid = read_text(call, "fabric_uuid");
    memset(fabric, 0, sizeof *fabric);
    REFUSE_IF(answer_uint(call, &state, "fabric_state"));
    for (int i = 0; uuid && i < UUID_BYTES && strlen(uuid) >= 2 * UUID_BYTES; i++) {
        unsigned byte = 0;
        sscanf(uuid + 2 * i, "%2x", &byte);
        fabric->uuid[i] = (unsigned char)byte;
    }
    fabric->status = (int)number_or(call, 0, "fabric_status");
    fabric->clique = (unsigned)number_or(call, 0, "fabric_clique");
    fabric->state = (unsigned char)state;
    return SUCCESS;
}

SINCE_2022 int nvmlDeviceGetGpuFabricInfo(Handle device, struct Fabric *fabric)
{
    GPU_CALL(device);
    return fabric ? read_fabric(&call, fabric) : INVALID_ARGUMENT;
}

SINCE_2022 int nvmlDeviceGetGpuFabricInfoV(Handle device, struct FabricV *out)
{
    struct Fabric fabric;
    GPU_CALL(device);
    if (!out)
        return INVALID_ARGUMENT;
    if (out->version != (36u | 2u << 24) && out->version != (sizeof *out | 3u << 24))
        return ARGUMENT_VERSION_MISMATCH;
    REFUSE_IF(read_fabric(&call, &fabric));
    memcpy(out->uuid, fabric.uuid, UUID_BYTES);
    out->status = fabric.status;
    out->clique = fabric.clique;
    out->state = fabric.state;
    out->health_mask = (unsigned)number_or(&call, 0, "fabric_health");
    if (out->version >> 24 == 3)
        out->health_summary = (unsigned char)number_or(&call, 0, "fabric_summary");
    return SUCCESS;
}

struct Mask {
    unsigned words[8];
};

struct Profiles {
    unsigned version;
    struct Mask performance, requested, enforced;
};

static void read_mask(const struct Call *call, const char *which, struct Mask *mask)
{
    unsigned long long bits = as_u64(number_or(call, 0, "profiles_%s", which));
    memset(mask, 0, sizeof *mask);
    mask->words[0] = (unsigned)bits;
    mask->words[1] = (unsigned)(bits >> 32);
}

SINCE_2022 int nvmlDeviceWorkloadPowerProfileGetCurrentProfiles(Handle device,
                                                                struct Profiles *profiles)
{
    GPU_CALL(device);
    long double number;
    if (!profiles)
        return INVALID_ARGUMENT;
    if (profiles->version != (sizeof *profiles | 1u << 24))
        return ARGUMENT_VERSION_MISMATCH;
    if (!read_number(&call, &number, "profiles_enforced"))
        return NOT_SUPPORTED;
    read_mask(&call, "performance", &profiles->performance);
    read_mask(&call, "requested", &profiles->requested);
    read_mask(&call, "enforced", &profiles->enforced);
    return SUCCESS;
}

/* Versions, names of processes, and what the errors are called. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

#ifdef OLD_DRIVER
static const int CUDA = 11040;
#else
static const int CUDA = 13010;
#endif

static const struct {
    int code;
    const char *text;
} ERRORS[] = {
    {0, "Success"},
    {1, "Uninitialized"},
    {2, "Invalid Argument"},
    {3, "Not Supported"},
    {4, "Insufficient Permissions"},
    {5, "Already Initialized"},
    {6, "Not Found"},
    {7, "Insufficient Size"},
    {8, "Insufficient External Power"},
    {9, "Driver Not Loaded"},
    {10, "Timeout"},
    {11, "Interrupt Request Issue"},
    {12, "NVML Shared Library Not Found"},
    {13, "Function Not Found"},
    {14, "Corrupted infoROM"},
    {15, "GPU is lost"},
    {16, "GPU requires restart"},
    {17, "The operating system has blocked the request."},
    {18, "Driver/library version mismatch"},
    {19, "In use by another client"},
    {20, "Insufficient Memory"},
    {21, "No data"},
    {23, "Insufficient Resources"},
    {25, "The version of the argument is not supported"},
    {26, "Deprecated"},
    {27, "Not Ready"},
    {28, "No GPU was found"},
    {29, "Invalid State"},
};

EXPORT const char *nvmlErrorString(int code)
{
    for (unsigned i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].code == code)
            return ERRORS[i].text;
    return "Unknown Error";
}

static int answer_version(const struct Call *call, const char *key, const char *otherwise,
                          char *out, unsigned size)
{
    const char *text = read_text(call, "%s", key);
    return copy_text(text ? text : otherwise, out, size);
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned size)
{
    SYSTEM_CALL();
    return answer_version(&call, "driver", FAKE_VERSION, version, size);
}

EXPORT int nvmlSystemGetNVMLVersion(char *version, unsigned size)
{
    SYSTEM_CALL();
    char own[80];
    snprintf(own, sizeof own, "%d.%s", (int)number_or(&call, CUDA, "cuda") / 1000, FAKE_VERSION);
    return answer_version(&call, "nvml", own, version, size);
}

static int answer_cuda(const struct Call *call, int *version)
{
    if (!version)
        return INVALID_ARGUMENT;
    *version = (int)number_or(call, CUDA, "cuda");
    return SUCCESS;
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *version)
{
    SYSTEM_CALL();
    return answer_cuda(&call, version);
}

EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    SYSTEM_CALL();
    return answer_cuda(&call, version);
}

EXPORT int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned size)
{
    SYSTEM_CALL();
    const char *text = read_text(&call, "name.%u", pid);
    if (!name || size == 0)
        return INVALID_ARGUMENT;
    if (!text)
        return NOT_FOUND;
    snprintf(name, size, "%s", text);
    return SUCCESS;
}

/* Who uses a GPU, and how much of it. */
#include "fake.h"

#include <stdlib.h>

struct Process { /* version 2 and version 3 are laid out alike */
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};

static bool is_of(const struct Call *call, unsigned index, char type)
{
    const char *text = read_text(call, "proc.%u.type", index);
    if ((text ? *text : 'C') != type)
        return false;
    return call->slot < 0 ||
           (number_or(call, NOT_MIG, "proc.%u.gi", index) == mig_instance(call, "gi") &&
            number_or(call, NOT_MIG, "proc.%u.ci", index) == mig_instance(call, "ci"));
}

static int answer_processes(const struct Call *call, char type, unsigned *count,
                            struct Process *processes)
{
    unsigned room, found = 0, all = (unsigned)number_or(call, 0, "procs");
    if (!count)
        return INVALID_ARGUMENT;
    room = processes ? *count : 0;
    for (unsigned i = 0; i < all; i++) {
        if (!is_of(call, i, type))
            continue;
        if (found < room)
            processes[found] = (struct Process){
                (unsigned)number_or(call, 0, "proc.%u.pid", i),
                as_u64(number_or(call, 0, "proc.%u.mem", i)),
                (unsigned)number_or(call, NOT_MIG, "proc.%u.gi", i),
                (unsigned)number_or(call, NOT_MIG, "proc.%u.ci", i),
            };
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

#define PROCESSES(visibility, function, type)                                                     \
    visibility int function(Handle device, unsigned *count, struct Process *processes)            \
    {                                                                                             \
        DEVICE_CALL(device);                                                                      \
        return answer_processes(&call, type, count, processes);                                   \
    }
PROCESSES(EXPORT, nvmlDeviceGetComputeRunningProcesses_v2, 'C')
PROCESSES(EXPORT, nvmlDeviceGetGraphicsRunningProcesses_v2, 'G')
PROCESSES(EXPORT, nvmlDeviceGetMPSComputeRunningProcesses_v2, 'M')
PROCESSES(SINCE_2022, nvmlDeviceGetComputeRunningProcesses_v3, 'C')
PROCESSES(SINCE_2022, nvmlDeviceGetGraphicsRunningProcesses_v3, 'G')
PROCESSES(SINCE_2022, nvmlDeviceGetMPSComputeRunningProcesses_v3, 'M')

struct Sample {
    unsigned pid;
    unsigned long long timestamp;
    unsigned sm, memory, encoder, decoder;
};

/* When a process was sampled: `stamp` in seconds, else now. */
static unsigned long long stamp_of(const struct Call *call, unsigned index)
{
    long double stamp;
    return read_number(call, &stamp, "proc.%u.stamp", index) ? as_u64(stamp * 1e6L)
                                                              : call_microseconds(call);
}

EXPORT int nvmlDeviceGetProcessUtilization(Handle device, struct Sample *samples, unsigned *count,
                                           unsigned long long last_seen)
{
    UNDIVIDED_CALL(device);
    if (!count)
        return INVALID_ARGUMENT;
    unsigned room = samples ? *count : 0, found = 0, all = (unsigned)number_or(&call, 0, "procs");
    for (unsigned i = 0; i < all; i++) {
        long double sm;
        unsigned long long stamp = stamp_of(&call, i);
        if (!read_number(&call, &sm, "proc.%u.sm", i) || stamp <= last_seen)
            continue;
        if (found < room)
            samples[found] = (struct Sample){
                (unsigned)number_or(&call, 0, "proc.%u.pid", i),
                stamp,
                (unsigned)sm,
                (unsigned)number_or(&call, 0, "proc.%u.memory", i),
                (unsigned)number_or(&call, 0, "proc.%u.enc", i),
                (unsigned)number_or(&call, 0, "proc.%u.dec", i),
            };
        found++;
    }
    *count = found;
    if (found == 0)
        return (int)number_or(&call, NOT_FOUND, "putil_none_ret");
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

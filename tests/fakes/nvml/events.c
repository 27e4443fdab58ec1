/* Events: XIDs and what else the driver tells those who wait for it.
 *
 * The state numbers events from 1. A set delivers, in order, those of its GPUs and types that
 * came after it was created.
 */
#include "fake.h"

#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { MAX_SETS = 64, MAGIC = 0x4556 };

struct Set {
    bool live;
    unsigned serial;
    int waits; /* that run at the moment */
    unsigned long long delivered;
    unsigned long long types[MAX_GPUS];
};

struct Event {
    Handle device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct Set sets[MAX_SETS];

/* The set of a handle, NULL if it was freed. Holding the mutex. */
static struct Set *set_of(Handle handle)
{
    uint64_t bits = (uint64_t)(uintptr_t)handle;
    unsigned index = (unsigned)(bits >> 32 & 0xFFFF);
    if (bits >> 48 != MAGIC || index >= MAX_SETS)
        return NULL;
    return sets[index].live && sets[index].serial == (uint32_t)bits ? &sets[index] : NULL;
}

int event_sets_registered(void)
{
    int live = 0;
    for (int i = 0; i < MAX_SETS; i++)
        live += sets[i].live;
    return live;
}

void event_sets_drop(void)
{
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < MAX_SETS; i++)
        sets[i].live = false;
    pthread_mutex_unlock(&mutex);
}

EXPORT int nvmlEventSetCreate(Handle *handle)
{
    SYSTEM_CALL();
    if (!handle)
        return INVALID_ARGUMENT;
    pthread_mutex_lock(&mutex);
    unsigned index = 0;
    while (index < MAX_SETS && sets[index].live)
        index++;
    if (index < MAX_SETS) {
        struct Set *set = &sets[index];
        *set = (struct Set){.live = true, .serial = set->serial + 1};
        set->delivered = as_u64(number_or(&call, 0, "event.last"));
        *handle =
            (Handle)(uintptr_t)((uint64_t)MAGIC << 48 | (uint64_t)index << 32 | set->serial);
    }
    pthread_mutex_unlock(&mutex);
    return index < MAX_SETS ? SUCCESS : INSUFFICIENT_RESOURCES;
}

EXPORT int nvmlEventSetFree(Handle handle)
{
    BEGIN_CALL(); /* no driver is needed for it */
    REFUSE_IF(call_obey(&call));
    pthread_mutex_lock(&mutex);
    struct Set *set = set_of(handle);
    if (set && set->waits)
        library_misused("an event set was freed while a call waits on it");
    if (set)
        set->live = false;
    else if (library_alive(library_epoch()))
        library_misused("an event set was freed twice");
    pthread_mutex_unlock(&mutex);
    return set ? SUCCESS : UNINITIALIZED;
}

EXPORT int nvmlDeviceGetSupportedEventTypes(Handle device, unsigned long long *types)
{
    GPU_CALL(device);
    return answer_u64(&call, types, "event_types");
}

EXPORT int nvmlDeviceRegisterEvents(Handle device, unsigned long long types, Handle handle)
{
    GPU_CALL(device);
    unsigned long long supported = as_u64(number_or(&call, 0, "event_types"));
    if (types == 0 || types & ~supported)
        return NOT_SUPPORTED;
    pthread_mutex_lock(&mutex);
    struct Set *set = set_of(handle);
    if (set)
        set->types[call.gpu] |= types;
    else
        library_misused("an event set after it was freed");
    pthread_mutex_unlock(&mutex);
    return set ? SUCCESS : UNINITIALIZED;
}

/* The next event for a set, if one came. Holding the mutex. */
static bool deliver(const struct Call *call, struct Set *set, struct Event *event)
{
    unsigned long long last = as_u64(number_or(call, 0, "event.last"));
    while (set->delivered < last) {
        unsigned gpu, gi = NOT_MIG, ci = NOT_MIG;
        unsigned long long type, data;
        const char *text = read_text(call, "event.%llu", ++set->delivered);
        if (!text || sscanf(text, "%u %llu %llu %u %u", &gpu, &type, &data, &gi, &ci) < 3)
            continue;
        if (gpu < MAX_GPUS && set->types[gpu] & type) {
            *event = (struct Event){handle_of_gpu((int)gpu), type, data, gi, ci};
            return true;
        }
    }
    return false;
}

static long long now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000ll + time.tv_nsec / 1000000;
}

static void count_wait(Handle handle, int change)
{
    pthread_mutex_lock(&mutex);
    struct Set *set = set_of(handle);
    if (set)
        set->waits += change;
    pthread_mutex_unlock(&mutex);
}

/* One look: SUCCESS with an event, TIMEOUT if there is none yet, UNINITIALIZED if the set was
 * freed or the library shut down. */
static int look(struct Call *call, Handle handle, struct Event *event)
{
    pthread_mutex_lock(&mutex);
    struct Set *set = set_of(handle);
    int answer = !set ? UNINITIALIZED : deliver(call, set, event) ? SUCCESS : TIMEOUT;
    pthread_mutex_unlock(&mutex);
    return answer;
}

EXPORT int nvmlEventSetWait_v2(Handle handle, struct Event *event, unsigned milliseconds)
{
    SYSTEM_CALL();
    if (!event)
        return INVALID_ARGUMENT;
    long long left, end = now_ms() + milliseconds;
    struct Watch watch = watch_open();
    count_wait(handle, 1);
    int answer = look(&call, handle, event);
    while (answer == TIMEOUT && (left = end - now_ms()) > 0) {
        watch_wait(&watch, (unsigned)left);
        call_refresh(&call);
        answer = call_admit(&call);
        answer = answer ? answer : look(&call, handle, event);
    }
    count_wait(handle, -1);
    watch_close(&watch);
    return answer;
}

/* GPU performance monitoring: two samples, and what happened between them.
 *
 * A sample keeps the state as it was when it was taken, and metrics are those of the later one:
 * the file says what holds until it changes.
 *
 * fake_nvml_gpm_samples  samples that were allocated and not freed
 */
#include "fake.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

enum { MAX_SAMPLES = 4096, MAX_METRICS = 477, MAGIC = 0x4750 };
static const long double SHORTEST_INTERVAL = 0.1L;

EXPORT atomic_int fake_nvml_gpm_samples;

struct Sample {
    bool live;
    unsigned serial, epoch;
    const struct State *state; /* NULL until it was taken */
    int gpu;
    unsigned gpu_instance;
    long double seconds;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct Sample samples[MAX_SAMPLES];

int gpm_samples_live(void)
{
    return fake_nvml_gpm_samples;
}

/* The sample of a handle; NULL, and misuse, if it was freed. Holding the mutex. */
static struct Sample *sample_of(Handle handle)
{
    uint64_t bits = (uint64_t)(uintptr_t)handle;
    struct Sample *sample = &samples[bits >> 32 & 0xFFFF];
    if (bits >> 48 != MAGIC || (bits >> 32 & 0xFFFF) >= MAX_SAMPLES)
        return NULL;
    if (!sample->live || sample->serial != (uint32_t)bits) {
        library_misused("a GPM sample after it was freed");
        return NULL;
    }
    return sample;
}

SINCE_2022 int nvmlGpmSampleAlloc(Handle *handle)
{
    SYSTEM_CALL();
    if (!handle)
        return INVALID_ARGUMENT;
    pthread_mutex_lock(&mutex);
    unsigned index = 0;
    while (index < MAX_SAMPLES && samples[index].live)
        index++;
    if (index < MAX_SAMPLES) {
        struct Sample *sample = &samples[index];
        *sample = (struct Sample){.live = true, .serial = sample->serial + 1};
        *handle = (Handle)(uintptr_t)((uint64_t)MAGIC << 48 | (uint64_t)index << 32 |
                                      sample->serial);
        fake_nvml_gpm_samples++;
    }
    pthread_mutex_unlock(&mutex);
    return index < MAX_SAMPLES ? SUCCESS : INSUFFICIENT_RESOURCES;
}

SINCE_2022 int nvmlGpmSampleFree(Handle handle)
{
    BEGIN_CALL(); /* as free() does, it works without a driver, too */
    REFUSE_IF(call_obey(&call));
    pthread_mutex_lock(&mutex);
    struct Sample *sample = sample_of(handle);
    if (sample) {
        state_give_back(sample->state);
        sample->state = NULL;
        sample->live = false;
        fake_nvml_gpm_samples--;
    }
    pthread_mutex_unlock(&mutex);
    return sample ? SUCCESS : INVALID_ARGUMENT;
}

struct Support {
    unsigned version, supported;
};

SINCE_2022 int nvmlGpmQueryDeviceSupport(Handle device, struct Support *support)
{
    GPU_CALL(device);
    if (!support)
        return INVALID_ARGUMENT;
    if (support->version != 1)
        return ARGUMENT_VERSION_MISMATCH;
    support->supported = number_or(&call, 0, "gpm") != 0;
    return SUCCESS;
}

SINCE_2022 int nvmlGpmQueryIfStreamingEnabled(Handle device, unsigned *enabled)
{
    GPU_CALL(device);
    return answer_uint(&call, enabled, "gpm_streaming");
}

static int take(const struct Call *call, unsigned gpu_instance, Handle handle)
{
    if (number_or(call, 0, "gpm") == 0)
        return NOT_SUPPORTED;
    pthread_mutex_lock(&mutex);
    struct Sample *sample = sample_of(handle);
    if (sample) {
        state_give_back(sample->state);
        sample->state = state_share(call->state);
        sample->epoch = library_epoch();
        sample->gpu = call->gpu;
        sample->gpu_instance = gpu_instance;
        sample->seconds = call->seconds;
    }
    pthread_mutex_unlock(&mutex);
    return sample ? SUCCESS : INVALID_ARGUMENT;
}

SINCE_2022 int nvmlGpmSampleGet(Handle device, Handle sample)
{
    GPU_CALL(device);
    return take(&call, NOT_MIG, sample);
}

SINCE_2022 int nvmlGpmMigSampleGet(Handle device, unsigned gpu_instance, Handle sample)
{
    GPU_CALL(device);
    if (!mig_has_instance(&call, gpu_instance))
        return INVALID_ARGUMENT;
    return take(&call, gpu_instance, sample);
}

struct Metric {
    unsigned id;
    int answer;
    double value;
    const char *short_name, *long_name, *unit;
};

struct Metrics {
    unsigned version, count;
    Handle earlier, later;
    struct Metric metrics[MAX_METRICS];
};

static void answer_metric(const struct Call *call, const struct Sample *sample,
                          struct Metric *metric)
{
    struct Call then = *call;
    long double number = 0;
    char prefix[24] = "";
    then.state = sample->state;
    then.seconds = sample->seconds;
    then.gpu = sample->gpu;
    if (sample->gpu_instance != NOT_MIG)
        snprintf(prefix, sizeof prefix, "gi.%u.", sample->gpu_instance);
    metric->short_name = metric->long_name = metric->unit = "";
    metric->value = 0;
    if (read_number(&then, &number, "%sgpm.%u.ret", prefix, metric->id)) {
        metric->answer = (int)number;
        return;
    }
    bool known = read_number(&then, &number, "%sgpm.%u", prefix, metric->id);
    metric->answer = known ? SUCCESS : NOT_SUPPORTED;
    metric->value = known ? (double)number : 0;
}

/* Whether two samples span an interval. Holding the mutex. */
static int check_interval(const struct Sample *earlier, const struct Sample *later)
{
    if (!earlier || !later || !earlier->state || !later->state)
        return INVALID_ARGUMENT;
    if (earlier->epoch != later->epoch || earlier->epoch != library_epoch())
        return INVALID_ARGUMENT;
    if (earlier->gpu != later->gpu || earlier->gpu_instance != later->gpu_instance)
        return INVALID_ARGUMENT;
    if (later->seconds < earlier->seconds)
        return INVALID_ARGUMENT;
    return later->seconds - earlier->seconds < SHORTEST_INTERVAL ? NO_DATA : SUCCESS;
}

SINCE_2022 int nvmlGpmMetricsGet(struct Metrics *get)
{
    SYSTEM_CALL();
    if (!get || get->count > MAX_METRICS)
        return INVALID_ARGUMENT;
    if (get->version != 1)
        return ARGUMENT_VERSION_MISMATCH;
    pthread_mutex_lock(&mutex);
    struct Sample *earlier = sample_of(get->earlier), *later = sample_of(get->later);
    int answer = check_interval(earlier, later);
    for (unsigned i = 0; answer == SUCCESS && i < get->count; i++)
        answer_metric(&call, later, &get->metrics[i]);
    pthread_mutex_unlock(&mutex);
    return answer;
}

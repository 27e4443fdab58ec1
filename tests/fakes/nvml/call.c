/* How every call begins and ends: what it costs, whether the library is initialised, and the
 * rules of the state file (hangs, delays, errors, lost GPUs).
 *
 * Three variables and a function are there for tests, beside the API:
 *   fake_nvml_busy_ns      CPU time that callers spent in the library
 *   fake_nvml_calls        calls of the API
 *   fake_nvml_misuse       what a driver would punish, see library_misused(); named on stderr
 *   fake_nvml_call_counts  calls by function, "name=count" a line
 */
#include "fake.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

EXPORT atomic_ullong fake_nvml_busy_ns;
EXPORT atomic_ullong fake_nvml_calls;
EXPORT atomic_int fake_nvml_misuse;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct Site *sites;
static atomic_int initialised, running;
static atomic_uint epoch; /* counts the times that the library was initialised from nothing */
static long double generation;
static unsigned long long measuring_ns; /* what asking for the CPU time costs */

static unsigned long long clock_ns(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (unsigned long long)time.tv_sec * 1000000000ull + (unsigned long long)time.tv_nsec;
}

static void measure_the_measuring(void)
{
    unsigned long long least = 1000000;
    for (int i = 0; i < 64; i++) {
        unsigned long long before = clock_ns(CLOCK_THREAD_CPUTIME_ID);
        unsigned long long once = clock_ns(CLOCK_THREAD_CPUTIME_ID) - before;
        least = once < least ? once : least;
    }
    measuring_ns = least;
}

void library_misused(const char *what)
{
    fprintf(stderr, "fake nvml: misuse: %s\n", what);
    atomic_fetch_add(&fake_nvml_misuse, 1);
}

unsigned library_epoch(void)
{
    return epoch;
}

bool library_alive(unsigned since)
{
    return initialised > 0 && epoch == since;
}

struct Call call_begin(struct Site *site)
{
    struct Call call = {.site = site, .gpu = -1, .slot = -1};
    call.cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    atomic_fetch_add(&running, 1);
    atomic_fetch_add(&fake_nvml_calls, 1);
    if (__atomic_fetch_add(&site->count, 1, __ATOMIC_RELAXED) == 0) {
        pthread_mutex_lock(&mutex);
        site->next = sites;
        sites = site;
        pthread_mutex_unlock(&mutex);
    }
    call_refresh(&call);
    return call;
}

void call_end(struct Call *call)
{
    state_give_back(call->state);
    atomic_fetch_sub(&running, 1);
    unsigned long long spent = clock_ns(CLOCK_THREAD_CPUTIME_ID) - call->cpu_ns;
    atomic_fetch_add(&fake_nvml_busy_ns, spent + measuring_ns);
}

void call_refresh(struct Call *call)
{
    state_give_back(call->state);
    call->state = state_take();
    if (!state_number(call->state, -1, "clock", 0, &call->seconds)) {
        long double speed = 1;
        state_number(call->state, -1, "clock.speed", 0, &speed);
        call->seconds = speed * (long double)clock_ns(CLOCK_MONOTONIC) / 1e9L;
    }
}

unsigned long long call_microseconds(const struct Call *call)
{
    long double frozen;
    if (state_number(call->state, -1, "clock", 0, &frozen))
        return as_u64(frozen * 1e6L);
    return clock_ns(CLOCK_REALTIME) / 1000;
}

/* A rule of the file for this call: of its GPU and function, of its GPU, of its function, of all. */
static bool rule(const struct Call *call, const char *what, long double *number)
{
    char name[128];
    snprintf(name, sizeof name, "fn.%s.%s", call->site->name, what);
    for (int gpu = call->gpu; gpu >= -1; gpu = gpu > -1 ? -1 : -2)
        if (state_number(call->state, gpu, name, 0, number) ||
            state_number(call->state, gpu, what, 0, number))
            return true;
    return false;
}

static void hang(struct Call *call)
{
    long double number;
    struct Watch watch = watch_open();
    /* Without the file nothing could end the wait: a test is over and has taken it away. */
    for (call_refresh(call); rule(call, "hang", &number) && state_found(); call_refresh(call))
        watch_wait(&watch, 1000);
    watch_close(&watch);
}

int call_obey(struct Call *call)
{
    long double number;
    if (!state_has_rules(call->state))
        return SUCCESS;
    if (rule(call, "hang", &number))
        hang(call);
    if (rule(call, "delay_us", &number)) {
        unsigned long long us = as_u64(number);
        struct timespec pause = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
        nanosleep(&pause, NULL);
    }
    if (call->gpu >= 0 && state_number(call->state, call->gpu, "lost", 0, &number) && number != 0)
        return GPU_IS_LOST;
    return rule(call, "ret", &number) ? (int)number : SUCCESS;
}

bool call_ready(const struct Call *call)
{
    return initialised > 0 && number_or(call, 0, "driver.generation") == generation;
}

int call_admit(struct Call *call)
{
    unsigned since = epoch;
    if (!call_ready(call))
        return UNINITIALIZED;
    REFUSE_IF(call_obey(call));
    return library_alive(since) ? SUCCESS : UNINITIALIZED;
}

int call_admit_device(struct Call *call, Handle device)
{
    unsigned since = epoch;
    if (!call_ready(call))
        return UNINITIALIZED;
    REFUSE_IF(handle_open(call, device));
    REFUSE_IF(call_obey(call));
    return library_alive(since) ? SUCCESS : UNINITIALIZED;
}

EXPORT int nvmlInitWithFlags(unsigned flags)
{
    long double number;
    const char *kernel;
    (void)flags;
    state_locate();
    BEGIN_CALL();
    if (!call.state)
        return DRIVER_NOT_LOADED;
    REFUSE_IF(call_obey(&call));
    if (state_number(call.state, -1, "init.ret", 0, &number) && number != 0)
        return (int)number;
    kernel = state_text(call.state, -1, "kernel.version");
    if (kernel && strcmp(kernel, FAKE_VERSION))
        return LIB_RM_VERSION_MISMATCH;
    pthread_mutex_lock(&mutex);
    if (initialised == 0) {
        long double now = number_or(&call, 0, "driver.generation");
        if (epoch == 0 || now != generation)
            state_loaded_at(call.seconds);
        if (epoch == 0)
            measure_the_measuring();
        generation = now;
        epoch++;
    }
    initialised++;
    pthread_mutex_unlock(&mutex);
    return SUCCESS;
}

EXPORT int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

EXPORT int nvmlShutdown(void)
{
    BEGIN_CALL();
    REFUSE_IF(call_obey(&call));
    pthread_mutex_lock(&mutex);
    int answer = initialised ? SUCCESS : UNINITIALIZED;
    bool last = initialised == 1;
    initialised -= initialised > 0;
    pthread_mutex_unlock(&mutex);
    if (last) {
        if (running > 1)
            library_misused("shutdown while another call runs");
        if (gpm_samples_live())
            library_misused("shutdown with GPM samples that were not freed");
        if (event_sets_registered())
            library_misused("shutdown with event sets that were not freed");
        event_sets_drop();
    }
    return answer;
}

EXPORT const char *fake_nvml_call_counts(void)
{
    static char text[1 << 14];
    size_t used = 0;
    text[0] = 0;
    pthread_mutex_lock(&mutex);
    for (struct Site *site = sites; site && used < sizeof text; site = site->next)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s=%llu\n", site->name,
                                 __atomic_load_n(&site->count, __ATOMIC_RELAXED));
    pthread_mutex_unlock(&mutex);
    return text;
}

/* What the files of this library share: return codes, the state, and how a call begins.
 *
 * The library answers the calls of NVIDIA's management library (libnvidia-ml.so.1) from a text
 * file, so that the real binding, with its ctypes structures and its error paths, runs without a
 * GPU. The grammar of the file stands in state.c. Layouts are those of x86-64 and aarch64 Linux.
 *
 * Compile-time variants:
 *   -DFAKE_VERSION="\"590.48.01\""  the library's own version
 *   -DOLD_DRIVER                    a driver of 2021: functions marked SINCE_2022 are not there
 */
#ifndef FAKE_H
#define FAKE_H

#include <stdbool.h>
#include <stdint.h>

#ifndef FAKE_VERSION
#define FAKE_VERSION "590.48.01"
#endif

#define EXPORT __attribute__((visibility("default")))
#ifdef OLD_DRIVER
#define SINCE_2022 __attribute__((visibility("hidden")))
#else
#define SINCE_2022 EXPORT
#endif

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    LIB_RM_VERSION_MISMATCH = 18,
    INSUFFICIENT_RESOURCES = 23,
    NO_DATA = 21,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999,
};

enum { MAX_GPUS = 64, MAX_LINKS = 18, MAX_MIG_DEVICES = 8, MIB = 1 << 20 };
static const unsigned NOT_MIG = 0xFFFFFFFFu; /* the instance ids of what is no MIG device */

/* --- state.c: the file, as one snapshot that does not change ------------------------------- */

struct State;

/* The newest snapshot, read again if the file changed. The caller gives it back. */
const struct State *state_take(void);
const struct State *state_share(const struct State *state);
void state_give_back(const struct State *state);
bool state_has_rules(const struct State *state);
bool state_has_field_rules(const struct State *state); /* any fi. with .ret or .type */

/* The text of a key, NULL if it is absent. `gpu` is -1 for a key of the whole system. */
const char *state_text(const struct State *state, int gpu, const char *name);
/* The number of a key at `seconds` of the fake's clock; false if it is absent. */
bool state_number(const struct State *state, int gpu, const char *name, long double seconds,
                  long double *number);
void state_loaded_at(long double seconds); /* from when on `base+rate` counts */

/* --- file.c ------------------------------------------------------------------------------------ */

void state_locate(void);
const char *state_path(void); /* empty until it was located */
bool state_found(void);

/* Wait for the file to change; at most `milliseconds`, and no longer than 50. */
struct Watch {
    int descriptor;
};
struct Watch watch_open(void);
void watch_wait(const struct Watch *watch, unsigned milliseconds);
void watch_close(const struct Watch *watch);

/* --- call.c: one call of the API ------------------------------------------------------------ */

struct Site { /* a function, once for all of its calls */
    const char *name;
    struct Site *next;
    unsigned long long count;
};

struct Call {
    struct Site *site;
    const struct State *state;
    long double seconds; /* the fake's clock */
    int gpu;             /* -1 for a call about the system */
    int slot;            /* of the MIG device, -1 for a whole GPU */
    unsigned long long cpu_ns;
};

typedef struct Opaque *Handle;

struct Call call_begin(struct Site *site);
void call_end(struct Call *call);
void call_refresh(struct Call *call); /* to the newest snapshot and time */
bool call_ready(const struct Call *call); /* initialised, and no other driver since */
int call_admit(struct Call *call);        /* ready, and no rule refuses it */
int call_admit_device(struct Call *call, Handle device);
int call_obey(struct Call *call); /* the file's rules: hang, delay, lost, error */
unsigned long long call_microseconds(const struct Call *call); /* as the driver stamps samples */

void library_misused(const char *what);
bool library_alive(unsigned epoch); /* nothing has shut it down since */
unsigned library_epoch(void);

#define BEGIN_CALL()                                                                              \
    static struct Site site_ = {.name = __func__};                                                \
    __attribute__((cleanup(call_end))) struct Call call = call_begin(&site_)

#define REFUSE_IF(refusal)                                                                        \
    do {                                                                                          \
        int refusal_ = (refusal);                                                                 \
        if (refusal_ != SUCCESS)                                                                  \
            return refusal_;                                                                      \
    } while (0)

#define SYSTEM_CALL()                                                                             \
    BEGIN_CALL();                                                                                 \
    REFUSE_IF(call_admit(&call))

/* A call about a GPU or a MIG device. */
#define DEVICE_CALL(device)                                                                       \
    BEGIN_CALL();                                                                                 \
    REFUSE_IF(call_admit_device(&call, device))

/* A call that a MIG device does not answer. */
#define GPU_CALL(device)                                                                          \
    DEVICE_CALL(device);                                                                          \
    REFUSE_IF(call.slot < 0 ? SUCCESS : NOT_SUPPORTED)

/* A call that neither a MIG device answers nor a GPU while it is divided. */
#define UNDIVIDED_CALL(device)                                                                    \
    GPU_CALL(device);                                                                             \
    REFUSE_IF(mig_enabled(&call) ? NOT_SUPPORTED : SUCCESS)

/* --- answer.c: from the state to the caller's variables -------------------------------------- */

bool read_number(const struct Call *call, long double *number, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
const char *read_text(const struct Call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
long double number_or(const struct Call *call, long double otherwise, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

unsigned long long as_u64(long double number);

int answer_uint(const struct Call *call, unsigned *out, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int answer_u64(const struct Call *call, unsigned long long *out, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int answer_int(const struct Call *call, int *out, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int answer_text(const struct Call *call, char *out, unsigned size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int copy_text(const char *text, char *out, unsigned size);

/* --- handle.c, mig.c --------------------------------------------------------------------------- */

Handle handle_of_gpu(int gpu);
Handle handle_of_mig_device(const struct Call *call, int gpu, int slot);
int handle_open(struct Call *call, Handle handle); /* fills gpu and slot */

int gpu_count(const struct Call *call);
bool mig_enabled(const struct Call *call);
unsigned mig_instance(const struct Call *call, const char *which); /* "gi" or "ci" of call.slot */
bool mig_has_instance(const struct Call *call, unsigned gpu_instance);

/* What the library still holds for its caller, at its last shutdown. */
int gpm_samples_live(void);
int event_sets_registered(void);
void event_sets_drop(void);

#endif

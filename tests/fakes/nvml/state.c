/* The state: a text file that says what the GPUs answer, read again whenever it changes.
 *
 * It is the file `fake_nvml.state` beside the library, else what FAKE_NVML_STATE names. To change
 * it, write another file and rename it over this one.
 *
 * One `key=value` a line; `#` begins a comment line. `gN.` stands before every key of GPU N.
 * A number may be
 *     5, -2.5, 0x1f        as it is
 *     base+rate            base + rate * seconds since the driver was loaded
 *     base+rate@since      base + rate * (seconds of the fake's clock - since)
 * In a text, \xNN is the byte NN and \\ a backslash. What is absent, the GPU does not support.
 *
 * System     count driver nvml cuda name.PID=process name
 *            init.ret=CODE             nvmlInit fails so
 *            kernel.version=TEXT       nvmlInit answers 18 unless it is the library's own version
 *            driver.generation=N       a change: every call answers 1 until a full shutdown
 *            driver.loaded=SECONDS     since when `base+rate` counts; else the first nvmlInit
 *            clock=SECONDS             the fake's clock stands there; else CLOCK_MONOTONIC
 *            clock.speed=FACTOR        times this
 *            event.last=K event.I=GPU TYPE DATA [GI CI]       events 1 to K; old ones may go
 * Rules      [gN.][fn.NAME.]hang=1     the call waits until the key is gone
 *            [gN.][fn.NAME.]delay_us=U
 *            [gN.][fn.NAME.]ret=CODE   the call fails so; without fn.NAME every call
 *            gN.lost=1                 every call about the GPU answers 15
 * Facts      name uuid serial vbios part pci pci_device_id pci_subsystem_id minor index arch brand
 *            cc_major cc_minor numa persistence compute_mode pstate
 * Readings   clk.T clkmax.T power_average_mw power_instant_mw power_mw energy_mj
 *            plimit_{enforced,requested,default,min,max}_mw
 *            util_{gpu,mem,enc,dec,jpg,ofa} mem_{total,reserved,used} bar1_{total,used}
 *            temp temp_margin temp_memory clock_reasons clock_reasons_supported fans fan.I
 *            pcie_gen pcie_gen_max pcie_gen_gpu_max pcie_width pcie_width_max pcie_replay
 *            pcie_{tx,rx}_kbs ecc ecc_pending ecc.TYPE.COUNTER remap.{cor,unc,pending,failure}
 *            retired.{sbe,dbe,pending}
 * Links      nvlink_count nvlink_version nvlink_speed_mbps nvlink.L.state (1 if absent)
 *            fabric_{state,status,clique,uuid,health,summary} profiles_{performance,requested,
 *            enforced}
 * Fields     fi.ID fi.ID.SCOPE fi.ID.* (every link), each also with .ret and .type; many ids have
 *            the keys above as their default, see fields.c
 * Processes  procs proc.I.{pid,mem,type,gi,ci} and for the utilization sample proc.I.{sm,memory,
 *            enc,dec,stamp}; without .sm there is none. type: C (or absent), G or M
 *            putil_none_ret=CODE       when no sample is newer; 6 if absent
 * GPM        gpm=1 gpm_streaming gpm.ID gpm.ID.ret, of an instance gi.G.gpm.ID
 * MIG        mig mig_pending mig_max mig.S.{id,gi,ci,profile,uuid} for each MIG device in slot S;
 *            id tells one device from the next in its slot.
 *            gi.G.{mem_total,mem_reserved,mem_used,bar1_total,bar1_used,sm,copy,dec,enc,jpg,ofa,
 *            slices} for each GPU instance, mig.S.{sm,slices} where a compute instance has less
 * Events     event_types
 */
#define _GNU_SOURCE
#include "fake.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { BUCKETS = 4096 };

struct Entry {
    struct Entry *next;
    int gpu;
    const char *name, *text;
    long double base, rate, since;
    bool numeric, rated, has_since;
};

struct State {
    atomic_int holders;
    bool has_rules, has_field_rules;
    char *file; /* names and texts lie in it */
    struct Entry *entries;
    struct Entry *buckets[BUCKETS];
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct State *newest;
static struct stat seen;
static long double loaded_at;

static unsigned bucket_of(int gpu, const char *name)
{
    unsigned hash = 2166136261u ^ (unsigned)(gpu + 1) * 16777619u;
    while (*name)
        hash = (hash ^ (unsigned char)*name++) * 16777619u;
    return hash % BUCKETS;
}

static void unescape(char *text)
{
    char *to = text;
    unsigned byte;
    for (; *text; to++) {
        if (text[0] == '\\' && text[1] == 'x' && sscanf(text + 2, "%2x", &byte) == 1) {
            *to = (char)byte;
            text += 4;
        } else {
            text += text[0] == '\\' && text[1] == '\\';
            *to = *text++;
        }
    }
    *to = 0;
}

static void parse_number(struct Entry *entry)
{
    char *end;
    entry->base = strtold(entry->text, &end);
    entry->numeric = end != entry->text;
    if (entry->numeric && *end == '+') {
        entry->rated = true;
        entry->rate = strtold(end + 1, &end);
        if (*end == '@') {
            entry->has_since = true;
            entry->since = strtold(end + 1, &end);
        }
    }
    entry->numeric = entry->numeric && *end == 0;
}

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

static bool is_rule(const char *name)
{
    return ends_with(name, "hang") || ends_with(name, "delay_us") || strcmp(name, "lost") == 0 ||
           strcmp(name, "ret") == 0 || (strncmp(name, "fn.", 3) == 0 && ends_with(name, ".ret"));
}

static bool is_field_rule(const char *name)
{
    return strncmp(name, "fi.", 3) == 0 && (ends_with(name, ".ret") || ends_with(name, ".type"));
}

static void parse_line(struct State *state, struct Entry *entry, char *line)
{
    char *value = strchr(line, '='), *end;
    *value++ = 0;
    value[strcspn(value, "\r")] = 0;
    entry->gpu = -1;
    entry->name = line;
    if (line[0] == 'g' && line[1] >= '0' && line[1] <= '9') {
        entry->gpu = (int)strtol(line + 1, &end, 10);
        entry->name = end + (*end == '.');
    }
    unescape(value);
    entry->text = value;
    parse_number(entry);
    state->has_rules = state->has_rules || is_rule(entry->name);
    state->has_field_rules = state->has_field_rules || is_field_rule(entry->name);
    struct Entry **bucket = &state->buckets[bucket_of(entry->gpu, entry->name)];
    entry->next = *bucket;
    *bucket = entry;
}

static struct State *parse(char *file)
{
    struct State *state = calloc(1, sizeof *state);
    size_t lines = 1;
    for (const char *c = file; *c; c++)
        lines += *c == '\n';
    state->holders = 1;
    state->file = file;
    state->entries = calloc(lines, sizeof *state->entries);
    size_t used = 0;
    char *rest = file, *line;
    while ((line = strsep(&rest, "\n")))
        if (*line != '#' && strchr(line, '='))
            parse_line(state, &state->entries[used++], line);
    return state;
}

static char *read_file(off_t size)
{
    FILE *stream = fopen(state_path(), "r");
    if (!stream)
        return NULL;
    char *file = malloc((size_t)size + 1);
    file[fread(file, 1, (size_t)size, stream)] = 0;
    fclose(stream);
    return file;
}

static bool changed(const struct stat *now)
{
    return now->st_mtim.tv_sec != seen.st_mtim.tv_sec ||
           now->st_mtim.tv_nsec != seen.st_mtim.tv_nsec || now->st_size != seen.st_size ||
           now->st_ino != seen.st_ino;
}

void state_give_back(const struct State *state)
{
    struct State *held = (struct State *)state;
    if (held && atomic_fetch_sub(&held->holders, 1) == 1) {
        free(held->file);
        free(held->entries);
        free(held);
    }
}

const struct State *state_share(const struct State *state)
{
    if (state)
        atomic_fetch_add(&((struct State *)state)->holders, 1);
    return state;
}

const struct State *state_take(void)
{
    pthread_mutex_lock(&mutex);
    struct stat now;
    /* A file that is gone for a moment, or for good, leaves the last state. */
    if (stat(state_path(), &now) == 0 && (!newest || changed(&now))) {
        char *file = read_file(now.st_size);
        if (file) {
            seen = now;
            state_give_back(newest);
            newest = parse(file);
        }
    }
    const struct State *state = state_share(newest);
    pthread_mutex_unlock(&mutex);
    return state;
}

bool state_has_rules(const struct State *state)
{
    return state && state->has_rules;
}

bool state_has_field_rules(const struct State *state)
{
    return state && state->has_field_rules;
}

static const struct Entry *find(const struct State *state, int gpu, const char *name)
{
    if (!state)
        return NULL;
    const struct Entry *entry = state->buckets[bucket_of(gpu, name)];
    while (entry && (entry->gpu != gpu || strcmp(entry->name, name)))
        entry = entry->next;
    return entry;
}

const char *state_text(const struct State *state, int gpu, const char *name)
{
    const struct Entry *entry = find(state, gpu, name);
    return entry ? entry->text : NULL;
}

bool state_number(const struct State *state, int gpu, const char *name, long double seconds,
                  long double *number)
{
    const struct Entry *entry = find(state, gpu, name);
    if (!entry)
        return false;
    if (!entry->numeric) {
        fprintf(stderr, "fake nvml: the state's %s=%s is not a number\n", name, entry->text);
        library_misused("a state that cannot be read");
        return false;
    }
    *number = entry->base;
    if (entry->rated) {
        long double since = entry->since;
        if (!entry->has_since && !state_number(state, -1, "driver.loaded", 0, &since))
            since = loaded_at;
        *number += entry->rate * (seconds - since);
    }
    return true;
}

void state_loaded_at(long double seconds)
{
    loaded_at = seconds;
}

/* Where the state file is, and how to wait for it to change without polling it. */
#define _GNU_SOURCE
#include "fake.h"

#include <dlfcn.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char path[PATH_MAX];

const char *state_path(void)
{
    return path;
}

void state_locate(void)
{
    Dl_info library;
    const char *given = getenv("FAKE_NVML_STATE");
    pthread_mutex_lock(&mutex);
    if (!path[0] && dladdr(path, &library) && strchr(library.dli_fname, '/')) {
        int folder = (int)(strrchr(library.dli_fname, '/') - library.dli_fname);
        snprintf(path, sizeof path, "%.*s/fake_nvml.state", folder, library.dli_fname);
        if (access(path, R_OK))
            path[0] = 0;
    }
    if (!path[0] && given)
        snprintf(path, sizeof path, "%s", given);
    pthread_mutex_unlock(&mutex);
}

bool state_found(void)
{
    return path[0] && access(path, R_OK) == 0;
}

struct Watch watch_open(void)
{
    struct Watch watch = {inotify_init1(IN_NONBLOCK | IN_CLOEXEC)};
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (watch.descriptor >= 0)
        inotify_add_watch(watch.descriptor, folder, IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE);
    return watch;
}

void watch_wait(const struct Watch *watch, unsigned milliseconds)
{
    /* In slices: a shutdown or a freed event set ends a wait, too. Without inotify, poll. */
    unsigned slice = watch->descriptor >= 0 ? 50 : 2;
    struct pollfd file = {watch->descriptor, POLLIN, 0};
    char events[4096];
    poll(&file, watch->descriptor >= 0, (int)(milliseconds < slice ? milliseconds : slice));
    while (watch->descriptor >= 0 && read(watch->descriptor, events, sizeof events) > 0)
        continue;
}

void watch_close(const struct Watch *watch)
{
    if (watch->descriptor >= 0)
        close(watch->descriptor);
}

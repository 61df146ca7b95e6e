/* SPDX-License-Identifier: MIT */
/* Limits of workers: see server/wear.h. */
#include "server/wear.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AROUND 0.15
#define BELOW  0.10

/* A place in 0 .. 1. */
static double place_of(unsigned nth)
{
    return (uint32_t)(nth * 2654435769U) / 4294967296.0; /* 2^32 by the golden ratio */
}

/* None stays none, and no limit becomes that. */
static int64_t limit_in(int64_t limit, double low, double high, double place)
{
    int64_t own = (int64_t)((double)limit * (low + (high - low) * place));
    return limit && !own ? 1 : own;
}

struct wear wear_limits(const struct wear *limits, unsigned nth)
{
    double place = place_of(nth);
    return (struct wear){
        .requests = limit_in(limits->requests, 1 - AROUND, 1 + AROUND, place),
        .memory_bytes = limit_in(limits->memory_bytes, 1 - BELOW, 1, place),
        .age_ms = limit_in(limits->age_ms, 1 - AROUND, 1 + AROUND, place),
    };
}

static bool is_over(int64_t is, int64_t limit)
{
    return limit > 0 && is >= limit;
}

enum wear_reason wear_reached(const struct wear *is, const struct wear *limits)
{
    return is_over(is->memory_bytes, limits->memory_bytes) ? WEAR_MEMORY
           : is_over(is->requests, limits->requests)       ? WEAR_REQUESTS
           : is_over(is->age_ms, limits->age_ms)           ? WEAR_AGE
                                                           : WEAR_NONE;
}

const char *wear_key(enum wear_reason reason)
{
    static const char *const keys[] = {"", "worker_requests", "worker_memory", "worker_age"};
    return keys[reason];
}

/* A line "NAME:   N kB" of a status. */
static int64_t kib_of(const char *status, const char *name)
{
    const char *at = strstr(status, name);
    return at ? strtoll(at + strlen(name), NULL, 10) : -1;
}

int64_t wear_memory(pid_t pid)
{
    char path[40], status[4096];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, status, sizeof status - 1);
    close(fd);
    status[n > 0 ? n : 0] = '\0';
    int64_t resident = kib_of(status, "\nRssAnon:"), swapped = kib_of(status, "\nVmSwap:");
    return resident < 0 ? -1 : (resident + (swapped > 0 ? swapped : 0)) * 1024;
}

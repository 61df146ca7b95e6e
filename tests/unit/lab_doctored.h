/* SPDX-License-Identifier: MIT */
/* Results of the lab that nobody measured, built by hand, so that a test says what was seen and asks
 * what is made of it.
 *
 *     struct doctored *d = doctored_new();
 *     struct lab_load *load = doctored_load(d, "sleep", LAB_IO, LAB_CLOSED);
 *     struct lab_series *s = doctored_series(d, load, "prefork", 256, 3);
 *     SET(s, rps, 160, 0.01);            three rounds: 160, and 1 % above and below
 *     ... lab_judge_all(&d->results) ...
 *     doctored_free(d);
 *
 * Nothing is known of a round but what was set: not even its requests a second.
 */
#ifndef TESTS_LAB_DOCTORED_H
#define TESTS_LAB_DOCTORED_H

#include <assert.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/results.h"

enum { DOCTORED_SERVERS = 8, DOCTORED_LOADS = 8, DOCTORED_SERIES = 64, DOCTORED_ROUNDS = 5 };

struct doctored {
    struct lab_results results;
    struct lab_server servers[DOCTORED_SERVERS];
    struct lab_load loads[DOCTORED_LOADS];
    const struct lab_load *pointers[DOCTORED_LOADS];
    struct lab_series series[DOCTORED_SERIES];
    struct lab_round rounds[DOCTORED_SERIES][DOCTORED_ROUNDS];
    struct lab_histogram histograms[2];
};

static inline struct doctored *doctored_new(void)
{
    static const struct lab_server models[] = {
        {.name = "process", .sizes = ""},
        {.name = "prefork", .sizes = "processes = 8", .workers = 8, .threads = 1},
        {.name = "thread-pool", .sizes = "threads = 64", .workers = 1, .threads = 64},
        {.name = "hybrid", .sizes = "processes = 2", .workers = 2, .threads = 64},
        {.name = "event-loop", .sizes = "", .workers = 1, .threads = 64},
        {.name = "coroutine", .sizes = "", .workers = 1},
    };
    struct doctored *d = calloc(1, sizeof *d);
    assert(d);
    memcpy(d->servers, models, sizeof models);
    d->results = (struct lab_results){
        .machine = {.cpu = "a CPU",
                    .kernel = "Linux 6.1",
                    .wrk = "wrk 4",
                    .modus = "modus 0.1",
                    .when = "2026-07-31T12:34:56+02:00",
                    .cpus = 2,
                    .loader_cpu = 1,
                    .pinned = true,
                    .memory_gib = 7.5},
        .command = "modus lab",
        .config = "listen {\n}\n",
        .whole = true,
        .seconds = 60,
        .loads = d->pointers,
        .servers = d->servers,
        .server_count = sizeof models / sizeof models[0],
        .series = d->series,
    };
    return d;
}

static inline void doctored_free(struct doctored *d)
{
    free(d);
}

static inline struct lab_load *doctored_load(struct doctored *d, const char *name,
                                             enum lab_kind kind, enum lab_loop loop)
{
    size_t i = d->results.load_count++;
    assert(i < DOCTORED_LOADS);
    d->loads[i] = (struct lab_load){
        .name = name, .title = "a title", .why = "A reason.", .kind = kind, .loop = loop};
    d->pointers[i] = &d->loads[i];
    return &d->loads[i];
}

static inline struct lab_server *doctored_foreign(struct doctored *d, const char *name)
{
    struct lab_server *server = &d->servers[d->results.server_count++];
    *server = (struct lab_server){.name = name, .foreign = true, .sizes = ""};
    return server;
}

static inline const struct lab_server *doctored_server(const struct doctored *d, const char *name)
{
    for (size_t i = 0; i < d->results.server_count; i++)
        if (strcmp(d->servers[i].name, name) == 0)
            return &d->servers[i];
    assert(false && "no such server");
    return NULL;
}

static inline void doctored_set(struct lab_series *s, size_t field, double median, double spread)
{
    static const double by[DOCTORED_ROUNDS] = {0, 1, -1, 0.5, -0.5};
    for (size_t i = 0; i < s->round_count; i++) {
        double n = median * (1 + by[i] * spread);
        memcpy((char *)&s->rounds[i] + field, &n, sizeof n);
    }
}

#define SET(series, name, median, spread)                                                          \
    doctored_set(series, offsetof(struct lab_round, name), median, spread)

static inline struct lab_series *doctored_series(struct doctored *d, const struct lab_load *load,
                                                 const char *server, unsigned connections,
                                                 size_t repeats)
{
    size_t i = d->results.series_count++;
    struct lab_series *s = &d->series[i];
    assert(i < DOCTORED_SERIES && repeats <= DOCTORED_ROUNDS);
    *s = (struct lab_series){.load = load,
                             .server = doctored_server(d, server),
                             .connections = connections,
                             .rounds = d->rounds[i],
                             .round_count = repeats};
    for (size_t k = 0; k < repeats; k++)
        s->rounds[k] =
            (struct lab_round){.repeat = (unsigned)k, .trusted = true, .requests = 10000};
    for (size_t field = offsetof(struct lab_round, p50_us);
         field <= offsetof(struct lab_round, max_us); field += sizeof(double))
        doctored_set(s, field, LAB_UNKNOWN, 0);
    for (size_t field = offsetof(struct lab_round, cheap_p99_us);
         field <= offsetof(struct lab_round, loader_cpu); field += sizeof(double))
        doctored_set(s, field, LAB_UNKNOWN, 0);
    SET(s, seconds, 5, 0);
    SET(s, offered, LAB_UNKNOWN, 0);
    SET(s, rps, LAB_UNKNOWN, 0);
    return s;
}

#endif

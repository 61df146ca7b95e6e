/* SPDX-License-Identifier: MIT */
/* Looking things up in what the lab has measured. */
#include "server/lab/results.h"

#include <stdlib.h>
#include <string.h>

enum { ROUNDS_MAX = 256 /* of a series; more are not looked at */ };

static bool any_is_trusted(const struct lab_series *s)
{
    for (size_t i = 0; i < s->round_count; i++)
        if (!s->rounds[i].error && s->rounds[i].trusted)
            return true;
    return false;
}

bool lab_counts(const struct lab_series *s, const struct lab_round *round)
{
    return !round->error && (round->trusted || !any_is_trusted(s));
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double lab_median(const struct lab_series *s, size_t field, double *low, double *high)
{
    double found[ROUNDS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < s->round_count && count < ROUNDS_MAX; i++) {
        double value;
        memcpy(&value, (const char *)&s->rounds[i] + field, sizeof value);
        if (lab_counts(s, &s->rounds[i]) && value >= 0) /* not LAB_UNKNOWN */
            found[count++] = value;
    }
    qsort(found, count, sizeof found[0], by_size);
    if (low)
        *low = count ? found[0] : LAB_UNKNOWN;
    if (high)
        *high = count ? found[count - 1] : LAB_UNKNOWN;
    return count ? (found[(count - 1) / 2] + found[count / 2]) / 2 : LAB_UNKNOWN;
}

const struct lab_series *lab_find(const struct lab_results *r, const char *load, const char *server,
                                  unsigned connections, bool gil)
{
    for (size_t i = 0; i < r->series_count; i++) {
        const struct lab_series *s = &r->series[i];
        if (strcmp(s->load->name, load) == 0 && strcmp(s->server->name, server) == 0 &&
            (!connections || s->connections == connections) && s->gil == gil)
            return s;
    }
    return NULL;
}

const char *lab_kind_name(enum lab_kind kind)
{
    switch (kind) {
    case LAB_OVERHEAD:
        return "overhead";
    case LAB_IO:
        return "io";
    case LAB_CPU:
        return "cpu";
    case LAB_MIXED:
        return "mixed";
    case LAB_IDLE:
        return "idle";
    case LAB_STALL:
        return "stall";
    }
    return "?";
}

const char *lab_loop_name(enum lab_loop loop)
{
    switch (loop) {
    case LAB_CLOSED:
        return "closed";
    case LAB_OPEN:
        return "open";
    case LAB_BATCH:
        return "batch";
    }
    return "?";
}

/* SPDX-License-Identifier: MIT */
/* What servers are compared by. */
#include "server/lab/measure.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const double NOTHING_KIB = 0.25, FAR = 3;
#define LEAST_KIB (64.0 / 1024)

static unsigned trusted_rounds(const struct lab_series *s)
{
    unsigned count = 0;
    for (size_t i = 0; i < s->round_count; i++)
        count += !s->rounds[i].error && s->rounds[i].trusted;
    return count;
}

/* The field of a round that counts; LAB_UNKNOWN: of another, or not known. */
static double value_of(const struct lab_series *s, size_t round, size_t field)
{
    double value;
    if (!lab_counts(s, &s->rounds[round]))
        return LAB_UNKNOWN;
    memcpy(&value, (const char *)&s->rounds[round] + field, sizeof value);
    return value;
}

static void find_inner(const struct lab_series *s, size_t field, struct lab_spread *found)
{
    double far = -1;
    size_t farthest = 0;
    for (size_t i = 0; i < s->round_count; i++) {
        double away = fabs(value_of(s, i, field) - found->median);
        if (value_of(s, i, field) < 0 || away <= far)
            continue;
        far = away;
        farthest = i;
    }
    found->inner_low = found->inner_high = found->median;
    for (size_t i = 0; i < s->round_count; i++) {
        double value = value_of(s, i, field);
        if (i == farthest || value < 0)
            continue;
        found->inner_low = fmin(found->inner_low, value);
        found->inner_high = fmax(found->inner_high, value);
    }
}

static struct lab_spread spread_of(const struct lab_series *s, size_t field)
{
    struct lab_spread found = {.count = trusted_rounds(s)};
    found.median = lab_median(s, field, &found.low, &found.high);
    find_inner(s, field, &found);
    return found;
}

static void scale(struct lab_spread *of, double less, double by)
{
    double *values[] = {&of->median, &of->low, &of->high, &of->inner_low, &of->inner_high};
    for (unsigned i = 0; i < sizeof values / sizeof values[0]; i++)
        *values[i] = *values[i] > less ? (*values[i] - less) * by : 0;
}

static const struct lab_spread not_measured = {.median = LAB_UNKNOWN,
                                               .low = LAB_UNKNOWN,
                                               .high = LAB_UNKNOWN,
                                               .inner_low = LAB_UNKNOWN,
                                               .inner_high = LAB_UNKNOWN};

static struct lab_spread memory_of(const struct lab_series *s)
{
    struct lab_spread found = spread_of(s, offsetof(struct lab_round, pss_kib));
    double idle = lab_median(s, offsetof(struct lab_round, pss_idle_kib), NULL, NULL);
    if (found.median < 0 || idle < 0 || !s->connections)
        return not_measured;
    scale(&found, idle, 1.0 / s->connections);
    return found;
}

static struct lab_spread kept_up_of(const struct lab_series *s)
{
    struct lab_spread found = spread_of(s, offsetof(struct lab_round, rps));
    double offered = lab_median(s, offsetof(struct lab_round, offered), NULL, NULL);
    if (found.median < 0 || offered <= 0)
        return not_measured;
    scale(&found, 0, 1.0 / offered);
    return found;
}

struct lab_spread lab_measured(const struct lab_series *s, enum lab_measure m)
{
    switch (m) {
    case LAB_BY_RPS:
        return spread_of(s, offsetof(struct lab_round, rps));
    case LAB_BY_KEPT_UP:
        return kept_up_of(s);
    case LAB_BY_P50:
        return spread_of(s, offsetof(struct lab_round, p50_us));
    case LAB_BY_P99:
        return spread_of(s, offsetof(struct lab_round, p99_us));
    case LAB_BY_CHEAP_P99:
        return spread_of(s, offsetof(struct lab_round, cheap_p99_us));
    case LAB_BY_CPU:
        return spread_of(s, offsetof(struct lab_round, cpu_us));
    case LAB_BY_MEMORY:
        return memory_of(s);
    case LAB_BY_WHOLE:
        return spread_of(s, offsetof(struct lab_round, pss_kib));
    case LAB_BY_SECONDS:
        return spread_of(s, offsetof(struct lab_round, seconds));
    }
    return not_measured;
}

bool lab_more_is_better(enum lab_measure m)
{
    return m == LAB_BY_RPS || m == LAB_BY_KEPT_UP;
}

const char *lab_measure_name(enum lab_measure m)
{
    switch (m) {
    case LAB_BY_RPS:
        return "requests a second";
    case LAB_BY_KEPT_UP:
        return "answered of what was asked";
    case LAB_BY_P50:
        return "median time to answer";
    case LAB_BY_P99:
        return "p99 time to answer";
    case LAB_BY_CHEAP_P99:
        return "p99 of the cheap requests";
    case LAB_BY_CPU:
        return "CPU a request";
    case LAB_BY_MEMORY:
        return "memory a connection";
    case LAB_BY_WHOLE:
        return "memory of the whole server";
    case LAB_BY_SECONDS:
        return "time to the last answer";
    }
    return "?";
}

char *lab_say(char text[LAB_FIGURE], enum lab_measure m, double value)
{
    switch (m) {
    case LAB_BY_RPS:
        return lab_say_number(text, value);
    case LAB_BY_KEPT_UP:
        return lab_say_share(text, value);
    case LAB_BY_P50:
    case LAB_BY_P99:
    case LAB_BY_CHEAP_P99:
    case LAB_BY_CPU:
        return lab_say_us(text, value);
    case LAB_BY_MEMORY:
        if (value < 0 || value >= LEAST_KIB)
            return lab_say_kib(text, value);
        snprintf(text, LAB_FIGURE, "under %.0f" LAB_NBSP "B", LEAST_KIB * 1024);
        return text;
    case LAB_BY_WHOLE:
        return lab_say_kib(text, value);
    case LAB_BY_SECONDS:
        return lab_say_us(text, value < 0 ? value : value * 1e6);
    }
    return lab_say_number(text, LAB_UNKNOWN);
}

double lab_least(enum lab_measure m)
{
    return m == LAB_BY_MEMORY ? LEAST_KIB : 1e-3;
}

double lab_times_better(enum lab_measure m, double a, double b)
{
    if (a < 0 || b < 0)
        return LAB_UNKNOWN;
    a = a > lab_least(m) ? a : lab_least(m);
    b = b > lab_least(m) ? b : lab_least(m);
    return lab_more_is_better(m) ? a / b : b / a;
}

bool lab_has_ratio(enum lab_measure m, double a, double b)
{
    return a >= lab_least(m) && b >= lab_least(m);
}

static double least_difference(enum lab_measure m, unsigned rounds)
{
    bool tail = m == LAB_BY_P99 || m == LAB_BY_CHEAP_P99;
    if (rounds >= 3)
        return tail ? 0.10 : 0.05;
    return rounds == 2 ? 0.15 : rounds == 1 ? 0.25 : 0.50;
}

bool lab_is_clear(enum lab_measure m, const struct lab_spread *a, const struct lab_spread *b)
{
    double ratio = lab_times_better(m, a->median, b->median);
    unsigned rounds = a->count < b->count ? a->count : b->count;
    if (ratio < 0 || (m == LAB_BY_MEMORY && fabs(a->median - b->median) < NOTHING_KIB))
        return false;
    if (ratio < 1)
        ratio = 1 / ratio;
    double least = least_difference(m, rounds);
    bool apart = a->low > b->high || b->low > a->high;
    bool inner_apart = a->inner_low > b->inner_high || b->inner_low > a->inner_high;
    return (ratio > 1 + least && apart) || (rounds >= 3 && ratio > 1 + FAR * least && inner_apart);
}

struct lab_errors lab_errors_of(const struct lab_series *s)
{
    struct lab_errors sum = {0};
    for (size_t i = 0; i < s->round_count; i++) {
        const struct lab_errors *e = &s->rounds[i].errors;
        if (!lab_counts(s, &s->rounds[i]))
            continue;
        sum.connect += e->connect;
        sum.read += e->read;
        sum.write += e->write;
        sum.timeout += e->timeout;
        sum.status += e->status;
    }
    return sum;
}

double lab_error_share(const struct lab_series *s)
{
    struct lab_errors e = lab_errors_of(s);
    double failed =
        (double)e.connect + (double)e.read + (double)e.write + (double)e.timeout + (double)e.status;
    double answered = 0;
    for (size_t i = 0; i < s->round_count; i++)
        if (lab_counts(s, &s->rounds[i]))
            answered += (double)s->rounds[i].requests;
    return failed > 0 ? failed / (failed + answered) : 0;
}

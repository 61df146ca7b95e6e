/* SPDX-License-Identifier: MIT */
/* What servers are compared by. */
#include "server/lab/measure.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const double NOTHING_KIB = 0.25;
#define LEAST_KIB (64.0 / 1024)

enum { FOR_ONE_ODD = 5 }; /* of so many pairs one may be odd */

static unsigned trusted_rounds(const struct lab_series *s)
{
    unsigned count = 0;
    for (size_t i = 0; i < s->round_count; i++)
        count += !s->rounds[i].error && s->rounds[i].trusted;
    return count;
}

/* A figure of a round: a field of it, less something, times something; by 0: it is not known. */
struct figure {
    size_t field;
    double less, by;
};

static struct figure memory_of(const struct lab_series *s)
{
    double idle = lab_median(s, offsetof(struct lab_round, pss_idle_kib), NULL, NULL);
    bool known = idle >= 0 && s->connections;
    return (struct figure){offsetof(struct lab_round, pss_kib), idle,
                           known ? 1.0 / s->connections : 0};
}

static struct figure kept_up_of(const struct lab_series *s)
{
    double offered = lab_median(s, offsetof(struct lab_round, offered), NULL, NULL);
    return (struct figure){offsetof(struct lab_round, rps), 0, offered > 0 ? 1 / offered : 0};
}

static struct figure figure_of(const struct lab_series *s, enum lab_measure m)
{
    switch (m) {
    case LAB_BY_RPS:
        return (struct figure){offsetof(struct lab_round, rps), 0, 1};
    case LAB_BY_KEPT_UP:
        return kept_up_of(s);
    case LAB_BY_P50:
        return (struct figure){offsetof(struct lab_round, p50_us), 0, 1};
    case LAB_BY_P99:
        return (struct figure){offsetof(struct lab_round, p99_us), 0, 1};
    case LAB_BY_CHEAP_P99:
        return (struct figure){offsetof(struct lab_round, cheap_p99_us), 0, 1};
    case LAB_BY_CPU:
        return (struct figure){offsetof(struct lab_round, cpu_us), 0, 1};
    case LAB_BY_MEMORY:
        return memory_of(s);
    case LAB_BY_WHOLE:
        return (struct figure){offsetof(struct lab_round, pss_kib), 0, 1};
    case LAB_BY_SECONDS:
        return (struct figure){offsetof(struct lab_round, seconds), 0, 1};
    }
    return (struct figure){0};
}

static double worth(const struct figure *f, double value)
{
    if (f->by <= 0 || value < 0)
        return LAB_UNKNOWN;
    return value > f->less ? (value - f->less) * f->by : 0;
}

struct lab_spread lab_measured(const struct lab_series *s, enum lab_measure m)
{
    struct figure f = figure_of(s, m);
    double low, high, median = lab_median(s, f.field, &low, &high);
    return (struct lab_spread){.median = worth(&f, median),
                               .low = worth(&f, low),
                               .high = worth(&f, high),
                               .count = trusted_rounds(s)};
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

/* --- what is clear --------------------------------------------------------------------------- */

/* How much better one must be, of so many pairs that are to be trusted. */
static double least_difference(enum lab_measure m, unsigned pairs)
{
    bool tail = m == LAB_BY_P99 || m == LAB_BY_CHEAP_P99;
    double least = tail ? 1.00 : 0.05;
    return least * (pairs >= 3 ? 1 : pairs == 2 ? 3 : pairs == 1 ? 5 : 10);
}

/* Two servers in one repeat, and another. */
struct pairs {
    unsigned count, trusted;
    unsigned better, worse; /* in which the first is so by least, or more */
};

static const struct lab_round *in_repeat(const struct lab_series *s, unsigned repeat)
{
    for (size_t i = 0; i < s->round_count; i++)
        if (s->rounds[i].repeat == repeat && lab_counts(s, &s->rounds[i]))
            return &s->rounds[i];
    return NULL;
}

static double in_round(const struct figure *f, const struct lab_round *round)
{
    double value;
    memcpy(&value, (const char *)round + f->field, sizeof value);
    return worth(f, value);
}

static struct pairs compare(enum lab_measure m, const struct lab_series *a,
                            const struct lab_series *b, double least)
{
    struct figure of_a = figure_of(a, m), of_b = figure_of(b, m);
    struct pairs pairs = {0};
    for (size_t i = 0; i < a->round_count; i++) {
        const struct lab_round *one = &a->rounds[i];
        const struct lab_round *other = lab_counts(a, one) ? in_repeat(b, one->repeat) : NULL;
        double ratio =
            other ? lab_times_better(m, in_round(&of_a, one), in_round(&of_b, other)) : LAB_UNKNOWN;
        if (ratio <= 0)
            continue;
        pairs.count++;
        pairs.trusted += one->trusted && other->trusted;
        pairs.better += ratio >= 1 + least;
        pairs.worse += 1 / ratio >= 1 + least;
    }
    return pairs;
}

/* There is no repeat that both have. */
static bool are_medians_clear(double ratio, double least)
{
    return ratio >= 1 + least || 1 / ratio >= 1 + least;
}

bool lab_is_clear(enum lab_measure m, const struct lab_series *a, const struct lab_series *b)
{
    double mine = lab_measured(a, m).median, theirs = lab_measured(b, m).median;
    double ratio = lab_times_better(m, mine, theirs);
    if (ratio <= 0 || (m == LAB_BY_MEMORY && fabs(mine - theirs) < NOTHING_KIB))
        return false;
    double least = least_difference(m, compare(m, a, b, 0).trusted);
    struct pairs pairs = compare(m, a, b, least);
    unsigned odd = pairs.count / FOR_ONE_ODD;
    return pairs.count ? pairs.better + odd >= pairs.count || pairs.worse + odd >= pairs.count
                       : are_medians_clear(ratio, least);
}

/* --- what failed ----------------------------------------------------------------------------- */

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

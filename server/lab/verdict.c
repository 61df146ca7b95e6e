/* SPDX-License-Identifier: MIT */
/* Who is best at a load, and by how much. The sentences are in why.c and margin.c. */
#include "server/lab/verdict.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double ERRORS_MAX = 0.001, KEPT_UP_MIN = 0.95;

const struct lab_server *lab_chosen(const struct lab_verdict *v)
{
    return v->able ? v->rank[0].series->server : NULL;
}

bool lab_most_are_equal(const struct lab_verdict *v)
{
    return v->equals > 2 && v->equals + 1 >= v->able;
}

void lab_say_front(char *text, size_t size, const struct lab_verdict *v)
{
    *text = '\0';
    if (v->equals == 0)
        lab_add(text, size, "nobody without errors");
    else if (lab_most_are_equal(v) && v->equals == v->able)
        lab_add(text, size, "any");
    else if (lab_most_are_equal(v))
        lab_add(text, size, "any but %s", v->rank[v->equals].series->server->name);
    else
        for (unsigned k = 0; k < v->equals; k++)
            lab_add_listed(text, size, k, v->equals, "or", v->rank[k].series->server->name);
}

void lab_say_point(char *text, size_t size, const struct lab_verdict *v)
{
    char n[LAB_FIGURE];
    if (v->load->loop == LAB_BATCH)
        snprintf(text, size, "%s at once", lab_say_whole(n, v->connections));
    else
        lab_say_count(text, size, v->connections, "connection", "connections");
    if (v->rate > 0)
        lab_add(text, size, ", %s requests a second", lab_say_whole(n, v->rate));
    if (v->gil)
        lab_add(text, size, ", interpreter lock");
}

/* --- who is measured, and who can be chosen -------------------------------------------------- */

static size_t failed_rounds(const struct lab_series *s, const char **why)
{
    size_t count = 0;
    for (size_t i = 0; i < s->round_count; i++)
        if (s->rounds[i].error) {
            *why = s->rounds[i].error;
            count++;
        }
    return count;
}

static void say_errors(char *text, size_t size, const struct lab_series *s)
{
    const struct lab_errors e = lab_errors_of(s);
    const struct {
        uint64_t count;
        const char *what;
    } kinds[] = {{e.timeout, "no answer in time"},
                 {e.status, "answered with an error"},
                 {e.connect, "not connected"},
                 {e.read, "connection lost"},
                 {e.write, "not sent"}};
    char share[LAB_FIGURE];
    double rejected = lab_median(s, offsetof(struct lab_round, rejected), NULL, NULL);
    size_t worst = 0;
    for (size_t i = 1; i < sizeof kinds / sizeof kinds[0]; i++)
        worst = kinds[i].count > kinds[worst].count ? i : worst;
    snprintf(text, size, "%s of its requests failed (most: %s)",
             lab_say_share(share, lab_error_share(s)),
             kinds[worst].count == e.status && rejected >= 1 ? "its queue was full"
                                                             : kinds[worst].what);
}

/* Is there anything of it that counts? */
static bool is_measured(struct lab_rank *k)
{
    const char *why = NULL;
    size_t failed = failed_rounds(k->series, &why);
    if (!k->series->round_count)
        snprintf(k->why, sizeof k->why, "it was not measured");
    else if (failed == k->series->round_count)
        snprintf(k->why, sizeof k->why, "it could not be measured: %s", why);
    return failed < k->series->round_count;
}

static void look_at(struct lab_verdict *v, struct lab_rank *k)
{
    k->first = lab_measured(k->series, v->first);
    k->second = lab_measured(k->series, v->second);
    k->out = true;
    if (!is_measured(k))
        return;
    if (lab_error_share(k->series) > ERRORS_MAX)
        say_errors(k->why, sizeof k->why, k->series);
    else if (k->first.median < 0)
        snprintf(k->why, sizeof k->why, "its %s was not measured", lab_measure_name(v->first));
    else
        k->out = false;
}

/* In the open loop: who does not keep up is out if others do; if nobody does, throughput decides. */
static void look_who_keeps_up(struct lab_verdict *v)
{
    unsigned able = 0, keep_up = 0;
    for (unsigned i = 0; i < v->count; i++) {
        bool keeps = lab_measured(v->rank[i].series, LAB_BY_KEPT_UP).median >= KEPT_UP_MIN;
        able += !v->rank[i].out && !v->rank[i].series->server->foreign;
        keep_up += keeps && !v->rank[i].out && !v->rank[i].series->server->foreign;
    }
    if (able && !keep_up) {
        v->first = LAB_BY_RPS;
        for (unsigned i = 0; i < v->count; i++)
            look_at(v, &v->rank[i]);
    }
    for (unsigned i = 0; keep_up && i < v->count; i++) {
        struct lab_rank *k = &v->rank[i];
        char share[LAB_FIGURE];
        double kept = lab_measured(k->series, LAB_BY_KEPT_UP).median;
        if (k->out || kept >= KEPT_UP_MIN)
            continue;
        k->out = true;
        snprintf(k->why, sizeof k->why, "it answered %s of what was asked",
                 lab_say_share(share, kept));
    }
}

/* --- ranking --------------------------------------------------------------------------------- */

/* Those who can be chosen come first, then those who are out, then foreign servers. */
static int class_of(const struct lab_rank *k)
{
    return k->series->server->foreign ? 2 : k->out;
}

/* Negative when a is the better one; who is not measured is last. */
static int order_of(enum lab_measure m, double a, double b)
{
    if (a < 0 || b < 0)
        return (a < 0) - (b < 0);
    double better = lab_more_is_better(m) ? b - a : a - b;
    return (better > 0) - (better < 0);
}

static void exchange(struct lab_rank *a, struct lab_rank *b)
{
    struct lab_rank c = *a;
    *a = *b;
    *b = c;
}

/* Insertion: few, stable, and the measure is at hand. */
static void sort_by_first(struct lab_verdict *v)
{
    for (unsigned i = 1; i < v->count; i++)
        for (unsigned j = i; j > 0; j--) {
            struct lab_rank *a = &v->rank[j - 1], *b = &v->rank[j];
            int order = class_of(a) - class_of(b);
            if (order < 0 ||
                (order == 0 && order_of(v->first, a->first.median, b->first.median) <= 0))
                break;
            exchange(a, b);
        }
}

/* How many of rank[0 .. among), which are in order, can't be told from the first. One that wanders much
 * from repeat to repeat can be as good, and another that is before it not: then that one is, too. */
static unsigned count_equals(const struct lab_verdict *v, unsigned among, enum lab_measure m)
{
    unsigned equals = among;
    while (equals > 1 && lab_is_clear(m, v->rank[0].series, v->rank[equals - 1].series))
        equals--;
    return equals;
}

/* Those whom the first figure does not tell apart, by the second. */
static void sort_equals_by_second(struct lab_verdict *v)
{
    for (unsigned i = 1; i < v->equals_first; i++)
        for (unsigned j = i; j > 0; j--) {
            struct lab_rank *a = &v->rank[j - 1], *b = &v->rank[j];
            if (order_of(v->second, a->second.median, b->second.median) <= 0)
                break;
            exchange(a, b);
        }
}

static void rank_all(struct lab_verdict *v)
{
    v->able = 0;
    sort_by_first(v);
    v->disturbed = false;
    for (unsigned i = 0; i < v->count; i++) {
        bool able = class_of(&v->rank[i]) == 0;
        v->able += able;
        v->disturbed |= able && v->rank[i].first.count == 0;
    }
    v->equals_first = count_equals(v, v->able, v->first);
    sort_equals_by_second(v);
    v->equals = count_equals(v, v->equals_first, v->second);
    v->certainty = v->able == 0           ? LAB_NOBODY
                   : v->able == 1         ? LAB_ALONE
                   : v->equals_first == 1 ? LAB_CLEAR
                   : v->equals == 1       ? LAB_SECOND
                                          : LAB_NOISE;
}

/* --- what there is to judge ------------------------------------------------------------------ */

static void say_all(const struct lab_results *r, struct lab_verdict *v)
{
    lab_say_margin(v);
    lab_say_why(v);
    lab_say_notes(r, v);
}

void lab_judge_by(const struct lab_results *r, struct lab_verdict *v, enum lab_measure first,
                  enum lab_measure second)
{
    v->first = first;
    v->second = second;
    v->count = 0;
    for (size_t i = 0; i < r->series_count && v->count < LAB_RANKS; i++) {
        const struct lab_series *s = &r->series[i];
        if (s->load != v->load || s->connections != v->connections || s->rate != v->rate ||
            s->gil != v->gil)
            continue;
        v->rank[v->count] = (struct lab_rank){.series = s};
        look_at(v, &v->rank[v->count++]);
    }
    if (v->load->loop == LAB_OPEN)
        look_who_keeps_up(v);
    rank_all(v);
    say_all(r, v);
}

void lab_prefer(const struct lab_results *r, struct lab_verdict *v, const struct lab_server *server)
{
    unsigned at = 0;
    while (at < v->equals && v->rank[at].series->server != server)
        at++;
    if (at == v->equals)
        return;
    for (; at > 0; at--)
        exchange(&v->rank[at], &v->rank[at - 1]);
    say_all(r, v);
}

static enum lab_measure first_of(const struct lab_load *load)
{
    switch (load->kind) {
    case LAB_OVERHEAD:
        return LAB_BY_CPU;
    case LAB_MIXED:
        return LAB_BY_CHEAP_P99;
    case LAB_IDLE:
        return LAB_BY_MEMORY;
    case LAB_IO:
    case LAB_CPU:
    case LAB_STALL:
        break;
    }
    return load->loop == LAB_OPEN    ? LAB_BY_P99
           : load->loop == LAB_BATCH ? LAB_BY_SECONDS
                                     : LAB_BY_RPS;
}

static enum lab_measure second_of(const struct lab_load *load)
{
    switch (load->kind) {
    case LAB_IO:
    case LAB_IDLE:
        return LAB_BY_WHOLE;
    case LAB_MIXED:
        return load->loop == LAB_CLOSED ? LAB_BY_RPS : LAB_BY_CPU;
    case LAB_CPU:
        return load->loop == LAB_OPEN ? LAB_BY_CPU : LAB_BY_P99;
    case LAB_OVERHEAD:
    case LAB_STALL:
        break;
    }
    return LAB_BY_P99;
}

/* Negative when a comes before b. */
static int order_of_points(const struct lab_verdict *a, const struct lab_series *b)
{
    if (a->gil != b->gil)
        return a->gil ? 1 : -1;
    if (a->connections != b->connections)
        return a->connections < b->connections ? -1 : 1;
    return (a->rate > b->rate) - (a->rate < b->rate);
}

size_t lab_judge_load(const struct lab_results *r, const struct lab_load *load,
                      struct lab_verdict *verdicts, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < r->series_count; i++) {
        const struct lab_series *s = &r->series[i];
        size_t at = 0;
        if (s->load != load)
            continue;
        while (at < count && order_of_points(&verdicts[at], s) < 0)
            at++;
        if ((at < count && order_of_points(&verdicts[at], s) == 0) || count == max)
            continue;
        memmove(&verdicts[at + 1], &verdicts[at], (count - at) * sizeof *verdicts);
        verdicts[at] = (struct lab_verdict){
            .load = load, .connections = s->connections, .rate = s->rate, .gil = s->gil};
        count++;
    }
    for (size_t i = 0; i < count; i++)
        lab_judge_by(r, &verdicts[i], first_of(load), second_of(load));
    return count;
}

static bool somebody_keeps_up(const struct lab_verdict *v)
{
    return v->able && (v->load->loop != LAB_OPEN ||
                       lab_measured(v->rank[0].series, LAB_BY_KEPT_UP).median >= KEPT_UP_MIN);
}

const struct lab_verdict *lab_headline(const struct lab_verdict *verdicts, size_t count)
{
    const struct lab_verdict *best = NULL;
    for (size_t i = 0; i < count; i++)
        if (!best || (!verdicts[i].gil && (somebody_keeps_up(&verdicts[i]) || !best->able)))
            best = &verdicts[i];
    return best;
}

/* SPDX-License-Identifier: MIT */
/* By how much a verdict is what it is, and who and what was left out of it. Why, says why.c.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "server/lab/verdict.h"

#define ADD(field, ...) lab_add(v->field, sizeof v->field, __VA_ARGS__)

/* "1.9 times the requests a second of thread-pool: 8120 against 4250". */
static void say_distance(char *to, size_t size, enum lab_measure m, const struct lab_spread *mine,
                         const struct lab_spread *other, const char *whom)
{
    char a[LAB_FIGURE], b[LAB_FIGURE], times[LAB_FIGURE];
    const char *name = lab_measure_name(m);
    double ratio = lab_has_ratio(m, mine->median, other->median)
                       ? lab_times_better(m, mine->median, other->median)
                       : LAB_UNKNOWN;
    lab_say(a, m, mine->median);
    lab_say(b, m, other->median);
    lab_say_times(times, ratio);
    if (ratio < 0)
        lab_add(to, size, "%s %s against %s for %s", name, a, b, whom);
    else if (lab_more_is_better(m) && ratio >= 1.5)
        lab_add(to, size, "%s the %s of %s: %s against %s", times, name, whom, a, b);
    else if (lab_more_is_better(m))
        lab_add(to, size, "%.0f" LAB_NBSP "%% more %s than %s: %s against %s", (ratio - 1) * 100,
                name, whom, a, b);
    else if (ratio >= 1.5)
        lab_add(to, size, "%s %s against %s for %s, %s as much", name, a, b, whom, times);
    else
        lab_add(to, size, "%s %s against %s for %s, %.0f" LAB_NBSP "%% more", name, a, b, whom,
                (ratio - 1) * 100);
}

/* The nearest of those whom the first figure puts behind the chosen: chosen for the second figure, that
 * may be the last of its equals by the first, and be no better itself than some who are behind these. */
static void say_next(char *to, size_t size, const struct lab_verdict *v, const char *before)
{
    char whom[160];
    const struct lab_rank *best = &v->rank[0], *next = &v->rank[v->equals_first];
    const struct lab_rank *end = &v->rank[v->able];
    while (next < end && (lab_times_better(v->first, best->first.median, next->first.median) < 1 ||
                          !lab_is_clear(v->first, best->series, next->series)))
        next++;
    if (next == end)
        return;
    snprintf(whom, sizeof whom, "%s, the nearest clearly behind", next->series->server->name);
    lab_add(to, size, "%s", before);
    say_distance(to, size, v->first, &best->first, &next->first, whom);
}

/* The nearest of those who are as good by the first figure, but not by the second; nothing if there
 * is none. */
static void say_second(char *to, size_t size, const struct lab_verdict *v, const char *before)
{
    char mine[LAB_FIGURE], theirs[LAB_FIGURE];
    const struct lab_rank *next = &v->rank[v->equals];
    if (v->equals == v->equals_first)
        return;
    lab_say(mine, v->second, v->rank[0].second.median);
    lab_say(theirs, v->second, next->second.median);
    lab_add(to, size, "%sby %s %s is as good, but its %s is %s against %s", before,
            lab_measure_name(v->first), next->series->server->name, lab_measure_name(v->second),
            theirs, mine);
}

/* "event-loop, hybrid and coroutine are within the noise (requests a second 8010 to 8120)". */
static void say_noise(struct lab_verdict *v, unsigned count)
{
    char a[LAB_FIGURE], b[LAB_FIGURE];
    double low = INFINITY, high = 0;
    for (unsigned i = 0; i < count; i++) {
        double n = v->rank[i].first.median;
        lab_add_listed(v->margin, sizeof v->margin, i, count, "and",
                       v->rank[i].series->server->name);
        low = n < low ? n : low;
        high = n > high ? n : high;
    }
    lab_say(a, v->first, low);
    lab_say(b, v->first, high);
    ADD(margin, " are within the noise of each other (%s %s", lab_measure_name(v->first), a);
    if (strcmp(a, b) != 0)
        ADD(margin, " to %s", b);
    ADD(margin, ")");
}

static void say_brief(struct lab_verdict *v)
{
    v->brief[0] = '\0';
    if (v->certainty == LAB_NOBODY || v->certainty == LAB_ALONE) {
        ADD(brief, "%s", v->margin);
        return;
    }
    say_next(v->brief, sizeof v->brief, v, "");
    say_second(v->brief, sizeof v->brief, v, *v->brief ? "; " : "");
    if (!*v->brief)
        ADD(brief, "no clear difference");
}

void lab_say_margin(struct lab_verdict *v)
{
    char a[LAB_FIGURE];
    v->margin[0] = '\0';
    switch (v->certainty) {
    case LAB_NOBODY:
        ADD(margin, "none can be chosen");
        break;
    case LAB_ALONE:
        ADD(margin, "no other can be chosen; %s %s", lab_measure_name(v->first),
            lab_say(a, v->first, v->rank[0].first.median));
        break;
    case LAB_CLEAR:
        say_next(v->margin, sizeof v->margin, v, "");
        break;
    case LAB_NOISE:
        say_noise(v, v->equals);
        say_second(v->margin, sizeof v->margin, v, "; ");
        say_next(v->margin, sizeof v->margin, v, "; ");
        break;
    case LAB_SECOND:
        say_noise(v, v->equals_first);
        ADD(margin, ", so what counts is: ");
        say_distance(v->margin, sizeof v->margin, v->second, &v->rank[0].second, &v->rank[1].second,
                     v->rank[1].series->server->name);
        say_next(v->margin, sizeof v->margin, v, "; ");
        break;
    }
    say_brief(v);
}

/* --- what was left out ----------------------------------------------------------------------- */

/* A server's rounds. */
struct rounds {
    const char *name, *error, *doubt; /* the last of each */
    unsigned failed, doubted, good;
};

static struct rounds rounds_of(const struct lab_series *s)
{
    struct rounds found = {.name = s->server->name};
    for (size_t i = 0; i < s->round_count; i++) {
        const struct lab_round *r = &s->rounds[i];
        if (r->error) {
            found.failed++;
            found.error = r->error;
        } else if (!r->trusted) {
            found.doubted++;
            found.doubt = r->doubt ? r->doubt : "no reason given";
        } else {
            found.good++;
        }
    }
    return found;
}

static void say_failed(struct lab_verdict *v, const struct rounds *r, size_t count)
{
    char n[64];
    for (size_t i = 0; i < count; i++)
        if (r[i].failed && r[i].doubted + r[i].good > 0)
            ADD(notes, "Left out: %s of %s that failed (%s). ",
                lab_say_count(n, sizeof n, r[i].failed, "round", "rounds"), r[i].name, r[i].error);
}

/* Those of one sort in one sentence: a disturbed machine disturbs all alike. */
static void say_doubted(struct lab_verdict *v, const struct rounds *r, size_t count, bool all)
{
    size_t servers = 0, told = 0;
    unsigned rounds = 0;
    const char *doubt = "";
    char n[64], one[192];
    for (size_t i = 0; i < count; i++)
        if (r[i].doubted && all == !r[i].good) {
            servers++;
            rounds += r[i].doubted;
            doubt = r[i].doubt;
        }
    if (!servers)
        return;
    ADD(notes, all ? "No round of " : "Left out: ");
    for (size_t i = 0; i < count; i++) {
        if (!r[i].doubted || all != !r[i].good)
            continue;
        lab_say_count(n, sizeof n, r[i].doubted, "round", "rounds");
        snprintf(one, sizeof one, "%s%s%.100s", all ? "" : n, all ? "" : " of ", r[i].name);
        lab_add_listed(v->notes, sizeof v->notes, told++, servers, "and", one);
    }
    if (all)
        ADD(notes, " is to be trusted");
    else
        ADD(notes, " that %s not to be trusted", rounds == 1 ? "is" : "are");
    ADD(notes, " (%s%s)%s. ", rounds > 1 ? "the last: " : "", doubt,
        all ? ": only a large difference counts" : "");
}

static void say_doubts(struct lab_verdict *v)
{
    struct rounds r[LAB_RANKS];
    for (unsigned i = 0; i < v->count; i++)
        r[i] = rounds_of(v->rank[i].series);
    say_failed(v, r, v->count);
    say_doubted(v, r, v->count, false);
    say_doubted(v, r, v->count, true);
}

static void say_missing(const struct lab_results *r, struct lab_verdict *v)
{
    const char *missing[LAB_RANKS];
    size_t count = 0;
    for (size_t i = 0; i < r->server_count && !v->gil && count < LAB_RANKS; i++) {
        bool found = false;
        for (unsigned k = 0; k < v->count; k++)
            found = found || v->rank[k].series->server == &r->servers[i];
        if (!found && !r->servers[i].foreign)
            missing[count++] = r->servers[i].name;
    }
    for (size_t i = 0; i < count; i++) {
        ADD(notes, i ? "" : "Not measured: ");
        lab_add_listed(v->notes, sizeof v->notes, i, count, "and", missing[i]);
    }
    if (count)
        ADD(notes, ". ");
}

/* A server of somebody else's, beside the chosen one. CPU and memory are not known of it. */
static void say_foreign(struct lab_verdict *v, const struct lab_rank *k)
{
    enum lab_measure m = k->first.median < 0 ? LAB_BY_RPS : v->first;
    struct lab_spread theirs = lab_measured(k->series, m);
    char a[LAB_FIGURE], b[LAB_FIGURE];
    if (k->out && k->first.median >= 0)
        ADD(notes, "%s, measured beside: %s. ", k->series->server->name, k->why);
    if (!v->able || theirs.median < 0)
        return;
    struct lab_spread ours = lab_measured(v->rank[0].series, m);
    ADD(notes, "%s, measured beside: %s %s against %s for %s%s. ", k->series->server->name,
        lab_measure_name(m), lab_say(a, m, theirs.median), lab_say(b, m, ours.median),
        v->rank[0].series->server->name,
        lab_is_clear(m, v->rank[0].series, k->series) ? "" : ", within the noise");
}

static void say_rounds(struct lab_verdict *v)
{
    unsigned least = UINT32_MAX;
    for (unsigned i = 0; i < v->able; i++)
        least = v->rank[i].first.count < least ? v->rank[i].first.count : least;
    if (v->able > 1 && least == 1)
        ADD(notes, "Measured once: only a difference of over 25" LAB_NBSP "%% counts. ");
    if (v->able > 1 && least == 2)
        ADD(notes, "With two rounds only a difference of over 15" LAB_NBSP "%% counts. ");
}

void lab_say_notes(const struct lab_results *r, struct lab_verdict *v)
{
    v->notes[0] = '\0';
    for (unsigned i = 0; i < v->count; i++) {
        const struct lab_rank *k = &v->rank[i];
        if (k->series->server->foreign)
            say_foreign(v, k);
        else if (k->out)
            ADD(notes, "%s can't be chosen: %s. ", k->series->server->name, k->why);
    }
    say_doubts(v);
    say_missing(r, v);
    say_rounds(v);
    if (v->load->loop == LAB_OPEN && v->first == LAB_BY_RPS)
        ADD(notes, "Nobody kept up with what was asked, so requests a second decide. ");
    size_t len = strlen(v->notes);
    if (len && v->notes[len - 1] == ' ')
        v->notes[len - 1] = '\0';
}

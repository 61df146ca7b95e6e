/* SPDX-License-Identifier: MIT */
/* The answer that the page begins with. */
#include "server/lab/choice.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENTS = 20000 /* whose memory is told */ };

#define ADD(field, ...) lab_add(c->field, sizeof c->field, __VA_ARGS__)

/* --- all loads ------------------------------------------------------------------------------- */

struct lab_findings *lab_judge_all(const struct lab_results *r)
{
    struct lab_findings *f = calloc(1, sizeof *f);
    if (!f || !(f->loads = calloc(r->load_count + 1, sizeof *f->loads))) {
        free(f);
        return NULL;
    }
    f->results = r;
    for (; f->count < r->load_count; f->count++) {
        struct lab_judged *j = &f->loads[f->count];
        j->load = r->loads[f->count];
        j->points = calloc(LAB_POINTS, sizeof *j->points);
        if (!j->points) {
            lab_findings_free(f);
            return NULL;
        }
        if (j->load->kind != LAB_STALL)
            j->count = lab_judge_load(r, j->load, j->points, LAB_POINTS);
        j->headline = lab_headline(j->points, j->count);
    }
    return f;
}

void lab_findings_free(struct lab_findings *f)
{
    for (size_t i = 0; f && i < f->count; i++)
        free(f->loads[i].points);
    if (f)
        free(f->loads);
    free(f);
}

/* --- who leads the loads of a kind ----------------------------------------------------------- */

static const struct lab_rank *rank_of(const struct lab_verdict *v, const struct lab_server *server)
{
    for (unsigned i = 0; v && i < v->able; i++)
        if (v->rank[i].series->server == server)
            return &v->rank[i];
    return NULL;
}

static bool is_at_front(const struct lab_verdict *v, const struct lab_server *server)
{
    const struct lab_rank *k = rank_of(v, server);
    return k && (size_t)(k - v->rank) < v->equals;
}

static bool speaks(const struct lab_judged *j, enum lab_kind kind)
{
    return j->load->kind == kind && j->headline && j->headline->able;
}

/* Does the load count for its kind? The notes' batches do where nothing else was measured. */
static bool counts(const struct lab_findings *f, const struct lab_judged *j, enum lab_kind kind)
{
    bool others = false;
    for (size_t i = 0; i < f->count; i++)
        others |= speaks(&f->loads[i], kind) && f->loads[i].load->loop != LAB_BATCH;
    return speaks(j, kind) && (j->load->loop != LAB_BATCH || !others);
}

/* Fronts first, then the loads that it leads, then how near to the best it is on the whole. */
static double score_of(const struct lab_findings *f, enum lab_kind kind,
                       const struct lab_server *server)
{
    double fronts = 0, leads = 0, behind = 0;
    for (size_t i = 0; i < f->count; i++) {
        const struct lab_verdict *v = f->loads[i].headline;
        const struct lab_rank *k = rank_of(v, server);
        if (!counts(f, &f->loads[i], kind))
            continue;
        double ratio =
            k ? lab_times_better(v->first, v->rank[0].first.median, k->first.median) : 1e9;
        fronts += is_at_front(v, server);
        leads += lab_chosen(v) == server;
        behind += ratio > 1 ? log(ratio) : 0;
    }
    return fronts + leads / 100 + 1 / (1 + behind) / 200; /* of loads there are fewer than 100 */
}

static const struct lab_server *best_of(const struct lab_findings *f, enum lab_kind kind)
{
    const struct lab_server *best = NULL;
    double most = 0;
    for (size_t i = 0; i < f->results->server_count; i++) {
        const struct lab_server *server = &f->results->servers[i];
        double score = server->foreign ? 0 : score_of(f, kind, server);
        if (score >= 1 && score > most) {
            best = server;
            most = score;
        }
    }
    return best;
}

/* The first load that it leads; else the first where it is at the front; else the first. */
static const struct lab_judged *leading(const struct lab_findings *f, enum lab_kind kind,
                                        const struct lab_server *server)
{
    const struct lab_judged *first = NULL, *front = NULL;
    for (size_t i = 0; i < f->count; i++) {
        const struct lab_judged *j = &f->loads[i];
        if (j->load->kind != kind || !j->headline)
            continue;
        if (server && lab_chosen(j->headline) == server)
            return j;
        first = first ? first : j;
        if (!front && server && is_at_front(j->headline, server))
            front = j;
    }
    return front ? front : first;
}

static void say_from(struct lab_choice *c, const struct lab_verdict *v)
{
    char point[128];
    lab_say_point(point, sizeof point, v);
    snprintf(c->from, sizeof c->from, "%s; %s, %s", v->load->title, point,
             v->load->loop == LAB_BATCH  ? "batch"
             : v->load->loop == LAB_OPEN ? "open loop"
                                         : "closed loop");
}

static void say_also(struct lab_choice *c, const struct lab_verdict *v)
{
    bool more = false;
    for (unsigned i = 0; i < v->equals; i++)
        if (v->rank[i].series->server != c->server) {
            ADD(also, "%s%s", more ? ", " : "", v->rank[i].series->server->name);
            more = true;
        }
}

static void say_exceptions(struct lab_choice *c, const struct lab_findings *f, enum lab_kind kind)
{
    for (size_t i = 0; i < f->count; i++) {
        const struct lab_verdict *v = f->loads[i].headline;
        if (!counts(f, &f->loads[i], kind) || is_at_front(v, c->server))
            continue;
        ADD(but, "%s%s for \"%s\"", *c->but ? ", " : "", lab_chosen(v)->name, v->load->title);
    }
}

static void say_pick(struct lab_choice *c, const struct lab_verdict *v)
{
    if (lab_most_are_equal(v))
        lab_say_front(c->pick, sizeof c->pick, v);
    else if (c->server)
        ADD(pick, "%s", c->server->name);
}

static void say_verdict(struct lab_choice *c, const struct lab_verdict *v)
{
    say_pick(c, v);
    c->disturbed = v->disturbed;
    snprintf(c->margin, sizeof c->margin, "%s", v->brief);
    snprintf(c->why, sizeof c->why, "%s", v->why);
    say_from(c, v);
    say_also(c, v);
}

/* What an interpreter lock makes of it: of the model that it costs most. */
static void say_lock(struct lab_choice *c, const struct lab_judged *j)
{
    double most = 1.2; /* less is not worth a line */
    for (size_t i = 0; i < j->count; i++)
        for (unsigned k = 0; j->points[i].gil && k < j->points[i].count; k++) {
            char with[LAB_FIGURE], without[LAB_FIGURE];
            const struct lab_series *s = j->points[i].rank[k].series;
            const struct lab_rank *free_of_it = rank_of(j->headline, s->server);
            enum lab_measure m = j->headline->first;
            double figure = lab_measured(s, m).median;
            double times = free_of_it ? lab_times_better(m, free_of_it->first.median, figure) : 0;
            if (s->connections != j->headline->connections || times <= most)
                continue;
            most = times;
            snprintf(c->lock, sizeof c->lock, "%s has %s of %s then, against %s", s->server->name,
                     lab_measure_name(m), lab_say(with, m, figure),
                     lab_say(without, m, free_of_it->first.median));
        }
}

static bool choose_of_kind(struct lab_choice *c, const struct lab_findings *f, enum lab_kind kind)
{
    c->server = best_of(f, kind);
    const struct lab_judged *j = leading(f, kind, c->server);
    struct lab_verdict *v = j ? malloc(sizeof *v) : NULL;
    if (!v)
        return false;
    *v = *j->headline;
    lab_prefer(f->results, v, c->server);
    say_verdict(c, v);
    free(v);
    say_lock(c, j);
    if (c->server)
        say_exceptions(c, f, kind);
    return true;
}

/* --- many idle connections ------------------------------------------------------------------- */

/* Before the margin. */
static void say_memory_of_many(struct lab_choice *c, const struct lab_verdict *v)
{
    char all[LAB_FIGURE], n[LAB_FIGURE], margin[sizeof c->margin];
    const struct lab_rank *k = rank_of(v, c->server);
    if (!k)
        return;
    memcpy(margin, c->margin, sizeof margin);
    c->margin[0] = '\0';
    double each = lab_measured(k->series, LAB_BY_MEMORY).median;
    bool seen = each >= lab_least(LAB_BY_MEMORY);
    ADD(margin, "reckoned from %s, %d,000 would take %s%s of the server's memory; %s",
        lab_say_whole(n, v->connections), CLIENTS / 1000, seen ? "" : "less than ",
        lab_say_kib(all, (seen ? each : lab_least(LAB_BY_MEMORY)) * CLIENTS), margin);
}

static bool choose_idle(struct lab_choice *c, const struct lab_findings *f)
{
    if (!choose_of_kind(c, f, LAB_IDLE))
        return false;
    say_memory_of_many(c, leading(f, LAB_IDLE, c->server)->headline);
    return true;
}

/* --- handlers that can't be trusted ---------------------------------------------------------- */

static const struct {
    const char *model, *crash, *leak;
} isolation[] = {
    {"process", "one client", "the client's leaving"},
    {"prefork", "one worker's clients", "worker_memory, worker_requests"},
    {"hybrid", "one worker's clients", "worker_memory, worker_requests"},
    {"thread-pool", "all clients of the listener", "worker_memory, worker_requests"},
    {"event-loop", "all clients of the listener", "worker_memory, worker_requests"},
    {"coroutine", "all clients of the listener", "worker_memory, worker_requests"},
};

enum { MODELS = sizeof isolation / sizeof isolation[0] };

const char *lab_crash_takes(const char *server)
{
    for (size_t i = 0; i < MODELS; i++)
        if (strcmp(isolation[i].model, server) == 0)
            return isolation[i].crash;
    return NULL;
}

const char *lab_leak_ends(const char *server)
{
    for (size_t i = 0; i < MODELS; i++)
        if (strcmp(isolation[i].model, server) == 0)
            return isolation[i].leak;
    return NULL;
}

static const struct lab_server *server_named(const struct lab_results *r, const char *name)
{
    for (size_t i = 0; i < r->server_count; i++)
        if (!r->servers[i].foreign && strcmp(r->servers[i].name, name) == 0)
            return &r->servers[i];
    return NULL;
}

/* CPU a request beside the best, in one load. */
static void say_price_in(struct lab_choice *c, const struct lab_verdict *v)
{
    char mine[LAB_FIGURE], best[LAB_FIGURE], point[128];
    const struct lab_rank *k = rank_of(v, c->server);
    lab_say_point(point, sizeof point, v);
    ADD(why, "%s%s of CPU a request",
        *c->why ? "; at its dearest " : "Its price: ", lab_say_us(mine, k->first.median));
    if (k != &v->rank[0])
        ADD(why, " against %s for %s", lab_say_us(best, v->rank[0].first.median),
            v->rank[0].series->server->name);
    ADD(why, " (%s; %s)", v->load->title, point);
}

/* And of who stands behind it for less. */
static void say_lesser_price_in(struct lab_choice *c, const struct lab_verdict *v,
                                const struct lab_server *lesser, const char *before)
{
    char theirs[LAB_FIGURE];
    const struct lab_rank *k = rank_of(v, lesser);
    if (k)
        ADD(but, "%s%s", before, lab_say_us(theirs, k->first.median));
}

/* What isolation costs: in the first load that is about it, and in that where it is dearest. */
static void say_price(struct lab_choice *c, const struct lab_findings *f,
                      const struct lab_server *lesser)
{
    const struct lab_verdict *first = NULL, *dearest = NULL;
    double most = 0;
    for (size_t i = 0; i < f->count; i++) {
        const struct lab_verdict *v = f->loads[i].headline;
        const struct lab_rank *k = rank_of(v, c->server);
        if (!speaks(&f->loads[i], LAB_OVERHEAD) || !k || v->first != LAB_BY_CPU)
            continue;
        double times = lab_times_better(v->first, v->rank[0].first.median, k->first.median);
        first = first ? first : v;
        dearest = times > most ? v : dearest;
        most = times > most ? times : most;
    }
    if (first) {
        say_price_in(c, first);
        say_lesser_price_in(c, first, lesser, "; its own is ");
    }
    if (dearest && dearest != first) {
        say_price_in(c, dearest);
        say_lesser_price_in(c, dearest, lesser, " and ");
    }
}

static bool choose_untrusted(struct lab_choice *c, const struct lab_findings *f)
{
    const struct lab_server *prefork = server_named(f->results, "prefork");
    for (size_t i = 0; i < 3 && !c->server; i++)
        c->server = server_named(f->results, isolation[i].model);
    if (!c->server)
        return false;
    ADD(pick, "%s", c->server->name);
    ADD(margin,
        "a crash takes %s; in thread-pool, event-loop and coroutine it takes all clients of "
        "the listener",
        lab_crash_takes(c->server->name));
    if (strcmp(c->server->name, "process") == 0) {
        ADD(margin, ". What leaks goes when the client does");
        if (prefork)
            ADD(but,
                "prefork where that price is too high: a crash takes one worker's clients, and "
                "worker_memory ends a leak");
    } else {
        ADD(margin, ". worker_memory ends a leak");
    }
    say_price(c, f, *c->but ? prefork : NULL);
    return true;
}

/* --- the rows -------------------------------------------------------------------------------- */

size_t lab_choose(const struct lab_findings *f, struct lab_choice choices[LAB_CHOICES])
{
    static const struct {
        enum lab_kind kind;
        const char *what, *example;
    } rows[LAB_CHOICES] = {
        {LAB_IO, "Handlers that wait", "an API in front of a database"},
        {LAB_CPU, "Handlers that compute", "an image resizer"},
        {LAB_MIXED, "Cheap requests beside heavy ones", "a site with a report page"},
        {LAB_IDLE, "Many idle connections", "20,000 chat clients"},
        {LAB_OVERHEAD, "Plain small answers", "health checks, cached pages"},
        {LAB_OVERHEAD, "Handlers that leak or crash", "a foreign library you can't trust"},
    };
    size_t count = 0;
    for (size_t i = 0; i < LAB_CHOICES; i++) {
        struct lab_choice *c = &choices[count];
        bool last = i + 1 == LAB_CHOICES;
        *c = (struct lab_choice){
            .anchor = last ? "untrusted" : lab_kind_name(rows[i].kind),
            .what = rows[i].what,
            .example = rows[i].example,
        };
        count += last                       ? choose_untrusted(c, f)
                 : rows[i].kind == LAB_IDLE ? choose_idle(c, f)
                                            : choose_of_kind(c, f, rows[i].kind);
    }
    return count;
}

/* SPDX-License-Identifier: MIT */
/* Why a verdict is what it is. Apart from verdict.c, which decides, since here one looks at
 * everything that was measured and says what is striking.
 *
 * A reason is looked for at each of those that are behind, in the order of `causes`: the first that
 * its figures show is said, once for all whose it is. None is said that was not measured. Numbers
 * are medians of the rounds that count.
 */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "server/lab/verdict.h"

static const double BUSY = 0.85, HELD = 0.8, FULL = 0.95;

#define ADD(field, ...) lab_add(v->field, sizeof v->field, __VA_ARGS__)

/* What was measured of a series, for short. */
struct facts {
    const char *name;
    const struct lab_series *s;
    double rps, p50, p99, cheap_p99, cpu, cpu_share, threads, processes, switches, queued, busy,
        forks, gil, blocked, loader, seconds;
    double places; /* handlers that can run at once; 0: not bounded, or not known */
};

static double fact(const struct lab_series *s, size_t field)
{
    return lab_median(s, field, NULL, NULL);
}

#define FACT(name) fact(s, offsetof(struct lab_round, name))

static struct facts facts_of(const struct lab_series *s)
{
    unsigned workers = s->server->workers, threads = s->server->threads;
    return (struct facts){
        .name = s->server->name,
        .s = s,
        .rps = FACT(rps),
        .p50 = FACT(p50_us),
        .p99 = FACT(p99_us),
        .cheap_p99 = FACT(cheap_p99_us),
        .cpu = FACT(cpu_us),
        .cpu_share = FACT(cpu_share),
        .threads = FACT(threads),
        .processes = FACT(processes),
        .switches = FACT(switches),
        .queued = FACT(queued_us),
        .busy = FACT(busy),
        .forks = FACT(forks),
        .gil = FACT(gil_held),
        .blocked = FACT(blocked),
        .loader = FACT(loader_cpu),
        .seconds = FACT(seconds),
        .places = workers && threads ? (double)workers * threads : 0,
    };
}

/* --- causes ---------------------------------------------------------------------------------- */

/* One that is behind, the best, and the figure by which it is behind. */
struct pair {
    const struct facts *f, *best;
    const struct lab_verdict *v;
    enum lab_measure m;
};

/* Each writes a clause about the one that is behind if its figures show it. */
typedef bool cause(char *to, size_t size, const struct pair *p);

static bool is_about_memory(const struct pair *p)
{
    return p->m == LAB_BY_MEMORY || p->m == LAB_BY_WHOLE;
}

static bool is_about_time(const struct pair *p)
{
    return !is_about_memory(p) && p->m != LAB_BY_CPU;
}

static void say_places(char *to, size_t size, const struct facts *f)
{
    const struct lab_server *server = f->s->server;
    if (server->threads <= 1)
        lab_say_count(to, size, server->workers, "worker", "workers");
    else
        lab_say_count(to, size, f->places, "thread", "threads");
}

static bool interpreter_lock(char *to, size_t size, const struct pair *p)
{
    char share[LAB_FIGURE];
    if (!p->v->gil || p->f->gil < HELD)
        return false;
    lab_add(to, size, "in %s the interpreter lock was held %s of the time", p->f->name,
            lab_say_share(share, p->f->gil));
    return true;
}

/* What requests waited for, and how long: said of one who was starved. */
static void say_wait(char *to, size_t size, const struct pair *p)
{
    char wait[LAB_FIGURE];
    const struct facts *f = p->f;
    if (p->v->load->loop == LAB_BATCH && f->seconds >= 0)
        lab_add(to, size, ", and the last answer came after %s",
                lab_say_us(wait, f->seconds * 1e6));
    else if (f->queued >= 1000)
        lab_add(to, size, " while requests waited %s in its queue", lab_say_us(wait, f->queued));
    else if (p->v->load->kind == LAB_MIXED && f->cheap_p99 >= 0)
        lab_add(to, size, ", and one in a hundred of the cheap requests took %s or more",
                lab_say_us(wait, f->cheap_p99));
    else if (f->p50 >= 0)
        lab_add(to, size, ", and half of the requests took %s or more", lab_say_us(wait, f->p50));
}

/* Everybody who could run a handler was busy, and there were more requests than that. */
static bool starved(char *to, size_t size, const struct pair *p)
{
    char who[64], share[LAB_FIGURE], places[LAB_FIGURE];
    const struct facts *f = p->f;
    bool waits = p->v->load->kind == LAB_IO || p->v->load->kind == LAB_MIXED;
    if (!waits || !is_about_time(p) || f->busy < BUSY || f->places < 1 ||
        f->s->connections <= f->places)
        return false;
    say_places(who, sizeof who, f);
    lab_add(to, size, "%s serves %s at a time: its %s %s busy %s of the time", f->name,
            lab_say_whole(places, f->places), who, f->places > 1 ? "were" : "was",
            lab_say_share(share, f->busy));
    say_wait(to, size, p);
    return true;
}

static bool blocked(char *to, size_t size, const struct pair *p)
{
    char times[64];
    if (!is_about_time(p) || p->f->blocked < 1)
        return false;
    lab_add(to, size, "a loop of %s was blocked %s for over 50 ms", p->f->name,
            lab_say_count(times, sizeof times, p->f->blocked, "time", "times"));
    return true;
}

static bool queue(char *to, size_t size, const struct pair *p)
{
    char wait[LAB_FIGURE], theirs[LAB_FIGURE], who[64];
    const struct facts *f = p->f, *best = p->best;
    if (!is_about_time(p) || f->queued < 500 || f->queued < 0.2 * f->p50 ||
        f->queued < 1.5 * best->queued)
        return false;
    lab_add(to, size, "in %s requests waited %s in the queue", f->name,
            lab_say_us(wait, f->queued));
    if (f->places >= 1) {
        say_places(who, sizeof who, f);
        lab_add(to, size, " for its %s", who);
    }
    if (best->queued >= 0)
        lab_add(to, size, " against %s", lab_say_us(theirs, best->queued));
    return true;
}

static bool forked(char *to, size_t size, const struct pair *p)
{
    char n[LAB_FIGURE], cpu[LAB_FIGURE], theirs[LAB_FIGURE];
    const struct facts *f = p->f;
    if (is_about_memory(p) || f->forks < 0.05 || f->forks < 2 * p->best->forks)
        return false;
    lab_say_number(n, f->forks);
    lab_add(to, size, "%s made %s %s a request", f->name, n,
            strcmp(n, "1.00") == 0 ? "process" : "processes");
    if (f->cpu >= 0 && p->best->cpu >= 0)
        lab_add(to, size, " and took %s of CPU for it against %s", lab_say_us(cpu, f->cpu),
                lab_say_us(theirs, p->best->cpu));
    return true;
}

/* While it had work, it did not use what there was. */
static bool left_cpus_idle(char *to, size_t size, const struct pair *p)
{
    char mine[LAB_FIGURE], theirs[LAB_FIGURE];
    if (p->v->load->kind != LAB_CPU || !is_about_time(p) || p->f->cpu_share < 0 ||
        p->best->cpu_share < 1.15 * p->f->cpu_share)
        return false;
    lab_add(to, size, "%s had %s CPUs busy where %s had %s", p->f->name,
            lab_say_number(mine, p->f->cpu_share), p->best->name,
            lab_say_number(theirs, p->best->cpu_share));
    return true;
}

/* Memory is what was asked for: how many share it. */
static bool holds_many(char *to, size_t size, const struct pair *p)
{
    char n[64], theirs[LAB_FIGURE];
    const struct facts *f = p->f, *best = p->best;
    if (!is_about_memory(p))
        return false;
    if (f->processes >= 8 && f->processes > 2 * best->processes)
        lab_add(to, size, "%s was %s where %s was %s", f->name,
                lab_say_count(n, sizeof n, f->processes, "process", "processes"), best->name,
                lab_say_whole(theirs, best->processes));
    else if (f->threads >= 8 && f->threads > 2 * best->threads)
        lab_add(to, size, "%s had %s where %s had %s", f->name,
                lab_say_count(n, sizeof n, f->threads, "thread", "threads"), best->name,
                lab_say_whole(theirs, best->threads));
    else
        return false;
    return true;
}

static bool switched(char *to, size_t size, const struct pair *p)
{
    char mine[LAB_FIGURE], theirs[LAB_FIGURE];
    const struct facts *f = p->f, *best = p->best;
    if (is_about_memory(p) || p->v->load->kind != LAB_OVERHEAD || best->switches < 0 ||
        f->switches < best->switches + 0.1 || f->switches < 1.3 * best->switches)
        return false;
    lab_add(to, size, "%s made %s context switches a request where %s made %s", f->name,
            lab_say_number(mine, f->switches), best->name, lab_say_number(theirs, best->switches));
    return true;
}

/* Those who wait longest, where waiting is all there is. */
static bool has_a_tail(char *to, size_t size, const struct pair *p)
{
    char mine[LAB_FIGURE], theirs[LAB_FIGURE];
    if (p->v->load->kind != LAB_IO || !is_about_time(p) || p->best->p99 < 0 ||
        p->f->p99 < 1.5 * p->best->p99)
        return false;
    lab_add(to, size, "of %s one request in a hundred took %s or more, against %s", p->f->name,
            lab_say_us(mine, p->f->p99), lab_say_us(theirs, p->best->p99));
    return true;
}

static bool took_more_cpu(char *to, size_t size, const struct pair *p)
{
    char mine[LAB_FIGURE], theirs[LAB_FIGURE];
    if (!is_about_time(p) || p->best->cpu < 0 || p->f->cpu < 1.1 * p->best->cpu)
        return false;
    lab_add(to, size, "%s took %s of CPU a request against %s", p->f->name,
            lab_say_us(mine, p->f->cpu), lab_say_us(theirs, p->best->cpu));
    return true;
}

static cause *const causes[] = {interpreter_lock, holds_many,   starved,        blocked,
                                forked,           queue,        left_cpus_idle, switched,
                                has_a_tail,       took_more_cpu};

enum { CAUSES = sizeof causes / sizeof causes[0] };

/* The first that its figures show; CAUSES: none. */
static size_t say_cause(char *to, size_t size, const struct pair *p)
{
    for (size_t i = 0; i < CAUSES; i++)
        if (causes[i](to, size, p))
            return i;
    return CAUSES;
}

/* --- why ------------------------------------------------------------------------------------- */

/* What was measured of the chosen one. */
static void say_best(struct lab_verdict *v, const struct facts *f)
{
    char a[LAB_FIGURE], b[LAB_FIGURE];
    if (v->first == LAB_BY_MEMORY) {
        ADD(why, "%s held %s connections", f->name, lab_say_whole(a, v->connections));
    } else if (v->load->loop == LAB_BATCH) {
        ADD(why, "%s had answered all %u after %s", f->name, v->connections,
            lab_say_us(a, f->seconds < 0 ? f->seconds : f->seconds * 1e6));
    } else if (v->load->kind == LAB_MIXED) {
        ADD(why, "%s answered 99" LAB_NBSP "%% of the cheap requests within %s", f->name,
            lab_say_us(a, f->cheap_p99));
    } else if (v->load->kind == LAB_CPU && v->equals_first > 1 && f->cpu >= 0) {
        ADD(why, "%s answered 99" LAB_NBSP "%% within %s, for %s of CPU a request", f->name,
            lab_say_us(a, f->p99), lab_say_us(b, f->cpu));
    } else if ((v->load->kind == LAB_IO || f->cpu < 0) && f->p50 >= 0) {
        ADD(why, "%s answered half within %s and 99" LAB_NBSP "%% within %s", f->name,
            lab_say_us(a, f->p50), lab_say_us(b, f->p99));
    } else if (f->cpu < 0) {
        ADD(why, "%s answered %s requests a second", f->name, lab_say_number(a, f->rps));
    } else {
        ADD(why, "%s took %s of CPU a request", f->name, lab_say_us(a, f->cpu));
        if (f->switches >= 0 && v->load->kind == LAB_OVERHEAD)
            ADD(why, " and made %s context switches", lab_say_number(b, f->switches));
    }
}

/* Of those at the front: the lowest and highest of a number; false if one is not known. */
static bool extremes(const struct lab_verdict *v, size_t field, double *low, double *high)
{
    *low = INFINITY;
    *high = 0;
    for (unsigned i = 0; i < v->equals; i++) {
        double n = fact(v->rank[i].series, field);
        if (n < 0)
            return false;
        *low = n < *low ? n : *low;
        *high = n > *high ? n : *high;
    }
    return true;
}

#define EXTREMES(name) extremes(v, offsetof(struct lab_round, name), &low, &high)

/* Why they can't be told apart, if the figures show it. */
static void say_why_equal(struct lab_verdict *v)
{
    char a[LAB_FIGURE], b[LAB_FIGURE], all[32] = "both";
    double low, high;
    if (v->equals < 2)
        return;
    if (v->equals > 2)
        snprintf(all, sizeof all, "all %u", v->equals);
    ADD(why, "; ");
    if (v->load->kind == LAB_CPU && EXTREMES(cpu_share) && low >= 0.9) {
        lab_say_number(a, low);
        lab_say_number(b, high);
        ADD(why, "%s had %s", all, a);
        if (strcmp(a, b) != 0)
            ADD(why, " to %s", b);
        ADD(why, " CPUs busy, so none computes faster");
    } else if (v->load->kind == LAB_IO && EXTREMES(busy) && high < BUSY) {
        ADD(why, "none of them was out of workers or threads (busy %s at most)",
            lab_say_share(a, high));
    } else if (v->first == LAB_BY_RPS && EXTREMES(loader_cpu) && low >= FULL) {
        ADD(why, "with %s the loader had no CPU left", all);
    } else {
        ADD(why, "%s are too near to be told apart", all);
    }
}

/* What was found of those behind: a clause for each cause, and who shares it. */
struct clause {
    size_t cause;
    char text[320];
    char others[256];
};

static void find_clause(struct clause *clauses, size_t *count, const struct pair *p)
{
    char text[sizeof clauses->text] = "", places[LAB_FIGURE];
    size_t found = say_cause(text, sizeof text, p), i = 0;
    if (found == CAUSES)
        return;
    while (i < *count && clauses[i].cause != found)
        i++;
    if (i < *count) {
        lab_add(clauses[i].others, sizeof clauses->others, "%s%s", *clauses[i].others ? ", " : "",
                p->f->name);
        if (causes[found] == starved)
            lab_add(clauses[i].others, sizeof clauses->others, " with its %s",
                    lab_say_whole(places, p->f->places));
        return;
    }
    clauses[i] = (struct clause){.cause = found};
    lab_add(clauses[i].text, sizeof clauses->text, "%s", text);
    ++*count;
}

/* The worst first: there a cause is plainest. */
static void say_losers(struct lab_verdict *v, const struct facts *best)
{
    struct clause clauses[CAUSES];
    size_t count = 0;
    for (unsigned i = v->able; i-- > v->equals;) {
        struct facts f = facts_of(v->rank[i].series);
        find_clause(clauses, &count,
                    &(struct pair){&f, best, v, i < v->equals_first ? v->second : v->first});
    }
    for (size_t i = 0; i < count; i++) {
        ADD(why, "; %s", clauses[i].text);
        if (*clauses[i].others)
            ADD(why, " (likewise %s)", clauses[i].others);
    }
}

void lab_say_why(struct lab_verdict *v)
{
    v->why[0] = '\0';
    if (!v->able)
        return;
    struct facts best = facts_of(v->rank[0].series);
    say_best(v, &best);
    say_why_equal(v);
    say_losers(v, &best);
}

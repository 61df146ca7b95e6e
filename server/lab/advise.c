/* SPDX-License-Identifier: MIT */
/* Whether another model would suit: see server/lab/advise.h. */
#include "server/lab/advise.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Shares above which something is said to be so. */
#define WAITS       0.8 /* of a request's time that no CPU works for it */
#define BUSY        0.9 /* of the places */
#define LOCK_HELD   0.8
#define FORKS       0.5 /* processes a request */
#define QUEUE_SHARE 0.1 /* of a request's time */

enum { MANY_IDLE = 500, WAIT_LEAST_US = 2000 };

__attribute__((format(printf, 2, 3))) static void add(struct advice *a, const char *format, ...)
{
    size_t len = strlen(a->text);
    va_list args;
    va_start(args, format);
    vsnprintf(a->text + len, sizeof a->text - len, format, args);
    va_end(args);
}

static bool is(const struct advise_facts *f, const char *model)
{
    return strcmp(f->model, model) == 0;
}

static bool has_loops(const struct advise_facts *f)
{
    return is(f, "event-loop") || is(f, "coroutine");
}

/* Requests in progress on average: arrivals times stay (Little 1961). */
static double in_progress(const struct advise_facts *f)
{
    return f->seconds > 0 ? f->requests / f->seconds * f->latency_us / 1e6 : 0;
}

static double own_us(const struct advise_facts *f)
{
    return f->latency_us - f->queued_us;
}

static bool waits(const struct advise_facts *f)
{
    return f->cpu_us >= 0 && own_us(f) >= WAIT_LEAST_US &&
           f->cpu_us + f->delay_us < (1 - WAITS) * own_us(f);
}

static double busy_share(const struct advise_facts *f)
{
    return f->places > 0 ? f->busy / f->places : 0;
}

static bool is_full(const struct advise_facts *f)
{
    return busy_share(f) >= BUSY || f->queued_us > QUEUE_SHARE * f->latency_us;
}

static void say_what_it_did(const struct advise_facts *f, struct advice *a)
{
    add(a, "%s (%s) answered %.0f requests a second for %.1f s, %.2f ms each", f->listener,
        f->model, f->requests / f->seconds, f->seconds, f->latency_us / 1e3);
    if (f->cpu_us >= 0)
        add(a, ", of which %.3f ms on a CPU", f->cpu_us / 1e3);
    add(a, "; %.1f were in progress on average", in_progress(f));
    if (f->places > 0)
        add(a, ", and %.1f of %.0f places at work", f->busy, f->places);
    add(a, ".\n");
}

/* --- reasons --------------------------------------------------------------------------------- */

static bool blocks_loops(const struct advise_facts *f, struct advice *a)
{
    if (f->blocked < 1 || !has_loops(f))
        return false;
    add(a,
        "A handler has held its loop %.0f times for over 50 ms, and all other connections of the "
        "loop waited with it. With thread-pool it holds a thread. (Or mark it as one that blocks: "
        "then helpers run it.)\n",
        f->blocked);
    a->model = "thread-pool";
    return true;
}

static bool waits_in_line(const struct advise_facts *f, struct advice *a)
{
    if (!waits(f) || !is_full(f) || is(f, "coroutine"))
        return false;
    add(a,
        "Its requests wait (%.0f %% of their time no CPU works for them), and there are too few "
        "places to wait in",
        100 * (1 - (f->cpu_us + f->delay_us) / own_us(f)));
    if (f->queued_us > 0)
        add(a, ": they waited %.2f ms for one", f->queued_us / 1e3);
    add(a,
        ". With coroutine a request that waits through the library takes a stack, and no thread or "
        "process; one that waits outside of it needs more places here instead.\n");
    a->model = "coroutine";
    return true;
}

static bool is_locked(const struct advise_facts *f, struct advice *a)
{
    if (f->gil_share < LOCK_HELD)
        return false;
    add(a,
        "The interpreter lock was held %.0f %% of the time: what computes has one CPU in each "
        "process, of %u.\n",
        100 * f->gil_share, f->cpus);
    a->gil_off = true;
    return true;
}

static bool forks_a_lot(const struct advise_facts *f, struct advice *a)
{
    if (!is(f, "process") || f->requests < ADVISE_LEAST || f->accepted < FORKS * f->requests)
        return false;
    add(a,
        "It made %.2f processes a request%s. prefork keeps them, and a crash still takes one "
        "worker only.\n",
        f->accepted / f->requests, f->cpu_us >= 0 ? ", which is most of that CPU time" : "");
    a->model = "prefork";
    return true;
}

static bool holds_idle(const struct advise_facts *f, struct advice *a)
{
    if (!is(f, "process") || f->idle < MANY_IDLE)
        return false;
    add(a,
        "%.0f connections are idle, and each has a process. With event-loop an idle one takes a "
        "few "
        "hundred bytes.\n",
        f->idle);
    a->model = "event-loop";
    return true;
}

/* All that is left is that nothing is wrong, or that nobody knows. */
static void say_it_suits(const struct advise_facts *f, struct advice *a)
{
    if (waits(f))
        add(a, "Its requests wait, and there is room for them: %s suits.\n", f->model);
    else if (f->cpu_us >= 0 && f->cpu_us * f->requests > 0.8 * f->cpus * f->seconds * 1e6)
        add(a, "Its CPUs are busy: no model makes more of them. %s suits.\n", f->model);
    else if (f->cpu_us < 0 && is_full(f))
        add(a, "Its places are all at work, and whether they wait or compute is unknown, since its "
               "workers were replaced meanwhile: watch again.\n");
    else
        add(a, "Nothing waits for want of a place: %s suits.\n", f->model);
}

void advise(const struct advise_facts *f, struct advice *a)
{
    static bool (*const reasons[])(const struct advise_facts *f, struct advice *a) = {
        blocks_loops, is_locked, waits_in_line, forks_a_lot, holds_idle};
    *a = (struct advice){0};
    if (f->requests < ADVISE_LEAST && f->idle < MANY_IDLE) {
        add(a, "%s (%s) answered %.0f requests in %.1f s: too few to say anything.\n", f->listener,
            f->model, f->requests, f->seconds);
        return;
    }
    say_what_it_did(f, a);
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i](f, a))
            return;
    say_it_suits(f, a);
}

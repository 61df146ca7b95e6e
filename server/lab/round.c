/* SPDX-License-Identifier: MIT */
/* One round: see server/lab/round.h. Before and after it the sums are read, of the server's processes,
 * of what it tells, of the machine; in its middle a thread looks at what has no sum: memory, threads,
 * who is busy. */
#include "server/lab/round.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "concurrency/coroutine.h"
#include "concurrency/thread.h"
#include "server/lab/loader.h"
#include "server/lab/costs.h"
#include "server/lab/slow.h"
#include "server/lab/wrk.h"

enum { SLOW_CLIENTS = 200, BATCH_SECONDS = 120, BATCH_LOOK_MS = 50, BEGUN_MS = 10 };

/* More than that, by others than server and loader, or by the host, and a round is doubted. */
#define OTHERS_MOST 0.10
#define STEAL_MOST  0.03
/* p99 of what an open loop's loader was late by itself, if that is half of what is measured, too. */
#define LAG_MOST_US 2000

struct state {
    int64_t at_ns;
    struct lab_tree tree;
    struct lab_machine_sample machine;
    struct lab_told told;
    double own_us; /* of the lab and of loaders that have ended */
};

struct middle {
    const struct lab_round_plan *plan;
    atomic_bool begun; /* what is to be looked at; wrk says nothing of that */
    struct lab_tree tree;
    struct lab_told told;
    double pss_kib;
};

static double own_us(void)
{
    double sum = 0;
    static const int who[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (int i = 0; i < 2; i++) {
        struct rusage u;
        getrusage(who[i], &u);
        sum += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    }
    return sum;
}

static void look(const struct lab_round_plan *plan, struct state *s)
{
    *s = (struct state){.at_ns = modus_now_ns()};
    if (plan->rig) {
        lab_rig_ask(plan->rig, &s->told);
        lab_tree_read(plan->rig->pid, &s->tree);
    }
    lab_machine_read(&s->machine, plan->loader_cpu);
    s->own_us = own_us();
}

/* --- the load -------------------------------------------------------------------------------- */

static void fill_path(char *to, size_t size, const struct lab_round_plan *plan, const char *path)
{
    const char *mark = strstr(path, "%d"), *ms = strstr(path, "ms=");
    const struct lab_work *w = plan->work;
    if (mark)
        snprintf(to, size, "%.*s%.0f%s", (int)(mark - path), path,
                 w->spin_ms * plan->additions_a_ms, mark + 2);
    else if (ms && w->batch)
        snprintf(to, size, "%.*s%.0f", (int)(ms + 3 - path), path,
                 strtod(ms + 3, NULL) * plan->wait_scale);
    else
        snprintf(to, size, "%s", path);
}

static int run_wrk(const struct lab_round_plan *plan, struct lab_load_result *result, char *why,
                   size_t why_size)
{
    const struct lab_work *w = plan->work;
    char path[256], url[512];
    fill_path(path, sizeof path, plan, w->path);
    snprintf(url, sizeof url, "%s%s", plan->url, path);
    struct lab_wrk_plan wrk = {.url = url,
                               .connections = plan->connections,
                               .pipeline = w->pipeline,
                               .close = w->close,
                               .seconds = plan->seconds,
                               .folder = plan->folder,
                               .stop = plan->stop};
    return lab_wrk_run(&wrk, result, why, why_size);
}

/* wrk has none of its own, and a batch is all there is. */
static double warm_seconds(const struct lab_work *w)
{
    return w->batch || lab_work_is_wrks(w) ? 0 : 0.2;
}

static int run_own(const struct lab_round_plan *plan, struct lab_load_result *result,
                   atomic_bool *begun, char *why, size_t why_size)
{
    const struct lab_work *w = plan->work;
    char path[256], dear[256], url[512];
    fill_path(path, sizeof path, plan, w->path);
    snprintf(url, sizeof url, "%s%s", plan->url, path);
    struct lab_plan own = {.rate = w->rate,
                           .poisson = w->rate > 0,
                           .connections = plan->connections,
                           .requests = w->batch,
                           .close = w->close,
                           .warm_seconds = warm_seconds(w),
                           .seconds = w->batch ? BATCH_SECONDS : plan->seconds,
                           .timeout_seconds = w->batch ? BATCH_SECONDS : 10,
                           .hold = w->hold,
                           .seed = plan->repeat + 1,
                           .stop = plan->stop,
                           .begun = begun};
    if (w->dear) {
        fill_path(dear, sizeof dear, plan, w->dear);
        own.dear = dear;
        own.dear_every = w->dear_every;
    }
    if (lab_url_parse(url, &own.url, why, why_size) != 0)
        return -1;
    return lab_load_run(&own, result, why, why_size);
}

/* --- the middle ------------------------------------------------------------------------------ */

/* In its first half, so that all that waited is answered within the round. */
static void stand_still(const struct lab_round_plan *plan)
{
    modus_co_sleep(modus_ms((int64_t)(plan->seconds * 250)));
    lab_tree_signal(plan->rig->pid, SIGSTOP);
    modus_co_sleep(modus_ms(plan->work->stall_ms));
    lab_tree_signal(plan->rig->pid, SIGCONT);
}

static void *look_in_the_middle(void *argument)
{
    struct middle *m = argument;
    while (!atomic_load(&m->begun))
        modus_co_sleep(modus_ms(BEGUN_MS));
    bool soon = m->plan->work->batch != 0; /* how long that takes nobody knows */
    if (m->plan->work->stall_ms)
        stand_still(m->plan);
    else
        modus_co_sleep(modus_ms(soon ? BATCH_LOOK_MS : (int64_t)(m->plan->seconds * 500)));
    lab_tree_read(m->plan->rig->pid, &m->tree);
    if (lab_rig_ask(m->plan->rig, &m->told) != 0)
        m->told.places = 0;
    m->pss_kib = lab_tree_pss_kib(m->plan->rig->pid); /* last: of many processes it takes long */
    return NULL;
}

static struct modus_thread *start_middle(struct middle *m)
{
    struct modus_thread *thread = NULL;
    if (!m->plan->rig || modus_thread_new(&thread, NULL, look_in_the_middle, m) != 0)
        return NULL;
    if (modus_thread_start(thread) == 0)
        return thread;
    modus_thread_put(thread);
    return NULL;
}

static bool end_middle(struct modus_thread *thread)
{
    if (!thread)
        return false;
    modus_thread_join(thread, MODUS_FOREVER, NULL);
    modus_thread_put(thread);
    return true;
}

/* --- figures --------------------------------------------------------------------------------- */

/* Of no answer nobody knows how long it took. */
static double quantile_us(const struct lab_histogram *h, double share)
{
    return h->count ? (double)lab_histogram_at(h, share) / 1e3 : LAB_UNKNOWN;
}

static void take_answers(const struct lab_round_plan *plan, const struct lab_load_result *r,
                         struct lab_round *round)
{
    const struct lab_histogram *h = &r->latency;
    round->seconds = plan->work->batch ? (double)h->max / 1e9 : r->seconds;
    round->offered =
        plan->work->rate > 0 && r->seconds > 0 ? (double)r->due / r->seconds : LAB_UNKNOWN;
    round->requests = r->answered;
    round->rps = round->seconds > 0 ? (double)r->answered / round->seconds : 0;
    round->errors = (struct lab_errors){.connect = r->connect_failed,
                                        .read = r->read_failed,
                                        .write = r->write_failed,
                                        .timeout = r->timed_out + r->unsent,
                                        .status = r->refused};
    round->p50_us = quantile_us(h, .5);
    round->p90_us = quantile_us(h, .9);
    round->p99_us = quantile_us(h, .99);
    round->p999_us = quantile_us(h, .999);
    round->max_us = quantile_us(h, 1);
    const struct lab_histogram *cheap = plan->work->dear ? &r->cheap : h;
    if (plan->work->load.kind == LAB_MIXED) /* the slow and the dear are not among these */
        round->cheap_p99_us = quantile_us(cheap, .99);
    round->latency = cheap->count ? malloc(sizeof *round->latency) : NULL;
    if (round->latency)
        *round->latency = *cheap;
}

static double a_request(double sum, const struct lab_round *round)
{
    return round->requests && sum >= 0 ? sum / (double)round->requests : LAB_UNKNOWN;
}

static void take_costs(const struct state *before, const struct state *after,
                       struct lab_round *round)
{
    double cpu_us = after->tree.cpu_us - before->tree.cpu_us;
    double between_us = (double)(after->at_ns - before->at_ns) / 1e3;
    double queued = after->told.queued_count - before->told.queued_count;
    double waited = after->told.queued_us - before->told.queued_us;
    round->cpu_us = a_request(cpu_us, round);
    round->cpu_share = cpu_us / between_us;
    if (!after->told.has_children)
        round->switches = a_request(after->tree.switches - before->tree.switches, round);
    round->queued_us = after->told.has_queue && queued > 0 ? waited / queued : LAB_UNKNOWN;
    round->forks = after->told.has_children
                       ? a_request(after->told.accepted - before->told.accepted, round)
                       : 0;
    round->rejected = after->told.rejected - before->told.rejected;
    round->blocked = after->told.blocked - before->told.blocked;
    if (after->told.has_gil)
        round->gil_held = (after->told.gil_held_us - before->told.gil_held_us) / between_us;
}

/* Those of processes that have ended are lost. A child for each connection lives in the middle, unless a
 * connection has but a request. */
static double switches_of_children(const struct state *before, const struct middle *m)
{
    double requests = m->told.requests - before->told.requests;
    double accepted = m->told.accepted - before->told.accepted;
    return requests > 10 * accepted ? (m->tree.switches - before->tree.switches) / requests
                                    : LAB_UNKNOWN;
}

static void take_middle(const struct state *before, const struct middle *m, struct lab_round *round)
{
    if (m->told.has_children)
        round->switches = switches_of_children(before, m);
    round->pss_kib = m->pss_kib;
    round->threads = m->tree.threads;
    round->processes = m->tree.processes;
    if (m->told.places > 0)
        round->busy = m->told.busy / m->told.places;
}

/* Who else used the CPUs, and was the loader in time? */
static void judge(const struct state *before, const struct state *after,
                  const struct lab_load_result *result, struct lab_round *round, char doubt[96])
{
    double lag_us = (double)lab_histogram_at(&result->lag, .99) / 1e3;
    bool late = lag_us > LAG_MOST_US && lag_us > round->p99_us / 2;
    const struct lab_machine_sample *a = &after->machine, *b = &before->machine;
    double all = a->all - b->all;
    double known =
        (after->tree.cpu_us - before->tree.cpu_us + after->own_us - before->own_us) / 1e6;
    double others = all > 0 ? (a->busy - b->busy - (a->steal - b->steal) - known) / all : 0;
    round->load1 = a->load1;
    round->steal = all > 0 ? (a->steal - b->steal) / all : 0;
    round->loader_cpu = a->cpu_all > b->cpu_all
                            ? (a->cpu_busy - b->cpu_busy) / (a->cpu_all - b->cpu_all)
                            : LAB_UNKNOWN;
    round->trusted = round->steal <= STEAL_MOST && others <= OTHERS_MOST && !late;
    if (round->trusted)
        return;
    if (late)
        snprintf(doubt, 96, "the loader was %.0f ms late itself", lag_us / 1e3);
    else if (round->steal > STEAL_MOST)
        snprintf(doubt, 96, "the host took %.0f %% of the time", round->steal * 100);
    else
        snprintf(doubt, 96, "other programs used %.0f %% of the CPUs", others * 100);
    round->doubt = doubt;
}

/* Then the figures are of another server, or of a part of one. */
static bool has_died(const struct lab_round_plan *plan, const struct state *before,
                     const struct state *after, char why[300])
{
    double deaths = after->told.deaths - before->told.deaths;
    if (!lab_rig_lives(plan->rig))
        snprintf(why, 300, "the server has died");
    else if (deaths > 0)
        snprintf(why, 300, "%.0f of its workers died", deaths);
    else
        return false;
    return true;
}

/* --- all of it -------------------------------------------------------------------------------- */

static void measure(const struct lab_round_plan *plan, struct lab_round *round,
                    struct lab_round_texts *texts)
{
    static struct lab_load_result result; /* large */
    struct middle middle = {.plan = plan, .begun = lab_work_is_wrks(plan->work)};
    struct state before, after;
    look(plan, &before);
    struct modus_thread *thread = start_middle(&middle);
    int rc = lab_work_is_wrks(plan->work)
                 ? run_wrk(plan, &result, texts->error, sizeof texts->error)
                 : run_own(plan, &result, &middle.begun, texts->error, sizeof texts->error);
    atomic_store(&middle.begun, true); /* or there was no beginning */
    bool seen = end_middle(thread);
    look(plan, &after);
    if (rc != 0) {
        round->error = texts->error;
        return;
    }
    take_answers(plan, &result, round);
    judge(&before, &after, &result, round, texts->doubt);
    if (plan->rig && has_died(plan, &before, &after, texts->error)) {
        round->error = texts->error;
        return;
    }
    if (plan->rig)
        take_costs(&before, &after, round);
    if (seen)
        take_middle(&before, &middle, round);
}

void lab_round_make(const struct lab_round_plan *plan, struct lab_round *round,
                    struct lab_round_texts *texts)
{
    double unknown = LAB_UNKNOWN;
    struct lab_url url;
    struct modus_process *slow = NULL;
    char why[300];
    *round = (struct lab_round){.repeat = plan->repeat,
                                .cheap_p99_us = unknown,
                                .cpu_us = unknown,
                                .cpu_share = unknown,
                                .pss_kib = unknown,
                                .pss_idle_kib = unknown,
                                .threads = unknown,
                                .processes = unknown,
                                .switches = unknown,
                                .queued_us = unknown,
                                .busy = unknown,
                                .forks = unknown,
                                .gil_held = unknown,
                                .blocked = unknown,
                                .rejected = unknown};
    if (plan->rig && !lab_rig_lives(plan->rig)) {
        snprintf(texts->error, sizeof texts->error, "its server does not run");
        round->error = texts->error;
        return;
    }
    if (plan->rig) {
        lab_tree_pin(plan->rig->pid, plan->work->all_cpus ? -1 : plan->server_cpu);
        round->pss_idle_kib = lab_tree_pss_kib(plan->rig->pid);
    }
    if (plan->work->slow_clients && lab_url_parse(plan->url, &url, why, sizeof why) == 0)
        slow = lab_slow_start(&url, SLOW_CLIENTS);
    measure(plan, round, texts);
    lab_slow_stop(slow);
}

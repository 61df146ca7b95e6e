/* SPDX-License-Identifier: MIT */
/* A reload: the file is read and all that is new of it built and started, before anything of the old
 * is retired. What says the same as before is left alone: same workers, same connections. If any of
 * it fails, what was begun is taken down again, and nothing has changed.
 *
 * Requests that come meanwhile get a reload of their own afterwards: the file may have changed since
 * it was read.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/log.h"
#include "server/notify.h"
#include "server/supervisor_priv.h"

enum {
    START_MS = 30000,
    LOOK_MS = 5,
    RETIRE_MS = 1000,
    CROWD_MS = 1000,
    GENERATIONS_MAX = 3,
    WHY = 1024
};

struct reload_request {
    void (*done)(void *arg, const char *why);
    void *arg;
    struct reload_request *next;
    char *listener,
        *model; /* not the file anew, but what serves, and this listener by that model */
};

struct reload {
    struct config *config;
    struct generation **serving; /* for each listener of config: one that goes on, or a new one */
    struct reload_request *requests;
    unsigned changed; /* listeners */
    int64_t
        until_ms; /* committed: to be answered at the latest; before: waits for old ones to finish */
    bool ended;
};

bool reload_has(const struct master *m, const struct config *config)
{
    return m->reload && m->reload->config == config;
}

/* --- what is old, what is new ---------------------------------------------------------------- */

static const char *title_of(const struct config_listener *conf)
{
    return conf->addresses[0].text;
}

/* The generation that serves the listener of which conf is another version: the one of the same
 * title, and of the same rank among those that have it. */
static struct generation *serving_now(const struct master *m, const struct config *config,
                                      const struct config_listener *conf)
{
    struct generation *found = NULL;
    size_t rank = 0;
    for (const struct config_listener *l = config->listeners; l < conf; l++)
        rank += strcmp(title_of(l), title_of(conf)) == 0;
    for (int last = -1;; last = (int)found->place) {
        found = NULL;
        for (struct generation *g = m->generations; g; g = g->next)
            if (g->state == GENERATION_SERVING && (int)g->place > last &&
                strcmp(title_of(g->listener.conf), title_of(conf)) == 0 &&
                (!found || g->place < found->place))
                found = g;
        if (!found || rank-- == 0)
            return found;
    }
}

/* Workers write to the error log, too: those of another one are others. */
static bool is_same(const struct generation *g, const struct config *config,
                    const struct config_listener *conf)
{
    return g->config->log_level == config->log_level &&
           strcmp(g->config->error_log, config->error_log) == 0 &&
           config_same_listener(g->listener.conf, conf) &&
           g->listener.print == listener_print(conf);
}

static void append(struct master *m, struct generation *g)
{
    struct generation **end = &m->generations;
    while (*end)
        end = &(*end)->next;
    *end = g;
}

static int refuse(const struct config *c, int line, const char *what, char *why)
{
    snprintf(why, WHY, "%s:%d: %s is changed by an upgrade or a restart only", c->file, line, what);
    return -1;
}

static int check_top(const struct master *m, const struct config *c, char *why)
{
    const struct config *now = m->config;
    if (strcmp(c->user, now->user) != 0)
        return refuse(c, c->line_user ? c->line_user : 1, "user", why);
    if (strcmp(c->pid_file, now->pid_file) != 0)
        return refuse(c, c->line_pid_file ? c->line_pid_file : 1, "pid_file", why);
    if (strcmp(c->control, now->control) != 0)
        return refuse(c, c->line_control ? c->line_control : 1, "control", why);
    return 0;
}

static int prepare_log(const struct master *m, const struct config *c, char *why)
{
    char reason[512];
    if (log_prepare(c->error_log, c->log_level, reason, sizeof reason) == 0) {
        if (m->drop_user)
            log_give(c->error_log, m->uid, m->gid);
        return 0;
    }
    snprintf(why, WHY, "%s:%d: %s", c->file, c->line_error_log ? c->line_error_log : 1, reason);
    return -1;
}

static int build(struct master *m, struct reload *r, char *why)
{
    struct config *c = r->config;
    if (prepare_log(m, c, why) != 0)
        return -1;
    for (size_t i = 0; i < c->listener_count; i++) {
        struct config_listener *conf = &c->listeners[i];
        struct generation *before = serving_now(m, c, conf);
        if (before && is_same(before, c, conf)) {
            r->serving[i] = before;
            continue;
        }
        struct generation *g = generation_new(m, c, conf, before, why, WHY);
        if (!g)
            return -1;
        append(m, g);
        r->serving[i] = g;
    }
    for (size_t i = 0; i < c->listener_count; i++) {
        struct generation *g = r->serving[i];
        if (g->state == GENERATION_STARTING && workers_start(g) != 0) {
            snprintf(why, WHY, "%s:%d: cannot make the processes of %s", c->file,
                     g->listener.conf->line, listener_name(&g->listener));
            return -1;
        }
    }
    return 0;
}

/* --- the end --------------------------------------------------------------------------------- */

static void start_next(struct master *m);

static void free_request(struct reload_request *request)
{
    if (request) {
        free(request->listener);
        free(request->model);
    }
    free(request);
}

static void answer(struct reload_request *requests, const char *why)
{
    while (requests) {
        struct reload_request *request = requests;
        requests = request->next;
        request->done(request->arg, why);
        free_request(request);
    }
}

/* Taken or not, it serves. */
static void say_outcome(const struct master *m, const struct reload_request *by, const char *why)
{
    char text[WHY + 160];
    if (by->model)
        snprintf(text, sizeof text, "%.64s is not switched to %.64s: %s", by->listener, by->model,
                 why ? why : "");
    else
        snprintf(text, sizeof text, "not reloaded: %s", why ? why : "");
    if (why)
        log_error("%s", text);
    if (!m->stopping)
        supervisor_notify_serving(m, why ? text : NULL);
}

/* One reading of the file, or one switch, has come to an end: it is seen before it is answered. */
static void conclude(struct master *m, struct reload_request *requests, const char *why)
{
    say_outcome(m, requests, why);
    if (requests->model)
        directory_switched(m->directory, why);
    else
        directory_reloaded(m->directory, why);
    answer(requests, why);
}

static void end(struct master *m, const char *why)
{
    struct reload *r = m->reload;
    struct config *config = r->config;
    uv_timer_stop(&m->reload_timer);
    m->reload = NULL;
    generations_free_config(m, config);
    conclude(m, r->requests, why);
    free(r->serving);
    free(r);
    start_next(m);
}

/* What was begun is taken down again. */
void reload_fail(struct master *m, const char *why)
{
    struct reload *r = m->reload;
    char kept[WHY];
    if (!r)
        return;
    if (r->ended) {
        if (m->stopping)
            end(m, NULL); /* it was taken */
        return;
    }
    r->ended = true;
    snprintf(kept, sizeof kept, "%s", why); /* it may be about what goes now */
    log_forget();
    struct generation *g = m->generations;
    while (g) {
        struct generation *next = g->next;
        if (g->state == GENERATION_STARTING)
            generation_abandon(g);
        g = next;
    }
    end(m, kept);
}

static bool is_served_by(const struct reload *r, const struct generation *g)
{
    for (size_t i = 0; i < r->config->listener_count; i++)
        if (r->serving[i] == g)
            return true;
    return false;
}

static const struct generation *successor_of(const struct reload *r, const struct generation *g)
{
    for (size_t i = 0; i < r->config->listener_count; i++)
        if (r->serving[i]->state == GENERATION_STARTING && r->serving[i]->before == g)
            return r->serving[i];
    return NULL;
}

static int by_age(const void *a, const void *b)
{
    const struct listing *const *la = a, *const *lb = b;
    return (*la)->number < (*lb)->number ? 1 : -1;
}

/* Of each listener the newest generation, then its older ones; at last those that are no more. */
static void order_listings(struct master *m, const struct reload *r)
{
    size_t count = 0, n = 0;
    for (const struct generation *g = m->generations; g; g = g->next)
        count++;
    struct listing **listings = calloc(count, sizeof *listings);
    if (!listings)
        return;
    for (size_t i = 0; i < r->config->listener_count; i++) {
        const struct listing *newest = r->serving[i]->listing;
        listings[n++] = r->serving[i]->listing;
        size_t first = n;
        for (const struct generation *g = m->generations; g; g = g->next)
            if (g->listing != newest && g->listing->past == newest->past)
                listings[n++] = g->listing;
        qsort(listings + first, n - first, sizeof *listings, by_age);
    }
    for (const struct generation *g = m->generations; g; g = g->next) {
        bool there = false;
        for (size_t i = 0; i < n; i++)
            there |= listings[i] == g->listing;
        if (!there)
            listings[n++] = g->listing;
    }
    directory_set(m->directory, listings, n);
    free(listings);
}

/* The oldest generation of a listener, if that has too many. */
static struct generation *one_too_many(const struct master *m, const struct generation *newest)
{
    struct generation *oldest = NULL;
    unsigned alive = 0;
    for (struct generation *g = m->generations; g; g = g->next) {
        if (g->listing->past != newest->listing->past || g->killing)
            continue;
        alive++;
        if (!oldest || g->listing->number < oldest->listing->number)
            oldest = g;
    }
    return alive > GENERATIONS_MAX ? oldest : NULL;
}

/* Who changes often must not pile up old generations: the oldest are hurried. */
static void hurry_old(struct master *m, const struct generation *newest)
{
    struct generation *oldest;
    while ((oldest = one_too_many(m, newest)) != NULL) {
        log_warn("%s: generation %u is cut, since there are %d younger ones",
                 listener_name(&oldest->listener), oldest->listing->number, GENERATIONS_MAX);
        workers_kill(oldest);
    }
}

/* Its addresses are mostly its successor's now, or another listener's: those sockets go on. */
static void leave_taken(const struct reload *r, struct generation *g)
{
    for (size_t i = 0; i < g->listener.fd_count; i++)
        for (size_t j = 0; j < r->config->listener_count; j++)
            if (listener_has_socket(&r->serving[j]->listener, g->listener.fds[i])) {
                generation_leave(g, i);
                break;
            }
}

static void retire_old(struct master *m, const struct reload *r)
{
    struct generation *g = m->generations;
    while (g) {
        struct generation *next = g->next;
        const struct generation *successor = successor_of(r, g);
        if (g->state == GENERATION_SERVING && !is_served_by(r, g)) {
            leave_taken(r, g);
            if (successor)
                generation_retire(g, successor->listener.intake[0] >= 0);
            else
                generation_stop(g);
        }
        g = next;
    }
}

static int64_t now_ms(void)
{
    return (int64_t)(uv_hrtime() / 1000000);
}

static void say_taken(const struct master *m)
{
    const struct reload_request *by_hand = m->reload->requests;
    if (by_hand->model)
        log_info("switched %s to %s, until the next reload", by_hand->listener, by_hand->model);
    else
        log_info("reloaded: %u of %zu listeners changed", m->reload->changed,
                 m->config->listener_count);
}

/* Who is told that the new configuration serves must not meet the old one, and the addresses that it
 * has no more may be wanted by another. A worker that is held by a
 * handler accepts nothing meanwhile. */
static void on_look_retired(uv_timer_t *timer)
{
    struct master *m = timer->data;
    bool there = false;
    for (const struct generation *g = m->generations; g; g = g->next)
        there |= workers_accept(g) || generation_holds_addresses(g);
    if (there && now_ms() < m->reload->until_ms)
        return;
    say_taken(m);
    end(m, NULL);
}

static void commit(struct master *m)
{
    struct reload *r = m->reload;
    struct config *c = r->config, *old = m->config;
    log_take();
    r->ended = true;
    m->config = c;
    order_listings(m, r);
    retire_old(m, r);
    for (size_t i = 0; i < c->listener_count; i++) {
        struct generation *g = r->serving[i];
        g->place = i;
        if (g->state != GENERATION_STARTING)
            continue;
        r->changed++;
        generation_serve(g);
        generation_announce(g);
        hurry_old(m, g);
    }
    directory_changed(m->directory);
    generations_free_config(m, old);
    r->until_ms = now_ms() + RETIRE_MS;
    uv_timer_start(&m->reload_timer, on_look_retired, 0, LOOK_MS);
}

static void on_look_crowd(uv_timer_t *timer)
{
    reload_look(timer->data);
}

/* Would an old generation be cut? Most are about to finish, so the new ones wait a moment for it: a
 * storm of switches is slowed down, and costs no request. */
static bool waits_for_old(struct master *m, struct reload *r)
{
    bool crowd = false;
    for (size_t i = 0; i < r->config->listener_count; i++)
        crowd |= r->serving[i]->state == GENERATION_STARTING && one_too_many(m, r->serving[i]);
    if (crowd && !r->until_ms) {
        r->until_ms = now_ms() + CROWD_MS;
        uv_timer_start(&m->reload_timer, on_look_crowd, LOOK_MS, LOOK_MS);
    }
    return crowd && now_ms() < r->until_ms;
}

void reload_look(struct master *m)
{
    struct reload *r = m->reload;
    if (!r) {
        start_next(m);
        return;
    }
    for (size_t i = 0; i < r->config->listener_count; i++)
        if (!workers_ready(r->serving[i]) && r->serving[i]->state == GENERATION_STARTING)
            return;
    if (!r->ended && !waits_for_old(m, r))
        commit(m);
}

const char reload_elsewhere[] = "another server has taken over: ask again";

/* --- the beginning --------------------------------------------------------------------------- */

static void on_late(uv_timer_t *timer)
{
    reload_fail(timer->data, "the new workers are not ready after 30 s");
}

/* What serves now, with one more listener switched by hand. */
static struct config *switched(struct master *m, const struct reload_request *request, char *why)
{
    const struct config *now = m->config;
    const struct model *model = models_find(request->model);
    struct generation *wanted = generation_named(m, request->listener, why, WHY);
    if (!wanted)
        return NULL;
    if (!model) {
        snprintf(why, WHY, "there is no model \"%s\": see modus models", request->model);
        return NULL;
    }
    struct config *c = config_parse(now->file, now->folder, now->text, now->text_len, why, WHY);
    for (size_t i = 0; c && i < c->listener_count; i++)
        c->listeners[i].model = now->listeners[i].model;
    if (c)
        c->listeners[wanted->place].model = model_name(model);
    return c;
}

static struct reload *read_anew(struct master *m, const struct reload_request *request, char *why)
{
    struct reload *r = calloc(1, sizeof *r);
    struct config *c = !r               ? NULL
                       : request->model ? switched(m, request, why)
                                        : config_read(m->config->file, why, WHY);
    if (c)
        r->serving = calloc(c->listener_count, sizeof *r->serving);
    if (c && r->serving && check_top(m, c, why) == 0) {
        r->config = c;
        return r;
    }
    if (r)
        free(r->serving);
    free(r);
    config_free(c);
    return NULL;
}

/* One reading of the file is for all that have asked for it in a row. */
static struct reload_request *take_requests(struct master *m)
{
    struct reload_request *first = m->reload_requests, *last = first;
    while (!first->model && last->next && !last->next->model)
        last = last->next;
    m->reload_requests = last->next;
    last->next = NULL;
    return first;
}

static bool may_start(const struct master *m)
{
    return m->reload_requests && !m->reload && m->ready && !m->stopping && !m->leaving &&
           !upgrade_is_pending(m);
}

static void start_next(struct master *m)
{
    char why[WHY] = "no memory";
    while (may_start(m)) {
        struct reload_request *requests = take_requests(m);
        if (requests->model)
            directory_switching(m->directory, requests->listener, requests->model);
        notify("RELOADING=1\nMONOTONIC_USEC=%" PRIu64 "\nSTATUS=reloading", notify_clock_us());
        m->reload = read_anew(m, requests, why);
        if (!m->reload) {
            conclude(m, requests, why);
            continue;
        }
        m->reload->requests = requests;
        uv_timer_start(&m->reload_timer, on_late, START_MS, 0);
        if (build(m, m->reload, why) != 0)
            reload_fail(m, why);
        else
            reload_look(m);
    }
}

static void enqueue(struct master *m, struct reload_request *request)
{
    struct reload_request **at = &m->reload_requests;
    while (*at)
        at = &(*at)->next;
    *at = request;
    start_next(m);
}

/* Why nothing can be asked for now. */
static const char *why_not(const struct master *m)
{
    if (m->leaving)
        return reload_elsewhere;
    return m->stopping ? "the server stops" : "no memory";
}

void reload_begin(struct master *m, void (*done)(void *arg, const char *why), void *arg)
{
    struct reload_request *request = calloc(1, sizeof *request);
    if (!request || m->stopping || m->leaving) {
        free_request(request);
        done(arg, why_not(m));
        return;
    }
    *request = (struct reload_request){.done = done, .arg = arg};
    enqueue(m, request);
}

void reload_switch(struct master *m, const char *listener, const char *model,
                   void (*done)(void *arg, const char *why), void *arg)
{
    struct reload_request *request = calloc(1, sizeof *request);
    if (request)
        *request = (struct reload_request){
            .done = done, .arg = arg, .listener = strdup(listener), .model = strdup(model)};
    if (!request || !request->listener || !request->model || m->stopping || m->leaving) {
        free_request(request);
        done(arg, why_not(m));
        return;
    }
    enqueue(m, request);
}

void reload_pass_on(struct master *m)
{
    struct reload_request *requests = m->reload_requests;
    m->reload_requests = NULL;
    answer(requests, reload_elsewhere);
}

void reload_stop(struct master *m)
{
    static const char why[] = "the server stops";
    struct reload_request *requests = m->reload_requests;
    m->reload_requests = NULL;
    reload_fail(m, why);
    answer(requests, why);
}

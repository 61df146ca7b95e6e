/* SPDX-License-Identifier: MIT */
/* What the master does for who asks over the control socket: a line in the table below for each. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "handlers/page.h"
#include "server/log.h"
#include "server/supervisor_priv.h"

enum { TEXT_SIZE = 160 };

/* --- stop and logs --------------------------------------------------------------------------- */

/* Answered by the last act before the end: see tear_down() in supervisor.c. */
static void run_stop(void *arg, struct control_request *request, char **arguments)
{
    struct master *m = arg;
    (void)arguments;
    control_keep(&m->stops, request);
    supervisor_stop(m);
}

static void run_reopen(void *arg, struct control_request *request, char **arguments)
{
    (void)arguments;
    reopen_logs(arg, request);
}

static void on_reloaded(void *request, const char *why)
{
    if (why == reload_elsewhere)
        control_again(request);
    else if (why)
        control_refuse(request, why);
    else
        control_answer(request, NULL, 0);
}

static void run_reload(void *arg, struct control_request *request, char **arguments)
{
    (void)arguments;
    reload_begin(arg, on_reloaded, request);
}

static void run_upgrade(void *arg, struct control_request *request, char **arguments)
{
    (void)arguments;
    upgrade_begin(arg, request);
}

/* A listener that is switched by hand, and who wants it so. */
struct by_hand {
    struct control_request *request;
    char text[2 * TEXT_SIZE];
};

static void on_switched(void *arg, const char *why)
{
    struct by_hand *b = arg;
    if (why == reload_elsewhere)
        control_again(b->request);
    else if (why)
        control_refuse(b->request, why);
    else
        control_answer(b->request, b->text, strlen(b->text));
    free(b);
}

static void run_model(void *arg, struct control_request *request, char **arguments)
{
    struct by_hand *b = calloc(1, sizeof *b);
    if (!b) {
        control_refuse(request, "memory is out");
        return;
    }
    b->request = request;
    snprintf(b->text, sizeof b->text, "%.100s is served with %.32s until the next reload\n",
             arguments[0], arguments[1]);
    reload_switch(arg, arguments[0], arguments[1], on_switched, b);
}

static void run_drain(void *arg, struct control_request *request, char **arguments)
{
    struct master *m = arg;
    bool busy = m->reload || upgrade_is_pending(m);
    char why[512] = "a reload or an upgrade is under way";
    struct generation *g = busy ? NULL : generation_named(m, arguments[0], why, sizeof why);
    if (!g) {
        control_refuse(request, why);
        return;
    }
    log_info("draining %s, until the next reload", listener_name(&g->listener));
    control_keep(&g->drains, request);
    generation_stop(g);
}

/* --- status ---------------------------------------------------------------------------------- */

struct sums {
    uint64_t open, idle, active, requests, alive, workers;
};

static struct sums sums_of(const struct status_listener *l)
{
    struct sums s = {.open = l->connections_open,
                     .idle = l->connections_idle,
                     .active = l->requests_active,
                     .requests = l->requests,
                     .workers = l->worker_count};
    for (size_t i = 0; i < l->worker_count; i++)
        s.alive += l->workers[i].state != STATUS_DEAD;
    return s;
}

static void add(struct sums *to, const struct sums *s)
{
    to->open += s->open;
    to->idle += s->idle;
    to->active += s->active;
    to->requests += s->requests;
    to->alive += s->alive;
    to->workers += s->workers;
}

/* A path may hold what a terminal would obey. */
static void clean(char to[TEXT_SIZE], const char *text)
{
    snprintf(to, TEXT_SIZE, "%s", text);
    for (char *c = to; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

static void put_row(struct page *p, int width, const char *name, const char *model,
                    const struct sums *s)
{
    char text[TEXT_SIZE];
    clean(text, name);
    page_format(p, "%-*s  %-11s  %8" PRIu64 "  %6" PRIu64 "  %6" PRIu64 "  %12" PRIu64 "  %" PRIu64,
                width, text, model, s->open, s->idle, s->active, s->requests, s->alive);
    if (s->alive != s->workers)
        page_format(p, " of %" PRIu64, s->workers);
    page_puts(p, "\n");
}

static void put_uptime(struct page *p, int64_t ms)
{
    int64_t s = ms / 1000;
    if (s >= 86400)
        page_format(p, "%" PRId64 " d ", s / 86400);
    page_format(p, "%02" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600 % 24, s / 60 % 60, s % 60);
}

static int widest_name(const struct status_snapshot *s)
{
    size_t width = strlen("listener");
    for (size_t i = 0; i < s->listener_count; i++) {
        size_t len = strlen(s->listeners[i].name);
        if (len > width && len <= 48)
            width = len;
    }
    return (int)width;
}

/* A line a listener, then their sums. */
static void put_table(struct page *p, const struct status_snapshot *s)
{
    int width = widest_name(s);
    struct sums all = {0};
    char text[TEXT_SIZE];
    page_format(p, "%*s  %16s  %20s\n", width + 13, "", "connections", "requests");
    page_format(p, "%-*s  %-11s  %8s  %6s  %6s  %12s  %s\n", width, "listener", "model", "open",
                "idle", "active", "total", "workers");
    for (size_t i = 0; i < s->listener_count; i++) {
        struct sums one = sums_of(&s->listeners[i]);
        put_row(p, width, s->listeners[i].name, s->listeners[i].model, &one);
        add(&all, &one);
    }
    put_row(p, width, "total", "", &all);
    clean(text, s->config_file);
    page_format(p, "\nmodus %s, process %" PRId64 ", up ", s->version, s->pid);
    put_uptime(p, s->uptime_ms);
    page_format(p, ", %" PRIu64 " workers have died; %s\n", s->worker_deaths, text);
}

static void answer_status(struct master *m, struct control_request *request,
                          void (*put)(struct page *, const struct status_snapshot *))
{
    struct status_snapshot s = {0};
    struct page p = {0};
    if (m->status.snapshot(m->status.arg, &s) < 0) {
        control_refuse(request, "memory is out");
        return;
    }
    put(&p, &s);
    m->status.release(&s);
    if (p.failed)
        control_refuse(request, "memory is out, or the status is too large");
    else
        control_answer(request, p.bytes, p.len);
    page_fini(&p);
}

static void run_status(void *arg, struct control_request *request, char **arguments)
{
    (void)arguments;
    answer_status(arg, request, put_table);
}

static void run_status_json(void *arg, struct control_request *request, char **arguments)
{
    (void)arguments;
    answer_status(arg, request, status_json);
}

/* --- whose they are --------------------------------------------------------------------------- */

/* Two files in one folder have one control socket, unless they name others. Two names of one file are one. */
bool is_for_another(void *master, const char *file, char *why, size_t why_size)
{
    const struct master *m = master;
    struct stat theirs, ours;
    if (stat(file, &theirs) != 0 || stat(m->config->file, &ours) != 0)
        return false; /* it may be gone from where we look */
    if (theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino)
        return false;
    snprintf(why, why_size,
             "the server there runs with %s, not with %s: name its file, or give the other one a "
             "control socket of its own",
             m->config->file, file);
    return true;
}

/* --- the table ------------------------------------------------------------------------------- */

const struct control_command commands[] = {
    {"stop", 0, run_stop},
    {"status", 0, run_status},
    {"status --json", 0, run_status_json},
    {"logs reopen", 0, run_reopen},
    {"reload", 0, run_reload},
    {"upgrade", 0, run_upgrade},
    {"model", 2, run_model}, /* a listener, its new model */
    {"drain", 1, run_drain}, /* a listener */
    {0},
};

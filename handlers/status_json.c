/* SPDX-License-Identifier: MIT */
/* The status for programs, as JSON: what `modus status --json` and ?format=json say, and what a page
 * is kept up to date with. */
#include <inttypes.h>

#include "handlers/status_priv.h"

static void json_text(struct page *p, const char *key, const char *text)
{
    page_format(p, "\"%s\":", key);
    if (text)
        page_json(p, str_of(text));
    else
        page_puts(p, "null");
    page_puts(p, ",");
}

/* Its numbers are in microseconds; buckets: see "bucket_bounds_us". */
static void json_times(struct page *p, const char *key, const struct status_times *t)
{
    page_format(p,
                "\"%s\":{\"count\":%" PRIu64 ",\"sum\":%" PRIu64 ",\"p50\":%" PRIu64
                ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"p999\":%" PRIu64 ",\"max\":%" PRIu64
                ",\"buckets\":[",
                key, t->count, t->sum_us, t->p50_us, t->p90_us, t->p99_us, t->p999_us, t->max_us);
    for (unsigned i = 0; i < STATUS_BUCKETS; i++)
        page_format(p, "%s%" PRIu64, i ? "," : "", t->bucket[i]);
    page_puts(p, "]}");
}

static void json_numbers(struct page *p, const struct status_listener *l, enum status_group group)
{
    const char *comma = "";
    for (const struct status_number *n = status_numbers; n->key; n++)
        if (n->group == group) {
            page_format(p, "%s\"%s\":%" PRIu64, comma, n->key, status_number_of(l, n));
            comma = ",";
        }
}

static void json_answers(struct page *p, const struct status_listener *l)
{
    page_puts(p, ",\"answers\":{");
    for (size_t i = 0; i < STATUS_CLASSES; i++)
        page_format(p, "%s\"%s\":%" PRIu64, i ? "," : "", status_class_names[i], l->answers[i]);
    page_puts(p, "}");
}

static void json_last_blocked(struct page *p, const struct status_listener *l)
{
    if (!l->blocked_at_ms) {
        page_puts(p, ",\"last\":null");
        return;
    }
    page_puts(p, ",\"last\":{");
    json_text(p, "route", l->blocked_route);
    json_text(p, "handler", l->blocked_handler);
    page_format(p, "\"ms\":%" PRIu64 ",\"at_ms\":%" PRId64 "}", l->blocked_last_ms,
                l->blocked_at_ms);
}

/* A group that not every model has: null where it is absent. */
static void json_group(struct page *p, const struct status_listener *l, enum status_group group)
{
    page_format(p, "\"%s\":", status_group_key(group));
    if (!status_has(l, group)) {
        page_puts(p, "null,");
        return;
    }
    page_puts(p, "{");
    json_numbers(p, l, group);
    if (group == REQUESTS) {
        json_answers(p, l);
        page_puts(p, ",");
        json_times(p, "latency_us", &l->latency);
    } else if (group == QUEUE) {
        page_puts(p, ",");
        json_times(p, "waited_us", &l->queued);
    } else if (group == BLOCKED) {
        json_last_blocked(p, l);
    }
    page_puts(p, "},");
}

static void json_workers(struct page *p, const struct status_listener *l)
{
    page_puts(p, "\"workers\":[");
    for (size_t i = 0; i < l->worker_count; i++) {
        const struct status_worker *w = &l->workers[i];
        page_format(p,
                    "%s{\"pid\":%" PRId64 ",\"state\":\"%s\",\"started_ms\":%" PRId64
                    ",\"connections\":%" PRIu64 ",\"requests\":%" PRIu64 "}",
                    i ? "," : "", w->pid, status_state_name(w->state), w->started_ms,
                    w->connections, w->requests);
    }
    page_puts(p, "]");
}

static void json_generations(struct page *p, const struct status_listener *l)
{
    page_puts(p, "\"generations\":[");
    for (size_t i = 0; i < l->generation_count; i++) {
        const struct status_generation *g = &l->generations[i];
        page_format(p,
                    "%s{\"number\":%" PRIu64
                    ",\"model\":\"%s\",\"state\":\"%s\",\"since_ms\":%" PRId64
                    ",\"connections\":%" PRIu64 ",\"requests_active\":%" PRIu64 "}",
                    i ? "," : "", g->number, g->model, status_generation_state(g), g->since_ms,
                    g->connections, g->requests_active);
    }
    page_puts(p, "],");
}

static void json_listener(struct page *p, const struct status_listener *l)
{
    page_puts(p, "{");
    json_text(p, "name", l->name);
    page_puts(p, "\"addresses\":[");
    for (size_t i = 0; i < l->address_count; i++) {
        page_puts(p, i ? "," : "");
        page_json(p, str_of(l->addresses[i]));
    }
    page_puts(p, "],");
    json_text(p, "protocol", l->protocol);
    page_format(p, "\"tls\":%s,", l->tls ? "true" : "false");
    json_text(p, "model", l->model);
    json_text(p, "note", l->note);
    json_numbers(p, l, LISTENER);
    page_puts(p, ",");
    for (enum status_group group = CONNECTIONS; group <= LAST_GROUP; group++)
        json_group(p, l, group);
    json_generations(p, l);
    json_workers(p, l);
    page_puts(p, "}");
}

static void json_switch(struct page *p, const struct status_switch *last)
{
    if (!last->number) {
        page_puts(p, "\"last_switch\":null,");
        return;
    }
    page_format(p,
                "\"last_switch\":{\"number\":%" PRIu64 ",\"asked_ms\":%" PRId64
                ",\"ended_ms\":%" PRId64 ",",
                last->number, last->asked_ms, last->ended_ms);
    json_text(p, "listener", last->listener);
    json_text(p, "model", last->model);
    json_text(p, "why", last->why);
    page_format(p, "\"outcome\":\"%s\"},", status_outcome_name(last->outcome));
}

static void json_server(struct page *p, const struct status_snapshot *s)
{
    json_text(p, "version", s->version);
    json_text(p, "config_file", s->config_file);
    page_format(p,
                "\"pid\":%" PRId64 ",\"started_ms\":%" PRId64 ",\"uptime_ms\":%" PRId64
                ",\"now_ms\":%" PRId64 ",\"generation\":%" PRIu64 ",\"worker_deaths\":%" PRIu64 ",",
                s->pid, s->started_ms, s->uptime_ms, s->now_ms, s->generation, s->worker_deaths);
    page_format(p,
                "\"reloads\":{\"taken\":%" PRIu64 ",\"refused\":%" PRIu64
                "},\"switches\":{\"taken\":%" PRIu64 ",\"refused\":%" PRIu64 "},",
                s->reloads_taken, s->reloads_refused, s->switches_taken, s->switches_refused);
    json_switch(p, &s->last_switch);
    page_puts(p, "\"bucket_bounds_us\":[");
    for (unsigned i = 0; i < STATUS_BUCKETS - 1; i++)
        page_format(p, "%s%" PRIu64, i ? "," : "", status_bucket_us(i));
    page_puts(p, "],");
}

void status_json(struct page *p, const struct status_snapshot *s)
{
    page_puts(p, "{");
    json_server(p, s);
    page_puts(p, "\"listeners\":[");
    for (size_t i = 0; i < s->listener_count; i++) {
        page_puts(p, i ? ",\n" : "\n");
        json_listener(p, &s->listeners[i]);
    }
    page_puts(p, "]}\n");
}

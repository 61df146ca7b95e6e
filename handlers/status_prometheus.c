/* SPDX-License-Identifier: MIT */
/* The status for Prometheus: its text format, version 0.0.4. Nothing is counted by process, and a
 * counter is a listener's for as long as there is one of its name: it outlives workers, generations
 * and switches of the model, and never falls. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "handlers/status_priv.h"

static void metric(struct page *p, const char *name, const char *type, const char *help)
{
    page_format(p, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void label(struct page *p, const char *name, const char *value)
{
    page_format(p, "%s=\"", name);
    page_label(p, str_of(value ? value : ""));
    page_puts(p, "\"");
}

/* "NAME{listener="...""; the caller closes. */
static void sample(struct page *p, const char *name, const struct status_listener *l)
{
    page_format(p, "%s{", name);
    label(p, "listener", l->name);
}

static void outcomes(struct page *p, const char *name, const char *help, uint64_t taken,
                     uint64_t refused)
{
    metric(p, name, "counter", help);
    page_format(p, "%s{outcome=\"taken\"} %" PRIu64 "\n%s{outcome=\"refused\"} %" PRIu64 "\n", name,
                taken, name, refused);
}

static void prometheus_server(struct page *p, const struct status_snapshot *s)
{
    metric(p, "modus_build_info", "gauge", "The version that runs.");
    page_puts(p, "modus_build_info{");
    label(p, "version", s->version);
    page_puts(p, "} 1\n");
    metric(p, "modus_start_time_seconds", "gauge", "When the server was started, Unix time.");
    page_format(p, "modus_start_time_seconds %" PRId64 ".%03" PRId64 "\n", s->started_ms / 1000,
                s->started_ms % 1000);
    metric(p, "modus_configuration_generation", "gauge", "Configurations taken since the start.");
    page_format(p, "modus_configuration_generation %" PRIu64 "\n", s->generation);
    metric(p, "modus_all_worker_deaths_total", "counter",
           "Workers that ended without being told to, of all listeners ever.");
    page_format(p, "modus_all_worker_deaths_total %" PRIu64 "\n", s->worker_deaths);
    outcomes(p, "modus_reloads_total", "Reloads of the configuration by outcome.", s->reloads_taken,
             s->reloads_refused);
    outcomes(p, "modus_switches_total", "Models switched by hand, by outcome.", s->switches_taken,
             s->switches_refused);
}

static void prometheus_info(struct page *p, const struct status_snapshot *s)
{
    metric(p, "modus_listener_info", "gauge", "What a listener is.");
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct status_listener *l = &s->listeners[i];
        sample(p, "modus_listener_info", l);
        page_puts(p, ",");
        label(p, "model", l->model);
        page_puts(p, ",");
        label(p, "protocol", l->protocol);
        page_format(p, ",tls=\"%s\"} 1\n", l->tls ? "true" : "false");
    }
}

static void prometheus_workers(struct page *p, const struct status_snapshot *s)
{
    metric(p, "modus_workers", "gauge", "Worker processes by state.");
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct status_listener *l = &s->listeners[i];
        size_t count[STATUS_STATES] = {0};
        for (size_t w = 0; w < l->worker_count; w++)
            if ((unsigned)l->workers[w].state < STATUS_STATES)
                count[l->workers[w].state]++;
        for (size_t state = 0; state < STATUS_STATES; state++) {
            sample(p, "modus_workers", l);
            page_format(p, ",state=\"%s\"} %zu\n", status_state_names[state], count[state]);
        }
    }
}

/* Which process is at what, for people; nothing is counted by pid. */
static void prometheus_worker_info(struct page *p, const struct status_snapshot *s)
{
    metric(p, "modus_worker_info", "gauge", "The worker processes that there are.");
    for (size_t i = 0; i < s->listener_count; i++)
        for (size_t w = 0; w < s->listeners[i].worker_count; w++) {
            const struct status_worker *worker = &s->listeners[i].workers[w];
            sample(p, "modus_worker_info", &s->listeners[i]);
            page_format(p, ",worker=\"%zu\",pid=\"%" PRId64 "\",state=\"%s\"} 1\n", w, worker->pid,
                        status_state_name(worker->state));
        }
}

static void prometheus_generations(struct page *p, const struct status_snapshot *s)
{
    metric(p, "modus_generations", "gauge",
           "Generations of a listener: the one that serves, and older ones that finish.");
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct status_listener *l = &s->listeners[i];
        size_t retiring = 0;
        for (size_t g = 0; g < l->generation_count; g++)
            retiring += l->generations[g].retiring;
        sample(p, "modus_generations", l);
        page_format(p, ",state=\"serving\"} %zu\n", l->generation_count - retiring);
        sample(p, "modus_generations", l);
        page_format(p, ",state=\"retiring\"} %zu\n", retiring);
    }
    metric(p, "modus_listener_generation", "gauge", "Number of a listener's newest generation.");
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct status_listener *l = &s->listeners[i];
        sample(p, "modus_listener_generation", l);
        page_format(p, "} %" PRIu64 "\n", l->generation_count ? l->generations[0].number : 0);
    }
}

static void prometheus_share(struct page *p, const struct status_snapshot *s)
{
    metric(p, "modus_busy_ratio", "gauge", "modus_places_busy of modus_places, 0 to 1.");
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct status_listener *l = &s->listeners[i];
        sample(p, "modus_busy_ratio", l);
        page_format(p, "} %.4f\n", l->places ? (double)l->places_busy / (double)l->places : 0.0);
    }
}

static void prometheus_number(struct page *p, const struct status_snapshot *s,
                              const struct status_number *n)
{
    size_t len = strlen(n->metric), suffix = strlen("_total");
    bool is_counter = len > suffix && strcmp(n->metric + len - suffix, "_total") == 0;
    metric(p, n->metric, is_counter ? "counter" : "gauge", n->help);
    for (size_t i = 0; i < s->listener_count; i++) {
        sample(p, n->metric, &s->listeners[i]);
        page_format(p, "} %" PRIu64 "\n", status_number_of(&s->listeners[i], n));
    }
}

static void prometheus_answers(struct page *p, const struct status_snapshot *s)
{
    metric(p, "modus_answers_total", "counter", "Answers by class; cut: ended without one.");
    for (size_t i = 0; i < s->listener_count; i++)
        for (size_t class = 0; class < STATUS_CLASSES; class ++) {
            sample(p, "modus_answers_total", &s->listeners[i]);
            page_format(p, ",class=\"%s\"} %" PRIu64 "\n", status_class_names[class],
                        s->listeners[i].answers[class]);
        }
}

/* Times below a bound, that is: whole microseconds are cut off, so none is equal to one. */
static void buckets(struct page *p, const char *name, const struct status_listener *l,
                    const struct status_times *t)
{
    char metric_name[100];
    uint64_t below = 0;
    snprintf(metric_name, sizeof metric_name, "%s_bucket", name);
    for (unsigned i = 0; i < STATUS_BUCKETS; i++) {
        below += t->bucket[i];
        sample(p, metric_name, l);
        if (i + 1 < STATUS_BUCKETS)
            page_format(p, ",le=\"%" PRIu64 ".%06" PRIu64 "\"} %" PRIu64 "\n",
                        status_bucket_us(i) / 1000000, status_bucket_us(i) % 1000000, below);
        else
            page_format(p, ",le=\"+Inf\"} %" PRIu64 "\n", below);
    }
}

static void prometheus_times(struct page *p, const struct status_snapshot *s, const char *name,
                             const char *help, size_t offset)
{
    metric(p, name, "histogram", help);
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct status_listener *l = &s->listeners[i];
        struct status_times t;
        memcpy(&t, (const char *)l + offset, sizeof t);
        buckets(p, name, l, &t);
        page_format(p, "%s_sum{", name);
        label(p, "listener", l->name);
        page_format(p, "} %" PRIu64 ".%06" PRIu64 "\n%s_count{", t.sum_us / 1000000,
                    t.sum_us % 1000000, name);
        label(p, "listener", l->name);
        page_format(p, "} %" PRIu64 "\n", t.count);
    }
}

void status_prometheus(struct page *p, const struct status_snapshot *s)
{
    prometheus_server(p, s);
    prometheus_info(p, s);
    prometheus_workers(p, s);
    prometheus_worker_info(p, s);
    prometheus_generations(p, s);
    for (const struct status_number *n = status_numbers; n->key; n++)
        prometheus_number(p, s, n);
    prometheus_share(p, s);
    prometheus_answers(p, s);
    prometheus_times(p, s, "modus_request_duration_seconds",
                     "From a request's first byte to its answer handed over.",
                     offsetof(struct status_listener, latency));
    prometheus_times(p, s, "modus_queue_wait_seconds", "Time spent waiting for a thread.",
                     offsetof(struct status_listener, queued));
}

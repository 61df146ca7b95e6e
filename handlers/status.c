/* SPDX-License-Identifier: MIT */
/* status: this server's state as a page for people, as JSON, and for Prometheus.
 *
 * The plain counters of a listener stand in one table with the names they have in each form, so
 * that a new one is a line and no form forgets it. Names of listeners and files are other people's
 * text and are escaped for each form. */
#include "handlers/status.h"

#include <inttypes.h>
#include <string.h>

#include "handlers/handler.h"
#include "handlers/page.h"

enum { WORKERS_SHOWN = 64 /* on the page, a listener; JSON has all */ };

struct status_conf {
    const struct status_source *source;
};

/* --- what there is ---------------------------------------------------------------------------- */

enum group { LISTENER, CONNECTIONS, REQUESTS, THREADS, CHILDREN, QUEUE, GIL };

#define AT(field) offsetof(struct status_listener, field)

static const struct number {
    enum group group;
    size_t offset;
    const char *key;    /* JSON, in its group's object */
    const char *label;  /* the page */
    const char *metric; /* Prometheus; a name in _total is a counter, others are gauges */
    const char *help;
} numbers[] = {
    {CONNECTIONS, AT(connections_open), "open", "open", "modus_connections_open",
     "Connections open now."},
    {CONNECTIONS, AT(connections_idle), "idle", "idle", "modus_connections_idle",
     "Connections between two requests now."},
    {CONNECTIONS, AT(connections_active), "active", "active", "modus_connections_active",
     "Connections with something to do now."},
    {CONNECTIONS, AT(connections_waiting), "waiting", "waiting in the kernel",
     "modus_connections_waiting", "Connections that the kernel holds, not yet accepted."},
    {CONNECTIONS, AT(connections_max), "max", "limit", "modus_connections_max",
     "The most connections that may be open; 0 if not known."},
    {CONNECTIONS, AT(accepted), "accepted", "accepted", "modus_connections_accepted_total",
     "Connections accepted."},
    {CONNECTIONS, AT(refused), "refused", "refused", "modus_connections_refused_total",
     "Connections closed unserved."},
    {CONNECTIONS, AT(evicted), "evicted", "evicted", "modus_connections_evicted_total",
     "Idle connections closed to make room."},
    {CONNECTIONS, AT(handshakes_failed), "handshakes_failed", "failed handshakes",
     "modus_handshakes_failed_total", "TLS handshakes that failed."},
    {CONNECTIONS, AT(accept_pauses), "accept_pauses", "accept pauses", "modus_accept_pauses_total",
     "Times that accepting was paused for want of descriptors or memory."},
    {LISTENER, AT(worker_deaths), "worker_deaths", "worker deaths", "modus_worker_deaths_total",
     "Workers that ended without being told to."},
    {REQUESTS, AT(requests_active), "active", "in progress", "modus_requests_active",
     "Requests in progress now."},
    {REQUESTS, AT(requests), "total", "requests", "modus_requests_total", "Requests ended."},
    {REQUESTS, AT(bytes_in), "bytes_in", "bytes in", "modus_received_bytes_total",
     "Bytes received."},
    {REQUESTS, AT(bytes_out), "bytes_out", "bytes out", "modus_sent_bytes_total", "Bytes sent."},
    {THREADS, AT(threads_busy), "busy", "threads busy", "modus_threads_busy",
     "Threads of the pool that are at work now."},
    {THREADS, AT(threads), "total", "threads", "modus_threads", "Threads of the pool; 0: no pool."},
    {CHILDREN, AT(children), "now", "processes", "modus_children",
     "Processes that serve a connection now."},
    {CHILDREN, AT(children_idle), "idle", "idle", "modus_children_idle",
     "Those of them that are between two requests."},
    {CHILDREN, AT(children_max), "limit", "limit", "modus_children_max",
     "The most processes of connections at once; 0: none are made."},
    {QUEUE, AT(queue_depth), "depth", "queued", "modus_queue_depth",
     "Work waiting for a thread now."},
    {QUEUE, AT(queue_capacity), "capacity", "queue size", "modus_queue_capacity",
     "The most work that may wait for a thread; 0: no queue."},
    {QUEUE, AT(queue_rejected), "rejected", "answered 503", "modus_queue_rejected_total",
     "Requests answered 503 because no thread came free."},
    {GIL, AT(gil_acquired), "acquired", "interpreter lock acquired", "modus_gil_acquired_total",
     "Times that a handler took the interpreter lock."},
    {GIL, AT(gil_waits), "waits", "waits", "modus_gil_waits_total",
     "Times that it had to wait for it."},
    {GIL, AT(gil_hand_overs), "hand_overs", "forced hand-overs", "modus_gil_hand_overs_total",
     "Times that a handler was made to hand it over."},
    {GIL, AT(gil_waited_us), "waited_us", "waited (µs)", "modus_gil_waited_microseconds_total",
     "Microseconds spent waiting for it."},
    {GIL, AT(gil_held_us), "held_us", "held (µs)", "modus_gil_held_microseconds_total",
     "Microseconds that it was held."},
    {GIL, AT(gil_held_percent), "held_percent", "held (% of the time)", "modus_gil_held_percent",
     "Share of the time that it was held, since the workers began."},
};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

static const char *const state_names[STATUS_STATES] = {"starting", "waiting", "busy", "draining",
                                                       "dead"};
static const char *const class_names[] = {"cut", "1xx", "2xx", "3xx", "4xx", "5xx"};
enum { CLASSES = sizeof class_names / sizeof class_names[0] };

static uint64_t number_of(const struct status_listener *l, const struct number *n)
{
    uint64_t value;
    memcpy(&value, (const char *)l + n->offset, sizeof value);
    return value;
}

static const char *state_name(enum status_state state)
{
    return (unsigned)state < STATUS_STATES ? state_names[state] : "unknown";
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void json_text(struct page *p, const char *key, const char *text)
{
    page_format(p, "\"%s\":", key);
    if (text)
        page_json(p, str_of(text));
    else
        page_puts(p, "null");
    page_puts(p, ",");
}

static void json_times(struct page *p, const char *key, const struct status_times *t)
{
    page_format(p,
                "\"%s\":{\"count\":%" PRIu64 ",\"sum\":%" PRIu64 ",\"p50\":%" PRIu64
                ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"p999\":%" PRIu64 ",\"max\":%" PRIu64
                "}",
                key, t->count, t->sum_us, t->p50_us, t->p90_us, t->p99_us, t->p999_us, t->max_us);
}

static void json_numbers(struct page *p, const struct status_listener *l, enum group group)
{
    const char *comma = "";
    for (size_t i = 0; i < NUMBERS; i++)
        if (numbers[i].group == group) {
            page_format(p, "%s\"%s\":%" PRIu64, comma, numbers[i].key, number_of(l, &numbers[i]));
            comma = ",";
        }
}

/* A group that not every model has: null where it is absent. */
static void json_group(struct page *p, const char *key, const struct status_listener *l,
                       enum group group, bool present)
{
    page_format(p, "\"%s\":%s", key, present ? "{" : "null,");
    if (!present)
        return;
    json_numbers(p, l, group);
    page_puts(p, "},");
}

static void json_requests(struct page *p, const struct status_listener *l)
{
    page_puts(p, "\"requests\":{");
    json_numbers(p, l, REQUESTS);
    page_puts(p, ",\"answers\":{");
    for (size_t i = 0; i < CLASSES; i++)
        page_format(p, "%s\"%s\":%" PRIu64, i ? "," : "", class_names[i], l->answers[i]);
    page_puts(p, "},");
    json_times(p, "latency_us", &l->latency);
    page_puts(p, "},");
}

static void json_queue(struct page *p, const struct status_listener *l)
{
    if (!l->queue_capacity) {
        page_puts(p, "\"queue\":null,");
        return;
    }
    page_puts(p, "\"queue\":{");
    json_numbers(p, l, QUEUE);
    page_puts(p, ",");
    json_times(p, "waited_us", &l->queued);
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
                    i ? "," : "", w->pid, state_name(w->state), w->started_ms, w->connections,
                    w->requests);
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
                    i ? "," : "", g->number, g->model, g->retiring ? "retiring" : "serving",
                    g->since_ms, g->connections, g->requests_active);
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
    json_group(p, "connections", l, CONNECTIONS, true);
    json_requests(p, l);
    json_group(p, "threads", l, THREADS, l->threads > 0);
    json_group(p, "children", l, CHILDREN, l->children_max > 0);
    json_queue(p, l);
    json_group(p, "gil", l, GIL, l->gil);
    json_generations(p, l);
    json_workers(p, l);
    page_puts(p, "}");
}

void status_json(struct page *p, const struct status_snapshot *s)
{
    page_puts(p, "{");
    json_text(p, "version", s->version);
    json_text(p, "config_file", s->config_file);
    page_format(p,
                "\"pid\":%" PRId64 ",\"started_ms\":%" PRId64 ",\"uptime_ms\":%" PRId64
                ",\"generation\":%" PRIu64 ",\"worker_deaths\":%" PRIu64 ",\"listeners\":[",
                s->pid, s->started_ms, s->uptime_ms, s->generation, s->worker_deaths);
    for (size_t i = 0; i < s->listener_count; i++) {
        page_puts(p, i ? ",\n" : "\n");
        json_listener(p, &s->listeners[i]);
    }
    page_puts(p, "]}\n");
}

/* --- Prometheus ------------------------------------------------------------------------------- */

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

static void seconds(struct page *p, uint64_t us)
{
    page_format(p, "%" PRIu64 ".%06" PRIu64 "\n", us / 1000000, us % 1000000);
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
            page_format(p, ",state=\"%s\"} %zu\n", state_names[state], count[state]);
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
                        state_name(worker->state));
        }
}

static void prometheus_number(struct page *p, const struct status_snapshot *s,
                              const struct number *n)
{
    size_t len = strlen(n->metric), suffix = strlen("_total");
    bool is_counter = len > suffix && strcmp(n->metric + len - suffix, "_total") == 0;
    metric(p, n->metric, is_counter ? "counter" : "gauge", n->help);
    for (size_t i = 0; i < s->listener_count; i++) {
        sample(p, n->metric, &s->listeners[i]);
        page_format(p, "} %" PRIu64 "\n", number_of(&s->listeners[i], n));
    }
}

static void prometheus_answers(struct page *p, const struct status_snapshot *s)
{
    metric(p, "modus_answers_total", "counter", "Answers by class; cut: ended without one.");
    for (size_t i = 0; i < s->listener_count; i++)
        for (size_t class = 0; class < CLASSES; class ++) {
            sample(p, "modus_answers_total", &s->listeners[i]);
            page_format(p, ",class=\"%s\"} %" PRIu64 "\n", class_names[class],
                        s->listeners[i].answers[class]);
        }
}

static void prometheus_quantile(struct page *p, const char *name, const struct status_listener *l,
                                const char *quantile, uint64_t us)
{
    sample(p, name, l);
    page_format(p, ",quantile=\"%s\"} ", quantile);
    seconds(p, us);
}

static void prometheus_times(struct page *p, const struct status_snapshot *s, const char *name,
                             const char *help, size_t offset)
{
    metric(p, name, "summary", help);
    for (size_t i = 0; i < s->listener_count; i++) {
        const struct status_listener *l = &s->listeners[i];
        struct status_times t;
        memcpy(&t, (const char *)l + offset, sizeof t);
        prometheus_quantile(p, name, l, "0.5", t.p50_us);
        prometheus_quantile(p, name, l, "0.9", t.p90_us);
        prometheus_quantile(p, name, l, "0.99", t.p99_us);
        prometheus_quantile(p, name, l, "0.999", t.p999_us);
        prometheus_quantile(p, name, l, "1", t.max_us);
        page_format(p, "%s_sum{", name);
        label(p, "listener", l->name);
        page_puts(p, "} ");
        seconds(p, t.sum_us);
        page_format(p, "%s_count{", name);
        label(p, "listener", l->name);
        page_format(p, "} %" PRIu64 "\n", t.count);
    }
}

static void put_prometheus(struct page *p, const struct status_snapshot *s)
{
    prometheus_server(p, s);
    prometheus_info(p, s);
    prometheus_workers(p, s);
    prometheus_worker_info(p, s);
    for (size_t i = 0; i < NUMBERS; i++)
        prometheus_number(p, s, &numbers[i]);
    prometheus_answers(p, s);
    prometheus_times(p, s, "modus_request_duration_seconds",
                     "From a request's first byte to its answer handed over.", AT(latency));
    prometheus_times(p, s, "modus_queue_wait_seconds", "Time spent waiting for a thread.",
                     AT(queued));
}

/* --- the page --------------------------------------------------------------------------------- */

static const char head[] =
    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Modus</title>\n"
    "<meta name=\"viewport\" content=\"width=device-width\">"
    "<meta http-equiv=\"refresh\" content=\"5\">\n"
    "<style>:root{color-scheme:light dark;--line:#8884;--soft:#888}"
    "body{font:14px/1.45 system-ui,sans-serif;max-width:76em;margin:1.5em auto;padding:0 1em}"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin:2em 0 .3em;overflow-wrap:anywhere}"
    "p{margin:.3em 0}.soft{color:var(--soft)}table{border-collapse:collapse;margin:.6em 0}"
    "th,td{padding:.15em .8em .15em 0;text-align:right;font-variant-numeric:tabular-nums;"
    "border-bottom:1px solid var(--line)}th{font-weight:normal;color:var(--soft)}"
    "th:first-child,td:first-child{text-align:left}"
    "@media(prefers-color-scheme:dark){body{background:#16181c;color:#dde}a{color:#8bf}}"
    "</style></head><body>\n";

static void put_text(struct page *p, const char *text)
{
    page_html(p, str_of(text ? text : "?"));
}

/* Microseconds in the unit that people would choose. */
static void put_us(struct page *p, uint64_t us)
{
    if (us < 1000)
        page_format(p, "%" PRIu64 " µs", us);
    else if (us < 1000000)
        page_format(p, "%" PRIu64 ".%" PRIu64 " ms", us / 1000, us % 1000 / 100);
    else
        page_format(p, "%" PRIu64 ".%02" PRIu64 " s", us / 1000000, us % 1000000 / 10000);
}

static void put_duration(struct page *p, int64_t ms)
{
    int64_t s = ms / 1000;
    if (s >= 86400)
        page_format(p, "%" PRId64 " d ", s / 86400);
    page_format(p, "%02" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600 % 24, s / 60 % 60, s % 60);
}

static void page_server(struct page *p, const struct status_snapshot *s)
{
    page_puts(p, "<h1>Modus ");
    put_text(p, s->version);
    page_puts(p, "</h1>\n<p>");
    put_text(p, s->config_file);
    page_format(p, ", generation %" PRIu64 "; process %" PRId64 ", up ", s->generation, s->pid);
    put_duration(p, s->uptime_ms);
    page_puts(p, " since ");
    page_time(p, s->started_ms / 1000);
    page_format(p,
                " UTC; %" PRIu64 " workers have died in all.</p>\n<p class=\"soft\">Also as "
                "<a href=\"?format=json\">JSON</a> and for "
                "<a href=\"?format=prometheus\">Prometheus</a>. Renewed every 5 s.</p>\n",
                s->worker_deaths);
}

static void page_times(struct page *p, const char *what, const struct status_times *t)
{
    const uint64_t values[] = {t->count ? t->sum_us / t->count : 0,
                               t->p50_us,
                               t->p90_us,
                               t->p99_us,
                               t->p999_us,
                               t->max_us};
    page_format(p, "<tr><td>%s</td><td>%" PRIu64 "</td>", what, t->count);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        page_puts(p, "<td>");
        put_us(p, values[i]);
        page_puts(p, "</td>");
    }
    page_puts(p, "</tr>\n");
}

/* One row of names, one of values. */
static void page_group(struct page *p, const struct status_listener *l, enum group group)
{
    page_puts(p, "<table><tr>");
    for (size_t i = 0; i < NUMBERS; i++)
        if (numbers[i].group == group)
            page_format(p, "<th>%s</th>", numbers[i].label);
    for (size_t i = 0; group == REQUESTS && i < CLASSES; i++)
        page_format(p, "<th>%s</th>", class_names[i]);
    page_puts(p, "</tr><tr>");
    for (size_t i = 0; i < NUMBERS; i++)
        if (numbers[i].group == group)
            page_format(p, "<td>%" PRIu64 "</td>", number_of(l, &numbers[i]));
    for (size_t i = 0; group == REQUESTS && i < CLASSES; i++)
        page_format(p, "<td>%" PRIu64 "</td>", l->answers[i]);
    page_puts(p, "</tr></table>\n");
}

static void page_workers(struct page *p, const struct status_listener *l)
{
    page_format(p, "<p>%zu %s; died so far: %" PRIu64 ".</p>\n", l->worker_count,
                l->worker_count == 1 ? "worker" : "workers", l->worker_deaths);
    if (!l->worker_count)
        return;
    page_puts(p, "<table><tr><th>worker</th><th>state</th><th>connections</th><th>requests</th>"
                 "<th>started (UTC)</th></tr>\n");
    for (size_t i = 0; i < l->worker_count && i < WORKERS_SHOWN; i++) {
        const struct status_worker *w = &l->workers[i];
        page_format(
            p, "<tr><td>%" PRId64 "</td><td>%s</td><td>%" PRIu64 "</td><td>%" PRIu64 "</td><td>",
            w->pid, state_name(w->state), w->connections, w->requests);
        page_time(p, w->started_ms / 1000);
        page_puts(p, "</td></tr>\n");
    }
    page_puts(p, "</table>\n");
    if (l->worker_count > WORKERS_SHOWN)
        page_format(p, "<p class=\"soft\">and %zu more</p>\n", l->worker_count - WORKERS_SHOWN);
}

/* Only worth a table while an older one has not finished. */
static void page_generations(struct page *p, const struct status_listener *l)
{
    if (l->generation_count < 2)
        return;
    page_puts(p, "<table><tr><th>generation</th><th>model</th><th>state</th><th>connections</th>"
                 "<th>requests in progress</th><th>since (UTC)</th></tr>\n");
    for (size_t i = 0; i < l->generation_count; i++) {
        const struct status_generation *g = &l->generations[i];
        page_format(p,
                    "<tr><td>%" PRIu64 "</td><td>%s</td><td>%s</td><td>%" PRIu64 "</td><td>%" PRIu64
                    "</td><td>",
                    g->number, g->model, g->retiring ? "retiring" : "serving", g->connections,
                    g->requests_active);
        page_time(p, g->since_ms / 1000);
        page_puts(p, "</td></tr>\n");
    }
    page_puts(p, "</table>\n");
}

static void page_listener(struct page *p, const struct status_listener *l)
{
    page_puts(p, "<h2>");
    put_text(p, l->name);
    page_puts(p, " · ");
    put_text(p, l->model);
    page_puts(p, "</h2>\n<p class=\"soft\">");
    put_text(p, l->protocol);
    page_puts(p, l->tls ? " over TLS" : "");
    for (size_t i = 0; i < l->address_count; i++) {
        page_puts(p, i ? ", " : " on ");
        put_text(p, l->addresses[i]);
    }
    page_puts(p, "</p>\n");
    if (l->note) {
        page_puts(p, "<p>");
        put_text(p, l->note);
        page_puts(p, "</p>\n");
    }
    page_group(p, l, CONNECTIONS);
    page_group(p, l, REQUESTS);
    if (l->threads)
        page_group(p, l, THREADS);
    if (l->children_max)
        page_group(p, l, CHILDREN);
    if (l->queue_capacity)
        page_group(p, l, QUEUE);
    if (l->gil)
        page_group(p, l, GIL);
    page_puts(p, "<table><tr><th>time</th><th>count</th><th>mean</th><th>half below</th>"
                 "<th>90 %</th><th>99 %</th><th>99.9 %</th><th>longest</th></tr>\n");
    page_times(p, "request", &l->latency);
    if (l->queue_capacity)
        page_times(p, "in the queue", &l->queued);
    page_puts(p, "</table>\n");
    page_generations(p, l);
    page_workers(p, l);
}

static void put_page(struct page *p, const struct status_snapshot *s)
{
    page_puts(p, head);
    page_server(p, s);
    for (size_t i = 0; i < s->listener_count; i++)
        page_listener(p, &s->listeners[i]);
    page_puts(p, "</body></html>\n");
}

/* --- the handler ------------------------------------------------------------------------------ */

static const struct form {
    struct str name;
    const char *type;
    void (*put)(struct page *p, const struct status_snapshot *s);
} forms[] = {
    {{"html", 4}, "text/html; charset=utf-8", put_page},
    {{"json", 4}, "application/json", status_json},
    {{"prometheus", 10}, "text/plain; version=0.0.4; charset=utf-8", put_prometheus},
};

static const struct form *form_of(const struct exchange *x)
{
    struct str name = exchange_query_value(x, "format");
    if (!name.at)
        return &forms[0];
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (str_is(name, forms[i].name))
            return &forms[i];
    return NULL;
}

static int reply_snapshot(struct exchange *x, const struct form *form,
                          const struct status_source *source)
{
    struct status_snapshot s = {0};
    struct page p = {0};
    if (!source || source->snapshot(source->arg, &s) < 0)
        return exchange_reply_error(x, 503);
    form->put(&p, &s);
    source->release(&s);
    return page_reply(&p, x, 200, form->type);
}

static int status_step(struct exchange *x, enum exchange_event event)
{
    const struct status_conf *conf = exchange_conf(x);
    if (event != EXCHANGE_BEGUN)
        return 0;
    const struct form *form = form_of(x);
    if (!form)
        return exchange_reply_error(x, 400);
    int rc = exchange_add(x, "Cache-Control", STR("no-store"));
    if (rc == 0)
        rc = exchange_add(x, "Content-Security-Policy",
                          STR("default-src 'none'; style-src 'unsafe-inline'"));
    return rc < 0 ? rc : reply_snapshot(x, form, conf->source);
}

static int status_open(void *p, const struct handler_env *env, char *why, size_t why_size)
{
    struct status_conf *conf = p;
    (void)why;
    (void)why_size;
    conf->source = env ? env->status : NULL;
    return 0;
}

const struct handler handler_status = {
    .name = "status",
    .summary = "this server's state: a page, ?format=json, ?format=prometheus",
    .conf_size = sizeof(struct status_conf),
    .open = status_open,
    .entry = {.step = status_step},
};

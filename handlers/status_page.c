/* SPDX-License-Identifier: MIT */
/* The status for people: a page that says all of it once, without any script.
 *
 * Its script (handlers/status.js) then keeps it up to date, and knows of the page only what stands in
 * attributes: data-f is where in a listener's JSON an element's figure is found, data-u how such a
 * figure is written. What is not a figure (another model, another worker) changes the page's shape;
 * then the server sends all of <main> again. So what the page looks like is said here, and once.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "handlers/status_priv.h"

enum { WORKERS_SHOWN = 64 /* a listener; JSON has all */, AXIS_STEP = 4 };

static void put_text(struct page *p, const char *text)
{
    page_html(p, str_of(text ? text : "?"));
}

/* --- figures: as status.js writes them, too --------------------------------------------------- */

/* From 10 000 on in groups of three. */
static void put_count(struct page *p, uint64_t n)
{
    char digits[24], text[80];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, n), to = 0;
    for (int i = 0; i < len; i++) {
        if (n >= 10000 && i && (len - i) % 3 == 0)
            to += snprintf(text + to, 8, "\xe2\x80\xaf"); /* a narrow space that does not break */
        text[to++] = digits[i];
    }
    page_put(p, (struct str){text, (size_t)to});
}

/* Microseconds in the unit that people would choose. */
static void put_us(struct page *p, uint64_t us)
{
    if (us < 1000)
        page_format(p, "%" PRIu64 " µs", us);
    else if (us < 10000)
        page_format(p, "%" PRIu64 ".%" PRIu64 " ms", us / 1000, us % 1000 / 100);
    else if (us < 1000000)
        page_format(p, "%" PRIu64 " ms", us / 1000);
    else if (us < 100000000)
        page_format(p, "%" PRIu64 ".%" PRIu64 " s", us / 1000000, us % 1000000 / 100000);
    else
        page_format(p, "%" PRIu64 " s", us / 1000000);
}

static void put_age(struct page *p, int64_t ms)
{
    int64_t s = ms > 0 ? ms / 1000 : 0;
    if (s >= 86400)
        page_format(p, "%" PRId64 " d ", s / 86400);
    page_format(p, "%02" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600 % 24, s / 60 % 60, s % 60);
}

static void put_percent(struct page *p, uint64_t part, uint64_t whole)
{
    page_format(p, "%" PRIu64 " %%", whole ? part * 100 / whole : 0);
}

/* A figure that the script renews: open_figure(), the figure, and the element's end. */
static void open_figure(struct page *p, const char *element, const char *unit, const char *path)
{
    page_format(p, "<%s data-u=\"%s\" data-f=\"%s\">", element, unit, path);
}

static void count_figure(struct page *p, const char *element, const char *path, uint64_t n)
{
    open_figure(p, element, "n", path);
    put_count(p, n);
    page_format(p, "</%s>", element);
}

static void us_figure(struct page *p, const char *path, uint64_t us)
{
    open_figure(p, "span", "us", path);
    put_us(p, us);
    page_puts(p, "</span>");
}

/* The age of what began at a time. */
static void age_cell(struct page *p, const char *path, int64_t now_ms, int64_t since_ms)
{
    open_figure(p, "td", "age", path);
    put_age(p, since_ms ? now_ms - since_ms : 0);
    page_puts(p, "</td>");
}

/* --- tiles ------------------------------------------------------------------------------------ */

static void tile(struct page *p, const char *label)
{
    page_format(p, "<div class=\"tile\"><h3>%s</h3>", label);
}

static void load_tile(struct page *p, const struct status_snapshot *s,
                      const struct status_listener *l)
{
    uint64_t ms = s->uptime_ms > 0 ? (uint64_t)s->uptime_ms : 1;
    uint64_t tenths = l->requests / ms * 10000 + l->requests % ms * 10000 / ms;
    tile(p, "requests a second");
    page_format(p, "<b data-rate>%" PRIu64 ".%" PRIu64 "</b>", tenths / 10, tenths % 10);
    page_puts(p, "<svg class=\"spark\" viewBox=\"0 0 60 20\" preserveAspectRatio=\"none\" "
                 "aria-hidden=\"true\"><path d=\"\"/></svg><div class=\"bar\"></div><p><span "
                 "data-when>on average</span>; ");
    count_figure(p, "span", "requests.active", l->requests_active);
    page_puts(p, " in progress, ");
    count_figure(p, "span", "requests.total", l->requests);
    page_puts(p, " in all</p></div>\n");
}

/* A bar from 0 to 1, and what it stands for. */
static void bar(struct page *p, const char *path, uint64_t part, uint64_t whole)
{
    uint64_t permille = whole ? part * 1000 / whole : 0;
    page_format(p,
                "<svg class=\"bar\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" "
                "aria-hidden=\"true\"><rect data-bar=\"%s\" height=\"10\" width=\"%" PRIu64
                "\"/></svg>",
                path, permille < 1000 ? permille : 1000);
}

static void connections_tile(struct page *p, const struct status_listener *l)
{
    tile(p, "connections");
    count_figure(p, "b", "connections.open", l->connections_open);
    bar(p, "connections.open connections.max", l->connections_open, l->connections_max);
    page_puts(p, "<p>of ");
    count_figure(p, "span", "connections.max", l->connections_max);
    page_puts(p, "; ");
    count_figure(p, "span", "connections.idle", l->connections_idle);
    page_puts(p, " idle, ");
    count_figure(p, "span", "connections.active", l->connections_active);
    page_puts(p, " active</p></div>\n");
}

static void busy_tile(struct page *p, const struct status_listener *l)
{
    const char *what = l->children_max ? "processes" : l->threads ? "threads" : "workers";
    tile(p, "busy");
    page_puts(p, "<b data-share=\"saturation.busy saturation.places\">");
    put_percent(p, l->places_busy, l->places);
    page_puts(p, "</b>");
    bar(p, "saturation.busy saturation.places", l->places_busy, l->places);
    page_puts(p, "<p>");
    count_figure(p, "span", "saturation.busy", l->places_busy);
    page_puts(p, " of ");
    count_figure(p, "span", "saturation.places", l->places);
    page_format(p, " %s</p></div>\n", what);
}

static void queue_tile(struct page *p, const struct status_listener *l)
{
    if (!status_has(l, QUEUE))
        return;
    tile(p, "waiting for a thread");
    count_figure(p, "b", "queue.depth", l->queue_depth);
    bar(p, "queue.depth queue.capacity", l->queue_depth, l->queue_capacity);
    page_puts(p, "<p>of ");
    count_figure(p, "span", "queue.capacity", l->queue_capacity);
    page_puts(p, "; half waited ");
    us_figure(p, "queue.waited_us.p50", l->queued.p50_us);
    page_puts(p, " at most, 99 % ");
    us_figure(p, "queue.waited_us.p99", l->queued.p99_us);
    page_puts(p, "; ");
    count_figure(p, "span", "queue.rejected", l->queue_rejected);
    page_puts(p, " answered 503</p></div>\n");
}

static void backlog_tile(struct page *p, const struct status_listener *l)
{
    tile(p, "not yet accepted");
    count_figure(p, "b", "connections.waiting", l->connections_waiting);
    bar(p, "connections.waiting connections.backlog", l->connections_waiting,
        l->connections_backlog);
    page_puts(p, "<p>held by the kernel, which has room for ");
    count_figure(p, "span", "connections.backlog", l->connections_backlog);
    page_puts(p, "</p></div>\n");
}

/* --- the histogram ---------------------------------------------------------------------------- */

/* What a bucket begins at. */
static uint64_t bucket_from_us(unsigned bucket)
{
    return bucket ? status_bucket_us(bucket - 1) : 0;
}

static void put_bars(struct page *p, const struct status_times *t)
{
    uint64_t most = 1;
    for (unsigned i = 0; i < STATUS_BUCKETS; i++)
        most = t->bucket[i] > most ? t->bucket[i] : most;
    for (unsigned i = 0; i < STATUS_BUCKETS; i++) {
        double height = (double)t->bucket[i] * 98 / (double)most + (t->bucket[i] ? 2 : 0);
        page_format(p, "<rect x=\"%u.1\" width=\".8\" y=\"%.1f\" height=\"%.1f\"/>", i,
                    100 - height, height);
    }
}

static void put_axis(struct page *p)
{
    page_puts(p, "<div class=\"axis\" aria-hidden=\"true\">");
    for (unsigned i = 0; i < STATUS_BUCKETS; i += AXIS_STEP) {
        page_puts(p, "<span>");
        put_us(p, bucket_from_us(i));
        page_puts(p, "</span>");
    }
    page_puts(p, "</div>");
}

/* The same for those who do not see the bars. */
static void put_bucket_table(struct page *p, const struct status_times *t)
{
    page_puts(p, "<details><summary>as a table</summary><dl class=\"buckets\">");
    for (unsigned i = 0; i < STATUS_BUCKETS; i++) {
        page_puts(p, i + 1 < STATUS_BUCKETS ? "<div><dt>below " : "<div><dt>from ");
        put_us(p, i + 1 < STATUS_BUCKETS ? status_bucket_us(i) : bucket_from_us(i));
        page_puts(p, "</dt><dd>");
        put_count(p, t->bucket[i]);
        page_puts(p, "</dd></div>");
    }
    page_puts(p, "</dl></details>");
}

static void put_histogram(struct page *p, const struct status_listener *l, size_t index)
{
    const struct status_times *t = &l->latency;
    page_format(p,
                "<figure class=\"times\"><figcaption><h3>time to answer</h3><p id=\"t%zu\">"
                "<span data-window>Since the start</span>: half within <span "
                "data-q=\"0.5\">",
                index);
    put_us(p, t->p50_us);
    page_puts(p, "</span>, 90 % within <span data-q=\"0.9\">");
    put_us(p, t->p90_us);
    page_puts(p, "</span>, 99 % within <span data-q=\"0.99\">");
    put_us(p, t->p99_us);
    page_puts(p, "</span>. Longest ever ");
    us_figure(p, "requests.latency_us.max", t->max_us);
    page_format(p,
                ".</p></figcaption><svg class=\"bars\" viewBox=\"0 0 %u 100\" "
                "preserveAspectRatio=\"none\" role=\"img\" aria-labelledby=\"t%zu\">",
                STATUS_BUCKETS, index);
    put_bars(p, t);
    page_puts(p, "</svg>");
    put_axis(p);
    put_bucket_table(p, t);
    page_puts(p, "</figure>\n");
}

/* --- generations, workers, all numbers -------------------------------------------------------- */

static void put_generations(struct page *p, const struct status_snapshot *s,
                            const struct status_listener *l)
{
    char path[64];
    page_puts(p, "<div class=\"wide\"><table><thead><tr><th>generation</th><th>model</th>"
                 "<th>state</th><th>connections</th><th>requests</th><th>age</th></tr></thead>\n");
    for (size_t i = 0; i < l->generation_count; i++) {
        const struct status_generation *g = &l->generations[i];
        page_format(p, "<tr><td>%" PRIu64 "</td><td>", g->number);
        put_text(p, g->model);
        page_format(p, "</td><td class=\"%s\">%s</td>", status_generation_state(g),
                    status_generation_state(g));
        snprintf(path, sizeof path, "generations.%zu.connections", i);
        count_figure(p, "td", path, g->connections);
        snprintf(path, sizeof path, "generations.%zu.requests_active", i);
        count_figure(p, "td", path, g->requests_active);
        snprintf(path, sizeof path, "generations.%zu.since_ms", i);
        age_cell(p, path, s->now_ms, g->since_ms);
        page_puts(p, "</tr>\n");
    }
    page_puts(p, "</table></div>\n");
}

static void put_worker(struct page *p, const struct status_snapshot *s,
                       const struct status_worker *w, size_t i)
{
    char path[64];
    page_format(p, "<tr><td>%" PRId64 "</td>", w->pid);
    snprintf(path, sizeof path, "workers.%zu.state", i);
    open_figure(p, "td", "text", path);
    page_format(p, "%s</td>", status_state_name(w->state));
    snprintf(path, sizeof path, "workers.%zu.connections", i);
    count_figure(p, "td", path, w->connections);
    snprintf(path, sizeof path, "workers.%zu.requests", i);
    count_figure(p, "td", path, w->requests);
    snprintf(path, sizeof path, "workers.%zu.started_ms", i);
    age_cell(p, path, s->now_ms, w->started_ms);
    page_puts(p, "</tr>\n");
}

static void put_workers(struct page *p, const struct status_snapshot *s,
                        const struct status_listener *l, size_t index)
{
    page_format(p, "<details id=\"w%zu\"><summary>%zu %s, ", index, l->worker_count,
                l->worker_count == 1 ? "worker" : "workers");
    count_figure(p, "span", "worker_deaths", l->worker_deaths);
    page_puts(p, " died so far</summary><div class=\"wide\"><table><thead><tr><th>process</th>"
                 "<th>state</th><th>connections</th><th>requests</th><th>age</th></tr></thead>\n");
    for (size_t i = 0; i < l->worker_count && i < WORKERS_SHOWN; i++)
        put_worker(p, s, &l->workers[i], i);
    page_puts(p, "</table></div>");
    if (l->worker_count > WORKERS_SHOWN)
        page_format(p, "<p class=\"soft\">and %zu more</p>", l->worker_count - WORKERS_SHOWN);
    page_puts(p, "</details>\n");
}

static void put_number(struct page *p, const char *label, const char *path, uint64_t n)
{
    page_format(p, "<div><dt>%s</dt>", label);
    count_figure(p, "dd", path, n);
    page_puts(p, "</div>");
}

static void put_last_blocked(struct page *p, const struct status_listener *l)
{
    page_puts(p, "<div><dt>the last by</dt><dd>");
    open_figure(p, "span", "text", "blocked.last.route");
    put_text(p, l->blocked_route);
    page_puts(p, "</span> (");
    open_figure(p, "span", "text", "blocked.last.handler");
    put_text(p, l->blocked_handler);
    page_puts(p, "</span>), ");
    count_figure(p, "span", "blocked.last.ms", l->blocked_last_ms);
    page_puts(p, " ms</dd></div>");
}

static void put_group(struct page *p, const struct status_listener *l, enum status_group group)
{
    char path[64];
    const char *key = status_group_key(group);
    if (!status_has(l, group))
        return;
    page_format(p, "<h4>%s</h4><dl class=\"numbers\">", key);
    for (const struct status_number *n = status_numbers; n->key; n++) {
        if (n->group != group)
            continue;
        snprintf(path, sizeof path, "%s.%s", key, n->key);
        put_number(p, n->label, path, status_number_of(l, n));
    }
    if (group == BLOCKED && l->blocked_at_ms)
        put_last_blocked(p, l);
    for (size_t i = 0; group == REQUESTS && i < STATUS_CLASSES; i++) {
        snprintf(path, sizeof path, "requests.answers.%s", status_class_names[i]);
        put_number(p, i ? status_class_names[i] : "cut", path, l->answers[i]);
    }
    page_puts(p, "</dl>");
}

static void put_numbers(struct page *p, const struct status_listener *l, size_t index)
{
    page_format(p, "<details id=\"n%zu\"><summary>all numbers</summary>", index);
    for (enum status_group group = CONNECTIONS; group <= LAST_GROUP; group++)
        put_group(p, l, group);
    page_puts(p, "</details>\n");
}

/* --- switching -------------------------------------------------------------------------------- */

static void put_switch(struct page *p, const struct status_listener *l,
                       const struct status_control *control)
{
    page_puts(p, "<form class=\"switch\" method=\"post\" action=\"?\">"
                 "<input type=\"hidden\" name=\"token\" value=\"");
    put_text(p, control->token);
    page_puts(p, "\"><input type=\"hidden\" name=\"listener\" value=\"");
    put_text(p, l->name);
    page_puts(p, "\"><label>serve with <select name=\"model\">");
    for (const char *const *model = control->models; *model; model++) {
        bool is_now = l->model && strcmp(*model, l->model) == 0;
        page_format(p, "<option%s>", is_now ? " selected" : "");
        put_text(p, *model);
        page_puts(p, "</option>");
    }
    page_puts(p, "</select></label> <button>Switch</button> <output></output></form>\n");
}

static void put_last_switch(struct page *p, const struct status_switch *last)
{
    if (!last->number)
        return;
    page_format(p, "<p id=\"switched\" class=\"%s\">Last switch, ",
                last->outcome == STATUS_REFUSED ? "bad" : "good");
    page_time(p, last->asked_ms / 1000);
    page_puts(p, " UTC: ");
    put_text(p, last->listener);
    page_puts(p, " to ");
    put_text(p, last->model);
    page_format(p, ", %s", status_outcome_name(last->outcome));
    if (last->outcome == STATUS_TAKEN)
        page_puts(p, " (until the next reload)");
    if (last->why) {
        page_puts(p, ": ");
        put_text(p, last->why);
    }
    page_puts(p, "</p>\n");
}

/* --- the page --------------------------------------------------------------------------------- */

static void put_listener(struct page *p, const struct status_snapshot *s, size_t index,
                         const struct status_control *control)
{
    const struct status_listener *l = &s->listeners[index];
    page_format(p, "<section data-l=\"%zu\"><h2>", index);
    put_text(p, l->name);
    page_puts(p, " <span class=\"model\">");
    put_text(p, l->model);
    page_puts(p, "</span></h2>\n<p class=\"soft\">");
    put_text(p, l->protocol);
    page_puts(p, l->tls ? " over TLS" : "");
    for (size_t i = 0; i < l->address_count; i++) {
        page_puts(p, i ? ", " : " on ");
        put_text(p, l->addresses[i]);
    }
    page_puts(p, "</p>\n");
    if (l->note) {
        page_puts(p, "<p class=\"soft\">");
        put_text(p, l->note);
        page_puts(p, "</p>\n");
    }
    if (control)
        put_switch(p, l, control);
    page_puts(p, "<div class=\"tiles\">");
    load_tile(p, s, l);
    connections_tile(p, l);
    busy_tile(p, l);
    queue_tile(p, l);
    backlog_tile(p, l);
    page_puts(p, "</div>\n");
    put_histogram(p, l, index);
    put_generations(p, s, l);
    put_workers(p, s, l, index);
    put_numbers(p, l, index);
    page_puts(p, "</section>\n");
}

static void put_server(struct page *p, const struct status_snapshot *s)
{
    page_puts(p, "<p>");
    put_text(p, s->config_file);
    page_format(p, "; process %" PRId64 ", up <span data-u=\"ms\" data-s=\"uptime_ms\">", s->pid);
    put_age(p, s->uptime_ms);
    page_puts(p, "</span> since ");
    page_time(p, s->started_ms / 1000);
    page_puts(p, " UTC</p>\n<p class=\"soft\">Configuration <span data-u=\"n\" "
                 "data-s=\"generation\">");
    put_count(p, s->generation);
    page_puts(p, "</span>; reloads: <span data-u=\"n\" data-s=\"reloads.taken\">");
    put_count(p, s->reloads_taken);
    page_puts(p, "</span> taken, <span data-u=\"n\" data-s=\"reloads.refused\">");
    put_count(p, s->reloads_refused);
    page_puts(p, "</span> refused; models switched: <span data-u=\"n\" "
                 "data-s=\"switches.taken\">");
    put_count(p, s->switches_taken);
    page_puts(p, "</span>; workers that died: <span data-u=\"n\" data-s=\"worker_deaths\">");
    put_count(p, s->worker_deaths);
    page_puts(p, "</span></p>\n");
}

void status_page_main(struct page *p, const struct status_snapshot *s,
                      const struct status_control *control)
{
    put_server(p, s);
    put_last_switch(p, &s->last_switch);
    for (size_t i = 0; i < s->listener_count; i++)
        put_listener(p, s, i, control);
}

void status_page(struct page *p, const struct status_snapshot *s,
                 const struct status_control *control)
{
    page_puts(p, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                 "<title>Modus</title>\n<meta name=\"viewport\" content=\"width=device-width, "
                 "initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">"
                 "<link rel=\"icon\" href=\"data:,\">\n<style>");
    page_puts(p, status_css);
    page_puts(p, "</style></head><body>\n<header><h1>Modus <small>");
    put_text(p, s->version);
    page_puts(p, "</small></h1><p id=\"live\" role=\"status\">as of ");
    page_time(p, s->now_ms / 1000);
    page_puts(p, " UTC</p></header>\n");
    page_format(p, "<main data-shape=\"%016" PRIx64 "\">\n", status_page_shape(s, control));
    status_page_main(p, s, control);
    page_puts(p, "</main>\n<footer><p class=\"soft\">Also as <a href=\"?format=json\">JSON</a> and "
                 "for <a href=\"?format=prometheus\">Prometheus</a>.<noscript> Without JavaScript "
                 "these figures stay as they are: load the page again for newer "
                 "ones.</noscript></p></footer>\n<script>");
    page_puts(p, status_js);
    page_puts(p, "</script></body></html>\n");
}

/* --- its shape -------------------------------------------------------------------------------- */

static void mix(uint64_t *hash, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        *hash = (*hash ^ ((const unsigned char *)bytes)[i]) * 1099511628211U; /* FNV-1a */
}

static void mix_text(uint64_t *hash, const char *text)
{
    mix(hash, text ? text : "?", strlen(text ? text : "?") + 1);
}

static void mix_number(uint64_t *hash, uint64_t n)
{
    mix(hash, &n, sizeof n);
}

static void mix_listener(uint64_t *hash, const struct status_listener *l)
{
    mix_text(hash, l->name);
    mix_text(hash, l->model);
    mix_text(hash, l->protocol);
    mix_text(hash, l->note);
    for (enum status_group group = CONNECTIONS; group <= LAST_GROUP; group++)
        mix_number(hash, status_has(l, group));
    mix_number(hash, l->tls);
    mix_number(hash, l->blocked_at_ms != 0);
    for (size_t i = 0; i < l->address_count; i++)
        mix_text(hash, l->addresses[i]);
    for (size_t i = 0; i < l->generation_count; i++) {
        mix_number(hash, l->generations[i].number);
        mix_text(hash, l->generations[i].model);
        mix_number(hash, l->generations[i].retiring);
    }
    for (size_t i = 0; i < l->worker_count; i++)
        mix_number(hash, (uint64_t)l->workers[i].pid);
}

uint64_t status_page_shape(const struct status_snapshot *s, const struct status_control *control)
{
    uint64_t hash = 14695981039346656037U;
    mix_text(&hash, s->version);
    mix_text(&hash, s->config_file);
    mix_text(&hash, control ? control->token : NULL);
    mix_number(&hash, (uint64_t)s->pid);
    mix_number(&hash, s->last_switch.number);
    mix_number(&hash, s->last_switch.outcome);
    mix_number(&hash, s->listener_count);
    for (size_t i = 0; i < s->listener_count; i++)
        mix_listener(&hash, &s->listeners[i]);
    return hash;
}

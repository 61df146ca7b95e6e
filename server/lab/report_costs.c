/* SPDX-License-Identifier: MIT */
/* What a request and a connection take, in every load side by side, and what isolation costs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/plot.h"
#include "server/lab/report_priv.h"

static int by_value(const void *a, const void *b)
{
    double x = ((const struct plot_bar *)a)->value, y = ((const struct plot_bar *)b)->value;
    return (x > y) - (x < y);
}

static void put_bars(struct page *p, const struct lab_verdict *v, enum lab_measure m)
{
    struct plot_bars *bars = calloc(1, sizeof *bars);
    if (!bars) {
        p->failed = true;
        return;
    }
    bars->say = m == LAB_BY_MEMORY ? lab_say_kib : lab_say_us;
    snprintf(bars->title, sizeof bars->title, "%s, %s", lab_measure_name(m), v->load->name);
    lab_say_point(bars->note, sizeof bars->note, v);
    lab_add(bars->note, sizeof bars->note, "; %s", report_loop(v->load->loop));
    for (unsigned i = 0; i < v->count && bars->count < PLOT_LINES; i++) {
        const struct lab_rank *k = &v->rank[i];
        struct lab_spread s = lab_measured(k->series, m);
        struct plot_bar bar = {.name = k->series->server->name,
                               .value = s.median,
                               .low = s.low,
                               .high = s.high,
                               .hollow = k->out};
        if (s.median >= 0)
            bars->bars[bars->count++] = bar;
    }
    qsort(bars->bars, bars->count, sizeof bars->bars[0], by_value);
    plot_bars(p, bars);
    free(bars);
}

static bool is_batch(const struct lab_judged *j)
{
    return j->load->loop == LAB_BATCH;
}

/* Is this the first of its kind that has so many connections? One of a kind says it. */
static bool has_most_connections(const struct lab_findings *f, size_t place)
{
    const struct lab_judged *j = &f->loads[place];
    for (size_t i = 0; i < f->count; i++) {
        const struct lab_judged *other = &f->loads[i];
        if (i == place || !other->headline || is_batch(other) || other->load->kind != j->load->kind)
            continue;
        if (other->headline->connections > j->headline->connections ||
            (other->headline->connections == j->headline->connections && i < place))
            return false;
    }
    return true;
}

static bool is_shown(const struct lab_judged *j)
{
    return j->headline && !is_batch(j);
}

void report_costs(struct page *p, const struct lab_findings *f)
{
    bool any = false;
    for (size_t i = 0; i < f->count; i++)
        any = any || is_shown(&f->loads[i]);
    if (!any)
        return;
    report_open(p, "memory", "CPU a request, memory a connection");
    page_puts(p,
              "<p>What a server took, of each kind of load where it had the most connections. Less "
              "is better. Memory is what it took above its start, divided by the connections: a "
              "process for each shows here.</p>\n<div class=\"plots\">\n");
    for (size_t i = 0; i < f->count; i++)
        if (is_shown(&f->loads[i]) && has_most_connections(f, i))
            put_bars(p, f->loads[i].headline, LAB_BY_CPU);
    page_puts(p, "</div>\n<div class=\"plots\">\n");
    for (size_t i = 0; i < f->count; i++)
        if (is_shown(&f->loads[i]) && has_most_connections(f, i))
            put_bars(p, f->loads[i].headline, LAB_BY_MEMORY);
    page_puts(p, "</div>\n");
    report_close(p);
}

/* --- isolation ------------------------------------------------------------------------------- */

static const struct lab_rank *rank_of(const struct lab_verdict *v, const struct lab_server *server)
{
    for (unsigned i = 0; v && i < v->count; i++)
        if (v->rank[i].series->server == server)
            return &v->rank[i];
    return NULL;
}

static bool is_about_overhead(const struct lab_judged *j)
{
    return j->load->kind == LAB_OVERHEAD && j->headline && !is_batch(j);
}

/* The CPU of a request of whom it is dearest for. */
static double dearest_cpu(const struct lab_judged *j)
{
    double most = 0;
    for (unsigned i = 0; i < j->headline->count; i++) {
        double us = lab_measured(j->headline->rank[i].series, LAB_BY_CPU).median;
        most = us > most ? us : most;
    }
    return most;
}

/* The first load that is about it, and the one where it is dearest: more columns tell no more. */
static bool is_priced(const struct lab_findings *f, size_t place)
{
    bool first = true, dearest = true;
    if (!is_about_overhead(&f->loads[place]))
        return false;
    for (size_t i = 0; i < f->count; i++) {
        if (i == place || !is_about_overhead(&f->loads[i]))
            continue;
        first = first && i > place;
        dearest = dearest && dearest_cpu(&f->loads[i]) < dearest_cpu(&f->loads[place]);
    }
    return first || dearest;
}

static void put_server(struct page *p, const struct lab_findings *f,
                       const struct lab_server *server)
{
    char text[LAB_FIGURE];
    page_puts(p, "<tr><th scope=\"row\">");
    report_server(p, server);
    page_puts(p, "</th><td>");
    report_text(p, lab_crash_takes(server->name));
    if (server->workers > 1)
        page_format(p, "<br><small>1 of %u workers here</small>", server->workers);
    page_puts(p, "</td><td>");
    report_text(p, lab_leak_ends(server->name));
    page_puts(p, "</td>");
    for (size_t i = 0; i < f->count; i++) {
        const struct lab_rank *k = rank_of(f->loads[i].headline, server);
        if (!is_priced(f, i))
            continue;
        page_puts(p, "<td>");
        if (k)
            report_text(p, lab_say(text, LAB_BY_CPU, lab_measured(k->series, LAB_BY_CPU).median));
        page_puts(p, "</td>");
    }
    page_puts(p, "</tr>\n");
}

void report_isolation(struct page *p, const struct lab_findings *f)
{
    report_open(p, "untrusted", "Handlers that leak or crash");
    page_puts(
        p,
        "<p>What a crash takes with it is a property of the model, not measured: whoever shares a "
        "process with the handler goes down with it, and the master starts another. A leak ends "
        "with its process; <code>worker_memory</code> and <code>worker_requests</code> replace "
        "a worker before it has grown too large. What that costs was measured: CPU a "
        "request.</p>\n<div class=\"wide\"><table class=\"words\"><thead><tr><th "
        "scope=\"col\">model</th><th scope=\"col\">a crash takes</th><th scope=\"col\">a leak "
        "ends by</th>");
    for (size_t i = 0; i < f->count; i++) {
        char point[128];
        if (!is_priced(f, i))
            continue;
        lab_say_point(point, sizeof point, f->loads[i].headline);
        page_puts(p, "<th scope=\"col\">CPU a request, ");
        report_text(p, f->loads[i].load->name);
        page_puts(p, "<br><small>");
        report_text(p, point);
        page_puts(p, "</small></th>");
    }
    page_puts(p, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < f->results->server_count; i++)
        if (lab_crash_takes(f->results->servers[i].name))
            put_server(p, f, &f->results->servers[i]);
    page_puts(p, "</tbody></table></div>\n");
    report_close(p);
}

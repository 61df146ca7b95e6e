/* SPDX-License-Identifier: MIT */
/* What stands beside: the interpreter lock against the same server without it, the figures of the
 * study notes against ours, and the rounds that were left out. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/plot.h"
#include "server/lab/report_priv.h"
#include "server/lab/table.h"

enum { LISTED = 200 /* rounds that are left out; more are counted */ };

static char *say_seconds(char text[LAB_FIGURE], double n)
{
    return lab_say(text, LAB_BY_SECONDS, n);
}

/* --- the interpreter lock -------------------------------------------------------------------- */

/* The same without the lock. */
static const struct lab_series *without(const struct lab_results *r, const struct lab_series *with)
{
    for (size_t i = 0; i < r->series_count; i++) {
        const struct lab_series *s = &r->series[i];
        if (!s->gil && s->load == with->load && s->server == with->server &&
            s->connections == with->connections && s->rate == with->rate)
            return s;
    }
    return NULL;
}

static void put_gil_row(struct page *p, const struct lab_series *with,
                        const struct lab_series *free_of_it)
{
    char text[LAB_FIGURE], point[64];
    enum lab_measure m = lab_shown(with->load);
    struct lab_spread a = lab_measured(with, m), b = lab_measured(free_of_it, m);
    double ratio = lab_times_better(m, b.median, a.median);
    double held = lab_median(with, offsetof(struct lab_round, gil_held), NULL, NULL);
    page_puts(p, "<tr><th scope=\"row\">");
    report_server(p, with->server);
    page_puts(p, "</th><td>");
    report_text(p, with->load->name);
    page_puts(p, ", ");
    report_text(p,
                lab_say_count(point, sizeof point, with->connections, "connection", "connections"));
    page_format(p, "<br><small>%s, %s</small></td><td>%s</td>", lab_measure_name(m),
                report_loop(with->load->loop), lab_say(text, m, b.median));
    page_format(p, "<td>%s</td><td>", lab_say(text, m, a.median));
    if (ratio < 0)
        page_puts(p, "not measured");
    else if (!lab_is_clear(m, with, free_of_it))
        page_puts(p, "the same, within the noise");
    else
        page_format(p, "%s %s with it", lab_say_times(text, ratio >= 1 ? ratio : 1 / ratio),
                    ratio >= 1 ? "worse" : "better");
    page_format(p, "</td><td>%s</td></tr>\n", held < 0 ? "" : lab_say_share(text, held));
}

static bool lock_matters(const struct lab_results *r, const struct lab_load *load)
{
    for (size_t i = 0; i < r->series_count; i++) {
        const struct lab_series *s = &r->series[i];
        const struct lab_series *other = s->gil && s->load == load ? without(r, s) : NULL;
        if (other && lab_is_clear(lab_shown(load), s, other))
            return true;
    }
    return false;
}

static bool has_lock(const struct lab_results *r, const struct lab_load *load)
{
    for (size_t i = 0; i < r->series_count; i++)
        if (r->series[i].gil && r->series[i].load == load && without(r, &r->series[i]))
            return true;
    return false;
}

/* A table of rows that all say the same is a sentence. */
static void put_alike(struct page *p, const struct lab_results *r)
{
    bool any = false;
    for (size_t i = 0; i < r->load_count; i++) {
        if (!has_lock(r, r->loads[i]) || lock_matters(r, r->loads[i]))
            continue;
        page_puts(p, any ? "; " : "<p>The same with and without it, within the noise: ");
        report_text(p, r->loads[i]->title);
        any = true;
    }
    page_puts(p, any ? ".</p>\n" : "");
}

void report_gil(struct page *p, const struct lab_findings *f)
{
    const struct lab_results *r = f->results;
    bool any = false, table = false;
    for (size_t i = 0; i < r->load_count; i++)
        any = any || has_lock(r, r->loads[i]);
    if (!any)
        return;
    report_open(p, "gil", "With an interpreter lock");
    page_puts(p, "<p>With <code>gil = true</code> handlers run under one lock a process, as in "
                 "Python, given up while they wait. Here beside the same server without it.</p>\n");
    put_alike(p, r);
    for (size_t i = 0; i < r->series_count; i++) {
        const struct lab_series *s = &r->series[i];
        const struct lab_series *other = s->gil ? without(r, s) : NULL;
        if (!other || !lock_matters(r, s->load))
            continue;
        if (!table)
            page_puts(p, "<div class=\"wide\"><table class=\"words\"><thead><tr><th "
                         "scope=\"col\">server</th><th scope=\"col\">load</th><th "
                         "scope=\"col\">without</th><th scope=\"col\">with</th><th "
                         "scope=\"col\">difference</th><th scope=\"col\">lock held</th></tr>"
                         "</thead><tbody>\n");
        table = true;
        put_gil_row(p, s, other);
    }
    page_puts(p, table ? "</tbody></table></div>\n" : "");
    report_close(p);
}

/* --- the study notes ------------------------------------------------------------------------- */

static void add_bar(struct plot_bars *bars, const char *name, const char *style, double seconds)
{
    if (seconds > 0 && bars->count < PLOT_LINES)
        bars->bars[bars->count++] = (struct plot_bar){.name = name,
                                                      .style = style,
                                                      .value = seconds,
                                                      .low = LAB_UNKNOWN,
                                                      .high = LAB_UNKNOWN,
                                                      .note = true};
}

static void put_beside(struct page *p, const struct lab_judged *j)
{
    struct plot_bars *bars = calloc(1, sizeof *bars);
    const struct lab_verdict *v = j->headline;
    if (!bars) {
        p->failed = true;
        return;
    }
    bars->say = say_seconds;
    snprintf(bars->title, sizeof bars->title, "time to the last answer, %s", j->load->name);
    lab_say_point(bars->note, sizeof bars->note, v);
    lab_add(bars->note, sizeof bars->note, "; batch; outlined: the notes, in Python elsewhere");
    add_bar(bars, "notes: process", "process", j->load->note_seconds[0]);
    add_bar(bars, "notes: threads", "thread-pool", j->load->note_seconds[1]);
    for (unsigned i = 0; i < v->count && bars->count < PLOT_LINES; i++) {
        struct lab_spread s = lab_measured(v->rank[i].series, LAB_BY_SECONDS);
        struct plot_bar bar = {.name = v->rank[i].series->server->name,
                               .value = s.median,
                               .low = s.low,
                               .high = s.high,
                               .hollow = v->rank[i].out};
        if (s.median >= 0)
            bars->bars[bars->count++] = bar;
    }
    plot_bars(p, bars);
    free(bars);
}

static double seconds_of(const struct lab_verdict *v, const char *server)
{
    for (unsigned i = 0; i < v->count; i++)
        if (strcmp(v->rank[i].series->server->name, server) == 0)
            return lab_measured(v->rank[i].series, LAB_BY_SECONDS).median;
    return LAB_UNKNOWN;
}

static void say_ratio(struct page *p, double threads, double processes)
{
    double ratio = threads / processes;
    if (ratio > 0.95 && ratio < 1.05)
        page_puts(p, "as long as");
    else if (ratio < 1)
        page_format(p, "%.0f&nbsp;%% of the time of", 100 * ratio);
    else
        page_format(p, "%.1f times the time of", ratio);
}

/* The same batch under the interpreter lock, which is what the notes' threads had. */
static const struct lab_verdict *under_lock(const struct lab_judged *j)
{
    for (size_t i = 0; i < j->count; i++)
        if (j->points[i].gil)
            return &j->points[i];
    return NULL;
}

static void put_comparison(struct page *p, const struct lab_judged *j)
{
    const double *notes = j->load->note_seconds;
    double threads = seconds_of(j->headline, "thread-pool");
    double processes = seconds_of(j->headline, "process");
    const struct lab_verdict *lock = under_lock(j);
    double locked = lock ? seconds_of(lock, "thread-pool") : LAB_UNKNOWN;
    if (notes[0] <= 0 || notes[1] <= 0)
        return;
    page_puts(p, "<p>In the notes threads took ");
    say_ratio(p, notes[1], notes[0]);
    page_puts(p, " processes");
    if (locked > 0 && processes > 0) {
        page_puts(p, "; here thread-pool under the interpreter lock took ");
        say_ratio(p, locked, processes);
        page_puts(p, " process");
    }
    if (threads > 0 && processes > 0) {
        page_puts(p, locked > 0 ? ", and without it " : "; here thread-pool took ");
        say_ratio(p, threads, processes);
        page_puts(p, " process");
    }
    page_puts(p, ".</p>\n");
}

void report_notes(struct page *p, const struct lab_findings *f)
{
    bool open = false;
    for (size_t i = 0; i < f->count; i++) {
        const struct lab_judged *j = &f->loads[i];
        bool has_figures = j->load->note_seconds[0] > 0 || j->load->note_seconds[1] > 0;
        if (!j->headline || !j->load->note_says)
            continue;
        if (!open)
            report_open(p, "notes", "The study notes' figures beside ours");
        open = true;
        page_puts(p, "<article><h3>");
        report_text(p, j->load->title);
        page_puts(p, "</h3>\n<p>");
        report_text(p, j->load->note_says);
        page_puts(p, ". <a href=\"#load-");
        page_url(p, str_of(j->load->name));
        page_puts(p, "\">See ours</a>.</p>\n");
        put_comparison(p, j);
        if (has_figures && j->load->loop == LAB_BATCH) {
            page_puts(p, "<div class=\"plots\">\n");
            put_beside(p, j);
            page_puts(p, "</div>\n");
        }
        page_puts(p, "</article>\n");
    }
    if (open)
        report_close(p);
}

/* --- left out -------------------------------------------------------------------------------- */

static void put_left_out(struct page *p, const struct lab_series *s, const struct lab_round *round)
{
    char n[64];
    page_puts(p, "<tr><th scope=\"row\">");
    report_text(p, s->server->name);
    page_puts(p, "</th><td>");
    report_text(p, s->load->name);
    page_format(p, ", %s%s, repeat %u<br><small>",
                lab_say_count(n, sizeof n, s->connections, "connection", "connections"),
                s->gil ? ", interpreter lock" : "", round->repeat + 1);
    report_text(p, round->error ? round->error : round->doubt ? round->doubt : "not to be trusted");
    page_puts(p, "</small></td></tr>\n");
}

void report_left_out(struct page *p, const struct lab_findings *f)
{
    const struct lab_results *r = f->results;
    unsigned count = 0;
    for (size_t i = 0; i < r->series_count; i++)
        for (size_t k = 0; k < r->series[i].round_count; k++) {
            const struct lab_round *round = &r->series[i].rounds[k];
            if (round->trusted && !round->error)
                continue;
            if (count == 0) {
                report_open(p, "left-out", "Left out");
                page_puts(p, "<p>Rounds that failed, and those in which the machine was disturbed. "
                             "A server of which no round is to be trusted keeps its figures, but "
                             "only a large difference counts.</p>\n<div class=\"wide\"><table "
                             "class=\"words\"><thead><tr><th scope=\"col\">server</th><th "
                             "scope=\"col\">round, and why</th></tr></thead><tbody>\n");
            }
            if (count++ < LISTED)
                put_left_out(p, &r->series[i], round);
        }
    if (!count)
        return;
    page_puts(p, "</tbody></table></div>\n");
    if (count > LISTED)
        page_format(p, "<p class=\"soft\">and %u more, in results.json</p>\n", count - LISTED);
    report_close(p);
}

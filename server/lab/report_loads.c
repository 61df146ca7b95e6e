/* SPDX-License-Identifier: MIT */
/* A section for each kind of load, and in it each load: what to choose and why, the plots, and all
 * figures as a table. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/plot.h"
#include "server/lab/report_priv.h"
#include "server/lab/table.h"

/* --- plots over connections or rates --------------------------------------------------------- */

static char *say_seconds(char text[LAB_FIGURE], double n)
{
    return lab_say(text, LAB_BY_SECONDS, n);
}

static plot_say *say_of(enum lab_measure m)
{
    switch (m) {
    case LAB_BY_RPS:
        return lab_say_number;
    case LAB_BY_KEPT_UP:
        return lab_say_share;
    case LAB_BY_P50:
    case LAB_BY_P99:
    case LAB_BY_CHEAP_P99:
    case LAB_BY_CPU:
        return lab_say_us;
    case LAB_BY_MEMORY:
    case LAB_BY_WHOLE:
        return lab_say_kib;
    case LAB_BY_SECONDS:
        return say_seconds;
    }
    return lab_say_number;
}

static size_t plain_points(const struct lab_judged *j)
{
    size_t count = 0;
    while (count < j->count && !j->points[count].gil)
        count++;
    return count;
}

/* The x of a load's plots: the rate if there are several, else connections. */
static bool is_over_rate(const struct lab_judged *j)
{
    size_t count = plain_points(j);
    return count > 1 && j->points[0].rate != j->points[count - 1].rate;
}

/* Logarithmic when the highest is far above the lowest. */
static bool wants_log(const struct lab_judged *j, enum lab_measure m)
{
    double low = INFINITY, high = 0;
    for (size_t i = 0; i < plain_points(j); i++)
        for (unsigned k = 0; k < j->points[i].count; k++) {
            double n = lab_measured(j->points[i].rank[k].series, m).median;
            low = n > 0 && n < low ? n : low;
            high = n > high ? n : high;
        }
    return high > 12 * low;
}

static void say_note(char *text, size_t size, const struct lab_judged *j, enum lab_measure m,
                     bool log)
{
    lab_add(text, size, "%s; %s is better%s", report_loop(j->load->loop),
            lab_more_is_better(m) ? "more" : "less", log ? "; log scale" : "");
}

static void add_server(struct plot *plot, const struct lab_judged *j,
                       const struct lab_server *server, enum lab_measure m)
{
    struct plot_line *line = plot_add_line(plot, server->name);
    for (size_t i = 0; i < plain_points(j); i++)
        for (unsigned k = 0; k < j->points[i].count; k++) {
            const struct lab_rank *rank = &j->points[i].rank[k];
            if (rank->series->server != server)
                continue;
            struct lab_spread y = lab_measured(rank->series, m);
            double x = is_over_rate(j) ? rank->series->rate : rank->series->connections;
            plot_add_point(line, (struct plot_point){x, y.median, y.low, y.high, rank->out});
        }
}

static void put_over_points(struct page *p, const struct lab_findings *f,
                            const struct lab_judged *j, enum lab_measure m)
{
    struct plot *plot = calloc(1, sizeof *plot);
    if (!plot) {
        p->failed = true;
        return;
    }
    plot->say_x = lab_say_whole;
    plot->say_y = say_of(m);
    plot->x_log = true;
    plot->y_log = wants_log(j, m);
    snprintf(plot->title, sizeof plot->title, "%s", lab_measure_name(m));
    snprintf(plot->x_name, sizeof plot->x_name, "%s",
             is_over_rate(j) ? "requests a second that were asked" : "connections");
    say_note(plot->note, sizeof plot->note, j, m, plot->y_log);
    for (size_t i = 0; i < f->results->server_count; i++)
        add_server(plot, j, &f->results->servers[i], m);
    plot_lines(p, plot);
    free(plot);
}

static void put_bars(struct page *p, const struct lab_judged *j, enum lab_measure m)
{
    struct plot_bars *bars = calloc(1, sizeof *bars);
    const struct lab_verdict *v = j->headline;
    if (!bars) {
        p->failed = true;
        return;
    }
    bars->say = say_of(m);
    snprintf(bars->title, sizeof bars->title, "%s", lab_measure_name(m));
    lab_say_point(bars->note, sizeof bars->note, v);
    lab_add(bars->note, sizeof bars->note, "; ");
    say_note(bars->note, sizeof bars->note, j, m, false);
    for (unsigned i = 0; i < v->count && bars->count < PLOT_LINES; i++) {
        struct lab_spread s = lab_measured(v->rank[i].series, m);
        if (s.median >= 0)
            bars->bars[bars->count++] = (struct plot_bar){.name = v->rank[i].series->server->name,
                                                          .value = s.median,
                                                          .low = s.low,
                                                          .high = s.high,
                                                          .hollow = v->rank[i].out};
    }
    plot_bars(p, bars);
    free(bars);
}

static void put_measure(struct page *p, const struct lab_findings *f, const struct lab_judged *j,
                        enum lab_measure m)
{
    if (plain_points(j) > 1)
        put_over_points(p, f, j, m);
    else
        put_bars(p, j, m);
}

/* --- all figures ----------------------------------------------------------------------------- */

struct column {
    const char *name;
    size_t field;
    plot_say *say;
    const char *says; /* ""; told with the one before */
};

static const struct column columns[] = {
    {"requests/s", offsetof(struct lab_round, rps), lab_say_number, "answered rightly"},
    {"p50", offsetof(struct lab_round, p50_us), lab_say_us,
     "half of the requests took no longer; p90, p99 and p99.9 likewise"},
    {"p90", offsetof(struct lab_round, p90_us), lab_say_us, ""},
    {"p99", offsetof(struct lab_round, p99_us), lab_say_us, ""},
    {"p99.9", offsetof(struct lab_round, p999_us), lab_say_us, ""},
    {"longest", offsetof(struct lab_round, max_us), lab_say_us, "the slowest request"},
    {"cheap p99", offsetof(struct lab_round, cheap_p99_us), lab_say_us,
     "p99 of the requests that have no work to do"},
    {"CPU/request", offsetof(struct lab_round, cpu_us), lab_say_us,
     "user and system time of all the server's processes"},
    {"CPUs busy", offsetof(struct lab_round, cpu_share), lab_say_number,
     "with the server: 1 is one CPU all the time"},
    {"loader's CPU", offsetof(struct lab_round, loader_cpu), lab_say_share,
     "how busy it was; near 100" LAB_NBSP
     "% the loader is what is measured, or the server had that CPU, too"},
    {"memory", offsetof(struct lab_round, pss_kib), lab_say_kib,
     "PSS of all processes at its highest"},
    {"before", offsetof(struct lab_round, pss_idle_kib), lab_say_kib,
     "the same before the round, without connections"},
    {"processes", offsetof(struct lab_round, processes), lab_say_number,
     "at their highest, the master among them"},
    {"threads", offsetof(struct lab_round, threads), lab_say_number,
     "of all processes, at their highest"},
    {"switches/request", offsetof(struct lab_round, switches), lab_say_number,
     "how often the kernel gave the CPU to another thread"},
    {"forks/request", offsetof(struct lab_round, forks), lab_say_number, "processes made"},
    {"in queue", offsetof(struct lab_round, queued_us), lab_say_us,
     "a request's wait for a worker or thread, on average"},
    {"queue full", offsetof(struct lab_round, rejected), lab_say_whole,
     "requests refused with 503 because of that"},
    {"busy", offsetof(struct lab_round, busy), lab_say_share,
     "share of the time that a worker or thread had a request"},
    {"blocked", offsetof(struct lab_round, blocked), lab_say_number,
     "times a handler kept a loop for over 50" LAB_NBSP "ms"},
    {"lock held", offsetof(struct lab_round, gil_held), lab_say_share,
     "share of the time that the interpreter lock was taken"},
};

enum { COLUMNS = sizeof columns / sizeof columns[0] };

/* Does any series of the load know it? */
static bool is_known(const struct lab_judged *j, const struct column *c)
{
    for (size_t i = 0; i < j->count; i++)
        for (unsigned k = 0; k < j->points[i].count; k++)
            if (lab_median(j->points[i].rank[k].series, c->field, NULL, NULL) >= 0)
                return true;
    return false;
}

static bool is_known_anywhere(const struct lab_findings *f, const struct column *c)
{
    for (size_t i = 0; i < f->count; i++)
        if (is_known(&f->loads[i], c))
            return true;
    return false;
}

void report_columns(struct page *p, const struct lab_findings *f)
{
    bool open = false;
    for (size_t i = 0; i < COLUMNS; i++) {
        if (!*columns[i].says || !is_known_anywhere(f, &columns[i]))
            continue;
        if (!open) {
            report_open(p, "columns", "What the columns are");
            page_puts(p, "<p>Those of \"all figures\" above. Each is the median of the "
                         "rounds.</p>\n<dl>");
        }
        open = true;
        page_format(p, "<div><dt>%s</dt><dd>%s</dd></div>\n", columns[i].name, columns[i].says);
    }
    if (!open)
        return;
    page_puts(p, "</dl>\n");
    report_close(p);
}

static void put_row(struct page *p, const struct lab_judged *j, const struct lab_verdict *v,
                    const struct lab_rank *k)
{
    char text[LAB_FIGURE], point[128];
    unsigned trusted = 0;
    for (size_t i = 0; i < k->series->round_count; i++)
        trusted += k->series->rounds[i].trusted && !k->series->rounds[i].error;
    lab_say_point(point, sizeof point, v);
    page_puts(p, "<tr><th scope=\"row\">");
    report_text(p, k->series->server->name);
    page_puts(p, "</th><td>");
    report_text(p, point);
    page_format(p, "</td><td>%u of %zu</td><td%s>%s</td>", trusted, k->series->round_count,
                k->out ? " class=\"bad\"" : "", lab_say_share(text, lab_error_share(k->series)));
    for (size_t i = 0; i < COLUMNS; i++) {
        double n = lab_median(k->series, columns[i].field, NULL, NULL);
        if (is_known(j, &columns[i]))
            page_format(p, "<td>%s</td>", n < 0 ? "" : columns[i].say(text, n));
    }
    page_puts(p, "</tr>\n");
}

static void put_all_figures(struct page *p, const struct lab_judged *j)
{
    page_puts(p, "<details><summary>all figures (medians)</summary><div class=\"wide\"><table>"
                 "<thead><tr><th scope=\"col\">server</th><th scope=\"col\">with</th><th "
                 "scope=\"col\">rounds</th><th scope=\"col\">errors</th>");
    for (size_t i = 0; i < COLUMNS; i++)
        if (is_known(j, &columns[i]))
            page_format(p, "<th scope=\"col\">%s</th>", columns[i].name);
    page_puts(p, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < j->count; i++)
        for (unsigned k = 0; k < j->points[i].count; k++)
            put_row(p, j, &j->points[i], &j->points[i].rank[k]);
    page_puts(p, "</tbody></table></div><p class=\"soft\"><a href=\"#columns\">What the columns "
                 "are</a></p></details>\n");
}

/* --- a load ---------------------------------------------------------------------------------- */

static const char *certainty_of(const struct lab_verdict *v)
{
    if (v->disturbed)
        return "disturbed: not sure";
    switch (v->certainty) {
    case LAB_NOBODY:
        return "nobody";
    case LAB_ALONE:
        return "alone";
    case LAB_NOISE:
        return "within the noise";
    case LAB_SECOND:
    case LAB_CLEAR:
        return "clear";
    }
    return "";
}

static void put_verdict(struct page *p, const struct lab_verdict *v)
{
    char point[128], front[512];
    const struct lab_server *chosen = lab_chosen(v);
    lab_say_point(point, sizeof point, v);
    page_puts(p, "<p class=\"verdict\"><b>");
    if (v->equals > 1) {
        lab_say_front(front, sizeof front, v);
        report_text(p, front);
    } else if (chosen) {
        report_server(p, chosen);
    } else {
        page_puts(p, "none");
    }
    page_format(p, "</b> <span class=\"tag\">%s</span> with ", certainty_of(v));
    report_text(p, point);
    page_puts(p, ": ");
    report_text(p, v->margin);
    page_format(p, ". <span class=\"soft\">Judged by %s, then %s.</span></p>\n",
                lab_measure_name(v->first), lab_measure_name(v->second));
    if (*v->why) {
        page_puts(p, "<p><b>Why:</b> ");
        report_text(p, v->why);
        page_puts(p, ".</p>\n");
    }
    if (*v->notes) {
        page_puts(p, "<p class=\"soft\">");
        report_text(p, v->notes);
        page_puts(p, "</p>\n");
    }
}

/* Neighbours that say the same are one: "with 16 and 64 connections event-loop". */
static void put_other_points(struct page *p, const struct lab_judged *j)
{
    bool over_rate = is_over_rate(j);
    char said[512] = "", front[512], n[LAB_FIGURE];
    for (size_t i = 0; i < plain_points(j); i++) {
        const struct lab_verdict *v = &j->points[i];
        if (v == j->headline)
            continue;
        lab_say_front(front, sizeof front, v);
        page_puts(p, *said ? "; " : "<p>Elsewhere: ");
        page_format(p, "with %s ", lab_say_whole(n, over_rate ? v->rate : v->connections));
        while (i + 1 < plain_points(j) && &j->points[i + 1] != j->headline) {
            const struct lab_verdict *next = &j->points[i + 1];
            lab_say_front(said, sizeof said, next);
            if (strcmp(said, front) != 0)
                break;
            page_format(p, "and %s ", lab_say_whole(n, over_rate ? next->rate : next->connections));
            i++;
        }
        page_puts(p, over_rate ? "requests a second " : "connections ");
        report_text(p, front);
        memcpy(said, front, sizeof said);
    }
    page_puts(p, *said ? ".</p>\n" : "");
}

static void put_plots(struct page *p, const struct lab_findings *f, const struct lab_judged *j)
{
    enum lab_measure first = lab_shown(j->load);
    page_puts(p, "<div class=\"plots\">\n");
    if (j->load->loop == LAB_BATCH) {
        put_bars(p, j, LAB_BY_SECONDS);
    } else {
        put_measure(p, f, j, first);
        if (first != LAB_BY_RPS && j->load->loop == LAB_CLOSED)
            put_measure(p, f, j, LAB_BY_RPS);
        if (first != LAB_BY_P99 && j->load->kind != LAB_MIXED) /* there that of all says little */
            put_measure(p, f, j, LAB_BY_P99);
    }
    if (j->load->loop != LAB_BATCH)
        report_times(p, j->headline);
    page_puts(p, "</div>\n");
}

static void put_load(struct page *p, const struct lab_findings *f, const struct lab_judged *j)
{
    page_puts(p, "<article id=\"load-");
    page_url(p, str_of(j->load->name));
    page_puts(p, "\"><h3>");
    report_text(p, j->load->title);
    page_puts(p, " <span class=\"tag\">");
    report_text(p, j->load->name);
    page_format(p, ", %s</span></h3>\n<p class=\"soft\">", report_loop(j->load->loop));
    report_text(p, j->load->why);
    page_puts(p, "</p>\n");
    put_verdict(p, j->headline);
    put_other_points(p, j);
    put_plots(p, f, j);
    put_all_figures(p, j);
    page_puts(p, "</article>\n");
}

void report_loads(struct page *p, const struct lab_findings *f)
{
    static const struct {
        enum lab_kind kind;
        const char *title;
    } kinds[] = {{LAB_IO, "Handlers that wait"},
                 {LAB_CPU, "Handlers that compute"},
                 {LAB_MIXED, "Cheap requests beside heavy ones"},
                 {LAB_IDLE, "Many idle connections"},
                 {LAB_OVERHEAD, "Plain small answers"}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool open = false;
        for (size_t k = 0; k < f->count; k++) {
            if (f->loads[k].load->kind != kinds[i].kind || !f->loads[k].headline)
                continue;
            if (!open)
                report_open(p, lab_kind_name(kinds[i].kind), kinds[i].title);
            put_load(p, f, &f->loads[k]);
            open = true;
        }
        if (open)
            report_close(p);
    }
}

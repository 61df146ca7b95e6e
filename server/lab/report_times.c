/* SPDX-License-Identifier: MIT */
/* How the times of a load are spread: a line for each server over the share of its requests, drawn so
 * that the slowest few have as much room as the others. */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/plot.h"
#include "server/lab/report_priv.h"

/* The x of a share: how many nines, so that the slow few have room. */
static double nines(double share)
{
    return -log10(1 - share);
}

static char *say_nines(char text[LAB_FIGURE], double x)
{
    static const struct {
        double share;
        const char *text;
    } names[] = {{0.5, "50" LAB_NBSP "%"},
                 {0.9, "90" LAB_NBSP "%"},
                 {0.99, "99" LAB_NBSP "%"},
                 {0.999, "99.9" LAB_NBSP "%"},
                 {0.9999, "99.99" LAB_NBSP "%"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (fabs(nines(names[i].share) - x) < 1e-6)
            return strcpy(text, names[i].text);
    snprintf(text, LAB_FIGURE, "%.1f" LAB_NBSP "%%", 100 * (1 - pow(10, -x)));
    return text;
}

/* All rounds that count as one; false: none has it. */
static bool merged(const struct lab_series *s, struct lab_histogram *into)
{
    memset(into, 0, sizeof *into);
    for (size_t i = 0; i < s->round_count; i++)
        if (s->rounds[i].latency && lab_counts(s, &s->rounds[i]))
            lab_histogram_merge(into, s->rounds[i].latency);
    return into->count > 0;
}

static void add_nines(struct plot_line *line, double share, double us, bool hollow)
{
    plot_add_point(line, (struct plot_point){nines(share), us, us, us, hollow});
}

/* As far out as ten requests were slower. */
static void add_histogram(struct plot *plot, struct plot_line *line, const struct lab_histogram *h,
                          bool hollow)
{
    double end = nines(1 - 10 / ((double)h->count > 20 ? (double)h->count : 20));
    for (double x = 0.1; x < end && x < 4.01; x += 0.1) {
        for (size_t t = 0; t < plot->tick_count; t++)
            if (plot->ticks[t] > x - 0.1 && plot->ticks[t] <= x)
                add_nines(line, 1 - pow(10, -plot->ticks[t]),
                          (double)lab_histogram_at(h, 1 - pow(10, -plot->ticks[t])) / 1e3, hollow);
        add_nines(line, 1 - pow(10, -x), (double)lab_histogram_at(h, 1 - pow(10, -x)) / 1e3,
                  hollow);
    }
}

static void add_quantiles(struct plot_line *line, const struct lab_series *s, bool hollow)
{
    const struct {
        double share;
        size_t field;
    } known[] = {{0.5, offsetof(struct lab_round, p50_us)},
                 {0.9, offsetof(struct lab_round, p90_us)},
                 {0.99, offsetof(struct lab_round, p99_us)},
                 {0.999, offsetof(struct lab_round, p999_us)}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        add_nines(line, known[i].share, lab_median(s, known[i].field, NULL, NULL), hollow);
}

static struct plot *new_plot(struct page *p, const char *note)
{
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 0.9999};
    struct plot *plot = calloc(1, sizeof *plot);
    if (!plot) {
        p->failed = true;
        return NULL;
    }
    plot->say_x = say_nines;
    plot->say_y = lab_say_us;
    plot->y_log = plot->smooth = true;
    for (size_t t = 0; t < sizeof shares / sizeof shares[0]; t++)
        plot->ticks[plot->tick_count++] = nines(shares[t]);
    snprintf(plot->title, sizeof plot->title, "time to answer");
    snprintf(plot->x_name, sizeof plot->x_name, "share of the requests that took no longer");
    snprintf(plot->note, sizeof plot->note, "%s; log scale", note);
    return plot;
}

static void add_line(struct page *p, struct plot *plot, const struct report_line *of, bool hollow)
{
    struct lab_histogram *h = malloc(sizeof *h);
    struct plot_line *line = plot_add_line(plot, of->name);
    p->failed = p->failed || !h;
    if (line)
        line->style = of->style;
    if (h && line && merged(of->series, h))
        add_histogram(plot, line, h, hollow);
    else if (line)
        add_quantiles(line, of->series, hollow);
    free(h);
}

void report_times(struct page *p, const struct lab_verdict *v)
{
    char note[160];
    lab_say_point(note, sizeof note, v);
    lab_add(note, sizeof note, "; %s", report_loop(v->load->loop));
    struct plot *plot = new_plot(p, note);
    for (unsigned i = 0; plot && i < v->count; i++) {
        const struct lab_series *s = v->rank[i].series;
        add_line(p, plot, &(struct report_line){.name = s->server->name, .series = s},
                 v->rank[i].out);
    }
    if (plot)
        plot_lines(p, plot);
    free(plot);
}

void report_times_beside(struct page *p, const struct report_line *lines, size_t count,
                         const char *note)
{
    struct plot *plot = new_plot(p, note);
    for (size_t i = 0; plot && i < count; i++)
        add_line(p, plot, &lines[i], false);
    if (plot)
        plot_lines(p, plot);
    free(plot);
}

/* SPDX-License-Identifier: MIT */
/* Plots as figures of a page: inline SVG, without a script. Lines over a number, and bars.
 *
 * Each server has a colour of its own, a marker and a dash, so that they can be told apart without
 * colours, too; report.css holds the colours, which are other ones in the dark. Each figure says in
 * words what it shows (aria-label), and has its figures as a table below it.
 *
 * Texts may be anything: they are escaped. Numbers below 0, and those above PLOT_MOST, which nothing that is
 * measured comes near, are not drawn; so no sum of what is drawn is infinite.
 * Safe from: one thread at a time for a page.
 */
#ifndef SERVER_LAB_PLOT_H
#define SERVER_LAB_PLOT_H

#include "handlers/page.h"
#include "server/lab/figures.h"

enum { PLOT_LINES = 24, PLOT_POINTS = 64, PLOT_TICKS = 16 };

#define PLOT_MOST 1e100

typedef char *plot_say(char text[LAB_FIGURE], double value);

struct plot_point {
    double x, y, low, high; /* low, high: of the repeats; equal to y: none shown */
    bool hollow;            /* not to be chosen by this */
};

struct plot_line {
    const char *name;
    const char *style; /* whose colour, marker and dash; NULL: those of the name */
    struct plot_point points[PLOT_POINTS];
    size_t count;
};

struct plot {
    char title[160]; /* "Requests a second" */
    char note[200];  /* below it: "closed loop; more is better" */
    char x_name[64]; /* "connections" */
    plot_say *say_x, *say_y;
    bool x_log, y_log;
    bool smooth; /* markers at the ticks alone */
    double ticks[PLOT_TICKS];
    size_t tick_count; /* of x; 0: one for each x that there is */
    struct plot_line lines[PLOT_LINES];
    size_t count;
};

struct plot_bar {
    const char *name;
    const char *style; /* whose colour; NULL: that of the name */
    double value, low, high;
    bool hollow, note; /* note: not of ours: the study notes' */
};

struct plot_bars {
    char title[160], note[200];
    plot_say *say;
    struct plot_bar bars[PLOT_LINES];
    size_t count;
};

/* Which colour, marker and dash a server has, by its name; foreign ones share the last. */
unsigned plot_style(const char *name);
/* A name that fits into a plot: a URL without its scheme, and of that so many characters at
 * most. */
void plot_short_name(char *to, size_t size, const char *name, size_t most);
/* A new line, NULL when there are enough. */
struct plot_line *plot_add_line(struct plot *plot, const char *name);
void plot_add_point(struct plot_line *line, struct plot_point point);
/* A plot without anything to draw is left out. */
void plot_lines(struct page *p, const struct plot *plot);
void plot_bars(struct page *p, const struct plot_bars *bars);
/* A server's marker, in a line of text. */
void plot_mark(struct page *p, const char *name);

#endif

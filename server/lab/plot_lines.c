/* SPDX-License-Identifier: MIT */
/* Lines over a number, one for each server, with their names at their ends: no legend to look up.
 * The drawing is 380 wide, about what a phone has, so that its text is readable there as it is.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/lab/plot.h"
#include "server/lab/plot_priv.h"

enum {
    WIDTH = 380,
    HEIGHT = 250,
    LEFT = 62,
    RIGHT = 100,
    TOP = 12,
    BOTTOM = 42,
    LINE_HEIGHT = 16,
    LOWEST = HEIGHT - BOTTOM - 4, /* that a name at the end of a line may be */
    SHORT = 11
};

static const double SMALLEST = 1e-9; /* what a logarithm is taken of */

/* From numbers to the drawing. */
struct axis {
    double low, high; /* logarithms, when log */
    double from, to;  /* where these are drawn */
    bool log;
};

static double at(const struct axis *a, double n)
{
    double value = a->log ? log10(n > SMALLEST ? n : SMALLEST) : n;
    return a->from + (value - a->low) / (a->high - a->low) * (a->to - a->from);
}

static bool has_range(const struct plot_point *q)
{
    return plot_is_number(q->low) && plot_is_number(q->high) && q->high > q->low;
}

/* --- the range of numbers -------------------------------------------------------------------- */

static void take(double *low, double *high, double n)
{
    *low = n < *low ? n : *low;
    *high = n > *high ? n : *high;
}

static size_t range(const struct plot *plot, bool y, double *low, double *high)
{
    size_t count = 0;
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t i = 0; i < plot->count; i++)
        for (size_t k = 0; k < plot->lines[i].count; k++) {
            const struct plot_point *q = &plot->lines[i].points[k];
            take(low, high, y ? q->y : q->x);
            if (y && plot_is_number(q->high))
                take(low, high, q->high);
            if (y && plot_is_number(q->low) && (q->low > 0 || !plot->y_log))
                take(low, high, q->low);
            count++;
        }
    return count;
}

/* A step of 1, 2 or 5 times a power of ten, so that about four fit. */
static double step_of(double high)
{
    double rough = (high > SMALLEST ? high : 1) / 4, unit = pow(10, floor(log10(rough)));
    double n = rough / unit;
    return unit * (n <= 1 ? 1 : n <= 2 ? 2 : n <= 5 ? 5 : 10);
}

static struct axis x_axis(const struct plot *plot)
{
    double low, high;
    struct axis a = {.from = LEFT + 10, .to = WIDTH - RIGHT, .log = plot->x_log};
    range(plot, false, &low, &high);
    a.low = plot->x_log ? log10(low > SMALLEST ? low : SMALLEST) : low;
    a.high = plot->x_log ? log10(high > SMALLEST ? high : SMALLEST) : high;
    if (a.high <= a.low)
        a.high = a.low + fabs(a.low) + 1; /* 1 alone is nothing beside 1e17 */
    return a;
}

/* The next of 1, 2 and 5 times a power of ten that is not above n, or not below it. */
static double rounded(double n, bool up)
{
    static const double steps[] = {1, 2, 5, 10};
    double unit = pow(10, floor(log10(n) + 1e-9)), found = unit;
    for (unsigned i = 0; i < 4; i++) {
        if (!up && steps[i] * unit <= n * 1.000001)
            found = steps[i] * unit;
        if (up && steps[i] * unit >= n * 0.999999)
            return steps[i] * unit;
    }
    return found;
}

/* From 0 to a whole step, or when log between two numbers that are ticks. */
static struct axis y_axis(const struct plot *plot)
{
    double low, high;
    struct axis a = {.from = HEIGHT - BOTTOM, .to = TOP, .log = plot->y_log};
    range(plot, true, &low, &high);
    if (plot->y_log) {
        a.low = log10(rounded(low > SMALLEST ? low : SMALLEST, false));
        a.high = log10(rounded(high > SMALLEST ? high : SMALLEST, true));
        if (a.high <= a.low)
            a.high = a.low + 1;
    } else {
        double step = step_of(high);
        a.high = ceil(high / step - 1e-9) * step;
        a.high = a.high > 0 ? a.high : 1;
    }
    return a;
}

/* --- axes ------------------------------------------------------------------------------------ */

static void put_y_tick(struct page *p, const struct plot *plot, const struct axis *y, double value)
{
    char text[LAB_FIGURE];
    double place = at(y, value);
    page_format(p, "<path class=\"g\" d=\"M%d %.1fH%d\"/>", LEFT, place, WIDTH - RIGHT);
    page_format(p, "<text class=\"y\" x=\"%d\" y=\"%.1f\">", LEFT - 6, place + 4.5);
    plot->say_y(text, value);
    /* 10.0 ms is 10 ms at an axis */
    char *zeros = strstr(text, ".0");
    while (zeros && zeros[2] == '0')
        memmove(zeros + 2, zeros + 3, strlen(zeros + 3) + 1);
    if (zeros && (!zeros[2] || strncmp(zeros + 2, LAB_NBSP, strlen(LAB_NBSP)) == 0))
        memmove(zeros, zeros + 2, strlen(zeros + 2) + 1);
    plot_put_text(p, text);
    page_puts(p, "</text>");
}

static void put_y_axis(struct page *p, const struct plot *plot, const struct axis *y)
{
    if (!y->log) {
        double step = step_of(y->high);
        for (double n = 0; n <= y->high * 1.001; n += step)
            put_y_tick(p, plot, y, n);
        return;
    }
    /* All of 1, 2 and 5 when they fit, else the decades, else some of them. */
    double decades = y->high - y->low, every = ceil(decades / 6);
    for (double n = floor(y->low + 1e-9); n <= y->high; n += every)
        for (unsigned i = 0; i < (decades <= 2.75 ? 3 : 1); i++) {
            double place = n + log10((const double[]){1, 2, 5}[i]);
            if (place > y->low - 1e-6 && place < y->high + 1e-6)
                put_y_tick(p, plot, y, pow(10, place));
        }
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Those that were asked for, else all x there are, each once. */
static size_t ticks_of(const struct plot *plot, double ticks[PLOT_TICKS])
{
    size_t count = 0;
    if (plot->tick_count) {
        memcpy(ticks, plot->ticks, plot->tick_count * sizeof *ticks);
        return plot->tick_count;
    }
    for (size_t i = 0; i < plot->count; i++)
        for (size_t k = 0; k < plot->lines[i].count; k++) {
            size_t seen = 0;
            while (seen < count && ticks[seen] != plot->lines[i].points[k].x)
                seen++;
            if (seen == count && count < PLOT_TICKS)
                ticks[count++] = plot->lines[i].points[k].x;
        }
    qsort(ticks, count, sizeof *ticks, by_size);
    return count;
}

static int characters(const char *text)
{
    int count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

static void put_x_axis(struct page *p, const struct plot *plot, const struct axis *x)
{
    char text[LAB_FIGURE];
    double ticks[PLOT_TICKS], last = -100;
    size_t count = ticks_of(plot, ticks);
    for (size_t i = 0; i < count; i++) {
        double place = at(x, ticks[i]);
        double width = 7.5 * characters(plot->say_x(text, ticks[i]));
        if (place < x->from - 1 || place > x->to + 1)
            continue;
        page_format(p, "<path class=\"g\" d=\"M%.1f %dv4\"/>", place, HEIGHT - BOTTOM);
        if (place - last < width + 2)
            continue;
        page_format(p, "<text class=\"x\" x=\"%.1f\" y=\"%d\">", place, HEIGHT - BOTTOM + 17);
        plot_put_text(p, text);
        page_puts(p, "</text>");
        last = place;
    }
    page_format(p, "<text class=\"x n\" x=\"%.1f\" y=\"%d\">", (x->from + x->to) / 2, HEIGHT - 6);
    plot_put_text(p, plot->x_name);
    page_puts(p, "</text>");
}

/* --- lines ----------------------------------------------------------------------------------- */

static bool is_tick(const struct plot *plot, double x)
{
    for (size_t i = 0; i < plot->tick_count; i++)
        if (fabs(plot->ticks[i] - x) < 1e-6)
            return true;
    return false;
}

static unsigned style_of(const struct plot_line *line)
{
    return plot_style(line->style ? line->style : line->name);
}

static void put_line(struct page *p, const struct plot *plot, const struct plot_line *line,
                     const struct axis *x, const struct axis *y)
{
    unsigned style = style_of(line);
    page_format(p, "<path class=\"l s%u\" d=\"", style);
    for (size_t i = 0; i < line->count; i++)
        page_format(p, "%s%.1f %.1f", i ? "L" : "M", at(x, line->points[i].x),
                    at(y, line->points[i].y));
    page_puts(p, "\"/>");
    for (size_t i = 0; i < line->count; i++) {
        const struct plot_point *q = &line->points[i];
        if (plot->smooth && !is_tick(plot, q->x))
            continue;
        if (!plot->smooth && has_range(q)) /* a low of 0 has no place on a logarithmic axis */
            page_format(p, "<path class=\"w s%u\" d=\"M%.1f %.1fV%.1f\"/>", style, at(x, q->x),
                        fmin(at(y, q->low), y->from), at(y, q->high));
        plot_put_marker(p, style, at(x, q->x), at(y, q->y), q->hollow);
    }
}

struct label {
    const struct plot_line *line;
    double from_x, from_y, y;
};

static int by_place(const void *a, const void *b)
{
    double x = ((const struct label *)a)->y, y = ((const struct label *)b)->y;
    return (x > y) - (x < y);
}

/* Names at the ends of their lines, pushed apart until none covers another, or all the height is used. */
static void put_labels(struct page *p, const struct plot *plot, const struct axis *x,
                       const struct axis *y)
{
    struct label labels[PLOT_LINES];
    size_t count = 0;
    for (size_t i = 0; i < plot->count; i++) {
        const struct plot_line *line = &plot->lines[i];
        if (!line->count)
            continue;
        const struct plot_point *end = &line->points[line->count - 1];
        labels[count++] = (struct label){line, at(x, end->x), at(y, end->y), at(y, end->y)};
    }
    qsort(labels, count, sizeof labels[0], by_place);
    double room = LOWEST - TOP, apart = fmin(LINE_HEIGHT, room / (double)(count ? count : 1));
    for (size_t i = 0; i < count; i++) {
        double above = i ? labels[i - 1].y + apart : TOP;
        labels[i].y = labels[i].y > above ? labels[i].y : above;
    }
    for (size_t i = count; i-- > 0;) {
        double below = i + 1 < count ? labels[i + 1].y - apart : LOWEST;
        labels[i].y = labels[i].y < below ? labels[i].y : below;
    }
    for (size_t i = 0; i < count; i++) {
        char name[64];
        double left = WIDTH - RIGHT + 12;
        unsigned style = style_of(labels[i].line);
        plot_short_name(name, sizeof name, labels[i].line->name, SHORT);
        page_format(p, "<path class=\"k s%u\" d=\"M%.1f %.1fL%.1f %.1f\"/>", style,
                    labels[i].from_x + 6, labels[i].from_y, left, labels[i].y);
        page_format(p, "<text class=\"e\" x=\"%.1f\" y=\"%.1f\">", left + 3, labels[i].y + 4.5);
        plot_put_text(p, name);
        page_puts(p, "</text>");
    }
}

/* --- in words -------------------------------------------------------------------------------- */

/* What somebody is read who does not see it: where each line ends. */
static void put_description(struct page *p, const struct plot *plot)
{
    char x[LAB_FIGURE], y[LAB_FIGURE];
    plot_put_text(p, plot->title);
    page_puts(p, " over ");
    plot_put_text(p, plot->x_name);
    page_puts(p, ", a line for each server. At its end: ");
    const char *between = "";
    for (size_t i = 0; i < plot->count; i++) {
        const struct plot_line *line = &plot->lines[i];
        if (!line->count)
            continue;
        const struct plot_point *end = &line->points[line->count - 1];
        page_puts(p, between);
        between = "; ";
        plot_put_text(p, line->name);
        page_puts(p, " ");
        plot_put_text(p, plot->say_y(y, end->y));
        page_puts(p, " at ");
        plot_put_text(p, plot->say_x(x, end->x));
    }
    page_puts(p, ".");
}

static const struct plot_point *point_at(const struct plot_line *line, double x)
{
    for (size_t i = 0; i < line->count; i++)
        if (fabs(line->points[i].x - x) < 1e-6)
            return &line->points[i];
    return NULL;
}

static void put_table(struct page *p, const struct plot *plot)
{
    char text[LAB_FIGURE], low[LAB_FIGURE];
    double ticks[PLOT_TICKS];
    size_t count = ticks_of(plot, ticks);
    page_puts(p, "<details><summary>as a table</summary><div class=\"wide\"><table><thead><tr><th "
                 "scope=\"col\">");
    plot_put_text(p, plot->x_name);
    for (size_t i = 0; i < count; i++) {
        page_puts(p, "</th><th scope=\"col\">");
        plot_put_text(p, plot->say_x(text, ticks[i]));
    }
    page_puts(p, "</th></tr></thead><tbody>\n");
    for (size_t k = 0; k < plot->count; k++) {
        page_puts(p, "<tr><th scope=\"row\">");
        plot_put_text(p, plot->lines[k].name);
        page_puts(p, "</th>");
        for (size_t i = 0; i < count; i++) {
            const struct plot_point *q = point_at(&plot->lines[k], ticks[i]);
            page_puts(p, "<td>");
            if (q)
                plot_put_text(p, plot->say_y(text, q->y));
            if (q && has_range(q)) {
                page_puts(p, "<br><small>");
                plot_put_text(p, plot->say_y(low, q->low));
                page_puts(p, " to ");
                plot_put_text(p, plot->say_y(text, q->high));
                page_puts(p, "</small>");
            }
            page_puts(p, "</td>");
        }
        page_puts(p, "</tr>\n");
    }
    page_puts(p, "</tbody></table></div></details>");
}

void plot_lines(struct page *p, const struct plot *plot)
{
    double low, high;
    if (!range(plot, true, &low, &high))
        return;
    struct axis x = x_axis(plot), y = y_axis(plot);
    plot_open(p, plot->title, plot->note);
    page_format(p, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    put_description(p, plot);
    page_puts(p, "\">");
    put_y_axis(p, plot, &y);
    put_x_axis(p, plot, &x);
    /* The last first: their lines are whole, and those drawn over them have gaps. */
    for (size_t i = plot->count; i-- > 0;)
        if (plot->lines[i].count)
            put_line(p, plot, &plot->lines[i], &x, &y);
    put_labels(p, plot, &x, &y);
    page_puts(p, "</svg>");
    put_table(p, plot);
    page_puts(p, "</figure>\n");
}

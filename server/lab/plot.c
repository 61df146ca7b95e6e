/* SPDX-License-Identifier: MIT */
/* What all plots share: styles, markers, headings. */
#include "server/lab/plot.h"

#include <stdio.h>
#include <string.h>

#include "server/lab/plot_priv.h"

/* A marker is drawn around 0 0. */
static const struct {
    const char *model, *marker;
} styles[] = {
    {"process", "M0-5L5 4H-5Z"},
    {"prefork", "M-4-4H4V4H-4Z"},
    {"thread-pool", "M0-5.5L5.5 0L0 5.5L-5.5 0Z"},
    {"hybrid", "M0 5L5-4H-5Z"},
    {"event-loop", "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z"},
    {"coroutine", "M-5-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z"},
    {"", "M0-5L1.5-1.5H5L2.2 1L3.2 5L0 2.6L-3.2 5L-2.2 1L-5-1.5H-1.5Z"},
};

enum { STYLES = sizeof styles / sizeof styles[0] };

unsigned plot_style(const char *name)
{
    unsigned i = 0;
    while (i + 1 < STYLES && strcmp(styles[i].model, name) != 0)
        i++;
    return i;
}

/* How many bytes the first so many characters have; less, when there are less. */
static size_t bytes_of(const char *text, size_t characters)
{
    size_t at = 0;
    while (text[at]) {
        if (((unsigned char)text[at] & 0xc0) != 0x80 && characters-- == 0)
            break;
        at++;
    }
    return at;
}

void plot_short_name(char *to, size_t size, const char *name, size_t most)
{
    const char *host = strstr(name, "://");
    name = host ? host + 3 : name;
    if (!name[bytes_of(name, most)])
        snprintf(to, size, "%s", name);
    else
        snprintf(to, size, "%.*s…", (int)bytes_of(name, most - 1), name);
}

bool plot_is_number(double n)
{
    return n >= 0 && n <= PLOT_MOST; /* false for a NaN */
}

void plot_put_text(struct page *p, const char *text)
{
    page_html(p, str_of(text));
}

void plot_put_marker(struct page *p, unsigned style, double x, double y, bool hollow)
{
    page_format(p, "<path class=\"m s%u%s\" transform=\"translate(%.1f %.1f)\" d=\"%s\"/>", style,
                hollow ? " h" : "", x, y, styles[style].marker);
}

void plot_mark(struct page *p, const char *name)
{
    page_puts(p, "<svg class=\"mark\" viewBox=\"-6 -6 12 12\" aria-hidden=\"true\">");
    plot_put_marker(p, plot_style(name), 0, 0, false);
    page_puts(p, "</svg>");
}

void plot_open(struct page *p, const char *title, const char *note)
{
    page_puts(p, "<figure><figcaption><b>");
    plot_put_text(p, title);
    page_puts(p, "</b>");
    if (*note) {
        page_puts(p, " <span class=\"soft\">");
        plot_put_text(p, note);
        page_puts(p, "</span>");
    }
    page_puts(p, "</figcaption>");
}

struct plot_line *plot_add_line(struct plot *plot, const char *name)
{
    if (plot->count == PLOT_LINES)
        return NULL;
    plot->lines[plot->count] = (struct plot_line){.name = name};
    return &plot->lines[plot->count++];
}

void plot_add_point(struct plot_line *line, struct plot_point point)
{
    if (line && line->count < PLOT_POINTS && plot_is_number(point.x) && plot_is_number(point.y))
        line->points[line->count++] = point;
}

/* SPDX-License-Identifier: MIT */
/* Bars, one below the other, from 0, each with its value at its end and a line over the range of its
 * repeats. Bars of the study notes have only an outline, since they are from another machine.
 */
#include <math.h>

#include "server/lab/plot.h"
#include "server/lab/plot_priv.h"

enum { WIDTH = 380, LEFT = 104, RIGHT = 82, ROW = 25, BAR = 13, TOP = 4, SHORT = 14 };

static bool has_range(const struct plot_bar *b)
{
    return plot_is_number(b->low) && plot_is_number(b->high) && b->high > b->low;
}

/* What the width is for. */
static double longest(const struct plot_bars *bars)
{
    double most = 0;
    for (size_t i = 0; i < bars->count; i++) {
        const struct plot_bar *b = &bars->bars[i];
        most = plot_is_number(b->value) && b->value > most ? b->value : most;
        most = plot_is_number(b->high) && b->high > most ? b->high : most;
    }
    return most > 0 ? most : 1;
}

static double place_of(double value, double most)
{
    return LEFT + value / most * (WIDTH - LEFT - RIGHT);
}

/* Of what is no number there are only the words. */
static void put_bar(struct page *p, const struct plot_bars *bars, const struct plot_bar *b,
                    double top, double most)
{
    char name[64], text[LAB_FIGURE];
    bool known = plot_is_number(b->value);
    double end = known ? fmax(LEFT + 1, place_of(b->value, most)) : LEFT, label = end;
    plot_short_name(name, sizeof name, b->name, SHORT);
    page_format(p, "<text class=\"y b\" x=\"%d\" y=\"%.1f\">", LEFT - 8, top + BAR / 2.0 + 4.5);
    plot_put_text(p, name);
    page_puts(p, "</text>");
    if (known)
        page_format(p, "<rect class=\"%s s%u\" x=\"%d\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"/>",
                    b->hollow ? "r h"
                    : b->note ? "r o"
                              : "r",
                    plot_style(b->style ? b->style : b->name), LEFT, top, end - LEFT, BAR);
    if (has_range(b)) {
        label = fmax(end, place_of(b->high, most));
        page_format(p, "<path class=\"i\" d=\"M%.1f %.1fH%.1f\"/>", place_of(b->low, most),
                    top + BAR / 2.0, place_of(b->high, most));
    }
    page_format(p, "<text class=\"e\" x=\"%.1f\" y=\"%.1f\">", label + 6, top + BAR / 2.0 + 4.5);
    plot_put_text(p, bars->say(text, b->value));
    page_puts(p, "</text>");
}

static void put_description(struct page *p, const struct plot_bars *bars)
{
    char text[LAB_FIGURE];
    plot_put_text(p, bars->title);
    page_puts(p, ", a bar for each: ");
    for (size_t i = 0; i < bars->count; i++) {
        page_puts(p, i ? "; " : "");
        plot_put_text(p, bars->bars[i].name);
        page_puts(p, " ");
        plot_put_text(p, bars->say(text, bars->bars[i].value));
    }
    page_puts(p, ".");
}

static void put_table(struct page *p, const struct plot_bars *bars)
{
    char text[LAB_FIGURE];
    page_puts(p, "<details><summary>as a table</summary><div class=\"wide\"><table><thead><tr><th "
                 "scope=\"col\">server</th><th scope=\"col\">median</th><th scope=\"col\">lowest"
                 "</th><th scope=\"col\">highest</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < bars->count; i++) {
        const struct plot_bar *b = &bars->bars[i];
        const double values[] = {b->value, b->low, b->high};
        page_puts(p, "<tr><th scope=\"row\">");
        plot_put_text(p, b->name);
        page_puts(p, "</th>");
        for (size_t k = 0; k < 3; k++) {
            page_puts(p, "<td>");
            plot_put_text(p, plot_is_number(values[k]) ? bars->say(text, values[k]) : "");
            page_puts(p, "</td>");
        }
        page_puts(p, "</tr>\n");
    }
    page_puts(p, "</tbody></table></div></details>");
}

void plot_bars(struct page *p, const struct plot_bars *bars)
{
    if (!bars->count)
        return;
    double most = longest(bars);
    plot_open(p, bars->title, bars->note);
    page_format(p, "<svg viewBox=\"0 0 %d %zu\" role=\"img\" aria-label=\"", WIDTH,
                TOP + ROW * bars->count);
    put_description(p, bars);
    page_puts(p, "\">");
    for (size_t i = 0; i < bars->count; i++)
        put_bar(p, bars, &bars->bars[i], TOP + ROW * (double)i + (ROW - BAR) / 2.0, most);
    page_format(p, "<path class=\"g a\" d=\"M%d %dV%zu\"/></svg>", LEFT, TOP,
                TOP + ROW * bars->count);
    put_table(p, bars);
    page_puts(p, "</figure>\n");
}

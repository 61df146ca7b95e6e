/* SPDX-License-Identifier: MIT */
/* The page's example of what a closed loop hides: both loops' times in one plot, and their figures. */
#include <stddef.h>
#include <stdio.h>

#include "server/lab/plot.h"
#include "server/lab/report_priv.h"
#include "server/lab/stall.h"

static void put_row(struct page *p, const struct lab_sight *sight)
{
    static const size_t fields[] = {
        offsetof(struct lab_round, p50_us), offsetof(struct lab_round, p99_us),
        offsetof(struct lab_round, p999_us), offsetof(struct lab_round, max_us)};
    const struct lab_series *s = sight->series;
    char text[LAB_FIGURE];
    page_format(p, "<tr><th scope=\"row\">%s</th>", report_loop(s->load->loop));
    page_format(p, "<td>%s</td>",
                lab_say_whole(text, lab_median(s, offsetof(struct lab_round, rps), NULL, NULL)));
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        page_format(p, "<td>%s</td>", lab_say_us(text, lab_median(s, fields[i], NULL, NULL)));
    page_format(p, "<td>%s</td></tr>\n", lab_say_share(text, sight->late / sight->answers));
}

void report_stall(struct page *p, const struct lab_findings *f)
{
    struct lab_stall stall;
    if (!lab_stall_seen(f->results, &stall))
        return;
    const struct report_line lines[] = {{"closed loop", "thread-pool", stall.closed.series},
                                        {"open loop", "event-loop", stall.open.series}};
    report_open(p, "loops", "What a closed loop hides");
    page_puts(p, "<p>In the middle of a round the whole server is stopped for half a second, as a "
                 "machine that swaps or is moved would stop it. Two loaders look on, each with as "
                 "many connections. ");
    report_text(p, stall.text);
    page_puts(p, "</p>\n<div class=\"plots\">\n");
    report_times_beside(p, lines, 2, "the same stall");
    page_format(p,
                "</div>\n<div class=\"wide\"><table><thead><tr><th scope=\"col\">loop</th><th "
                "scope=\"col\">requests/s</th><th scope=\"col\">p50</th><th scope=\"col\">p99</th>"
                "<th scope=\"col\">p99.9</th><th scope=\"col\">longest</th><th scope=\"col\">"
                "%d&nbsp;ms or longer</th></tr></thead><tbody>\n",
                LAB_LATE_MS);
    put_row(p, &stall.closed);
    put_row(p, &stall.open);
    page_puts(p, "</tbody></table></div>\n<p class=\"soft\">Both are the lab's own loader. wrk, "
                 "which makes the other closed loops here, adds to its times the requests that it "
                 "reckons a stall has kept it from sending.</p>\n");
    report_close(p);
}

/* SPDX-License-Identifier: MIT */
/* What a closed loop hides: see server/lab/stall.h. */
#include "server/lab/stall.h"

#include <stddef.h>

#include "server/lab/figures.h"

static bool look(const struct lab_results *r, enum lab_loop loop, struct lab_sight *sight)
{
    for (size_t i = 0; i < r->series_count && !sight->series; i++)
        if (r->series[i].load->kind == LAB_STALL && r->series[i].load->loop == loop)
            sight->series = &r->series[i];
    const struct lab_series *s = sight->series;
    for (size_t i = 0; s && i < s->round_count; i++) {
        const struct lab_histogram *h = s->rounds[i].latency;
        if (!h || !lab_counts(s, &s->rounds[i]))
            continue;
        sight->answers += (double)h->count;
        sight->late += (double)lab_histogram_from(h, LAB_LATE_MS * INT64_C(1000000));
    }
    return sight->answers > 0;
}

static void say_p99(struct lab_stall *stall, const struct lab_sight *sight, const char *loop)
{
    char p99[LAB_FIGURE];
    lab_add(
        stall->text, sizeof stall->text, "the %s says p99 %s", loop,
        lab_say_us(p99, lab_median(sight->series, offsetof(struct lab_round, p99_us), NULL, NULL)));
}

static void say_late(struct lab_stall *stall, const struct lab_sight *sight, const char *answers)
{
    char late[LAB_FIGURE], all[LAB_FIGURE], share[LAB_FIGURE];
    lab_add(stall->text, sizeof stall->text, "%s of %s %s (%s) took %d" LAB_NBSP "ms or longer",
            lab_say_whole(late, sight->late), lab_say_whole(all, sight->answers), answers,
            lab_say_share(share, sight->late / sight->answers), LAB_LATE_MS);
}

bool lab_stall_seen(const struct lab_results *r, struct lab_stall *stall)
{
    char n[LAB_FIGURE];
    *stall = (struct lab_stall){0};
    if (!look(r, LAB_CLOSED, &stall->closed) || !look(r, LAB_OPEN, &stall->open))
        return false;
    lab_add(stall->text, sizeof stall->text, "Of the same stall of %s ",
            stall->open.series->server->name);
    say_p99(stall, &stall->closed, "closed loop");
    lab_add(stall->text, sizeof stall->text, " and ");
    say_p99(stall, &stall->open, "open loop");
    lab_add(stall->text, sizeof stall->text,
            ". While it stood still, the closed loop's %s clients waited for their answers and "
            "asked nothing more, so ",
            lab_say_whole(n, stall->closed.series->connections));
    say_late(stall, &stall->closed, "answers");
    lab_add(stall->text, sizeof stall->text,
            "; the open loop's customers went on coming, %s a second, and ",
            lab_say_whole(n, stall->open.series->rate));
    say_late(stall, &stall->open, "answers");
    lab_add(stall->text, sizeof stall->text, ".");
    return true;
}

/* SPDX-License-Identifier: MIT */
/* Letting others run: see server/give_way.h. */
#include "server/give_way.h"

#include <sched.h>

#include "net/thread.h"

enum { TURN_US = 5, LONG_US = 1500, OF_LATE = 8, FINE = 64, SKIP = 64, MOST_FEARS = 10 };

bool give_way(struct give_way *g)
{
    if (g->skip) {
        g->skip--;
        return false;
    }
    int64_t before_us = net_clock_us();
    sched_yield();
    int64_t took_us = net_clock_us() - before_us;
    g->mean_us += (took_us - g->mean_us) / OF_LATE;
    if (g->mean_us < LONG_US) {
        if (++g->fine >= FINE)
            g->fears = 0;
        return took_us >= TURN_US;
    }
    if (g->fears < MOST_FEARS)
        g->fears++;
    g->skip = (unsigned)SKIP << g->fears;
    g->mean_us = g->fine = 0;
    return true;
}

/* SPDX-License-Identifier: MIT */
/* Letting others run: see server/give_way.h. */
#include "server/give_way.h"

#include <sched.h>

#include "net/thread.h"

enum {
    TURN_US = 5,    /* longer: somebody else had a turn */
    ANSWER_US = 15, /* a small request, and coming to it from another process */
    SPARE_US = 500, /* other work of the machine; a fraction of a slice */
    MOST_TURNS = 4, /* of the budget, that a single time can count */
    LONG_TURNS = 8, /* of the budget, that may add up */
    FINE = 64,
    SKIP = 64,
    MOST_FEARS = 10,
};

static int64_t between(int64_t least, int64_t value, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

bool give_way(struct give_way *g, const struct board *b)
{
    if (g->skip) {
        g->skip--;
        return false;
    }
    uint64_t answers = board_answers(b);
    int64_t before_us = net_clock_us();
    sched_yield();
    int64_t took_us = net_clock_us() - before_us;
    int64_t budget_us = (int64_t)(board_answers(b) - answers) * ANSWER_US + SPARE_US;
    int64_t over_us = g->over_us + between(-budget_us, took_us - budget_us, MOST_TURNS * budget_us);
    g->over_us = between(0, over_us, LONG_TURNS * budget_us);
    if (over_us < LONG_TURNS * budget_us) {
        if (++g->fine >= FINE)
            g->fears = 0;
        return took_us >= TURN_US;
    }
    if (g->fears < MOST_FEARS)
        g->fears++;
    g->skip = (unsigned)SKIP << g->fears;
    g->over_us /= 2;
    g->fine = 0;
    return true;
}

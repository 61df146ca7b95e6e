/* SPDX-License-Identifier: MIT */
/* The heap of times: see concurrency/timers.h. Places count from 1 in the timers and from 0 here. */
#include "concurrency/timers.h"

#include <stddef.h>
#include <stdlib.h>

enum { WAYS = 4, FIRST_ROOM = 16 };

static void put_at(struct modus_timers *t, uint32_t i, struct modus_timers_entry *timer)
{
    t->heap[i] = timer;
    timer->place = i + 1;
}

/* Move a timer from place i towards the root until none above it is later. */
static void rise(struct modus_timers *t, uint32_t i, struct modus_timers_entry *timer)
{
    while (i > 0 && t->heap[(i - 1) / WAYS]->at > timer->at) {
        put_at(t, i, t->heap[(i - 1) / WAYS]);
        i = (i - 1) / WAYS;
    }
    put_at(t, i, timer);
}

static uint32_t earliest_below(const struct modus_timers *t, uint32_t i)
{
    uint32_t first = i * WAYS + 1, best = first;

    for (uint32_t child = first + 1; child < first + WAYS && child < t->count; child++)
        if (t->heap[child]->at < t->heap[best]->at)
            best = child;
    return best;
}

/* Move a timer from place i away from the root until none below it is earlier. */
static void sink(struct modus_timers *t, uint32_t i, struct modus_timers_entry *timer)
{
    while (i * WAYS + 1 < t->count) {
        uint32_t child = earliest_below(t, i);

        if (t->heap[child]->at >= timer->at)
            break;
        put_at(t, i, t->heap[child]);
        i = child;
    }
    put_at(t, i, timer);
}

static void place(struct modus_timers *t, uint32_t i, struct modus_timers_entry *timer)
{
    if (i > 0 && t->heap[(i - 1) / WAYS]->at > timer->at)
        rise(t, i, timer);
    else
        sink(t, i, timer);
}

int modus_timers_reserve(struct modus_timers *timers, uint32_t count)
{
    uint32_t room = timers->room ? timers->room : FIRST_ROOM;

    if (count <= timers->room)
        return 0;
    while (room < count)
        room *= 2;
    struct modus_timers_entry **heap = realloc(timers->heap, room * sizeof *heap);
    if (!heap)
        return -ENOMEM;
    timers->heap = heap;
    timers->room = room;
    return 0;
}

int modus_timers_add(struct modus_timers *timers, struct modus_timers_entry *timer, int64_t at)
{
    timer->at = at;
    if (timer->place) {
        place(timers, timer->place - 1, timer);
        return 0;
    }
    if (modus_timers_reserve(timers, timers->count + 1) < 0)
        return -ENOMEM;
    rise(timers, timers->count++, timer);
    return 0;
}

void modus_timers_remove(struct modus_timers *timers, struct modus_timers_entry *timer)
{
    if (!timer->place)
        return;
    uint32_t i = timer->place - 1;
    struct modus_timers_entry *last = timers->heap[--timers->count];
    timer->place = 0;
    if (last != timer)
        place(timers, i, last);
}

int64_t modus_timers_next(const struct modus_timers *timers)
{
    return timers->count ? timers->heap[0]->at : MODUS_FOREVER;
}

struct modus_timers_entry *modus_timers_due(struct modus_timers *timers, int64_t now)
{
    struct modus_timers_entry *first = timers->count ? timers->heap[0] : NULL;

    if (!first || first->at > now)
        return NULL;
    modus_timers_remove(timers, first);
    return first;
}

void modus_timers_fini(struct modus_timers *timers)
{
    free(timers->heap);
    *timers = (struct modus_timers){0};
}

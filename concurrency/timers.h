/* SPDX-License-Identifier: MIT */
/*
 * Timers: a heap of times, the earliest first. It knows no clock and no thread: whoever owns it
 * looks at the earliest time, waits, and takes out what is due.
 *
 *     modus_timers_add(&timers, &sleeper->timer, deadline);
 *     ...
 *     while ((timer = modus_timers_due(&timers, modus_now_ns())) != NULL)
 *         wake(sleeper_of(timer));
 *
 * A timer is embedded in what it is for; zeroed it is in no heap. Nothing here locks or blocks:
 * one thread at a time.
 *
 * Algorithm: a 4-ary heap in an array; each timer knows its place, so that removing costs what
 * adding does.
 *
 * For implementers: timer.c, which embeds it, and coroutine_loop.c.
 */
#ifndef CONCURRENCY_TIMERS_H
#define CONCURRENCY_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "concurrency/result.h"

struct modus_timers_entry {
    int64_t at;     /* absolute CLOCK_MONOTONIC ns */
    uint32_t place; /* private: in the heap, from 1; 0: in none */
};

/* Zeroed is empty. All fields are private. */
struct modus_timers {
    struct modus_timers_entry **heap;
    uint32_t count, room;
};

/* Put the timer in, or give one that is in another time. Returns 0 or -ENOMEM; one that is in,
 * or for which room was reserved, always finds it. */
int modus_timers_add(struct modus_timers *timers, struct modus_timers_entry *timer, int64_t at);

/* See that so many timers find room. Returns 0 or -ENOMEM. */
int modus_timers_reserve(struct modus_timers *timers, uint32_t count);

/* Take the timer out, if it is in. */
void modus_timers_remove(struct modus_timers *timers, struct modus_timers_entry *timer);

/* The earliest time; MODUS_FOREVER when there is none. */
int64_t modus_timers_next(const struct modus_timers *timers);

/* Take out the earliest timer if its time is not after now; NULL: none is due. */
struct modus_timers_entry *modus_timers_due(struct modus_timers *timers, int64_t now);

/* Free the heap; the timers that are in it are forgotten. */
void modus_timers_fini(struct modus_timers *timers);

#endif

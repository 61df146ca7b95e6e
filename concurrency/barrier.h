/* SPDX-License-Identifier: MIT */
/*
 * Barrier: n parties wait for each other, and go on together; again and again.
 *
 *     modus_barrier_init(&barrier, &(struct modus_barrier_attr){.scope = MODUS_THREAD, .parties = 4});
 *     // each of the four:
 *     for (;;) {
 *         compute_my_part();
 *         if (modus_barrier_wait(&barrier, MODUS_FOREVER) < 0)
 *             break;                               // broken
 *     }
 *
 * States: filling -> (the last party has come: the action runs) draining -> filling; broken, until
 * it is reset. It breaks when a wait's time is over, when it is aborted or its action fails: then
 * everybody in it, and everybody who comes, gets MODUS_BROKEN instead of waiting for a party that
 * does not come.
 *
 * Process scope: a party is a participant of the arena (participant.h) from its first wait on, and
 * its death, or its leaving, breaks the barrier, wherever it was. A reset forgets those who are dead
 * by then. Coroutines count one by one, as everywhere; they die and leave with their thread.
 *
 * Algorithm: CPython's threading.Barrier (filling, draining, resetting), on a lock and a word.
 */
#ifndef CONCURRENCY_BARRIER_H
#define CONCURRENCY_BARRIER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/result.h"

struct modus_barrier_attr {
    enum modus_scope scope;
    unsigned parties;             /* 1 and more */
    int (*action)(void *context); /* NULL: none; run by the last to come, others waiting; below 0:
                                   * it failed. It must not use the barrier */
    void *context;
    struct modus_arena *arena; /* process scope: whose participants the parties are */
};

/* All fields are private. */
struct modus_barrier {
    uint32_t scope; /* enum modus_scope; 0: not started */
    uint32_t parties;
    struct modus_lock lock;  /* guards all that follows; word and who is inside are also read, and
                              * the latter left, without it */
    _Atomic uint32_t word;   /* the state, and how often it has changed */
    _Atomic uint32_t inside; /* thread: waits */
    _Atomic uint32_t top;    /* process: no party of a higher id */
    bool doomed;             /* draining or resetting: the round after this one is broken */
    bool sleepers;           /* somebody may sleep on the word, */
    bool tell;               /* and is to be woken when the lock is given up */
    int (*action)(void *context);
    void *context;
    struct modus_arena *arena;
    struct modus_barrier_party *table; /* process scope: by participant id - 1 */
};

/* Make an empty barrier. Returns 0, -EINVAL or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_barrier_init(struct modus_barrier *barrier, const struct modus_barrier_attr *attr);

/* End a barrier that nobody waits at. Does nothing to one that is not started.
 * Safe from: the one thread that still knows the object, in one process. */
void modus_barrier_fini(struct modus_barrier *barrier);

/* Wait for the others, up to ns nanoseconds (MODUS_FOREVER: without end; 0 breaks it unless the
 * caller is the last). Returns the caller's place, 0 for the first that came, parties - 1 for the
 * last; MODUS_BROKEN, also when the time is over and a party turns out to be dead; -ETIMEDOUT,
 * MODUS_CANCELED (a coroutine) or what the action returned, to the one by whom it broke; -EINVAL;
 * -EDEADLK (called from within the action); -ECHILD in a child that the action has forked, if that
 * returns from it too; in process scope -EPERM (not joined) or -ECHILD. Blocks.
 * Safe from: any thread, in process scope any process that has joined; not signal handlers. */
int modus_barrier_wait(struct modus_barrier *barrier, int64_t ns);

/* Break it. Everybody in it, and whoever comes until it is reset, gets MODUS_BROKEN; but who has been
 * let through already goes on. Does nothing within the action, which has a result for that.
 * Safe from: any thread, in process scope any process. */
void modus_barrier_abort(struct modus_barrier *barrier);

/* Make it whole and empty again; who is in it gets MODUS_BROKEN. Does nothing within the action.
 * Safe from: as modus_barrier_abort. */
void modus_barrier_reset(struct modus_barrier *barrier);

/* Is it broken? How many wait? Old when it returns; within the action no, and none.
 * Safe from: as modus_barrier_abort. */
bool modus_barrier_broken(struct modus_barrier *barrier);
unsigned modus_barrier_waiting(struct modus_barrier *barrier);

#endif

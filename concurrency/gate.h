/* SPDX-License-Identifier: MIT */
/*
 * Gate: where the users of a queue sleep, and how they are woken: one at a time, in a chain.
 *
 * The rule: whoever makes progress possible (a put for consumers, a get for producers) nudges, and
 * a nudge wakes at most one sleeper, and nobody while a woken one is still on its way. The woken
 * one, having taken what it came for, passes the wake on if there is more. So a batch of 64 items
 * costs one system call by the putter, as many consumers wake as are needed, and an item does not
 * wait for a consumer that is busy with an earlier one.
 *
 *     modus_gate_enter(gate, scope, &visit);      // from here on a nudge finds us
 *     if (!look_again())
 *         modus_gate_sleep(gate, scope, &visit, deadline);
 *     modus_gate_exit(gate, scope, &visit);       // not, or no longer, a sleeper
 *     if (there_is_more())
 *         modus_gate_nudge(gate, scope);
 *
 * Thread scope: a list of sleepers, each with a word of its own, under a small lock. Consumers are
 * woken last come first, for the sake of warm caches; producers first come first, since a producer
 * holds an item that should not grow old. Process scope: one futex word, first come first; it
 * keeps no list that a kill could break, and every mark in it is only a hint that a later look
 * puts right. If a woken process is killed or the waker is, the death epoch wakes all.
 *
 * For implementers: queue.c.
 */
#ifndef CONCURRENCY_GATE_H
#define CONCURRENCY_GATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/lock.h"
#include "concurrency/park.h"

enum {
    MODUS_GATE_SLEEPERS = 1,   /* somebody may sleep; wrongly set: a needless look */
    MODUS_GATE_ON_ITS_WAY = 2, /* a woken one has not arrived yet; wrongly clear: one wake more */
    MODUS_GATE_TURN = 4,       /* process scope: the rest of the word counts the nudges */
};

/* A sleeper; on its stack. */
struct modus_gate_visit {
    struct modus_watch watch; /* process scope */
    uint32_t seen;            /* process scope: the word to sleep on */
    bool called;              /* this is the one on its way */
    bool listed;              /* thread scope: under the gate's lock */
    _Atomic uint32_t word;    /* thread scope: 0 until called */
    struct modus_gate_visit *next, *previous;
};

/* Zeroed is a gate without sleepers, once modus_gate_init has been called. */
struct modus_gate {
    _Atomic uint32_t state;
    bool first_come;                       /* thread scope: the order of waking */
    struct modus_lock lock;                /* thread scope: guards the list */
    struct modus_gate_visit *first, *last; /* first is woken next */
};

void modus_gate_init(struct modus_gate *gate, bool first_come);

/* Become a sleeper. Look at the condition after this, then sleep or exit; after a sleep that was
 * for nothing, enter again. */
void modus_gate_enter(struct modus_gate *gate, enum modus_scope scope,
                      struct modus_gate_visit *visit);

/* Returns 0 when called or for no reason, or -ETIMEDOUT. */
int modus_gate_sleep(struct modus_gate *gate, enum modus_scope scope,
                     struct modus_gate_visit *visit, int64_t deadline);

/* Be no sleeper any more. Nudge after this if there is more to be had. */
void modus_gate_exit(struct modus_gate *gate, enum modus_scope scope,
                     struct modus_gate_visit *visit);

/* Wake everybody. */
void modus_gate_open(struct modus_gate *gate, enum modus_scope scope);

/* Wake one sleeper; force: even if another is still on its way. Only modus_gate_nudge and whoever
 * is about to sleep itself call it. */
void modus_gate_call(struct modus_gate *gate, enum modus_scope scope, bool force);

/* Wake one sleeper, unless one is on its way already. Call it after the change is visible (a
 * seq_cst operation). */
static inline void modus_gate_nudge(struct modus_gate *gate, enum modus_scope scope)
{
    uint32_t state = atomic_load(&gate->state);

    if (__builtin_expect(
            (state & (MODUS_GATE_SLEEPERS | MODUS_GATE_ON_ITS_WAY)) == MODUS_GATE_SLEEPERS, 0))
        modus_gate_call(gate, scope, false);
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The two kinds of gate.
 *
 * Why no wake-up is lost: a sleeper marks SLEEPERS and then looks; a nudger changes the condition
 * and then reads the marks (Dekker; all seq_cst). If the nudger leaves because of ON_ITS_WAY, the
 * one on its way clears that mark after taking its item and before looking for more, so it sees
 * the nudger's change and nudges in its place.
 *
 * In process scope whoever enters clears ON_ITS_WAY: it cannot know whether the one on its way
 * still lives, and one wake too many is cheaper than a queue that sleeps.
 */
#include "concurrency/gate.h"
#include "concurrency/fault.h"

#include <limits.h>
#include <stddef.h>

#define SLEEPERS   ((uint32_t)MODUS_GATE_SLEEPERS)
#define ON_ITS_WAY ((uint32_t)MODUS_GATE_ON_ITS_WAY)
#define TURN       ((uint32_t)MODUS_GATE_TURN)

void modus_gate_init(struct modus_gate *gate, bool first_come)
{
    *gate = (struct modus_gate){.first_come = first_come, .lock = MODUS_LOCK_INIT};
}

/* --- thread scope ---------------------------------------------------------------------------- */

static void lock(struct modus_gate *gate)
{
    modus_lock_acquire(&gate->lock, MODUS_FOREVER);
}

static void unlock(struct modus_gate *gate)
{
    modus_lock_release(&gate->lock);
}

/* Under the lock. */
static void list(struct modus_gate *gate, struct modus_gate_visit *visit)
{
    visit->previous = gate->first_come ? gate->last : NULL;
    visit->next = gate->first_come ? NULL : gate->first;
    *(visit->previous ? &visit->previous->next : &gate->first) = visit;
    *(visit->next ? &visit->next->previous : &gate->last) = visit;
    visit->listed = true;
    atomic_fetch_or(&gate->state, SLEEPERS);
}

/* Under the lock. */
static void unlist(struct modus_gate *gate, struct modus_gate_visit *visit)
{
    *(visit->previous ? &visit->previous->next : &gate->first) = visit->next;
    *(visit->next ? &visit->next->previous : &gate->last) = visit->previous;
    visit->listed = false;
    if (!gate->first)
        atomic_fetch_and(&gate->state, ~SLEEPERS);
}

static void list_enter(struct modus_gate *gate, struct modus_gate_visit *visit)
{
    lock(gate);
    if (visit->called)
        atomic_fetch_and(&gate->state, ~ON_ITS_WAY);
    visit->called = false;
    atomic_store_explicit(&visit->word, 0, memory_order_relaxed);
    if (!visit->listed)
        list(gate, visit);
    unlock(gate);
}

static void list_exit(struct modus_gate *gate, struct modus_gate_visit *visit)
{
    lock(gate);
    if (visit->listed)
        unlist(gate, visit);
    if (visit->called)
        atomic_fetch_and(&gate->state, ~ON_ITS_WAY);
    visit->called = false;
    unlock(gate);
}

static void list_call(struct modus_gate *gate, bool force)
{
    lock(gate);
    struct modus_gate_visit *visit = gate->first;
    if (!visit || (!force && (atomic_load(&gate->state) & ON_ITS_WAY))) {
        unlock(gate);
        return;
    }
    unlist(gate, visit);
    visit->called = true;
    atomic_fetch_or(&gate->state, ON_ITS_WAY);
    _Atomic uint32_t *word = &visit->word;
    atomic_store(word, 1);
    unlock(gate);
    modus_unpark(MODUS_THREAD, word, 1); /* perhaps gone already: see modus_unpark */
}

static void list_open(struct modus_gate *gate)
{
    lock(gate);
    for (struct modus_gate_visit *visit; (visit = gate->first) != NULL;) {
        unlist(gate, visit);
        atomic_store(&visit->word, 1);
        modus_unpark(MODUS_THREAD, &visit->word, 1);
    }
    unlock(gate);
}

/* --- process scope --------------------------------------------------------------------------- */

static void word_enter(struct modus_gate *gate, struct modus_gate_visit *visit)
{
    uint32_t state = atomic_load(&gate->state), next;

    modus_watch_look(&visit->watch, gate);
    do
        next = (state | SLEEPERS) & ~ON_ITS_WAY;
    while (!atomic_compare_exchange_weak(&gate->state, &state, next));
    visit->seen = next;
    visit->called = false;
}

static void word_call(struct modus_gate *gate, bool force)
{
    uint32_t state = atomic_load(&gate->state), next;

    do {
        if (!(state & SLEEPERS) || (!force && (state & ON_ITS_WAY)))
            return;
        next = (state + TURN) | ON_ITS_WAY;
    } while (!atomic_compare_exchange_weak(&gate->state, &state, next));
    MODUS_FAULT(MODUS_FAULT_WAKE_CLAIMED);
    if (modus_unpark(MODUS_PROCESS, &gate->state, 1) == 0) /* then nobody sleeps */
        atomic_compare_exchange_strong(&gate->state, &next, next & ~(SLEEPERS | ON_ITS_WAY));
}

static void word_open(struct modus_gate *gate)
{
    atomic_fetch_add(&gate->state, TURN);
    modus_unpark(MODUS_PROCESS, &gate->state, INT_MAX);
}

/* --- both ------------------------------------------------------------------------------------ */

void modus_gate_enter(struct modus_gate *gate, enum modus_scope scope,
                      struct modus_gate_visit *visit)
{
    if (scope == MODUS_THREAD)
        list_enter(gate, visit);
    else
        word_enter(gate, visit);
}

int modus_gate_sleep(struct modus_gate *gate, enum modus_scope scope,
                     struct modus_gate_visit *visit, int64_t deadline)
{
    if (scope == MODUS_THREAD)
        return modus_park(scope, &visit->word, 0, deadline, NULL);
    MODUS_FAULT(MODUS_FAULT_PARK_MARKED);
    int rc = modus_park(scope, &gate->state, visit->seen, deadline, &visit->watch);
    visit->called = true; /* it may be: nobody else can tell */
    MODUS_FAULT(MODUS_FAULT_WAKE_PASSED);
    return rc;
}

void modus_gate_exit(struct modus_gate *gate, enum modus_scope scope,
                     struct modus_gate_visit *visit)
{
    if (scope == MODUS_THREAD)
        list_exit(gate, visit);
    else if (visit->called)
        atomic_fetch_and(&gate->state, ~ON_ITS_WAY);
}

void modus_gate_open(struct modus_gate *gate, enum modus_scope scope)
{
    if (scope == MODUS_THREAD)
        list_open(gate);
    else
        word_open(gate);
}

void modus_gate_call(struct modus_gate *gate, enum modus_scope scope, bool force)
{
    if (scope == MODUS_THREAD)
        list_call(gate, force);
    else
        word_call(gate, force);
}

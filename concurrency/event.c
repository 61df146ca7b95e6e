/* SPDX-License-Identifier: MIT */
/*
 * The event's word: bit 0 the flag, bit 1 "somebody may sleep", the rest counts the sets.
 *
 * A waiter is satisfied by the flag or by another count than the one it came with. The mark saves
 * the system call of a set that nobody waits for; it is set by a waiter and cleared by the set that
 * wakes all, so a waiter that was killed or timed out costs one needless wake-up and no more.
 * The count wraps after 2^30 sets during one single sleep.
 */
#include "concurrency/event.h"
#include "concurrency/fault.h"

#include <limits.h>
#include <string.h>

enum { FLAG = 1, WAITERS = 2, SET = 4 };

int modus_event_init(struct modus_event *event, enum modus_scope scope)
{
    memset(event, 0, sizeof *event);
    if (!modus_scope_fits(scope, event))
        return -EINVAL;
    event->scope = (uint32_t)scope;
    return 0;
}

void modus_event_fini(struct modus_event *event)
{
    if (event->scope != 0)
        modus_armed_fini(&event->armed, event->scope);
    memset(event, 0, sizeof *event);
}

void modus_event_set(struct modus_event *event)
{
    uint32_t word = atomic_load_explicit(&event->word, memory_order_relaxed), next;

    if (event->scope == 0)
        return;
    /* Also when the flag is set already: the exchange orders what the caller wrote before it, for a
     * waiter that clears the flag and then looks. */
    do
        next = word & FLAG ? word : ((word + SET) & ~(uint32_t)WAITERS) | FLAG;
    while (!atomic_compare_exchange_weak(&event->word, &word, next));
    MODUS_FAULT(MODUS_FAULT_EVENT_SET);
    if (word & WAITERS)
        modus_unpark(event->scope, &event->word, INT_MAX);
    modus_armed_ring(&event->armed);
}

void modus_event_clear(struct modus_event *event)
{
    if (event->scope != 0)
        atomic_fetch_and(&event->word, ~(uint32_t)FLAG);
}

bool modus_event_is_set(const struct modus_event *event)
{
    return atomic_load(&event->word) & FLAG;
}

static bool passed(uint32_t word, uint32_t came)
{
    return (word & FLAG) || word / SET != came / SET;
}

static int wait_until(struct modus_event *event, uint32_t word, int64_t deadline)
{
    uint32_t came = word;
    struct modus_watch watch = {0};
    int rc = 0;

    for (;;) {
        if (event->scope == MODUS_PROCESS)
            modus_watch_look(&watch, event);
        word = atomic_load(&event->word);
        while (!passed(word, came) && !(word & WAITERS))
            if (atomic_compare_exchange_weak(&event->word, &word, word | WAITERS))
                word |= WAITERS;
        if (passed(word, came))
            return 0;
        if (rc < 0)
            return rc;
        rc = modus_park(event->scope, &event->word, word, deadline, &watch);
    }
}

int modus_event_wait(struct modus_event *event, int64_t ns)
{
    uint32_t word = atomic_load(&event->word);

    if (event->scope == 0 || ns < MODUS_FOREVER)
        return -EINVAL;
    if (word & FLAG)
        return 0;
    return ns == 0 ? -EAGAIN : wait_until(event, word, modus_deadline(ns));
}

int modus_event_wait_until(struct modus_event *event, int64_t deadline)
{
    uint32_t word = atomic_load(&event->word);

    if (event->scope == 0 || deadline < MODUS_FOREVER)
        return -EINVAL;
    return word & FLAG ? 0 : wait_until(event, word, deadline);
}

int modus_event_arm(struct modus_event *event, struct modus_doorbell *bell)
{
    return event->scope == 0 ? -EINVAL : modus_armed_add(&event->armed, bell, event->scope);
}

void modus_event_disarm(struct modus_event *event, struct modus_doorbell *bell)
{
    if (event->scope != 0)
        modus_armed_remove(&event->armed, bell, event->scope);
}

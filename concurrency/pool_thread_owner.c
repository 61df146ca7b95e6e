/* SPDX-License-Identifier: MIT */
/*
 * Whose tasks there are in a pool of threads.
 *
 * A queue can't be searched, so the tasks that have owners are in a list, too, from before they are
 * queued until they have begun. Only they pay for it. A task in the list has the reference of its
 * entry of the queue; who cancels takes a reference of its own, and the task from the list, and
 * cancels it when the lock is free again, since callbacks run then.
 */
#include "concurrency/pool_thread_priv.h"

static struct modus_future *next_of(struct modus_future *future)
{
    return modus_thread_job_of(future)->next;
}

/* Under the lock, as is the next. */
static void add(struct modus_thread_pool *p, struct modus_future *future)
{
    struct modus_thread_job *job = modus_thread_job_of(future);

    job->next = NULL;
    job->previous = p->last_owned;
    *(p->last_owned ? &modus_thread_job_of(p->last_owned)->next : &p->owned) = future;
    p->last_owned = future;
    job->listed = true;
}

static void take_out(struct modus_thread_pool *p, struct modus_future *future)
{
    struct modus_thread_job *job = modus_thread_job_of(future);

    *(job->previous ? &modus_thread_job_of(job->previous)->next : &p->owned) = job->next;
    *(job->next ? &modus_thread_job_of(job->next)->previous : &p->last_owned) = job->previous;
    job->listed = false;
}

void modus_thread_pool_own(struct modus_thread_pool *p, struct modus_future *future)
{
    modus_lock_acquire(&p->owned_lock, MODUS_FOREVER);
    add(p, future);
    modus_lock_release(&p->owned_lock);
}

void modus_thread_pool_disown(struct modus_thread_pool *p, struct modus_future *future)
{
    modus_lock_acquire(&p->owned_lock, MODUS_FOREVER);
    if (modus_thread_job_of(future)->listed)
        take_out(p, future);
    modus_lock_release(&p->owned_lock);
}

/* Take all that the owner has out of the list, into one of the caller's. */
static struct modus_future *take_all(struct modus_thread_pool *p, const void *owner)
{
    struct modus_future *first = NULL, **end = &first, *next;

    modus_lock_acquire(&p->owned_lock, MODUS_FOREVER);
    for (struct modus_future *future = p->owned; future; future = next) {
        next = next_of(future);
        if (modus_thread_job_of(future)->owner != owner)
            continue;
        take_out(p, future);
        modus_thread_job_of(future)->next = NULL;
        *end = modus_future_get(future);
        end = &modus_thread_job_of(future)->next;
    }
    modus_lock_release(&p->owned_lock);
    return first;
}

long modus_thread_pool_cancel_owner(struct modus_thread_pool *p, const void *owner)
{
    struct modus_future *next;
    long cancelled = 0;

    for (struct modus_future *future = take_all(p, owner); future; future = next) {
        next = next_of(future);
        cancelled += modus_future_cancel(future) == 0;
        modus_future_put(future);
    }
    return cancelled;
}

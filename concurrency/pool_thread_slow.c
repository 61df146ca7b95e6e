/* SPDX-License-Identifier: MIT */
/*
 * Slow tasks of a pool of threads: how many of them run at a time.
 *
 * A slow task comes through the queue like any other. Whoever gets it takes one of the (n + 1) / 2
 * slots for them, or, if all are taken, puts it aside, and goes on with what comes next. Who has ended
 * a slow task gives its slot back and looks aside before it looks at the queue. So a task lies aside
 * only while as many others run, each on a thread that will look: nobody is to be woken. And it goes
 * first then, since it had had its turn.
 *
 * There are never more slow tasks in the queue and aside than the queue has room for: each has a
 * permit from its submit until it has begun, or never will.
 */
#include "concurrency/fault.h"
#include "concurrency/pool_thread_priv.h"

enum { FLOOD = 1 << 24 }; /* permits for all who wait for one in vain */

static uint32_t limit(const struct modus_thread_pool *p)
{
    return (p->pool.attr.n + 1) / 2;
}

/* Under the lock, as is the next: behind those of the same priority. */
static void put_aside(struct modus_thread_pool *p, struct modus_future *future)
{
    struct modus_future **at = &p->aside;
    struct modus_thread_job *job = modus_thread_job_of(future);

    if (p->last_aside && modus_thread_job_of(p->last_aside)->priority >= job->priority)
        at = &modus_thread_job_of(p->last_aside)->behind;
    while (*at && modus_thread_job_of(*at)->priority >= job->priority)
        at = &modus_thread_job_of(*at)->behind;
    job->behind = *at;
    *at = future;
    if (!job->behind)
        p->last_aside = future;
    atomic_fetch_add(&p->aside_count, 1);
}

static struct modus_future *take_from_aside(struct modus_thread_pool *p)
{
    struct modus_future *future = p->aside;

    if (!future)
        return NULL;
    p->aside = modus_thread_job_of(future)->behind;
    if (!p->aside)
        p->last_aside = NULL;
    atomic_fetch_sub(&p->aside_count, 1);
    return future;
}

static void lock(struct modus_thread_pool *p)
{
    modus_lock_acquire(&p->slow_lock, MODUS_FOREVER);
}

static void unlock(struct modus_thread_pool *p)
{
    modus_lock_release(&p->slow_lock);
}

bool modus_slow_begin(struct modus_thread_pool *p, struct modus_future *future)
{
    MODUS_FAULT(MODUS_FAULT_TASK_SLOW);
    lock(p);
    bool begins = p->slow_running < limit(p), late = !begins && p->slow_shut;
    if (begins || late)
        p->slow_running++; /* one that is late ends at once */
    else
        put_aside(p, future);
    unlock(p);
    if (late)
        modus_future_cancel(future);
    return begins || late;
}

void modus_slow_end(struct modus_thread_pool *p)
{
    lock(p);
    p->slow_running--;
    unlock(p);
}

struct modus_future *modus_slow_next(struct modus_thread_pool *p)
{
    struct modus_future *future = NULL;

    lock(p);
    if (p->slow_running < limit(p))
        future = take_from_aside(p);
    if (future)
        p->slow_running++;
    unlock(p);
    return future;
}

void modus_slow_pass_on(struct modus_thread_pool *p)
{
    lock(p);
    struct modus_future *future = p->aside;
    if (future && modus_thread_pool_put(p, future, 0) == 0)
        take_from_aside(p);
    unlock(p);
}

struct modus_future *modus_slow_shut(struct modus_thread_pool *p)
{
    lock(p);
    p->slow_shut = true;
    struct modus_future *future = take_from_aside(p);
    unlock(p);
    return future;
}

/* --- permits --------------------------------------------------------------------------------- */

int modus_slow_enter(struct modus_thread_pool *p, int64_t ns)
{
    int rc = modus_sem_acquire(&p->slow_room, ns);

    return rc == -EAGAIN ? MODUS_FULL : rc;
}

void modus_slow_leave(struct modus_thread_pool *p)
{
    modus_sem_release(&p->slow_room, 1);
}

void modus_slow_flood(struct modus_thread_pool *p)
{
    modus_sem_release(&p->slow_room, FLOOD);
}

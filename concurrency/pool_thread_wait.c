/* SPDX-License-Identifier: MIT */
/*
 * Waiting inside of a pool of threads.
 *
 * A worker that waits for a pending task of its pool begins it itself, and only that one: any other
 * might, further down the same stack, wait for the very task that is suspended there. So whoever
 * sleeps, sleeps for a task that runs on another thread, and if all threads of a pool slept they
 * would form a circle: which is looked for, from future to runner to the future that the runner
 * waits for, before the sleep that would close it.
 */
#include "concurrency/park.h"
#include "concurrency/pool_thread_priv.h"

/* Does a worker still have it in hand, its task or its callbacks? */
static bool is_run(struct modus_future *future)
{
    uint32_t state = modus_future_state_of(atomic_load(&future->word));

    return state == MODUS_FUTURE_RUNNING || state == MODUS_FUTURE_SETTLING;
}

/* Under the lock of hooks: does the worker that runs it wait, by way of others, for ours? */
static bool circle(struct modus_thread_worker *ours, struct modus_future *future)
{
    while (future && is_run(future)) {
        struct modus_thread_worker *runner = atomic_load(&future->runner);

        if (runner == ours)
            return true;
        future = runner ? runner->waiting : NULL;
    }
    return false;
}

static int enter(struct modus_future *future)
{
    if (!modus_working ||
        modus_park_instead) /* a thread that runs coroutines waits for many at a time */
        return 0;
    if (future->owner == modus_working->pool && modus_future_begin(future) == 0) {
        modus_thread_worker_run(modus_working, future, false);
        return 0;
    }
    modus_future_lock();
    bool closed = circle(modus_working, future);
    if (!closed)
        modus_working->waiting = future;
    modus_future_unlock();
    return closed ? -EDEADLK : 0;
}

static void leave(struct modus_future *future)
{
    (void)future;
    if (!modus_working || modus_park_instead)
        return;
    modus_future_lock();
    modus_working->waiting = NULL;
    modus_future_unlock();
}

static bool pending(const struct modus_future *future)
{
    (void)future;
    return true;
}

static enum modus_withdrawal withdraw(struct modus_future *future)
{
    (void)future;
    return MODUS_WITHDRAWN;
}

static void drop(struct modus_future *future)
{
    (void)future;
}

const struct modus_future_ops modus_thread_future_ops = {true,     enter, leave, pending,
                                                         withdraw, drop,  NULL};

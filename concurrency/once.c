/* SPDX-License-Identifier: MIT */
/*
 * Thread scope: the runner's name, thread and process, stands in one word, so that a child which was
 * forked in the middle sees that the runner is not of its own kind. Who waits sleeps on another word,
 * which changes with every run that ends.
 *
 * Process scope: a robust lock, held while the initializer runs, which the kernel passes on when its
 * owner dies.
 */
#include "concurrency/once.h"
#include "concurrency/lock_priv.h"
#include "concurrency/park.h"
#include "concurrency/self.h"

#include <limits.h>
#include <string.h>

enum { NEW, DONE };              /* runner; a thread's id is never 0 */
enum { SLEEPERS = 1, TURN = 2 }; /* turn */

static uint64_t self(void)
{
    return (uint64_t)modus_self_tid() << 32 | (modus_self_stamp() & UINT32_MAX);
}

int modus_once_init(struct modus_once *once, enum modus_scope scope)
{
    memset(once, 0, sizeof *once);
    if (!modus_scope_fits(scope, once))
        return -EINVAL;
    int rc = scope == MODUS_PROCESS ? modus_lock_init(&once->lock, scope) : 0;
    if (rc == 0)
        once->scope = (uint32_t)scope;
    return rc;
}

void modus_once_fini(struct modus_once *once)
{
    modus_lock_fini(&once->lock);
    memset(once, 0, sizeof *once);
}

/* --- thread scope ---------------------------------------------------------------------------- */

/* Is it new, or does it run in a process that is not ours? */
static bool is_free(uint64_t runner)
{
    return runner == NEW ||
           (runner != DONE && (uint32_t)runner != (modus_self_stamp() & UINT32_MAX));
}

/* The caller runs it. */
static int run(struct modus_once *once, int (*init)(void *context), void *context)
{
    int rc = init(context);

    atomic_store(&once->runner, rc < 0 ? NEW : DONE);
    uint32_t turn = atomic_load(&once->turn);
    while (!atomic_compare_exchange_weak(&once->turn, &turn, (turn + TURN) & ~(uint32_t)SLEEPERS))
        continue;
    if (turn & SLEEPERS)
        modus_unpark(MODUS_THREAD, &once->turn, INT_MAX);
    return rc < 0 ? rc : 0;
}

static int thread_run(struct modus_once *once, int (*init)(void *context), void *context,
                      int64_t ns, int64_t deadline)
{
    uint64_t me = self();

    for (int rc = 0;;) {
        uint32_t turn = atomic_fetch_or(&once->turn, SLEEPERS) | SLEEPERS;
        uint64_t runner = atomic_load(&once->runner);

        if (runner == DONE)
            return 0;
        if (runner == me)
            return -EDEADLK;
        if (is_free(runner)) {
            if (atomic_compare_exchange_strong(&once->runner, &runner, me))
                return run(once, init, context);
            continue;
        }
        if (rc < 0 || ns == 0)
            return ns == 0 ? -EAGAIN : rc;
        rc = modus_park(MODUS_THREAD, &once->turn, turn, deadline, NULL);
    }
}

/* --- process scope --------------------------------------------------------------------------- */

static int process_run(struct modus_once *once, int (*init)(void *context), void *context,
                       int64_t ns, int64_t deadline)
{
    int rc = modus_lock_acquire_alert(&once->lock, ns, deadline, __builtin_return_address(0));

    if (rc < 0)
        return rc;
    if (rc == MODUS_OWNERDEAD)
        modus_lock_consistent(&once->lock);
    rc = atomic_load(&once->runner) == DONE ? 0 : init(context);
    if (!modus_lock_mine(&once->lock))
        return -ECHILD;
    if (rc >= 0)
        atomic_store(&once->runner, DONE);
    modus_lock_release(&once->lock);
    return rc < 0 ? rc : 0;
}

/* --- both ------------------------------------------------------------------------------------ */

static int run_or_wait(struct modus_once *once, int (*init)(void *context), void *context,
                       int64_t ns, int64_t deadline)
{
    if (once->scope == MODUS_PROCESS)
        return process_run(once, init, context, ns, deadline);
    return thread_run(once, init, context, ns, deadline);
}

int modus_once_run(struct modus_once *once, int (*init)(void *context), void *context, int64_t ns)
{
    if (once->scope == 0 || !init || ns < MODUS_FOREVER)
        return -EINVAL;
    if (atomic_load_explicit(&once->runner, memory_order_acquire) == DONE)
        return 0;
    return run_or_wait(once, init, context, ns, modus_deadline(ns));
}

int modus_once_run_until(struct modus_once *once, int (*init)(void *context), void *context,
                         int64_t deadline)
{
    if (once->scope == 0 || !init || deadline < MODUS_FOREVER)
        return -EINVAL;
    if (atomic_load_explicit(&once->runner, memory_order_acquire) == DONE)
        return 0;
    return run_or_wait(once, init, context, deadline == MODUS_FOREVER ? MODUS_FOREVER : 1,
                       deadline);
}

bool modus_once_done(const struct modus_once *once)
{
    return atomic_load_explicit(&once->runner, memory_order_acquire) == DONE;
}

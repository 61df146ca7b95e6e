/* SPDX-License-Identifier: MIT */
/*
 * Once: an initializer that runs exactly once, whoever comes first, while the others wait for it.
 *
 * States: new -> running -> done; or, when the initializer fails, new again, so that the next one to
 * come, or one of those who wait, tries it anew.
 *
 *     static struct modus_once opened = MODUS_ONCE_INIT;
 *
 *     int rc = modus_once_run(&opened, open_database, NULL, MODUS_FOREVER);
 *     if (rc < 0)
 *         return rc;                           // not open; it may be tried again
 *
 * Everything that the initializer wrote is seen by whoever was told that it is done.
 *
 * After a fork, what was done is done in the child too. What was running in another thread of the
 * parent is new there: that thread is not in the child. Process scope: once for all processes that
 * share the memory; one that is killed in the initializer leaves it new, so that the next runs it,
 * upon what the dead one has left half done.
 */
#ifndef CONCURRENCY_ONCE_H
#define CONCURRENCY_ONCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/lock.h"
#include "concurrency/result.h"

/* All fields are private. */
struct modus_once {
    uint32_t scope;          /* enum modus_scope; 0: not started */
    _Atomic uint32_t turn;   /* thread: counts the runs that have ended; and a sleepers' mark */
    _Atomic uint64_t runner; /* 0: new, 1: done; thread: else who runs it */
    struct modus_lock lock;  /* process: held by who runs it */
};

#define MODUS_ONCE_INIT                                                                            \
    {                                                                                              \
        .scope = MODUS_THREAD                                                                      \
    }

/* Make a new one. Returns 0, -EINVAL (scope) or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_once_init(struct modus_once *once, enum modus_scope scope);

/* End one that nobody waits for. Safe from: the one thread that still knows the object. */
void modus_once_fini(struct modus_once *once);

/* Run init(context), unless it has been done; if another runs it, wait up to ns nanoseconds for its
 * end (MODUS_FOREVER: without end, 0: do not wait). init returns 0 when it is done, or a negative
 * code: it failed, and this call returns that. Returns 0: it is done; else init's own code, -EAGAIN
 * or -ETIMEDOUT (another still runs it), MODUS_CANCELED (the calling coroutine is), -EDEADLK (called
 * from within init), -ECHILD (process scope: init has forked, and this is the child; it is its parent's
 * to end) or -EINVAL. Blocks.
 * Safe from: any thread, in process scope any process; a forked child; not signal handlers. */
int modus_once_run(struct modus_once *once, int (*init)(void *context), void *context, int64_t ns);

/* modus_once_run with an absolute CLOCK_MONOTONIC time; one that is past does not wait. */
int modus_once_run_until(struct modus_once *once, int (*init)(void *context), void *context,
                         int64_t deadline);

/* Is it done? Does not block. Safe from: any thread and process, signal handlers. */
bool modus_once_done(const struct modus_once *once);

#endif

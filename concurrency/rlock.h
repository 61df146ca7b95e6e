/* SPDX-License-Identifier: MIT */
/*
 * Recursive lock: its owner may acquire it again, and gives it up with the last release.
 *
 * It stands apart from lock.h because most code is better off with the plain lock, to which a
 * second acquire is an error that is reported. This one is for functions that call each other under
 * the same lock.
 *
 *     static struct modus_rlock lock = MODUS_RLOCK_INIT;
 *
 *     modus_rlock_acquire(&lock, MODUS_FOREVER);       // depth 1
 *     modus_rlock_acquire(&lock, MODUS_FOREVER);       // depth 2
 *     modus_rlock_release(&lock);                      // still ours
 *     modus_rlock_release(&lock);                      // free
 *
 * Scopes, the death of an owner, repair and poisoning are the plain lock's (lock.h). Whoever
 * inherits from the dead owns the lock once, however deep the dead one was.
 */
#ifndef CONCURRENCY_RLOCK_H
#define CONCURRENCY_RLOCK_H

#include <stdint.h>

#include "concurrency/lock.h"

/* All fields are private. */
struct modus_rlock {
    struct modus_lock lock;
    uint32_t depth; /* under lock */
};

#define MODUS_RLOCK_INIT                                                                           \
    {                                                                                              \
        .lock = MODUS_LOCK_INIT                                                                    \
    }

/* As modus_lock_init, _fini and _set_repair. The repair function runs with the lock held once. */
int modus_rlock_init(struct modus_rlock *lock, enum modus_scope scope);
void modus_rlock_fini(struct modus_rlock *lock);
int modus_rlock_set_repair(struct modus_rlock *lock, int (*repair)(void *context), void *context);

/* Own the lock once more, waiting up to ns nanoseconds (MODUS_FOREVER: without end, 0: do not
 * wait). Returns 0; MODUS_OWNERDEAD (1): owned, but the last owner died; -EAGAIN, -ETIMEDOUT,
 * -EOVERFLOW (2^32 - 1 times already), MODUS_NOTRECOVERABLE or -EINVAL. Blocks.
 * Safe from: any thread, in process scope any process and a forked child; not signal handlers. */
int modus_rlock_acquire(struct modus_rlock *lock, int64_t ns);

/* modus_rlock_acquire with an absolute CLOCK_MONOTONIC time; one that is past tries once. */
int modus_rlock_acquire_until(struct modus_rlock *lock, int64_t deadline);

/* modus_rlock_acquire(lock, 0). Does not block. */
int modus_rlock_try(struct modus_rlock *lock);

/* Give it up once. Returns 0, -EPERM when the caller does not own it, or -EINVAL. Does not block.
 * Safe from: the owning thread only. */
int modus_rlock_release(struct modus_rlock *lock);

/* How often the calling thread owns it; 0: not at all. Does not block.
 * Safe from: any thread and process, signal handlers, a forked child (which owns nothing). */
uint32_t modus_rlock_depth(const struct modus_rlock *lock);

/* As modus_lock_consistent and modus_lock_poisoned. */
int modus_rlock_consistent(struct modus_rlock *lock);
bool modus_rlock_poisoned(const struct modus_rlock *lock);

/* For conditions: give it up whole, and own it again as deep. release_all returns the depth that
 * it had, or -EPERM; restore what modus_rlock_acquire returns, and does not return -EOVERFLOW.
 * Safe from: the owning thread; restore blocks. */
int64_t modus_rlock_release_all(struct modus_rlock *lock);
int modus_rlock_restore(struct modus_rlock *lock, uint32_t depth);

#endif

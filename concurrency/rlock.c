/* SPDX-License-Identifier: MIT */
/*
 * A plain lock and a count that only its owner touches. The plain lock says -EDEADLK to its owner:
 * that is the recursion, so nobody asks who owns it before the acquire. Only then it is asked: a lock
 * of process scope says so to all coroutines of its owner's thread.
 */
#include "concurrency/rlock.h"

int modus_rlock_init(struct modus_rlock *lock, enum modus_scope scope)
{
    lock->depth = 0;
    return modus_lock_init(&lock->lock, scope);
}

void modus_rlock_fini(struct modus_rlock *lock)
{
    modus_lock_fini(&lock->lock);
    lock->depth = 0;
}

int modus_rlock_set_repair(struct modus_rlock *lock, int (*repair)(void *context), void *context)
{
    return modus_lock_set_repair(&lock->lock, repair, context);
}

/* After an acquire of the plain lock that returned rc. */
static int count(struct modus_rlock *lock, int rc)
{
    if (rc == -EDEADLK && modus_lock_mine(&lock->lock)) {
        if (lock->depth == UINT32_MAX)
            return -EOVERFLOW;
        lock->depth++;
        return 0;
    }
    if (rc >= 0)
        lock->depth = 1;
    return rc;
}

int modus_rlock_acquire(struct modus_rlock *lock, int64_t ns)
{
    return count(lock, modus_lock_acquire(&lock->lock, ns));
}

int modus_rlock_acquire_until(struct modus_rlock *lock, int64_t deadline)
{
    return count(lock, modus_lock_acquire_until(&lock->lock, deadline));
}

int modus_rlock_try(struct modus_rlock *lock)
{
    return modus_rlock_acquire(lock, 0);
}

int modus_rlock_release(struct modus_rlock *lock)
{
    if (modus_rlock_depth(lock) > 1) {
        lock->depth--;
        return 0;
    }
    return modus_lock_release(&lock->lock);
}

uint32_t modus_rlock_depth(const struct modus_rlock *lock)
{
    return modus_lock_mine(&lock->lock) ? lock->depth : 0;
}

int modus_rlock_consistent(struct modus_rlock *lock)
{
    return modus_lock_consistent(&lock->lock);
}

bool modus_rlock_poisoned(const struct modus_rlock *lock)
{
    return modus_lock_poisoned(&lock->lock);
}

int64_t modus_rlock_release_all(struct modus_rlock *lock)
{
    uint32_t depth = modus_rlock_depth(lock);

    if (depth == 0)
        return -EPERM;
    modus_lock_release(&lock->lock);
    return depth;
}

int modus_rlock_restore(struct modus_rlock *lock, uint32_t depth)
{
    int rc = modus_lock_acquire(&lock->lock, MODUS_FOREVER);

    if (rc >= 0)
        lock->depth = depth;
    return rc;
}

/* SPDX-License-Identifier: MIT */
/*
 * Hold a lock until the end of the block, on every path out of it: return, break, goto.
 *
 *     MODUS_HOLD_WRITE(held, &table->lock, MODUS_FOREVER);
 *     if (held.result < 0)
 *         return held.result;
 *     insert(table, key, value);               // and the lock is given up
 *
 * There is one for each kind: MODUS_HOLD for the plain lock (in lock.h), and here MODUS_HOLD_RLOCK
 * for the recursive one, MODUS_HOLD_READ and MODUS_HOLD_WRITE for the readers-writer lock. Each
 * declares a variable, whose result is what the acquire returned: with a negative one nothing is held
 * and nothing is given up. Who has released the lock by hand inside of the block sets the result to
 * -EPERM. Code that leaves by longjmp, or ends its thread, gives nothing up; and a goto must not jump
 * over one of these into the rest of its block.
 */
#ifndef CONCURRENCY_SCOPED_H
#define CONCURRENCY_SCOPED_H

#include "concurrency/lock.h"
#include "concurrency/rlock.h"
#include "concurrency/rwlock.h"

struct modus_hold_rlock {
    struct modus_rlock *lock;
    int result; /* of the acquire */
};

struct modus_hold_rwlock {
    struct modus_rwlock *lock;
    int result;
};

#define MODUS_HOLD_RLOCK(name, lock_pointer, ns)                                                   \
    struct modus_hold_rlock name __attribute__((cleanup(modus_hold_rlock_end), unused)) =          \
        modus_hold_rlock_begin((lock_pointer), (ns))

#define MODUS_HOLD_READ(name, lock_pointer, ns)                                                    \
    struct modus_hold_rwlock name __attribute__((cleanup(modus_hold_rwlock_end), unused)) =        \
        modus_hold_read_begin((lock_pointer), (ns))

#define MODUS_HOLD_WRITE(name, lock_pointer, ns)                                                   \
    struct modus_hold_rwlock name __attribute__((cleanup(modus_hold_rwlock_end), unused)) =        \
        modus_hold_write_begin((lock_pointer), (ns))

static inline struct modus_hold_rlock modus_hold_rlock_begin(struct modus_rlock *lock, int64_t ns)
{
    return (struct modus_hold_rlock){.lock = lock, .result = modus_rlock_acquire(lock, ns)};
}

static inline void modus_hold_rlock_end(struct modus_hold_rlock *hold)
{
    if (hold->result >= 0)
        modus_rlock_release(hold->lock);
}

static inline struct modus_hold_rwlock modus_hold_read_begin(struct modus_rwlock *lock, int64_t ns)
{
    return (struct modus_hold_rwlock){.lock = lock, .result = modus_rwlock_read(lock, ns)};
}

static inline struct modus_hold_rwlock modus_hold_write_begin(struct modus_rwlock *lock, int64_t ns)
{
    return (struct modus_hold_rwlock){.lock = lock, .result = modus_rwlock_write(lock, ns)};
}

static inline void modus_hold_rwlock_end(struct modus_hold_rwlock *hold)
{
    if (hold->result >= 0)
        modus_rwlock_release(hold->lock);
}

#endif

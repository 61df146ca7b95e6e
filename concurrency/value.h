/* SPDX-License-Identifier: MIT */
/*
 * Value: one number that threads or processes share, a whole one or a real one.
 *
 * Each call is one atomic step, without a lock; nobody waits and nobody that is killed leaves
 * anything behind. n -= 1 is such a step too: modus_value_add(&value, -1).
 *
 *     static struct modus_value balance = MODUS_VALUE_INIT;          // 0, for threads
 *
 *     struct modus_value *left = modus_arena_alloc(arena, sizeof *left, 0);
 *     modus_value_init(left, MODUS_PROCESS, 10);                     // for processes: in an arena
 *     if (fork() == 0)
 *         modus_value_add(left, -1);
 *
 * What takes several steps, a load, some thinking and a store, needs the lock that the value has,
 * held from before the first to after the last, by everybody who changes it:
 *
 *     modus_value_acquire(left, MODUS_FOREVER);
 *     modus_value_store(left, next(modus_value_load(left)));
 *     modus_value_release(left);
 *
 * The lock is a recursive one (rlock.h). Whoever gets it after its owner has died learns so from
 * MODUS_OWNERDEAD, once; the number is what it was at that moment, and the lock is as good as ever.
 *
 * Everything written before a store or add is seen by whoever loads what it left.
 */
#ifndef CONCURRENCY_VALUE_H
#define CONCURRENCY_VALUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "concurrency/park.h"
#include "concurrency/result.h"
#include "concurrency/rlock.h"

/* All fields are private. */
struct modus_value {
    _Atomic uint64_t bits; /* of an int64_t or a double */
    struct modus_rlock lock;
};

#define MODUS_VALUE_INIT                                                                           \
    {                                                                                              \
        .lock = MODUS_RLOCK_INIT                                                                   \
    }

/* Make a value, in process scope in an arena that was opened before the fork.
 * Returns 0, -EINVAL (scope) or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object, before others know it. */
int modus_value_init(struct modus_value *value, enum modus_scope scope, int64_t number);
int modus_value_init_real(struct modus_value *value, enum modus_scope scope, double number);

/* End a value that nobody uses any more. Safe from: the one thread that still knows the object, in
 * one process. */
void modus_value_fini(struct modus_value *value);

/*
 * Whole numbers. Those that follow do not block.
 * Safe from: any thread, signal handlers, in process scope any process and a forked child.
 */

static inline int64_t modus_value_load(const struct modus_value *value)
{
    return (int64_t)atomic_load(&value->bits);
}

static inline void modus_value_store(struct modus_value *value, int64_t number)
{
    atomic_store(&value->bits, (uint64_t)number);
}

/* Store, and return what was there. */
static inline int64_t modus_value_exchange(struct modus_value *value, int64_t number)
{
    return (int64_t)atomic_exchange(&value->bits, (uint64_t)number);
}

/* Add, and return the sum, which wraps around. */
static inline int64_t modus_value_add(struct modus_value *value, int64_t number)
{
    return (int64_t)(atomic_fetch_add(&value->bits, (uint64_t)number) + (uint64_t)number);
}

/* Store number if *expected is there, and return true; else *expected becomes what is there. */
static inline bool modus_value_compare_exchange(struct modus_value *value, int64_t *expected,
                                                int64_t number)
{
    uint64_t bits = (uint64_t)*expected;
    bool done = atomic_compare_exchange_strong(&value->bits, &bits, (uint64_t)number);

    *expected = (int64_t)bits;
    return done;
}

/* The same for a real number. The comparison is of bits: 0.0 is not -0.0, and a NaN is itself. */

static inline uint64_t modus_value_bits(double number)
{
    uint64_t bits;

    memcpy(&bits, &number, sizeof bits);
    return bits;
}

static inline double modus_value_real(uint64_t bits)
{
    double number;

    memcpy(&number, &bits, sizeof number);
    return number;
}

static inline double modus_value_load_real(const struct modus_value *value)
{
    return modus_value_real(atomic_load(&value->bits));
}

static inline void modus_value_store_real(struct modus_value *value, double number)
{
    atomic_store(&value->bits, modus_value_bits(number));
}

static inline double modus_value_exchange_real(struct modus_value *value, double number)
{
    return modus_value_real(atomic_exchange(&value->bits, modus_value_bits(number)));
}

static inline bool modus_value_compare_exchange_real(struct modus_value *value, double *expected,
                                                     double number)
{
    uint64_t bits = modus_value_bits(*expected);
    bool done = atomic_compare_exchange_strong(&value->bits, &bits, modus_value_bits(number));

    *expected = modus_value_real(bits);
    return done;
}

static inline double modus_value_add_real(struct modus_value *value, double number)
{
    double old = modus_value_load_real(value);

    while (!modus_value_compare_exchange_real(value, &old, old + number))
        ;
    return old + number;
}

/* Own the value's lock (once more), waiting up to ns nanoseconds (MODUS_FOREVER: without end, 0: do
 * not wait), or until an absolute time. Returns 0; MODUS_OWNERDEAD (1): owned, but the last owner
 * died; -EAGAIN, -ETIMEDOUT, -EOVERFLOW or -EINVAL. Blocks. It keeps nobody from the calls above.
 * Safe from: any thread, in process scope any process and a forked child; not signal handlers. */
int modus_value_acquire(struct modus_value *value, int64_t ns);
int modus_value_acquire_until(struct modus_value *value, int64_t deadline);

/* Give it up once. Returns 0, -EPERM or -EINVAL. Does not block. Safe from: the owner. */
int modus_value_release(struct modus_value *value);

#endif

/* SPDX-License-Identifier: MIT */
/* The number is all in the header; here is its lock. A dead owner can't have left half a number, so
 * there is nothing to mend, only something to tell. */
#include "concurrency/value.h"

static int init(struct modus_value *value, enum modus_scope scope, uint64_t bits)
{
    int rc = modus_rlock_init(&value->lock, scope);

    if (rc == 0)
        atomic_init(&value->bits, bits);
    return rc;
}

int modus_value_init(struct modus_value *value, enum modus_scope scope, int64_t number)
{
    return init(value, scope, (uint64_t)number);
}

int modus_value_init_real(struct modus_value *value, enum modus_scope scope, double number)
{
    return init(value, scope, modus_value_bits(number));
}

void modus_value_fini(struct modus_value *value)
{
    modus_rlock_fini(&value->lock);
    atomic_store(&value->bits, 0);
}

static int acquired(struct modus_value *value, int rc)
{
    if (rc == MODUS_OWNERDEAD)
        modus_rlock_consistent(&value->lock);
    return rc;
}

int modus_value_acquire(struct modus_value *value, int64_t ns)
{
    return acquired(value, modus_rlock_acquire(&value->lock, ns));
}

int modus_value_acquire_until(struct modus_value *value, int64_t deadline)
{
    return acquired(value, modus_rlock_acquire_until(&value->lock, deadline));
}

int modus_value_release(struct modus_value *value)
{
    return modus_rlock_release(&value->lock);
}

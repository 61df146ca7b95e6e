/* SPDX-License-Identifier: MIT */
/*
 * Condition: wait, with a lock given up meanwhile, until somebody says that things have changed.
 *
 * A condition belongs to one lock, plain or recursive, and has its scope. Whoever waits or notifies
 * owns the lock. The wait gives the lock up (a recursive one whole), sleeps, and owns it again, as
 * deep as before, when it returns, whatever it returns but MODUS_NOTRECOVERABLE.
 *
 *     modus_lock_acquire(&lock, MODUS_FOREVER);
 *     modus_cond_wait_for(&not_empty, has_item, &list, MODUS_FOREVER);
 *     item = take(&list);
 *     modus_lock_release(&lock);
 *
 *     modus_lock_acquire(&lock, MODUS_FOREVER);
 *     add(&list, item);
 *     modus_cond_notify(&not_empty, 1);
 *     modus_lock_release(&lock);
 *
 * A notification that finds nobody waiting is lost. Between threads it wakes exactly the n who have
 * waited longest. Between processes it wakes the n who have waited longest, and may wake others who
 * were about to sleep; and all wake when a death is buried (participant.h), because the one that
 * was notified may be the one that died. So waits always stand in a loop, and wait_for is that
 * loop. A condition of process scope lies in an arena.
 *
 * Between processes the plain POSIX condition variable is no choice: one waiter that is killed
 * makes a later signal hang.
 */
#ifndef CONCURRENCY_COND_H
#define CONCURRENCY_COND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/lock.h"
#include "concurrency/result.h"
#include "concurrency/rlock.h"

struct modus_cond_visit;

/* All fields are private. */
struct modus_cond {
    uint32_t scope; /* enum modus_scope; 0: not started */
    _Atomic uint32_t
        word; /* process: notifications << 1 | somebody may sleep; changed under lock */
    struct modus_lock *lock;
    struct modus_rlock *rlock;             /* NULL: lock is a plain one */
    struct modus_cond_visit *first, *last; /* thread: who waits, the longest first; under lock */
};

#define MODUS_COND_INIT(lock_pointer)                                                              \
    {                                                                                              \
        .scope = MODUS_THREAD, .lock = (lock_pointer)                                              \
    }

/* Make a condition of the lock, in its scope. Returns 0, or -EINVAL when the lock is not started.
 * Does not block. Safe from: the one thread that makes the object. */
int modus_cond_init(struct modus_cond *cond, struct modus_lock *lock);
int modus_cond_init_rlock(struct modus_cond *cond, struct modus_rlock *lock);

/* End a condition that nobody waits for; not started again. The lock stays.
 * Safe from: the one thread that still knows the object. */
void modus_cond_fini(struct modus_cond *cond);

/* Wait for a notification up to ns nanoseconds (MODUS_FOREVER: without end, 0: only let others
 * have the lock). Returns 0, perhaps for no reason; -ETIMEDOUT; MODUS_CANCELED (the coroutine is);
 * MODUS_OWNERDEAD (1): the lock's last owner died, mend what it guards, then look;
 * MODUS_NOTRECOVERABLE: the lock is not owned any more; -EPERM when the caller does not own the lock,
 * or -EINVAL. Blocks.
 * Safe from: the lock's owner. */
int modus_cond_wait(struct modus_cond *cond, int64_t ns);

/* modus_cond_wait with an absolute CLOCK_MONOTONIC time. */
int modus_cond_wait_until(struct modus_cond *cond, int64_t deadline);

/* Wait until holds(context) is true; it is asked with the lock held, first before any wait. Returns
 * 0 when it is, -ETIMEDOUT when it is not at the end of the time, and else as modus_cond_wait. */
int modus_cond_wait_for(struct modus_cond *cond, bool (*holds)(void *context), void *context,
                        int64_t ns);

/* Wake the n who have waited longest, UINT32_MAX all. Returns how many there were to be woken (in
 * process scope: how many slept), -EPERM or -EINVAL. Does not block.
 * Safe from: the lock's owner. */
int modus_cond_notify(struct modus_cond *cond, uint32_t n);
int modus_cond_notify_all(struct modus_cond *cond);

#endif

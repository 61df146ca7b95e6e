/* SPDX-License-Identifier: MIT */
/*
 * Both scopes of the condition.
 *
 * Thread scope: a list of visits on the waiters' stacks, guarded by the lock that everybody holds
 * anyway. A notification takes a visit off the list, so it can't go to somebody whose time has run
 * out, and a waiter that is off the list has been notified, whatever its clock says.
 *
 * Process scope: no list, since a killed waiter would leave its stack in it. The word changes with
 * each notification and a waiter sleeps on the value that it saw under the lock; the low bit saves
 * the system call of a notification for nobody. A notifier killed between the change and the
 * wake-up, or a waiter killed after it, leaves others asleep until the death epoch moves.
 */
#include "concurrency/cond.h"
#include "concurrency/fault.h"
#include "concurrency/lock_priv.h"
#include "concurrency/park.h"

#include <limits.h>
#include <string.h>

enum { MARK = 1, NOTIFICATION = 2 };

struct modus_cond_visit {
    struct modus_cond_visit *next, *previous;
    _Atomic uint32_t word; /* 0 until notified */
    bool listed;
};

/* --- the lock -------------------------------------------------------------------------------- */

static int init(struct modus_cond *cond, struct modus_lock *lock, struct modus_rlock *rlock)
{
    memset(cond, 0, sizeof *cond);
    if (!modus_scope_fits((enum modus_scope)lock->scope, cond))
        return -EINVAL;
    cond->lock = lock;
    cond->rlock = rlock;
    cond->scope = lock->scope;
    return 0;
}

int modus_cond_init(struct modus_cond *cond, struct modus_lock *lock)
{
    return init(cond, lock, NULL);
}

int modus_cond_init_rlock(struct modus_cond *cond, struct modus_rlock *lock)
{
    return init(cond, &lock->lock, lock);
}

void modus_cond_fini(struct modus_cond *cond)
{
    memset(cond, 0, sizeof *cond);
}

/* Returns what take_back needs. */
static uint32_t give_up(struct modus_cond *cond)
{
    if (cond->rlock)
        return (uint32_t)modus_rlock_release_all(cond->rlock);
    modus_lock_release(cond->lock);
    return 1;
}

static int take_back(struct modus_cond *cond, uint32_t depth)
{
    return cond->rlock ? modus_rlock_restore(cond->rlock, depth)
                       : modus_lock_regain(cond->lock, __builtin_return_address(0));
}

/* --- thread scope ---------------------------------------------------------------------------- */

static void list(struct modus_cond *cond, struct modus_cond_visit *visit)
{
    visit->previous = cond->last;
    *(cond->last ? &cond->last->next : &cond->first) = visit;
    cond->last = visit;
    visit->listed = true;
}

static void unlist(struct modus_cond *cond, struct modus_cond_visit *visit)
{
    *(visit->previous ? &visit->previous->next : &cond->first) = visit->next;
    *(visit->next ? &visit->next->previous : &cond->last) = visit->previous;
    visit->listed = false;
}

static int thread_wait(struct modus_cond *cond, int64_t deadline)
{
    struct modus_cond_visit visit = {0};
    int rc = 0;

    list(cond, &visit);
    uint32_t depth = give_up(cond);
    while (rc == 0 && atomic_load(&visit.word) == 0)
        rc = modus_park(MODUS_THREAD, &visit.word, 0, deadline, NULL);
    int owned = take_back(cond, depth);
    if (!visit.listed)
        return owned;
    unlist(cond, &visit);
    return rc;
}

static int thread_notify(struct modus_cond *cond, uint32_t n)
{
    int woken = 0;

    for (; n > 0 && cond->first; n--, woken++) {
        struct modus_cond_visit *visit = cond->first;

        unlist(cond, visit);
        atomic_store(&visit->word, 1);
        modus_unpark(MODUS_THREAD, &visit->word, 1);
    }
    return woken;
}

/* --- process scope --------------------------------------------------------------------------- */

static int process_wait(struct modus_cond *cond, int64_t deadline)
{
    struct modus_watch watch;

    modus_watch_look(&watch, cond);
    uint32_t seen = atomic_fetch_or(&cond->word, MARK) | MARK;
    uint32_t depth = give_up(cond);
    MODUS_FAULT(MODUS_FAULT_PARK_MARKED);
    int rc = modus_park(MODUS_PROCESS, &cond->word, seen, deadline, &watch);
    MODUS_FAULT(MODUS_FAULT_WAKE_PASSED);
    int owned = take_back(cond, depth);
    if (owned != 0)
        return owned;
    return rc == -ETIMEDOUT && (atomic_load(&cond->word) | MARK) != seen ? 0 : rc;
}

static int process_notify(struct modus_cond *cond, uint32_t n)
{
    if (n == 0 || !(atomic_load(&cond->word) & MARK))
        return 0;
    uint32_t word = atomic_fetch_add(&cond->word, NOTIFICATION) + NOTIFICATION;
    MODUS_FAULT(MODUS_FAULT_WAKE_CLAIMED);
    int most = n > INT_MAX ? INT_MAX : (int)n;
    int woken = modus_unpark(MODUS_PROCESS, &cond->word, most);
    if (woken < most) /* nobody is left: who comes next marks again */
        atomic_compare_exchange_strong(&cond->word, &word, word & ~(uint32_t)MARK);
    return woken;
}

/* --- both ------------------------------------------------------------------------------------ */

int modus_cond_wait_until(struct modus_cond *cond, int64_t deadline)
{
    if (cond->scope == 0 || deadline < MODUS_FOREVER)
        return -EINVAL;
    if (!modus_lock_mine(cond->lock))
        return -EPERM;
    return cond->scope == MODUS_THREAD ? thread_wait(cond, deadline) : process_wait(cond, deadline);
}

int modus_cond_wait(struct modus_cond *cond, int64_t ns)
{
    return ns < MODUS_FOREVER ? -EINVAL : modus_cond_wait_until(cond, modus_deadline(ns));
}

int modus_cond_wait_for(struct modus_cond *cond, bool (*holds)(void *context), void *context,
                        int64_t ns)
{
    if (cond->scope == 0 || ns < MODUS_FOREVER)
        return -EINVAL;
    if (!modus_lock_mine(cond->lock))
        return -EPERM;
    int64_t deadline = ns == 0 ? 0 : modus_deadline(ns);
    int rc = 0;
    while (!holds(context)) {
        if (rc != 0 || ns == 0)
            return rc != 0 ? rc : -ETIMEDOUT;
        rc = modus_cond_wait_until(cond, deadline);
        if (rc > 0 || rc == MODUS_NOTRECOVERABLE)
            return rc;
    }
    return 0;
}

int modus_cond_notify(struct modus_cond *cond, uint32_t n)
{
    if (cond->scope == 0)
        return -EINVAL;
    if (!modus_lock_mine(cond->lock))
        return -EPERM;
    return cond->scope == MODUS_THREAD ? thread_notify(cond, n) : process_notify(cond, n);
}

int modus_cond_notify_all(struct modus_cond *cond)
{
    return modus_cond_notify(cond, UINT32_MAX);
}

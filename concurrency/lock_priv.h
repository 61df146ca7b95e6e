/* SPDX-License-Identifier: MIT */
/*
 * What lock.c offers only to other files of the toolbox: calls that say where they come from, and a
 * watcher, which is told of every lock that is wanted, held and given up.
 *
 * The watcher is the deadlock detector's (deadlock.h). lock.c does not know it, so a program that
 * does not use it does not contain it. Nobody watches: an uncontended acquire between threads costs
 * what it did, since the scope that it compares anyway is then compared with a variable.
 */
#ifndef CONCURRENCY_LOCK_PRIV_H
#define CONCURRENCY_LOCK_PRIV_H

#include "concurrency/lock.h"

/* modus_lock_acquire and _until on behalf of the code at site. */
int modus_lock_acquire_from(struct modus_lock *lock, int64_t ns, const void *site);
int modus_lock_acquire_until_from(struct modus_lock *lock, int64_t deadline, const void *site);

/* modus_lock_acquire(lock, MODUS_FOREVER) that is not refused, neither by a watcher nor for the number
 * of locks that the caller holds: for those who have promised to own the lock when they return, and
 * for the toolbox's own locks, held for a moment. And the same until a deadline. */
int modus_lock_regain(struct modus_lock *lock, const void *site);
int modus_lock_regain_until(struct modus_lock *lock, int64_t deadline, const void *site);

/* Acquire a lock between processes on behalf of an object whose wait, unlike that for a lock, ends
 * when the calling coroutine is cancelled (MODUS_CANCELED) or comes to its deadline (-ETIMEDOUT). ns:
 * 0, MODUS_FOREVER, or else until deadline. */
int modus_lock_acquire_alert(struct modus_lock *lock, int64_t ns, int64_t deadline,
                             const void *site);

/* --- watching -------------------------------------------------------------------------------- */

/* How something is held; and, in a wait, for whose holding of it to end. */
enum modus_hold_kind { MODUS_HELD_ALONE = 1, MODUS_HELD_SHARED = 2 };

/* One acquisition. */
struct modus_claim {
    const void *object;
    uint32_t scope; /* enum modus_scope */
    enum modus_hold_kind kind;
    const void *site; /* the code that acquires */
    bool forever;     /* the wait has no end of its own */
    bool refusable;   /* waits may return -EDEADLK */
};

/* By the thread or coroutine that it is about. */
struct modus_lock_watcher {
    /* It acquires, and not only if it need not wait. */
    void (*wants)(const struct modus_claim *claim);
    /* It is about to sleep. Returns 0, or -EDEADLK: it shall not. */
    int (*waits)(const struct modus_claim *claim);
    /* It does not wait any more; called if waits has returned 0. */
    void (*waited)(void);
    /* It holds; inherited: from a dead owner. */
    void (*holds)(const struct modus_claim *claim, bool inherited);
    /* It is about to give up what it may hold. */
    void (*lets)(const void *object, uint32_t scope, enum modus_hold_kind kind);
    /* There is no such object any more. */
    void (*forgets)(const void *object, uint32_t scope);
};

extern _Atomic(const struct modus_lock_watcher *) modus_lock_watcher; /* NULL: nobody */

/* The scope whose locks may be acquired and released without a look at the watcher. */
extern _Atomic uint32_t modus_lock_unwatched;

/* Be told from now on; NULL: nobody any more. The watcher stays. Safe from: one thread. */
void modus_lock_watch(const struct modus_lock_watcher *watcher);

static inline const struct modus_lock_watcher *modus_lock_watched(void)
{
    return atomic_load_explicit(&modus_lock_watcher, memory_order_acquire);
}

#endif

/* SPDX-License-Identifier: MIT */
/*
 * The interpreter lock is a name under a small lock, with two words to sleep on: one for waiters,
 * until it is freed or an interval is over, and one for who has been made to give it up, until
 * another has taken it.
 *
 * That one must not wait for a waiter that has gone away, its time over: so the number of waiters is
 * kept, and the last to go takes the drop request with it.
 */
#include "concurrency/gil.h"
#include "concurrency/park.h"
#include "concurrency/self.h"
#include "concurrency/tsan.h"

#include <limits.h>
#include <string.h>

void modus_gil_init(struct modus_gil *gil)
{
    *gil = (struct modus_gil)MODUS_GIL_INIT;
}

void modus_gil_fini(struct modus_gil *gil)
{
    modus_lock_fini(&gil->lock);
    TSAN_DESTROY(&gil->holder);
    memset(gil, 0, sizeof *gil);
}

/* What waits in here is not the holder's wait, which gives the lock up. */
static struct modus_park_around keep(void)
{
    struct modus_park_around around = modus_park_around;

    modus_park_around.give_up = NULL;
    return around;
}

static void acquire(struct modus_gil *gil)
{
    struct modus_park_around around = keep();

    modus_lock_acquire(&gil->lock, MODUS_FOREVER);
    modus_park_around = around;
}

static void release(struct modus_gil *gil)
{
    modus_lock_release(&gil->lock);
}

/* --- under the lock -------------------------------------------------------------------------- */

static bool is_held(const struct modus_gil *gil)
{
    return atomic_load_explicit(&gil->holder, memory_order_relaxed) != 0;
}

static void ask(struct modus_gil *gil, uint32_t drop)
{
    atomic_store_explicit(&gil->drop, drop, memory_order_relaxed);
}

static void tell(_Atomic uint32_t *word, int n)
{
    atomic_fetch_add(word, 1);
    modus_unpark(MODUS_THREAD, word, n);
}

/* Sleep, without the lock, until somebody tells. Returns 0 or -ETIMEDOUT. */
static int nap(struct modus_gil *gil, _Atomic uint32_t *word, int64_t deadline)
{
    struct modus_park_around around = keep();
    uint32_t seen = atomic_load(word);

    release(gil);
    int rc = modus_park_deaf(MODUS_THREAD, word, seen, deadline, NULL);
    acquire(gil);
    modus_park_around = around;
    return rc;
}

static void take(struct modus_gil *gil)
{
    uint32_t me = modus_self_tid();

    TSAN_LOCKED(&gil->holder, 0);
    atomic_store_explicit(&gil->holder, me, memory_order_relaxed);
    ask(gil, 0);
    gil->stats.acquired++;
    gil->held_since = modus_now_ns();
    if (gil->last == me)
        return;
    gil->last = me;
    gil->stats.switches++;
    tell(&gil->taken, INT_MAX);
}

static void let(struct modus_gil *gil)
{
    TSAN_UNLOCKED(&gil->holder, 0);
    gil->stats.held_ns += modus_now_ns() - gil->held_since;
    atomic_store_explicit(&gil->holder, 0, memory_order_relaxed);
    tell(&gil->freed, 1);
}

/* Sleep for an interval at most; ask for the lock if it has not changed hands meanwhile. Returns 0
 * to look again, or -ETIMEDOUT. */
static int wait_interval(struct modus_gil *gil, int64_t deadline)
{
    uint64_t seen = gil->stats.switches;
    int64_t end = modus_deadline(gil->interval);
    bool last = deadline != MODUS_FOREVER && deadline < end;

    if (nap(gil, &gil->freed, last ? deadline : end) != -ETIMEDOUT)
        return 0;
    if (last)
        return -ETIMEDOUT;
    if (is_held(gil) && gil->stats.switches == seen)
        ask(gil, 1);
    return 0;
}

static int take_or_wait(struct modus_gil *gil, int64_t deadline)
{
    int64_t since = modus_now_ns();
    int rc = 0;

    if (!is_held(gil)) {
        take(gil);
        return 0;
    }
    gil->waiting++;
    while (is_held(gil) && rc == 0)
        rc = wait_interval(gil, deadline);
    gil->waiting--;
    if (!is_held(gil)) {
        gil->stats.waits++;
        gil->stats.waited_ns += modus_now_ns() - since;
        take(gil);
        return 0;
    }
    if (gil->waiting == 0) {
        ask(gil, 0);
        tell(&gil->taken, INT_MAX);
    }
    return rc;
}

/* --- calls ----------------------------------------------------------------------------------- */

int modus_gil_set_interval(struct modus_gil *gil, int64_t ns)
{
    if (ns < 1 || gil->lock.scope == 0)
        return -EINVAL;
    acquire(gil);
    gil->interval = ns;
    release(gil);
    return 0;
}

static int acquire_until(struct modus_gil *gil, int64_t ns, int64_t deadline)
{
    int rc = -EAGAIN;

    if (modus_gil_mine(gil))
        return -EDEADLK;
    acquire(gil);
    if (ns != 0 || !is_held(gil))
        rc = take_or_wait(gil, deadline);
    release(gil);
    return rc;
}

int modus_gil_acquire(struct modus_gil *gil, int64_t ns)
{
    if (ns < MODUS_FOREVER || gil->lock.scope == 0)
        return -EINVAL;
    return acquire_until(gil, ns, modus_deadline(ns));
}

int modus_gil_acquire_until(struct modus_gil *gil, int64_t deadline)
{
    if (deadline < MODUS_FOREVER || gil->lock.scope == 0)
        return -EINVAL;
    return acquire_until(gil, 1, deadline);
}

int modus_gil_release(struct modus_gil *gil)
{
    if (!modus_gil_mine(gil))
        return -EPERM;
    acquire(gil);
    let(gil);
    release(gil);
    return 0;
}

static void give_up(void *gil)
{
    modus_gil_release(gil);
}

static void take_back(void *gil)
{
    modus_gil_acquire(gil, MODUS_FOREVER);
}

int modus_gil_enter(struct modus_gil *gil)
{
    int rc = modus_gil_acquire(gil, MODUS_FOREVER);

    if (rc == 0)
        modus_park_around = (struct modus_park_around){give_up, take_back, gil};
    return rc;
}

int modus_gil_leave(struct modus_gil *gil)
{
    if (modus_gil_mine(gil))
        modus_park_around.give_up = NULL;
    return modus_gil_release(gil);
}

int modus_gil_hand_over(struct modus_gil *gil)
{
    int rc = 0;

    if (!modus_gil_mine(gil))
        return -EPERM;
    acquire(gil);
    if (gil->waiting > 0) {
        uint32_t me = gil->last;

        let(gil);
        while (gil->last == me && gil->waiting > 0)
            nap(gil, &gil->taken, MODUS_FOREVER);
        rc = gil->last != me;
        gil->stats.forced += (uint64_t)rc;
        take_or_wait(gil, MODUS_FOREVER);
    }
    release(gil);
    return rc;
}

void modus_gil_break_end(struct modus_gil_break *gil_break)
{
    if (gil_break->gil)
        modus_gil_acquire(gil_break->gil, MODUS_FOREVER);
}

bool modus_gil_mine(const struct modus_gil *gil)
{
    return atomic_load_explicit(&gil->holder, memory_order_relaxed) == modus_self_tid();
}

struct modus_gil_stats modus_gil_stats(struct modus_gil *gil)
{
    acquire(gil);
    struct modus_gil_stats stats = gil->stats;
    if (is_held(gil))
        stats.held_ns += modus_now_ns() - gil->held_since;
    release(gil);
    return stats;
}

void modus_gil_renew(struct modus_gil *gil)
{
    int64_t interval = gil->interval;

    modus_gil_init(gil);
    gil->interval = interval;
}

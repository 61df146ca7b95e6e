/* SPDX-License-Identifier: MIT */
/*
 * Both scopes of the lock.
 *
 * Thread scope. word is the owner's tid, 0 when free, plus two marks:
 *
 *     SLEEPERS  somebody may sleep on word: the release must look
 *     HEIR      somebody may have put its tid into heir: the release must look
 *
 *     free --acquire--> tid --a waiter--> tid|SLEEPERS --a waiter of 1 ms--> tid|SLEEPERS|HEIR
 *      ^                 |                   |                                    |
 *      +----release------+---- wake one -----+          heir's tid|SLEEPERS <-----+
 *
 * A woken sleeper takes the lock with SLEEPERS set, since it cannot know whether others sleep; the
 * price is one needless wake-up at the end of a contended phase. Being wrong the other way, a clear
 * mark with a sleeper, would hang: that is why a waiter sets the mark again before every sleep,
 * also before the one in which its time runs out.
 *
 * There is at most one heir. It sleeps on heir, not on word, so that the hand-over wakes exactly
 * it. The rejected alternative, a mark that keeps everybody but the old waiters out of a free lock,
 * needs to know when the last of them has given up.
 *
 * No spinning before the sleep: measured on 2 CPUs, it gains nothing with 2 threads and loses with
 * more, since the spinner takes the CPU that the owner needs.
 */
#include "concurrency/lock.h"
#include "concurrency/fault.h"
#include "concurrency/lock_priv.h"
#include "concurrency/self.h"
#include "concurrency/tsan.h"

#include <limits.h>
#include <string.h>
#include <time.h>

#ifdef TSAN
#define TSAN_CLOCKLOCKED(mutex) tsan_clocklocked(mutex)

/* Some versions of ThreadSanitizer do not see pthread_mutex_clocklock. */
extern char __interceptor_pthread_mutex_clocklock __attribute__((weak));
extern char ___interceptor_pthread_mutex_clocklock __attribute__((weak));

static void tsan_clocklocked(void *mutex)
{
    if (&__interceptor_pthread_mutex_clocklock || &___interceptor_pthread_mutex_clocklock)
        return;
    __tsan_mutex_pre_lock(mutex, __tsan_mutex_try_lock);
    __tsan_mutex_post_lock(mutex, __tsan_mutex_try_lock, 1);
}
#else
#define TSAN_CLOCKLOCKED(mutex) ((void)0)
#endif

#define SLEEPERS 0x80000000u
#define HEIR     0x40000000u
#define TID      0x3fffffffu
#define GRANTING 0xffffffffu /* in heir: a release is writing the heir's tid into word */

enum { STARVED_NS = 1000000 };

/* --- thread scope ---------------------------------------------------------------------------- */

static bool take_free(struct modus_lock *lock, uint32_t owner)
{
    uint32_t none = 0;

    return atomic_compare_exchange_strong_explicit(&lock->word, &none, owner, memory_order_acquire,
                                                   memory_order_relaxed);
}

/* Take the lock if it is free, else leave marks on it. Returns true when it is taken; otherwise
 * *held is the word to sleep on. */
static bool take_or_mark(struct modus_lock *lock, uint32_t me, uint32_t marks, uint32_t *held)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

    for (;;) {
        uint32_t wanted = (word & TID) ? word | marks : me | SLEEPERS;

        if (wanted == word || atomic_compare_exchange_weak(&lock->word, &word, wanted)) {
            *held = wanted;
            return (wanted & TID) == me;
        }
    }
}

/* Stop being the heir. Returns true if a release handed the lock over meanwhile. */
static bool resign(struct modus_lock *lock, uint32_t me)
{
    uint32_t expected = me;

    if (atomic_compare_exchange_strong(&lock->heir, &expected, 0))
        return false;
    while (atomic_load(&lock->heir) == GRANTING)
        modus_park_deaf(MODUS_THREAD, &lock->heir, GRANTING, MODUS_FOREVER, NULL);
    return (atomic_load(&lock->word) & TID) == me;
}

/* Sleep as the heir, if nobody else is it. Returns 0 when the lock is owned, -EAGAIN to go on
 * waiting, or -ETIMEDOUT. */
static int wait_as_heir(struct modus_lock *lock, uint32_t me, int64_t deadline)
{
    uint32_t nobody = 0, held;
    int rc = 0;

    if (!atomic_compare_exchange_strong(&lock->heir, &nobody, me))
        return -EAGAIN;
    bool owned = take_or_mark(lock, me, SLEEPERS | HEIR, &held);
    while (!owned && rc == 0 && atomic_load(&lock->heir) == me)
        rc = modus_park_deaf(MODUS_THREAD, &lock->heir, me, deadline, NULL);
    if (resign(lock, me) || owned)
        return 0;
    return rc == -ETIMEDOUT ? rc : -EAGAIN;
}

static int acquire_slow(struct modus_lock *lock, uint32_t me, int64_t deadline)
{
    int64_t since = 0;
    uint32_t held;
    int rc = -EAGAIN;

    while (!take_or_mark(lock, me, SLEEPERS, &held)) {
        int64_t now = modus_now_ns();

        if (since == 0)
            since = now;
        if (now - since > STARVED_NS)
            rc = wait_as_heir(lock, me, deadline);
        if (rc == -EAGAIN && modus_park_deaf(MODUS_THREAD, &lock->word, held, deadline, NULL) < 0)
            return -ETIMEDOUT;
        if (rc != -EAGAIN)
            return rc;
    }
    return 0;
}

static int thread_acquire(struct modus_lock *lock, int64_t ns, int64_t deadline)
{
    uint32_t me = modus_self_tid();
    int rc = -EAGAIN;

    TSAN_BEFORE_LOCK(lock, ns == 0 ? TSAN_TRY : 0);
    if (take_free(lock, me))
        rc = 0;
    else if ((atomic_load_explicit(&lock->word, memory_order_relaxed) & TID) == me)
        rc = -EDEADLK;
    TSAN_AFTER_LOCK(lock, rc == 0 ? (ns == 0 ? TSAN_TRY : 0) : TSAN_FAILED);
    if (rc != -EAGAIN || ns == 0)
        return rc;
    /* Not between those two: there the sanitizer is blind, and a coroutine that waits lets others
     * run. */
    rc = acquire_slow(lock, me, ns == MODUS_FOREVER ? ns : deadline);
    if (rc == 0) {
        TSAN_LOCKED(lock, 0);
    }
    return rc;
}

/* The owner gives the lock to the heir. Returns false if there is none. */
static bool hand_over(struct modus_lock *lock)
{
    uint32_t heir = atomic_load(&lock->heir);

    while (heir != 0)
        if (atomic_compare_exchange_weak(&lock->heir, &heir, GRANTING))
            break;
    if (heir == 0)
        return false;
    MODUS_FAULT(MODUS_FAULT_LOCK_GRANTING);
    atomic_store(&lock->word, heir | SLEEPERS);
    atomic_store(&lock->heir, 0);
    modus_unpark(MODUS_THREAD, &lock->heir, INT_MAX);
    return true;
}

/* The lock was given up without seeing the heir, which came between the two looks: it must try
 * again, since nobody may come by here for a long time. */
static void send_heir_back(struct modus_lock *lock)
{
    uint32_t heir = atomic_load(&lock->heir);

    if (heir != 0 && heir != GRANTING && atomic_compare_exchange_strong(&lock->heir, &heir, 0))
        modus_unpark(MODUS_THREAD, &lock->heir, INT_MAX);
}

static void release_slow(struct modus_lock *lock)
{
    if (hand_over(lock))
        return;
    MODUS_FAULT(MODUS_FAULT_LOCK_PASSED);
    uint32_t word = atomic_exchange(&lock->word, 0);
    if (word & HEIR)
        send_heir_back(lock);
    if (word & SLEEPERS)
        modus_unpark(MODUS_THREAD, &lock->word, 1);
}

static int thread_release(struct modus_lock *lock)
{
    uint32_t me = modus_self_tid(), word = me;

    if ((atomic_load_explicit(&lock->word, memory_order_relaxed) & TID) != me)
        return -EPERM;
    TSAN_BEFORE_UNLOCK(lock, 0);
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &word, 0, memory_order_release,
                                                 memory_order_relaxed))
        release_slow(lock);
    TSAN_AFTER_UNLOCK(lock, 0);
    return 0;
}

void modus_lock_renew(struct modus_lock *lock)
{
    TSAN_UNLOCKED(lock, 0);
    atomic_store(&lock->word, 0);
    atomic_store(&lock->heir, 0);
}

/* The common case: free when it is acquired, and unmarked when it is released. Apart from all else,
 * so that the compiler makes it a few instructions without a stack frame. */
static inline bool acquire_fast(struct modus_lock *lock)
{
#ifdef TSAN
    (void)lock; /* it must see every step */
    return false;
#else
    return lock->scope == MODUS_THREAD && take_free(lock, modus_self_tid());
#endif
}

static inline bool release_fast(struct modus_lock *lock)
{
#ifdef TSAN
    (void)lock;
    return false;
#else
    uint32_t word = modus_self_tid();

    return lock->scope == MODUS_THREAD &&
           atomic_compare_exchange_strong_explicit(&lock->word, &word, 0, memory_order_release,
                                                   memory_order_relaxed);
#endif
}

/* --- process scope --------------------------------------------------------------------------- */

/* What an owner's death has left: nothing, work for the next owner, or a lost lock. To the mutex a
 * lost lock is a sound one, which everybody gets and gives up at once: in its own state of that kind
 * (glibc 2.36, ENOTRECOVERABLE) only the first of the sleepers is woken, and a trylock keeps it. */
enum { INHERITED = 1, POISONED = 2 };

static uint64_t self_owner(void)
{
    return (uint64_t)modus_self_tid() << 32 | (modus_self_stamp() & UINT32_MAX);
}

static int process_init(struct modus_lock *lock)
{
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);

    if (rc)
        return -rc;
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    rc = pthread_mutex_init(&lock->robust, &attr);
    pthread_mutexattr_destroy(&attr);
    return -rc;
}

/* The previous owner died; we own the lock. Returns what acquire returns. */
static int inherit(struct modus_lock *lock)
{
    atomic_store_explicit(&lock->damage, INHERITED, memory_order_relaxed);
    if (!lock->repair)
        return MODUS_OWNERDEAD;
    if (lock->repair(lock->context) == 0) {
        modus_lock_consistent(lock);
        return MODUS_OWNERDEAD;
    }
    modus_lock_release(lock);
    return MODUS_NOTRECOVERABLE;
}

/* It is lost, and we hold it: on to the next who waits. */
static int refuse(struct modus_lock *lock, int rc)
{
    if (rc == EOWNERDEAD)
        pthread_mutex_consistent(&lock->robust);
    pthread_mutex_unlock(&lock->robust);
    return MODUS_NOTRECOVERABLE;
}

static int process_result(struct modus_lock *lock, int rc)
{
    bool lost = atomic_load_explicit(&lock->damage, memory_order_relaxed) == POISONED;

    switch (rc) {
    case 0:
    case EOWNERDEAD:
        if (lost)
            return refuse(lock, rc);
        atomic_store_explicit(&lock->owner, self_owner(), memory_order_relaxed);
        return rc == 0 ? 0 : inherit(lock);
    case EBUSY:
        if (lost)
            return MODUS_NOTRECOVERABLE;
        return modus_lock_mine(lock) ? -EDEADLK : -EAGAIN;
    default:
        return -rc;
    }
}

static int process_acquire(struct modus_lock *lock, int64_t ns, int64_t deadline)
{
    if (ns == 0)
        return process_result(lock, pthread_mutex_trylock(&lock->robust));
    if (ns == MODUS_FOREVER)
        return process_result(lock, pthread_mutex_lock(&lock->robust));
    struct timespec until = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    int rc = pthread_mutex_clocklock(&lock->robust, CLOCK_MONOTONIC, &until);
    if (rc == 0 || rc == EOWNERDEAD)
        TSAN_CLOCKLOCKED(&lock->robust);
    return process_result(lock, rc);
}

static int process_release(struct modus_lock *lock)
{
    if (!modus_lock_mine(lock))
        return -EPERM;
    if (atomic_load_explicit(&lock->damage, memory_order_relaxed) == INHERITED) {
        atomic_store_explicit(&lock->damage, POISONED, memory_order_relaxed);
        pthread_mutex_consistent(&lock->robust);
    }
    atomic_store_explicit(&lock->owner, 0, memory_order_relaxed);
    return -pthread_mutex_unlock(&lock->robust);
}

/* --- both scopes ----------------------------------------------------------------------------- */

int modus_lock_init(struct modus_lock *lock, enum modus_scope scope)
{
    memset(lock, 0, sizeof *lock);
    if (scope != MODUS_THREAD && scope != MODUS_PROCESS)
        return -EINVAL;
    int rc = scope == MODUS_PROCESS ? process_init(lock) : 0;
    if (rc == 0)
        lock->scope = (uint32_t)scope;
    return rc;
}

void modus_lock_fini(struct modus_lock *lock)
{
    if (lock->scope == MODUS_PROCESS)
        pthread_mutex_destroy(&lock->robust);
    else if (lock->scope == MODUS_THREAD)
        TSAN_DESTROY(lock);
    memset(lock, 0, sizeof *lock);
}

void modus_lock_free_in_child(struct modus_lock *lock)
{
    TSAN_BEFORE_UNLOCK(lock, 0);
    memset(lock, 0, sizeof *lock);
    lock->scope = MODUS_THREAD;
    TSAN_AFTER_UNLOCK(lock, 0);
}

int modus_lock_set_repair(struct modus_lock *lock, int (*repair)(void *context), void *context)
{
    if (lock->scope != MODUS_PROCESS)
        return -EINVAL;
    lock->repair = repair;
    lock->context = context;
    return 0;
}

/* ns decides between trying, waiting without end and waiting until deadline. */
static int acquire(struct modus_lock *lock, int64_t ns, int64_t deadline)
{
    if (lock->scope == MODUS_THREAD)
        return thread_acquire(lock, ns, deadline);
    if (lock->scope == MODUS_PROCESS)
        return process_acquire(lock, ns, deadline);
    return -EINVAL;
}

static __attribute__((noinline)) int acquire_for(struct modus_lock *lock, int64_t ns)
{
    int rc;

    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (ns <= 0)
        return acquire(lock, ns, 0);
    rc = acquire(lock, 0, 0); /* usually free: no clock needed */
    return rc == -EAGAIN ? acquire(lock, ns, modus_deadline(ns)) : rc;
}

int modus_lock_acquire(struct modus_lock *lock, int64_t ns)
{
    if (__builtin_expect(ns >= MODUS_FOREVER && acquire_fast(lock), 1))
        return 0;
    return acquire_for(lock, ns);
}

int modus_lock_acquire_until(struct modus_lock *lock, int64_t deadline)
{
    if (deadline < MODUS_FOREVER)
        return -EINVAL;
    return acquire(lock, deadline == MODUS_FOREVER ? MODUS_FOREVER : 1, deadline);
}

int modus_lock_try(struct modus_lock *lock)
{
    return modus_lock_acquire(lock, 0);
}

static __attribute__((noinline)) int release(struct modus_lock *lock)
{
    if (lock->scope == MODUS_THREAD)
        return thread_release(lock);
    return lock->scope == MODUS_PROCESS ? process_release(lock) : -EINVAL;
}

int modus_lock_release(struct modus_lock *lock)
{
    return __builtin_expect(release_fast(lock), 1) ? 0 : release(lock);
}

bool modus_lock_mine(const struct modus_lock *lock)
{
    if (lock->scope == MODUS_THREAD)
        return (atomic_load_explicit(&lock->word, memory_order_relaxed) & TID) == modus_self_tid();
    return lock->scope == MODUS_PROCESS &&
           atomic_load_explicit(&lock->owner, memory_order_relaxed) == self_owner();
}

int modus_lock_consistent(struct modus_lock *lock)
{
    if (lock->scope != MODUS_PROCESS)
        return -EINVAL;
    if (!modus_lock_mine(lock))
        return -EPERM;
    int rc = pthread_mutex_consistent(&lock->robust);
    if (rc == 0)
        atomic_store_explicit(&lock->damage, 0, memory_order_relaxed);
    return -rc;
}

bool modus_lock_poisoned(const struct modus_lock *lock)
{
    return atomic_load_explicit(&lock->damage, memory_order_relaxed) == POISONED;
}

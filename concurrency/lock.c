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
 * Process scope. The mutex belongs to the thread; which of its coroutines owns the lock is in owner.
 * The wait is not glibc's but our own, on the mutex's word: for the sake of coroutines, and because
 * glibc's has a hole. If a woken waiter is killed after somebody has overtaken it, neither the kernel
 * nor that one knows of the others that sleep. Here they watch the death epoch too: whoever buries
 * the dead wakes them. They need that also when one is killed between its trylock and its mark, which
 * can't be one step.
 *
 * Before the first sleep a few looks, some 3 us in all, with pauses between that let the owner work:
 * to ask for the cache line all the time takes it from the owner, and gains nothing. If it has been
 * in vain often (owners that hold the lock for long, or have no CPU) it is only tried now and then.
 * Never in a coroutine: its thread may be the one that has to release.
 */
#include "concurrency/lock.h"
#include "concurrency/fault.h"
#include "concurrency/lock_priv.h"
#include "concurrency/pause.h"
#include "concurrency/proxy.h"
#include "concurrency/self.h"
#include "concurrency/tsan.h"

#include <limits.h>
#include <linux/futex.h>
#include <string.h>
#include <time.h>

_Atomic(const struct modus_lock_watcher *) modus_lock_watcher;
_Atomic uint32_t modus_lock_unwatched = MODUS_THREAD;
static _Atomic uint32_t unwatched_process = MODUS_PROCESS;

#define SLEEPERS 0x80000000u
#define HEIR     0x40000000u
#define TID      0x3fffffffu
#define GRANTING 0xffffffffu /* in heir: a release is writing the heir's tid into word */

enum { STARVED_NS = 1000000 };
enum { SPIN = 128, SPIN_FIRST = 16, VAIN_MAX = 64 }; /* measured with make bench-toolbox */

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

/* Look for a free lock again, after pauses that let its owner work undisturbed; see above. */
static bool linger(struct modus_lock *lock, uint32_t me)
{
    uint16_t vain = atomic_load_explicit(&lock->vain, memory_order_relaxed);
    uint32_t left = SPIN;

    if (modus_park_instead || (vain >= VAIN_MAX && !modus_now_and_then(vain)))
        return false;
    for (uint32_t n = SPIN_FIRST; left > 0; n *= 2) {
        n = n < left ? n : left;
        left -= n;
        modus_pause(n);
        if (atomic_load_explicit(&lock->word, memory_order_relaxed) == 0 && take_free(lock, me)) {
            if (vain != 0)
                atomic_store_explicit(&lock->vain, 0, memory_order_relaxed);
            return true;
        }
    }
    atomic_store_explicit(&lock->vain, (uint16_t)(vain + 1), memory_order_relaxed);
    return false;
}

static int acquire_slow(struct modus_lock *lock, uint32_t me, int64_t deadline)
{
    int64_t since = 0;
    uint32_t held;
    int rc = -EAGAIN;

    if (linger(lock, me))
        return 0;
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

static __attribute__((noinline)) int thread_release(struct modus_lock *lock)
{
    uint32_t me = modus_self_tid(), word = me;

    if ((atomic_load_explicit(&lock->word, memory_order_relaxed) & TID) != me)
        return -EPERM;
    TSAN_UNLOCKED(lock, 0); /* already: it must see how others are woken */
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &word, 0, memory_order_release,
                                                 memory_order_relaxed))
        release_slow(lock);
    return 0;
}

static inline uint32_t unwatched_scope(void)
{
    return atomic_load_explicit(&modus_lock_unwatched, memory_order_relaxed);
}

/* The common case: free when it is acquired, and unmarked when it is released. Apart from all else,
 * so that the compiler makes it a few instructions without a stack frame; that is also why a thread
 * that is not known yet takes the long way. */
static inline bool acquire_fast(struct modus_lock *lock)
{
#ifdef TSAN
    (void)lock; /* it must see every step */
    return false;
#else
    return lock->scope == unwatched_scope() && modus_self_known() &&
           take_free(lock, modus_self_cache.tid);
#endif
}

static inline bool release_fast(struct modus_lock *lock)
{
#ifdef TSAN
    (void)lock;
    return false;
#else
    uint32_t word = modus_self_cache.tid;

    return lock->scope == unwatched_scope() && modus_self_known() &&
           atomic_compare_exchange_strong_explicit(&lock->word, &word, 0, memory_order_release,
                                                   memory_order_relaxed);
#endif
}

/* --- process scope --------------------------------------------------------------------------- */

/* What an owner's death has left: nothing, work for the next owner, or a lost lock. To the mutex a
 * lost lock is a sound one, which everybody gets and gives up at once: in its own state of that kind
 * (glibc 2.36, ENOTRECOVERABLE) only the first of the sleepers is woken, and a trylock keeps it. */
enum { INHERITED = 1, POISONED = 2 };

/* Of a thread that is known (self.h). */
static inline uint64_t self_owner(void)
{
    return (uint64_t)modus_self_cache.tid << 32 | (modus_self_cache.stamp & UINT32_MAX);
}

/* Who owns a lock is known since its acquire; who is not known (a forked child) owns none. */
static inline bool process_mine(const struct modus_lock *lock)
{
    return modus_self_known() &&
           atomic_load_explicit(&lock->owner, memory_order_relaxed) == self_owner();
}

/* The mutex is taken; the thread is known. */
static inline void own(struct modus_lock *lock)
{
    atomic_store_explicit(&lock->owner, self_owner(), memory_order_relaxed);
    modus_self_robust++;
}

/* Would the kernel forget one, if it was taken too? Who is not known may see a parent's count. */
static __attribute__((noinline)) bool really_full(const struct modus_lock *lock)
{
    modus_self_tid();
    return modus_self_robust >= MODUS_LOCKS_MAX && !process_mine(lock);
}

static inline bool is_full(const struct modus_lock *lock)
{
    return __builtin_expect(modus_self_robust >= MODUS_LOCKS_MAX, 0) && really_full(lock);
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
    int rc = lock->repair(lock->context);
    if (!process_mine(lock))
        return -ECHILD;
    if (rc == 0) {
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

static __attribute__((noinline)) int process_result(struct modus_lock *lock, int rc)
{
    bool lost = atomic_load_explicit(&lock->damage, memory_order_relaxed) == POISONED;

    switch (rc) {
    case 0:
    case EOWNERDEAD:
        if (lost)
            return refuse(lock, rc);
        modus_self_tid(); /* from now on known */
        own(lock);
        return rc == 0 ? 0 : inherit(lock);
    case EBUSY:
    case EDEADLK: /* the thread has it; of its coroutines it may be another */
        if (lost)
            return MODUS_NOTRECOVERABLE;
        return modus_lock_mine(lock) ? -EDEADLK : -EAGAIN;
    default:
        return -rc;
    }
}

static _Atomic uint32_t *futex_of(struct modus_lock *lock)
{
    return (_Atomic uint32_t *)(void *)&lock->robust.__data.__lock;
}

/* Sleep until the mutex may be free. What the word says is the kernel's interface (robust futexes),
 * not glibc's choice: the owner's tid, FUTEX_WAITERS, FUTEX_OWNER_DIED. */
static int await_owner(struct modus_lock *lock, int64_t deadline, unsigned how)
{
    _Atomic uint32_t *futex = futex_of(lock);
    struct modus_watch watch;

    modus_watch_look(&watch, lock);
    uint32_t word = atomic_load(futex);
    if (!(word & FUTEX_TID_MASK))
        return 0;
    if (!(word & FUTEX_WAITERS) &&
        !atomic_compare_exchange_strong(futex, &word, word | FUTEX_WAITERS))
        return 0;
    if (modus_park_instead)
        return modus_park_instead(MODUS_PROCESS, futex, word | FUTEX_WAITERS, deadline, &watch,
                                  how | MODUS_PARK_ROBUST);
    modus_proxy_cover(futex);
    return modus_park(MODUS_PROCESS, futex, word | FUTEX_WAITERS, deadline, &watch);
}

/* slept: others may sleep, too. Who has slept cannot know, so it takes the mutex with FUTEX_WAITERS
 * set; and as a release wakes one, it tells all that the lock is lost. */
static int process_try(struct modus_lock *lock, bool slept)
{
    if (modus_lock_poisoned(lock)) {
        if (slept)
            modus_unpark(MODUS_PROCESS, futex_of(lock), INT_MAX);
        return MODUS_NOTRECOVERABLE;
    }
    int tried = pthread_mutex_trylock(&lock->robust);
    if (slept && (tried == 0 || tried == EOWNERDEAD))
        atomic_fetch_or(futex_of(lock), FUTEX_WAITERS);
    return process_result(lock, tried);
}

static int process_wait(struct modus_lock *lock, int64_t deadline, unsigned how)
{
    int parked, rc;

    do {
        parked = await_owner(lock, deadline, how);
        rc = process_try(lock, true);
    } while (rc == -EAGAIN && parked == 0);
    return rc == -EAGAIN ? parked : rc;
}

static inline int process_own(struct modus_lock *lock)
{
    int rc = pthread_mutex_trylock(&lock->robust);

    if (__builtin_expect(rc != 0 || !modus_self_known() || modus_lock_poisoned(lock), 0)) {
        rc = process_result(lock, rc);
        return rc == -EAGAIN ? process_wait(lock, MODUS_FOREVER, MODUS_PARK_DEAF) : rc;
    }
    own(lock);
    return 0;
}

/* The common case, short; and the same for who is not to be refused. */
static __attribute__((noinline)) int process_acquire_forever(struct modus_lock *lock)
{
    return is_full(lock) ? -EOVERFLOW : process_own(lock);
}

static __attribute__((noinline)) int process_regain(struct modus_lock *lock)
{
    return process_own(lock);
}

static int process_acquire(struct modus_lock *lock, int64_t ns, int64_t deadline, unsigned how)
{
    int rc = process_try(lock, false);

    if (rc != -EAGAIN || ns == 0)
        return rc;
    return process_wait(lock, ns == MODUS_FOREVER ? ns : deadline, how);
}

static __attribute__((noinline)) int process_release(struct modus_lock *lock)
{
    if (!process_mine(lock))
        return -EPERM;
    if (atomic_load_explicit(&lock->damage, memory_order_relaxed) == INHERITED) {
        atomic_store_explicit(&lock->damage, POISONED, memory_order_relaxed);
        pthread_mutex_consistent(&lock->robust);
    }
    atomic_store_explicit(&lock->owner, 0, memory_order_relaxed);
    modus_self_robust--;
    return -pthread_mutex_unlock(&lock->robust);
}

/* --- both scopes ----------------------------------------------------------------------------- */

/* What is known of an earlier object at this address is not about this one. */
static void be_forgotten(struct modus_lock *lock, uint32_t scope)
{
    const struct modus_lock_watcher *watcher = modus_lock_watched();

    if (watcher)
        watcher->forgets(lock, scope);
}

int modus_lock_init(struct modus_lock *lock, enum modus_scope scope)
{
    be_forgotten(lock, (uint32_t)scope);
    memset(lock, 0, sizeof *lock);
    if (!modus_scope_fits(scope, lock))
        return -EINVAL;
    int rc = scope == MODUS_PROCESS ? process_init(lock) : 0;
    if (rc == 0)
        lock->scope = (uint16_t)scope;
    return rc;
}

void modus_lock_fini(struct modus_lock *lock)
{
    be_forgotten(lock, lock->scope);
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

/* ns decides between trying, waiting without end and waiting until deadline; how is for park. */
static int acquire(struct modus_lock *lock, int64_t ns, int64_t deadline, unsigned how)
{
    if (lock->scope == MODUS_THREAD)
        return thread_acquire(lock, ns, deadline);
    if (lock->scope == MODUS_PROCESS)
        return process_acquire(lock, ns, deadline, how);
    return -EINVAL;
}

/* acquire while somebody watches. */
static int watched_acquire(struct modus_lock *lock, int64_t ns, int64_t deadline, unsigned how,
                           const void *site, bool refusable)
{
    const struct modus_lock_watcher *watcher = modus_lock_watched();
    const struct modus_claim claim = {lock, lock->scope,         MODUS_HELD_ALONE,
                                      site, ns == MODUS_FOREVER, refusable};
    int rc = acquire(lock, 0, 0, how);

    if (!watcher)
        return rc == -EAGAIN ? acquire(lock, ns, deadline, how) : rc;
    if (ns != 0 && (rc >= 0 || rc == -EAGAIN))
        watcher->wants(&claim);
    if (ns != 0 && rc == -EAGAIN && (rc = watcher->waits(&claim)) == 0) {
        rc = acquire(lock, ns, deadline, how);
        watcher->waited();
    }
    if (rc >= 0)
        watcher->holds(&claim, rc == MODUS_OWNERDEAD);
    return rc;
}

static __attribute__((noinline)) int acquire_for(struct modus_lock *lock, int64_t ns,
                                                 const void *site)
{
    int rc;

    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (lock->scope == MODUS_PROCESS && is_full(lock))
        return -EOVERFLOW;
    if (lock->scope == atomic_load_explicit(&unwatched_process, memory_order_relaxed) && ns <= 0)
        return process_acquire(lock, ns, 0, MODUS_PARK_DEAF);
    if (__builtin_expect(modus_lock_watched() != NULL, 0))
        return watched_acquire(lock, ns, modus_deadline(ns), MODUS_PARK_DEAF, site, true);
    if (ns <= 0)
        return acquire(lock, ns, 0, MODUS_PARK_DEAF);
    rc = acquire(lock, 0, 0, MODUS_PARK_DEAF); /* usually free: no clock needed */
    return rc == -EAGAIN ? acquire(lock, ns, modus_deadline(ns), MODUS_PARK_DEAF) : rc;
}

int modus_lock_acquire_from(struct modus_lock *lock, int64_t ns, const void *site)
{
    if (__builtin_expect(ns >= MODUS_FOREVER && acquire_fast(lock), 1))
        return 0;
    return acquire_for(lock, ns, site);
}

int modus_lock_acquire(struct modus_lock *lock, int64_t ns)
{
    if (__builtin_expect(ns >= MODUS_FOREVER && acquire_fast(lock), 1))
        return 0;
    if (ns == MODUS_FOREVER &&
        lock->scope == atomic_load_explicit(&unwatched_process, memory_order_relaxed))
        return process_acquire_forever(lock);
    return acquire_for(lock, ns, __builtin_return_address(0));
}

int modus_lock_acquire_until_from(struct modus_lock *lock, int64_t deadline, const void *site)
{
    int64_t ns = deadline == MODUS_FOREVER ? MODUS_FOREVER : 1;

    if (deadline < MODUS_FOREVER)
        return -EINVAL;
    if (lock->scope == MODUS_PROCESS && is_full(lock))
        return -EOVERFLOW;
    if (__builtin_expect(modus_lock_watched() != NULL, 0))
        return watched_acquire(lock, ns, deadline, MODUS_PARK_DEAF, site, true);
    return acquire(lock, ns, deadline, MODUS_PARK_DEAF);
}

int modus_lock_acquire_until(struct modus_lock *lock, int64_t deadline)
{
    return modus_lock_acquire_until_from(lock, deadline, __builtin_return_address(0));
}

int modus_lock_regain_until(struct modus_lock *lock, int64_t deadline, const void *site)
{
    int64_t ns = deadline == MODUS_FOREVER ? MODUS_FOREVER : 1;

    if (acquire_fast(lock))
        return 0;
    if (ns == MODUS_FOREVER &&
        lock->scope == atomic_load_explicit(&unwatched_process, memory_order_relaxed))
        return process_regain(lock);
    if (__builtin_expect(modus_lock_watched() != NULL, 0))
        return watched_acquire(lock, ns, deadline, MODUS_PARK_DEAF, site, false);
    return acquire(lock, ns, deadline, MODUS_PARK_DEAF);
}

int modus_lock_regain(struct modus_lock *lock, const void *site)
{
    return modus_lock_regain_until(lock, MODUS_FOREVER, site);
}

int modus_lock_acquire_alert(struct modus_lock *lock, int64_t ns, int64_t deadline,
                             const void *site)
{
    if (lock->scope != MODUS_PROCESS)
        return -EINVAL;
    if (is_full(lock))
        return -EOVERFLOW;
    return watched_acquire(lock, ns, deadline, 0, site, true);
}

int modus_lock_try(struct modus_lock *lock)
{
    return modus_lock_acquire_from(lock, 0, __builtin_return_address(0));
}

int modus_lock_release(struct modus_lock *lock)
{
    if (__builtin_expect(release_fast(lock), 1))
        return 0;
    if (lock->scope == atomic_load_explicit(&unwatched_process, memory_order_relaxed))
        return process_release(lock);
    const struct modus_lock_watcher *watcher = modus_lock_watched();
    if (watcher)
        watcher->lets(lock, lock->scope, MODUS_HELD_ALONE);
    if (lock->scope == MODUS_THREAD)
        return thread_release(lock);
    return lock->scope == MODUS_PROCESS ? process_release(lock) : -EINVAL;
}

bool modus_lock_mine(const struct modus_lock *lock)
{
    if (lock->scope == MODUS_THREAD)
        return (atomic_load_explicit(&lock->word, memory_order_relaxed) & TID) == modus_self_tid();
    return lock->scope == MODUS_PROCESS && process_mine(lock);
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

void modus_lock_watch(const struct modus_lock_watcher *watcher)
{
    atomic_store(&modus_lock_watcher, watcher);
    atomic_store(&modus_lock_unwatched, watcher ? UINT32_MAX : MODUS_THREAD);
    atomic_store(&unwatched_process, watcher ? UINT32_MAX : MODUS_PROCESS);
}

/* SPDX-License-Identifier: MIT */
/*
 * A future's life: pending, running, its end, and those who wait for that.
 *
 * The word is a futex. Who ends a future that nobody has attached anything to exchanges the word
 * once, and wakes those who marked themselves. With callbacks the future is SETTLING first, which
 * only the thread that settles it sees as an end, so that the callbacks can read what waiters may
 * not see yet.
 *
 * Callbacks, watchers and bells are rare beside plain waits, so one lock for all futures guards
 * their lists. A forked child gets a new lock: the parent's may have been held.
 */
#include "concurrency/future.h"
#include "concurrency/forks.h"
#include "concurrency/future_priv.h"
#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/pause.h"
#include "concurrency/self.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HOPE_MOST = 4, HOPE_LOST = -16, PAUSES = 16 };

struct modus_future_hook {
    struct modus_future_hook *next;
    void (*run)(struct modus_future *future, void *context);
    void *context;
};

static struct modus_lock hooks = MODUS_LOCK_INIT;
static int64_t look_ns = 40000; /* before a sleep; 0 where there is but one CPU */

static void begin_child(void)
{
    modus_lock_fini(&hooks);
    modus_lock_init(&hooks, MODUS_THREAD);
}

MODUS_FORK_CHILD static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, begin_child);
    if (sysconf(_SC_NPROCESSORS_ONLN) == 1)
        look_ns = 0;
}

void modus_future_lock(void)
{
    modus_lock_acquire(&hooks, MODUS_FOREVER);
}

void modus_future_unlock(void)
{
    modus_lock_release(&hooks);
}

/* --- life ------------------------------------------------------------------------------------ */

struct modus_future *modus_future_make(size_t bytes, uint32_t references)
{
    struct modus_future *future = malloc(sizeof *future + bytes);

    if (!future)
        return NULL;
    memset(future, 0, sizeof *future);
    atomic_init(&future->references, references);
    future->stamp = modus_self_stamp();
    future->value = future + 1;
    return future;
}

int modus_future_new(struct modus_future **future, size_t size)
{
    struct modus_future *made = size > INT_MAX ? NULL : modus_future_make(size, 1);

    if (!made)
        return -ENOMEM;
    made->room = (uint32_t)size;
    *future = made;
    return 0;
}

struct modus_future *modus_future_get(struct modus_future *future)
{
    if (future)
        atomic_fetch_add_explicit(&future->references, 1, memory_order_relaxed);
    return future;
}

static void drop(struct modus_future *future)
{
    struct modus_future_hook *next;

    if (future->ops)
        future->ops->drop(future);
    for (struct modus_future_hook *hook = future->first; hook; hook = next) {
        next = hook->next;
        free(hook);
    }
    modus_armed_fini(&future->armed, MODUS_THREAD);
    free(future->text);
    free(future);
}

void modus_future_put(struct modus_future *future)
{
    /* The last one needs no exchange: nobody else has a reference to make another from. */
    if (future && (atomic_load_explicit(&future->references, memory_order_acquire) == 1 ||
                   atomic_fetch_sub(&future->references, 1) == 1))
        drop(future);
}

/* --- ending ---------------------------------------------------------------------------------- */

/* From one state to another, the marks staying. Returns false if it is not in that state. */
static bool move(struct modus_future *future, uint32_t from, uint32_t to)
{
    uint32_t word = atomic_load(&future->word);

    while (modus_future_state_of(word) == from)
        if (atomic_compare_exchange_weak(&future->word, &word,
                                         (word & ~(uint32_t)MODUS_FUTURE_STATES) | to))
            return true;
    return false;
}

static void run_hooks(struct modus_future *future)
{
    struct modus_future_hook *hook;

    while ((hook = future->first) != NULL) {
        future->first = hook->next;
        modus_future_unlock();
        hook->run(future, hook->context);
        free(hook);
        modus_future_lock();
    }
}

/* It is SETTLING, and the caller the one that settles it. */
static void settle_slowly(struct modus_future *future, uint32_t outcome)
{
    future->outcome = outcome;
    atomic_store(&future->settler, modus_self_tid());
    modus_future_lock();
    run_hooks(future);
    uint32_t word = atomic_exchange(&future->word, outcome);
    while (future->watchers) {
        struct modus_future_watcher *watcher = future->watchers;

        future->watchers = watcher->next;
        watcher->watching = false;
        watcher->tell(watcher);
    }
    modus_future_unlock();
    if (word & MODUS_FUTURE_WAITERS)
        modus_unpark(MODUS_THREAD, &future->word, INT_MAX);
    modus_armed_ring(&future->armed);
}

/* From a state that is no end. Returns false if it is no longer in that state. */
static bool settle_from(struct modus_future *future, uint32_t from, uint32_t outcome)
{
    uint32_t word = atomic_load_explicit(&future->word, memory_order_relaxed);

    while (modus_future_state_of(word) == from) {
        uint32_t next = outcome;

        if (word & MODUS_FUTURE_EXTRAS)
            next = (word & ~(uint32_t)MODUS_FUTURE_STATES) | MODUS_FUTURE_SETTLING;
        if (!atomic_compare_exchange_weak(&future->word, &word, next))
            continue;
        if (word & MODUS_FUTURE_EXTRAS)
            settle_slowly(future, outcome);
        else if (word & MODUS_FUTURE_WAITERS)
            modus_unpark(MODUS_THREAD, &future->word, INT_MAX);
        return true;
    }
    return false;
}

void modus_future_settle(struct modus_future *future, enum modus_future_state outcome)
{
    if (!settle_from(future, MODUS_FUTURE_RUNNING, outcome))
        settle_from(future, MODUS_FUTURE_PENDING, outcome);
}

int modus_future_begin(struct modus_future *future)
{
    return move(future, MODUS_FUTURE_PENDING, MODUS_FUTURE_RUNNING) ? 0 : MODUS_CANCELED;
}

void modus_future_end(struct modus_future *future, int code, const void *value, size_t size,
                      const char *text)
{
    if (code < 0) {
        future->code = code;
        future->text = text && *text ? strdup(text) : NULL;
        modus_future_settle(future, MODUS_FUTURE_FAILED);
        return;
    }
    future->size = (uint32_t)(size < future->room ? size : future->room);
    if (value && value != future->value)
        memcpy(future->value, value, future->size);
    else if (!value)
        future->size = 0;
    modus_future_settle(future, MODUS_FUTURE_DONE);
}

/* Mark the word as slept on; returns it. */
static uint32_t mark(struct modus_future *future)
{
    uint32_t word = atomic_load(&future->word);

    while (!modus_future_is_end(word) && !(word & MODUS_FUTURE_WAITERS))
        if (atomic_compare_exchange_weak(&future->word, &word, word | MODUS_FUTURE_WAITERS))
            word |= MODUS_FUTURE_WAITERS;
    return word;
}

/* Returns whether it has ended within some pauses. */
static bool ends_now(struct modus_future *future)
{
    for (int i = 0; i < PAUSES; i++) {
        if (modus_future_is_end(atomic_load(&future->word)))
            return true;
        modus_pause(1);
    }
    return false;
}

/* The end of a short task is nearer than the way into the kernel and back, which costs its worker a
 * wake-up, too. Look for a bit longer than it takes to wake a worker whose CPU is asleep (20 us in a
 * virtual machine), as long as that is of use: a thread whose looks are in vain leaves them out most
 * of the time. */
static void look_for_end(struct modus_future *future)
{
    static _Thread_local int hope = HOPE_MOST;
    int64_t until = modus_now_ns() + look_ns;
    bool attached = atomic_load(&future->word) & MODUS_FUTURE_EXTRAS, seen;

    if (hope < 0) {
        hope++;
        return;
    }
    if (future->ops->look && !attached)
        seen = future->ops->look(future, until);
    else
        while (!(seen = ends_now(future)) && modus_now_ns() < until)
            ;
    if (seen)
        hope = hope < HOPE_MOST ? hope + 1 : HOPE_MOST;
    else
        hope = hope > 0 ? hope - 1 : HOPE_LOST;
}

static int sleep_until_end(struct modus_future *future, int64_t deadline)
{
    int rc = 0;

    if (future->ops && future->ops->spins && !modus_park_instead && look_ns > 0)
        look_for_end(future);
    for (;;) {
        uint32_t word = mark(future);

        if (modus_future_is_end(word))
            return 0;
        if (rc < 0)
            return rc;
        rc = modus_park(MODUS_THREAD, &future->word, word, deadline, NULL);
    }
}

/* Returns whether it is cancelled. */
static bool withdraw(struct modus_future *future)
{
    switch (future->ops ? future->ops->withdraw(future) : MODUS_WITHDRAWN) {
    case MODUS_WITHDRAWN_NOT:
        return false;
    case MODUS_WITHDRAWN:
        return settle_from(future, MODUS_FUTURE_PENDING, MODUS_FUTURE_CANCELLED);
    case MODUS_WITHDRAWN_LEFT:
        break;
    }
    sleep_until_end(future, MODUS_FOREVER);
    return modus_future_state(future) == MODUS_FUTURE_CANCELLED;
}

int modus_future_cancel(struct modus_future *future)
{
    uint32_t word = atomic_load(&future->word);

    if (modus_future_is_end(word))
        return -EALREADY;
    if (future->stamp != modus_self_stamp())
        return -ECHILD;
    if (modus_future_state_of(word) == MODUS_FUTURE_PENDING && withdraw(future))
        return 0;
    return modus_future_ended(future) ? -EALREADY : -EBUSY;
}

/* --- waiting --------------------------------------------------------------------------------- */

/* Has it ended, for the calling thread? */
static bool ended(const struct modus_future *future, uint32_t word)
{
    if (modus_future_state_of(word) == MODUS_FUTURE_SETTLING)
        return atomic_load(&future->settler) == modus_self_tid();
    return modus_future_is_end(word);
}

static int wait_for_end(struct modus_future *future, int64_t deadline)
{
    if (future->stamp != modus_self_stamp())
        return -ECHILD;
    int rc = future->ops ? future->ops->enter(future) : 0;
    if (rc < 0)
        return rc;
    rc = sleep_until_end(future, deadline);
    if (future->ops)
        future->ops->leave(future);
    return rc;
}

int modus_future_help(struct modus_future *future)
{
    if (future->ops) {
        int rc = future->ops->enter(future);

        if (rc < 0)
            return rc;
        future->ops->leave(future);
    }
    return modus_future_ended(future);
}

int modus_future_wait_until(struct modus_future *future, int64_t deadline)
{
    if (deadline < MODUS_FOREVER)
        return -EINVAL;
    return modus_future_ended(future) ? 0 : wait_for_end(future, deadline);
}

int modus_future_wait(struct modus_future *future, int64_t ns)
{
    if (ns < MODUS_FOREVER)
        return -EINVAL;
    if (modus_future_ended(future))
        return 0;
    return ns == 0 ? -EAGAIN : wait_for_end(future, modus_deadline(ns));
}

int modus_future_result(struct modus_future *future, int64_t ns, void *result, size_t size)
{
    int rc = modus_future_wait(future, ns);

    if (rc < 0 || (rc = modus_future_code(future)) < 0)
        return rc;
    if (result)
        memcpy(result, future->value, size < future->size ? size : future->size);
    return 0;
}

/* --- looking --------------------------------------------------------------------------------- */

enum modus_future_state modus_future_state(const struct modus_future *future)
{
    uint32_t word = atomic_load(&future->word), state = modus_future_state_of(word);

    if (state == MODUS_FUTURE_SETTLING)
        return ended(future, word) ? (enum modus_future_state)future->outcome
                                   : MODUS_FUTURE_RUNNING;
    if (state == MODUS_FUTURE_PENDING && future->ops && future->stamp == modus_self_stamp() &&
        !future->ops->pending(future))
        return MODUS_FUTURE_RUNNING;
    return (enum modus_future_state)state;
}

bool modus_future_ended(const struct modus_future *future)
{
    return ended(future, atomic_load(&future->word));
}

int modus_future_code(const struct modus_future *future)
{
    switch (modus_future_state(future)) {
    case MODUS_FUTURE_PENDING:
    case MODUS_FUTURE_RUNNING:
        return -EAGAIN;
    case MODUS_FUTURE_DONE:
        return 0;
    case MODUS_FUTURE_CANCELLED:
        return MODUS_CANCELED;
    case MODUS_FUTURE_FAILED:
        break;
    }
    return future->code;
}

const void *modus_future_value(const struct modus_future *future, size_t *size)
{
    bool done = modus_future_state(future) == MODUS_FUTURE_DONE;

    if (size)
        *size = done ? future->size : 0;
    return done ? future->value : NULL;
}

const char *modus_future_text(const struct modus_future *future)
{
    return modus_future_ended(future) && future->text ? future->text : "";
}

int modus_future_signal(const struct modus_future *future)
{
    return modus_future_ended(future) ? future->signal : 0;
}

/* --- what happens at the end ------------------------------------------------------------------ */

/* Under the lock of hooks: have the one that settles it come here. Returns false if it is too
 * late. */
static bool announce(struct modus_future *future)
{
    uint32_t word = atomic_load(&future->word);

    while (!modus_future_is_end(word) && !(word & MODUS_FUTURE_EXTRAS))
        if (atomic_compare_exchange_weak(&future->word, &word, word | MODUS_FUTURE_EXTRAS))
            return true;
    return !modus_future_is_end(word);
}

int modus_future_then(struct modus_future *future,
                      void (*run)(struct modus_future *future, void *context), void *context)
{
    if (!modus_future_ended(future) && future->stamp != modus_self_stamp())
        return -ECHILD;
    struct modus_future_hook *hook = malloc(sizeof *hook);
    if (!hook)
        return -ENOMEM;
    *hook = (struct modus_future_hook){.run = run, .context = context};
    modus_future_lock();
    bool early = announce(future);
    if (early) {
        *(future->first ? &future->last->next : &future->first) = hook;
        future->last = hook;
    }
    modus_future_unlock();
    if (!early) {
        free(hook);
        run(future, context);
    }
    return 0;
}

bool modus_future_watch(struct modus_future *future, struct modus_future_watcher *watcher)
{
    modus_future_lock();
    bool early = announce(future);
    watcher->watching = early;
    if (early) {
        watcher->next = future->watchers;
        future->watchers = watcher;
    }
    modus_future_unlock();
    return early; /* it may have been told by now */
}

void modus_future_unwatch(struct modus_future *future, struct modus_future_watcher *watcher)
{
    modus_future_lock();
    struct modus_future_watcher **at = &future->watchers;
    while (watcher->watching && *at != watcher)
        at = &(*at)->next;
    if (watcher->watching)
        *at = watcher->next;
    watcher->watching = false;
    modus_future_unlock();
}

int modus_future_arm(struct modus_future *future, struct modus_doorbell *bell)
{
    int rc = modus_armed_add(&future->armed, bell, MODUS_THREAD);

    if (rc < 0)
        return rc;
    modus_future_lock();
    announce(future); /* too late: whoever arms looks afterwards */
    modus_future_unlock();
    return 0;
}

void modus_future_disarm(struct modus_future *future, struct modus_doorbell *bell)
{
    modus_armed_remove(&future->armed, bell, MODUS_THREAD);
}

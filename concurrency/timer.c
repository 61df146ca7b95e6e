/* SPDX-License-Identifier: MIT */
/*
 * A heap of timers (timers.h) under a lock, and the thread that empties it.
 *
 * The thread sleeps on a word that changes when it has to look anew: when a timer becomes the
 * earliest. It does not touch a timer once its function has been called, so that may free it; what
 * it has to know, which timer is running, is its own.
 *
 * A timer is put back into the heap before its function is called, for the time after next; when it
 * comes up late, the multiples of the period that have passed are left out.
 */
#include "concurrency/timer.h"
#include "concurrency/forks.h"
#include "concurrency/lock.h"
#include "concurrency/park.h"
#include "concurrency/self.h"
#include "concurrency/thread.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

enum { LINGER_NS = 500000000 };

static struct modus_lock lock = MODUS_LOCK_INIT; /* of all that follows */
static struct modus_timers timers;
static bool has_thread;
static struct modus_timer *running; /* its function is; may be gone already */
static uint32_t runner;             /* the thread that calls functions */
static _Atomic uint32_t changed;    /* what the thread sleeps on */
static _Atomic uint32_t returned;   /* functions that have; what cancel_sync sleeps on */

static void acquire(void)
{
    modus_lock_acquire(&lock, MODUS_FOREVER);
}

static void release(void)
{
    modus_lock_release(&lock);
}

/* --- the thread ------------------------------------------------------------------------------ */

static struct modus_timer *timer_of(struct modus_timers_entry *entry)
{
    return (struct modus_timer *)(void *)((char *)entry - offsetof(struct modus_timer, entry));
}

/* The first multiple of the period that is not yet due. */
static int64_t next_time(const struct modus_timer *timer, int64_t now)
{
    int64_t periods = (now - timer->entry.at) / timer->period + 1, next;

    if (__builtin_mul_overflow(periods, timer->period, &next) ||
        __builtin_add_overflow(timer->entry.at, next, &next))
        return INT64_MAX;
    return next;
}

/* Under the lock, which is not held while the function runs. */
static void call(struct modus_timer *timer, int64_t now)
{
    void (*run)(void *) = timer->run;
    void *argument = timer->argument;

    if (timer->period) /* there is room: it has just left */
        modus_timers_add(&timers, &timer->entry, next_time(timer, now));
    running = timer;
    release();
    run(argument);
    acquire();
    running = NULL;
    atomic_fetch_add(&returned, 1);
    modus_unpark(MODUS_THREAD, &returned, INT_MAX);
}

/* Call what is due. Returns the time of the next; MODUS_FOREVER: there is none. */
static int64_t call_due(void)
{
    struct modus_timers_entry *entry;
    int64_t now = modus_now_ns();

    while ((entry = modus_timers_due(&timers, now)) != NULL) {
        call(timer_of(entry), now);
        now = modus_now_ns();
    }
    return modus_timers_next(&timers);
}

static void *work(void *argument)
{
    (void)argument;
    acquire();
    runner = modus_self_tid();
    for (;;) {
        int64_t next = call_due();
        uint32_t seen = atomic_load(&changed);

        release();
        int rc = modus_park(MODUS_THREAD, &changed, seen,
                            next == MODUS_FOREVER ? modus_deadline(LINGER_NS) : next, NULL);
        acquire();
        if (next == MODUS_FOREVER && rc == -ETIMEDOUT && timers.count == 0)
            break;
    }
    has_thread = false;
    modus_timers_fini(&timers);
    release();
    return NULL;
}

/* Under the lock. */
static int start_thread(void)
{
    const struct modus_thread_attr attr = {
        .name = "timer", .daemon = MODUS_DAEMON_YES, .no_signals = true};
    struct modus_thread *thread;

    if (has_thread)
        return 0;
    int rc = modus_thread_new(&thread, &attr, work, NULL);
    if (rc < 0)
        return rc;
    rc = modus_thread_start(thread);
    modus_thread_put(thread);
    has_thread = rc == 0;
    return rc;
}

/* --- fork ------------------------------------------------------------------------------------ */

/* The child has no such thread, and its parent's timers are not its own. */
static void begin_child(void)
{
    modus_lock_free_in_child(&lock);
    for (uint32_t i = 0; i < timers.count; i++)
        timers.heap[i]->place = 0;
    timers.count = 0;
    has_thread = false;
    running = NULL;
}

MODUS_FORK_TIMER static void watch_forks(void)
{
    pthread_atfork(acquire, release, begin_child);
}

/* --- calls ----------------------------------------------------------------------------------- */

static int start(struct modus_timer *timer, int64_t time, int64_t period, void (*run)(void *),
                 void *argument)
{
    acquire();
    int rc = timer->entry.place ? -EALREADY : start_thread();
    if (rc == 0)
        rc = modus_timers_add(&timers, &timer->entry, time);
    if (rc == 0) {
        timer->period = period;
        timer->run = run;
        timer->argument = argument;
    }
    bool earliest = rc == 0 && modus_timers_next(&timers) == time;
    if (earliest)
        atomic_fetch_add(&changed, 1);
    release();
    if (earliest)
        modus_unpark(MODUS_THREAD, &changed, 1);
    return rc;
}

int modus_timer_once_at(struct modus_timer *timer, int64_t time, void (*run)(void *argument),
                        void *argument)
{
    return time < 0 || !run ? -EINVAL : start(timer, time, 0, run, argument);
}

int modus_timer_once(struct modus_timer *timer, int64_t ns, void (*run)(void *argument),
                     void *argument)
{
    return ns < 0 ? -EINVAL : modus_timer_once_at(timer, modus_deadline(ns), run, argument);
}

int modus_timer_every_from(struct modus_timer *timer, int64_t time, int64_t period,
                           void (*run)(void *argument), void *argument)
{
    return time < 0 || period <= 0 || !run ? -EINVAL : start(timer, time, period, run, argument);
}

int modus_timer_every(struct modus_timer *timer, int64_t period, void (*run)(void *argument),
                      void *argument)
{
    return modus_timer_every_from(timer, modus_deadline(period < 0 ? 0 : period), period, run,
                                  argument);
}

/* Under the lock. */
static int cancel(struct modus_timer *timer)
{
    bool pending = timer->entry.place != 0;

    modus_timers_remove(&timers, &timer->entry);
    return pending && running != timer ? 0 : MODUS_TOO_LATE;
}

int modus_timer_cancel(struct modus_timer *timer)
{
    acquire();
    int rc = cancel(timer);
    release();
    return rc;
}

int modus_timer_cancel_sync(struct modus_timer *timer)
{
    acquire();
    int rc = cancel(timer);
    if (running == timer && runner == modus_self_tid())
        rc = -EDEADLK;
    while (running == timer && rc != -EDEADLK) {
        uint32_t seen = atomic_load(&returned);

        release();
        modus_park_deaf(MODUS_THREAD, &returned, seen, MODUS_FOREVER, NULL);
        acquire();
    }
    release();
    return rc;
}

bool modus_timer_pending(struct modus_timer *timer)
{
    acquire();
    bool pending = timer->entry.place != 0;
    release();
    return pending;
}

/* SPDX-License-Identifier: MIT */
/*
 * Timer: call a function at a time, once or again and again.
 *
 * States: not started (zeroed) -> pending -> running -> over; a periodic one is pending again while
 * it runs.
 *
 *     static struct modus_timer reminder;
 *
 *     modus_timer_once(&reminder, modus_seconds(5), remind, user);
 *     ...
 *     if (modus_timer_cancel(&reminder) == MODUS_TOO_LATE)
 *         ...                                  // it has been called, or is being called
 *
 * All timers of a process share one thread, "timer", a daemon with signals blocked, which calls
 * the functions one after the other: one that takes long makes the others late. It sleeps until the
 * earliest time. It begins with the first timer, and ends when there has been none for half a
 * second: a program without timers has no such thread.
 *
 * Times are absolute CLOCK_MONOTONIC, so a periodic timer does not drift: it is called at start +
 * period, start + 2 periods and so on. If calls are missed because a function took too long, they
 * are not made up for: it is called once, and then at the next multiple.
 *
 * The memory of a timer is the caller's. It may be used anew once the timer is over, or cancelled:
 * with modus_timer_cancel if that returned 0, with modus_timer_cancel_sync in any case; a function
 * of a timer that runs once may free the timer. A timer belongs to its process: in a forked child it
 * is not started.
 */
#ifndef CONCURRENCY_TIMER_H
#define CONCURRENCY_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "concurrency/result.h"
#include "concurrency/timers.h"

/* All fields are private. */
struct modus_timer {
    struct modus_timers_entry entry;
    int64_t period; /* ns; 0: once */
    void (*run)(void *argument);
    void *argument;
};

/* Call run(argument) on the timers' thread, once, in ns nanoseconds (0: as soon as can be). The
 * timer and the argument are borrowed. Returns 0, -EALREADY (it is pending), -EINVAL, -ENOMEM, or
 * -EAGAIN (the system has no room for the thread). May wait briefly.
 * Safe from: any thread, the function of a timer too (also its own); not signal handlers. */
int modus_timer_once(struct modus_timer *timer, int64_t ns, void (*run)(void *argument),
                     void *argument);

/* modus_timer_once at an absolute CLOCK_MONOTONIC time; one that is past: as soon as can be. */
int modus_timer_once_at(struct modus_timer *timer, int64_t time, void (*run)(void *argument),
                        void *argument);

/* Call run(argument) every period nanoseconds (1 and more), the first time in one period, or at an
 * absolute time. Returns as modus_timer_once. */
int modus_timer_every(struct modus_timer *timer, int64_t period, void (*run)(void *argument),
                      void *argument);
int modus_timer_every_from(struct modus_timer *timer, int64_t time, int64_t period,
                           void (*run)(void *argument), void *argument);

/* No more calls. Returns 0: the function is not running, and will not be called (again); or
 * MODUS_TOO_LATE: it is running right now, for the last time, or was called already, or the timer
 * was never started. May wait briefly, not for the function.
 * Safe from: any thread, the function of a timer too (also its own); not signal handlers. */
int modus_timer_cancel(struct modus_timer *timer);

/* modus_timer_cancel, and if the function is running wait until it has returned. Returns 0 or
 * MODUS_TOO_LATE as above, the function not running any more; or -EDEADLK when that function itself
 * calls this: there are no more calls, but it runs. Blocks. Safe from: as modus_timer_cancel. */
int modus_timer_cancel_sync(struct modus_timer *timer);

/* Will its function be called (again)? Old when it returns. Safe from: any thread. */
bool modus_timer_pending(struct modus_timer *timer);

#endif

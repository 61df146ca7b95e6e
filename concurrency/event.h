/* SPDX-License-Identifier: MIT */
/*
 * Event: a flag that threads, processes and loops can wait for.
 *
 * States: not started (zeroed) -> clear <-> set. Setting wakes everybody who waits, and lets
 * everybody through until it is cleared. A set that is cleared at once (a pulse) is not lost on
 * those who were waiting: they see that the flag has been set since they came.
 *
 *     static struct modus_event ready = MODUS_EVENT_INIT;
 *
 *     // thread A:  modus_event_set(&ready);
 *     // thread B:  rc = modus_event_wait(&ready, modus_ms(500));   0, or -ETIMEDOUT
 *
 * Everything written before the set is seen by whoever saw it set. A loop arms a doorbell instead
 * of waiting (doorbell.h); a pulse may be over when the loop looks. In process scope the event lies
 * in an arena: nobody that is killed, neither setter nor waiter, keeps others from going on.
 *
 * Algorithm: one futex word, generation << 2 | waiters mark << 1 | flag.
 */
#ifndef CONCURRENCY_EVENT_H
#define CONCURRENCY_EVENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/doorbell.h"
#include "concurrency/park.h"
#include "concurrency/result.h"

/* All fields are private. */
struct modus_event {
    uint32_t scope; /* enum modus_scope; 0: not started */
    _Atomic uint32_t word;
    struct modus_armed armed;
};

#define MODUS_EVENT_INIT                                                                           \
    {                                                                                              \
        .scope = MODUS_THREAD                                                                      \
    }

/* Make a clear event. Returns 0 or -EINVAL (scope). Does not block.
 * Safe from: the one thread that makes the object. */
int modus_event_init(struct modus_event *event, enum modus_scope scope);

/* End an event that nobody waits for; not started again. Does nothing to one that is not started.
 * Safe from: the one thread that still knows the object, in one process. */
void modus_event_fini(struct modus_event *event);

/* Set the flag, wake all waiters, ring all armed doorbells. Does not block. Without effect on an
 * event that is not started; so are clear and is_set (false).
 * Safe from: any thread, signal handlers, in process scope any process and a forked child. */
void modus_event_set(struct modus_event *event);

/* Clear the flag. Does not block. Safe from: as modus_event_set. */
void modus_event_clear(struct modus_event *event);

/* Is the flag set? Does not block. Safe from: as modus_event_set. */
bool modus_event_is_set(const struct modus_event *event);

/* Wait until the flag is set, or has been set since the call, up to ns nanoseconds
 * (MODUS_FOREVER: without end, 0: only look). Returns 0, -EAGAIN (ns 0 and clear), -ETIMEDOUT or
 * -EINVAL (not started, or a negative time). Blocks.
 * Safe from: any thread, in process scope any process and a forked child; not signal handlers. */
int modus_event_wait(struct modus_event *event, int64_t ns);

/* modus_event_wait with an absolute CLOCK_MONOTONIC time; one that is past looks once. */
int modus_event_wait_until(struct modus_event *event, int64_t deadline);

/* Ring bell at every set from now on, until disarmed; look at the event after arming. Returns 0,
 * -EINVAL, -EOVERFLOW (64 bells already) or -ENOMEM. Does not block.
 * Safe from: any thread, in process scope any process forked after the bell's init. */
int modus_event_arm(struct modus_event *event, struct modus_doorbell *bell);

/* Stop ringing bell. Safe from: as modus_event_arm. */
void modus_event_disarm(struct modus_event *event, struct modus_doorbell *bell);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * Semaphore: a number of permits, taken one at a time and given back.
 *
 * It has no owner: any thread may give back what another took, except in the accounted kind.
 * States: not started (zeroed) -> started, with a value between 0 and max.
 *
 *     struct modus_sem slots;
 *     struct modus_sem_attr attr = {.scope = MODUS_THREAD, .value = 3, .max = 3};
 *
 *     modus_sem_init(&slots, &attr);
 *
 *     modus_sem_acquire(&slots, MODUS_FOREVER);
 *     work();                                   // at most three at a time
 *     modus_sem_release(&slots, 1);
 *
 * In process scope the semaphore lies in an arena. A waiter or holder that is killed hangs nobody. A plain semaphore cannot know who
 * held what, so a dead holder's permits are gone; an *accounted* one notes how many each
 * participant holds and refunds them when the death is buried (participant.h). In return its
 * permits go back only by the participant that took them, and it costs a robust lock a call.
 *
 * Algorithm: value and a sleepers' mark in one futex word; a woken sleeper that leaves permits
 * behind wakes the next.
 */
#ifndef CONCURRENCY_SEM_H
#define CONCURRENCY_SEM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/arena.h"
#include "concurrency/doorbell.h"
#include "concurrency/park.h"
#include "concurrency/result.h"

struct modus_sem_account;

struct modus_sem_attr {
    enum modus_scope scope;
    unsigned value;            /* permits to begin with */
    unsigned max;              /* releases beyond it fail; 0: 2^31 - 1 */
    bool accounted;            /* process scope only; needs the arena */
    struct modus_arena *arena; /* where the accounts go; NULL: the one that holds the semaphore */
};

/* All fields are private. */
struct modus_sem {
    uint32_t scope; /* enum modus_scope; 0: not started */
    uint32_t max;
    _Atomic uint32_t word; /* value << 1 | mark */
    struct modus_sem_account *account;
    struct modus_armed armed;
};

/* Make a semaphore. Returns 0, -EINVAL (scope, value above max, accounted in thread scope or
 * without an arena) or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object. */
int modus_sem_init(struct modus_sem *sem, const struct modus_sem_attr *attr);

/* End a semaphore that nobody waits for. Does nothing to one that is not started.
 * Safe from: the one thread that still knows the object, in one process. */
void modus_sem_fini(struct modus_sem *sem);

/* Take a permit, waiting up to ns nanoseconds (MODUS_FOREVER: without end, 0: do not wait). Returns
 * 0, -EAGAIN (ns 0 and none left), -ETIMEDOUT or -EINVAL; accounted also -EPERM (not joined) and
 * -ECHILD (only the parent has). Blocks.
 * Safe from: any thread, in process scope any process; not signal handlers. */
int modus_sem_acquire(struct modus_sem *sem, int64_t ns);

/* modus_sem_acquire with an absolute CLOCK_MONOTONIC time; one that is past tries once. */
int modus_sem_acquire_until(struct modus_sem *sem, int64_t deadline);

/* modus_sem_acquire(sem, 0). Does not block. */
int modus_sem_try(struct modus_sem *sem);

/* Give n permits back (n >= 1), wake as many sleepers, ring armed doorbells. Returns 0, -EINVAL,
 * or, with nothing changed, -EOVERFLOW (the value would pass max) or, accounted, -EPERM (the caller
 * holds fewer than n) and -ECHILD. Does not block.
 * Safe from: any thread, in process scope any process; signal handlers unless accounted. */
int modus_sem_release(struct modus_sem *sem, unsigned n);

/* How many permits are left; already old when it returns. Safe from: as modus_sem_release. */
unsigned modus_sem_value(const struct modus_sem *sem);

/* Accounted: how many permits participant id holds; 0 for the unaccounted.
 * Safe from: any thread and process. */
unsigned modus_sem_held(const struct modus_sem *sem, int id);

/* Ring bell at every release from now on, until disarmed; try after arming. Returns 0, -EINVAL,
 * -EOVERFLOW (64 bells already) or -ENOMEM. Does not block.
 * Safe from: any thread, in process scope any process forked after the bell's init. */
int modus_sem_arm(struct modus_sem *sem, struct modus_doorbell *bell);

/* Stop ringing bell. Safe from: as modus_sem_arm. */
void modus_sem_disarm(struct modus_sem *sem, struct modus_doorbell *bell);

#endif

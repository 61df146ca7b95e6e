/* SPDX-License-Identifier: MIT */
/*
 * Interpreter lock: what CPython's global interpreter lock (3.2 and later) does to threads, without
 * the interpreter. For demonstrations, and for measuring the same program with it and without.
 *
 *     static struct modus_gil gil = MODUS_GIL_INIT;
 *
 *     modus_gil_acquire(&gil, MODUS_FOREVER);
 *     for (i = 0; i < n; i++) {
 *         compute(i);
 *         modus_gil_checkpoint(&gil);          // where an interpreter is between two instructions
 *     }
 *     MODUS_GIL_RELEASED(&gil)
 *         read(fd, buffer, size);              // others compute meanwhile
 *     modus_gil_release(&gil);
 *
 * States: free <-> held by one thread; held, with a drop request.
 *
 * One thread holds the lock and runs. A waiter that has waited for an interval (5 ms) in which the
 * lock has not changed hands sets the drop request. The holder looks at it at its checkpoints: it
 * gives the lock up and waits until another has taken it, a forced hand-over, before it queues
 * itself. A holder that releases the lock by itself, around a call that blocks, hands over sooner.
 *
 * Thread scope: one lock for a process. Coroutines hold it in their own name.
 *
 * Algorithm: CPython, Python/ceval_gil.c, by A. Pitrou.
 */
#ifndef CONCURRENCY_GIL_H
#define CONCURRENCY_GIL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/lock.h"
#include "concurrency/result.h"

#define MODUS_GIL_INTERVAL_NS ((int64_t)5000000)

struct modus_gil_stats {
    uint64_t acquired; /* times, in all */
    uint64_t waits;    /* of these, had to wait */
    uint64_t forced;   /* hand-overs at a checkpoint */
    uint64_t switches; /* times that another thread than the last one took it */
    int64_t held_ns;   /* by all holders, up to now */
    int64_t waited_ns; /* by all that have acquired it */
};

/* All fields are private. */
struct modus_gil {
    _Atomic uint32_t drop; /* somebody has waited for long; the holder looks at it */
    _Atomic uint32_t holder;
    struct modus_lock lock;       /* of all that follows, for a moment each time */
    _Atomic uint32_t freed;       /* counts; waiters sleep on it */
    _Atomic uint32_t taken;       /* counts; who has been made to give it up sleeps on it */
    uint32_t last;                /* holder */
    uint32_t waiting;             /* how many */
    int64_t interval, held_since; /* ns */
    struct modus_gil_stats stats;
};

#define MODUS_GIL_INIT                                                                             \
    {                                                                                              \
        .lock = MODUS_LOCK_INIT, .interval = MODUS_GIL_INTERVAL_NS                                 \
    }

/* Make a free one. Safe from: the one thread that makes the object. */
void modus_gil_init(struct modus_gil *gil);

/* End one that nobody holds or waits for. Safe from: the one thread that still knows it. */
void modus_gil_fini(struct modus_gil *gil);

/* How long a waiter waits before it asks the holder to give the lock up; from the next wait on.
 * Returns 0 or -EINVAL (less than 1 ns). Safe from: any thread. */
int modus_gil_set_interval(struct modus_gil *gil, int64_t ns);

/* Hold it, waiting up to ns nanoseconds (MODUS_FOREVER: without end, 0: do not wait). Returns 0,
 * -EAGAIN, -ETIMEDOUT, -EDEADLK (the caller holds it) or -EINVAL. Blocks.
 * Safe from: any thread; not signal handlers. */
int modus_gil_acquire(struct modus_gil *gil, int64_t ns);

/* modus_gil_acquire with an absolute CLOCK_MONOTONIC time; one that is past tries once. */
int modus_gil_acquire_until(struct modus_gil *gil, int64_t deadline);

/* Give it up. Returns 0 or -EPERM (the caller does not hold it). Does not block.
 * Safe from: the holder. */
int modus_gil_release(struct modus_gil *gil);

/* If somebody has asked for it, hand the lock over and wait for it again; else this is one load.
 * Returns 1 after that, 0 if nobody asks, or -EPERM (somebody does, but not of the caller). Blocks.
 * Safe from: the holder. */
static inline int modus_gil_checkpoint(struct modus_gil *gil);

/* Does the caller hold it? Safe from: any thread, signal handlers. */
bool modus_gil_mine(const struct modus_gil *gil);

/* What it has come to. Safe from: any thread. */
struct modus_gil_stats modus_gil_stats(struct modus_gil *gil);

/* Hold it as an interpreter's thread does: until the caller leaves, each wait of the toolbox gives it
 * up and has it again before it returns. Otherwise as modus_gil_acquire, without a limit, and
 * modus_gil_release. Not within one another. */
int modus_gil_enter(struct modus_gil *gil);
int modus_gil_leave(struct modus_gil *gil);

/* In a forked child: the lock is free, whatever the parent's threads were at. The caller is the
 * child's only thread. */
void modus_gil_renew(struct modus_gil *gil);

/*
 * The holder runs the next statement or block without the lock, and holds it again on every path out
 * of it:
 *
 *     MODUS_GIL_RELEASED(&gil) {
 *         if (read(fd, buffer, size) < 0)
 *             return -1;
 *     }
 */
#define MODUS_GIL_RELEASED(gil_pointer)                                                            \
    for (struct modus_gil_break modus_gil_break_                                                   \
         __attribute__((cleanup(modus_gil_break_end))) = modus_gil_break_begin(gil_pointer);       \
         !modus_gil_break_.over; modus_gil_break_.over = true)

struct modus_gil_break {
    struct modus_gil *gil; /* NULL: it was not held */
    bool over;
};

static inline struct modus_gil_break modus_gil_break_begin(struct modus_gil *gil)
{
    return (struct modus_gil_break){.gil = modus_gil_release(gil) == 0 ? gil : NULL};
}

void modus_gil_break_end(struct modus_gil_break *gil_break);

int modus_gil_hand_over(struct modus_gil *gil); /* only modus_gil_checkpoint calls it */

static inline int modus_gil_checkpoint(struct modus_gil *gil)
{
    if (__builtin_expect(atomic_load_explicit(&gil->drop, memory_order_relaxed) == 0, 1))
        return 0;
    return modus_gil_hand_over(gil);
}

#endif

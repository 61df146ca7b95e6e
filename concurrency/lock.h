/* SPDX-License-Identifier: MIT */
/*
 * Lock: one owner at a time, between threads or between processes.
 *
 * The lock is owned: only the thread that acquired it may release it, and acquiring it twice is an
 * error instead of a deadlock with oneself. To hand something from one thread to another, use a
 * semaphore of 1. States: not started (zeroed) -> free <-> held; in process scope also
 * "owner died" and poisoned, below.
 *
 *     static struct modus_lock lock = MODUS_LOCK_INIT;
 *
 *     modus_lock_acquire(&lock, MODUS_FOREVER);
 *     balance += 5;
 *     modus_lock_release(&lock);
 *
 * Thread scope: three words in the caller's memory, no system call unless somebody has to wait.
 * Newcomers may overtake sleepers, which keeps the lock busy; a sleeper that was overtaken for
 * about 1 ms becomes the heir and gets the lock handed over, so nobody starves.
 *
 * Process scope: the lock lies in an arena that was opened before the fork. When the owner dies
 * while holding it (SIGKILL, _exit, the end of its thread), the kernel passes it on and acquire
 * returns MODUS_OWNERDEAD: the caller owns the lock, and what it guards may be half changed. Either
 * the caller mends that and calls modus_lock_consistent before the release, or a repair function,
 * set once, has done both already. A release without either poisons the lock: every acquire from
 * then on returns MODUS_NOTRECOVERABLE. The kernel knows of the others that sleep by a mark, and
 * whoever has slept takes the lock a few instructions before it sets that again: if it is killed just
 * there, they sleep until the death is buried (participant.h). So bury who was killed, before you
 * wait for a lock that it used.
 *
 * When a thread ends, the kernel looks at 2048 of the robust mutexes that it holds, the newest first,
 * and at no more: those that it took first would stay held for ever. So a thread is refused what goes
 * beyond MODUS_LOCKS_MAX; the rest is for the toolbox itself, which holds its own for a moment, and
 * for robust mutexes that are not the toolbox's.
 *
 * A forked child does not own what its parent held: its release is -EPERM. A thread-scope lock that
 * was held at the fork stays held in the child for ever, so fork with such locks free.
 *
 * Algorithm, thread scope: U. Drepper, "Futexes Are Tricky", mutex 2, with the owner's id in the
 * word; hand-over after 1 ms as in Go's sync.Mutex. Process scope: robust POSIX mutex, the only
 * process-shared object of glibc that survives the death of its users.
 */
#ifndef CONCURRENCY_LOCK_H
#define CONCURRENCY_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "concurrency/park.h"
#include "concurrency/result.h"

/* Process-scope locks (of any kind; and participants' slots, participant.h) that a thread can hold at
 * the same time. */
enum { MODUS_LOCKS_MAX = 2000 };

/* All fields are private. */
struct modus_lock {
    uint16_t scope;               /* enum modus_scope; 0: not started */
    _Atomic uint16_t vain;        /* thread: looks before a sleep, in vain, in a row; a hint */
    _Atomic uint32_t word;        /* thread: owner's tid, and two marks; 0: free */
    _Atomic uint32_t heir;        /* thread: tid of the sleeper that is next; 0: nobody */
    _Atomic uint32_t damage;      /* process: what an owner's death has left */
    _Atomic uint64_t owner;       /* process: tid and stamp of the owner; 0: nobody */
    pthread_mutex_t robust;       /* process */
    int (*repair)(void *context); /* process; called by whoever inherits from the dead */
    void *context;
};

#define MODUS_LOCK_INIT                                                                            \
    {                                                                                              \
        .scope = MODUS_THREAD                                                                      \
    }

/* Make lock a free lock of that scope. Returns 0, -EINVAL (scope) or -ENOMEM. Does not block.
 * Safe from: the one thread that makes the object, before others know it. */
int modus_lock_init(struct modus_lock *lock, enum modus_scope scope);

/* End a lock that nobody holds or waits for; it is "not started" again. Does nothing to a lock that
 * is not started.
 * Safe from: the one thread that still knows the object, in one process. */
void modus_lock_fini(struct modus_lock *lock);

/* Set the function that mends what the lock guards after its owner's death. It runs in the process
 * that acquired next, with the lock held, and returns 0 when all is well; the acquire then returns
 * MODUS_OWNERDEAD with the lock consistent. If it returns anything else the lock is poisoned. The
 * function must be known in every process at the same address: fork without exec. If it forks, and the
 * child returns from it too, the child's acquire is -ECHILD.
 * Returns 0, or -EINVAL when the lock is not of process scope.
 * Safe from: the one thread that makes the object. */
int modus_lock_set_repair(struct modus_lock *lock, int (*repair)(void *context), void *context);

/* Own the lock, waiting up to ns nanoseconds (MODUS_FOREVER: without end, 0: do not wait).
 * Returns 0; MODUS_OWNERDEAD (1): owned, but the last owner died; -EAGAIN (ns 0 and held),
 * -ETIMEDOUT, -EDEADLK (the caller owns it already, or deadlock detection, deadlock.h, refuses the
 * wait), MODUS_NOTRECOVERABLE (poisoned), -EOVERFLOW (process scope: the thread holds
 * MODUS_LOCKS_MAX) or -EINVAL (not started, or a negative time). Blocks.
 * Safe from: any thread, in process scope any process and a forked child; not signal handlers. */
int modus_lock_acquire(struct modus_lock *lock, int64_t ns);

/* modus_lock_acquire with an absolute CLOCK_MONOTONIC time; one that is past tries once. */
int modus_lock_acquire_until(struct modus_lock *lock, int64_t deadline);

/* modus_lock_acquire(lock, 0). Does not block. */
int modus_lock_try(struct modus_lock *lock);

/* Give the lock up and wake one waiter if there is one. Returns 0, -EPERM when the caller does not
 * own it (nothing changes), or -EINVAL. Does not block.
 * Safe from: the owning thread only. */
int modus_lock_release(struct modus_lock *lock);

/* In a forked child, for a lock of thread scope that the thread which forked held: free it, since
 * nobody there owns it. Holding a lock across forks, and this (pthread_atfork), keep what it guards
 * whole in the child. Does not block. Safe from: a forked child, before it has threads. */
void modus_lock_free_in_child(struct modus_lock *lock);

/* Does the calling thread own the lock? Does not block.
 * Safe from: any thread and process, signal handlers, a forked child. */
bool modus_lock_mine(const struct modus_lock *lock);

/* After MODUS_OWNERDEAD: what the lock guards is mended. Returns 0, or -EPERM when the caller does
 * not own it, or -EINVAL when there is nothing to declare.
 * Safe from: the owning thread only. */
int modus_lock_consistent(struct modus_lock *lock);

/* Is the lock lost for good, because an owner died and the next one released it unmended?
 * Safe from: any thread and process, signal handlers, a forked child. */
bool modus_lock_poisoned(const struct modus_lock *lock);

/*
 * Hold a lock until the end of the block, on every path out of it:
 *
 *     MODUS_HOLD(held, &lock, MODUS_FOREVER);
 *     if (held.result < 0)
 *         return held.result;
 */
struct modus_hold {
    struct modus_lock *lock;
    int result; /* of the acquire */
};

#define MODUS_HOLD(name, lock_pointer, ns)                                                         \
    struct modus_hold name __attribute__((cleanup(modus_hold_end), unused)) =                      \
        modus_hold_begin((lock_pointer), (ns))

static inline struct modus_hold modus_hold_begin(struct modus_lock *lock, int64_t ns)
{
    return (struct modus_hold){.lock = lock, .result = modus_lock_acquire(lock, ns)};
}

static inline void modus_hold_end(struct modus_hold *hold)
{
    if (hold->result >= 0)
        modus_lock_release(hold->lock);
}

#endif

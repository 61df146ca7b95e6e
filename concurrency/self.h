/* SPDX-License-Identifier: MIT */
/*
 * Who am I: the calling thread's id and the calling process's stamp, without a system call.
 *
 * A thread id cached in thread-local memory is wrong in a forked child, which inherits the copy.
 * So the cache carries the process's stamp, and the stamp lives in a page that the kernel wipes at
 * fork (MADV_WIPEONFORK), whatever library call made the child: fork, _Fork or a bare clone. A
 * child finds 0 there, draws a new stamp, and every identity taken by its parent no longer fits.
 *
 *     if (word == modus_self_tid())
 *         return -EDEADLK;
 *
 * For implementers.
 * Safe from: any thread, signal handlers, a forked child.
 */
#ifndef CONCURRENCY_SELF_H
#define CONCURRENCY_SELF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct modus_self {
    uint64_t stamp; /* of the process that filled this in; 1: nobody yet */
    uint32_t tid;
};

/* initial-exec: this library is linked or loaded at start, and a call to __tls_get_addr would cost
 * as much as an uncontended lock. */
extern _Thread_local struct modus_self modus_self_cache __attribute__((tls_model("initial-exec")));
extern _Atomic uint64_t *modus_self_process;

/* How many robust mutexes the calling thread holds, all its coroutines together: see MODUS_LOCKS_MAX
 * (lock.h). A forked child holds none; it may read its parent's count until it is known. */
extern _Thread_local uint32_t modus_self_robust __attribute__((tls_model("initial-exec")));

/* Fill the cache of the calling thread; returns its id. Only modus_self_tid calls it. */
uint32_t modus_self_renew(void);

/* The stamp of the calling process: never 0 or 1, and never the same as a parent's or a child's. */
uint64_t modus_self_stamp(void);

/* Is the cache the calling thread's? */
static inline bool modus_self_known(void)
{
    return modus_self_cache.stamp == atomic_load_explicit(modus_self_process, memory_order_relaxed);
}

/* The kernel's id of the calling thread, unique in the system while the thread lives. */
static inline uint32_t modus_self_tid(void)
{
    if (__builtin_expect(modus_self_known(), 1))
        return modus_self_cache.tid;
    return modus_self_renew();
}

#endif

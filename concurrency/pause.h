/* SPDX-License-Identifier: MIT */
/*
 * Pause: let a few nanoseconds go by, for those who look again before they sleep.
 *
 * What they wait for comes from another CPU, which works best if nobody asks it for the cache line
 * all the time. Not sched_yield: who gives the CPU up to a stranger gets it back milliseconds later.
 *
 * For implementers: queue.c, lock.c, future.c and pool_collector.c.
 */
#ifndef CONCURRENCY_PAUSE_H
#define CONCURRENCY_PAUSE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* n pauses of the CPU: some 10 to 50 ns each. */
static inline void modus_pause(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("isb");
#else
        atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* For those with whom that has been in vain count times in a row: is it time to try it again? One
 * time in 32, but in no rhythm: two who wait for each other find out that they need not sleep only
 * if both look again at the same time. */
static inline bool modus_now_and_then(uint32_t count)
{
    return count * 2654435761u >> 27 == 0;
}

#endif

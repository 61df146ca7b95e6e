/* SPDX-License-Identifier: MIT */
/* Counters of the serving side, kept where every process of a listener can add to them and the
 * status handler can read them: a block is plain memory, zeroed to begin with, usually shared.
 *
 * Adds are relaxed atomics, so several threads or processes may share a block; one block a thread
 * or worker is faster. Readers add blocks up (net_stats_add) and see each counter whole, but not
 * all of them at one instant.
 *
 * Times go into a histogram of logarithmic buckets, eight to each power of two of microseconds, so
 * a percentile is right within an eighth.
 *
 * Safe from: any thread, any process, child after fork.
 */
#ifndef NET_STATS_H
#define NET_STATS_H

#include <stdatomic.h>
#include <stdint.h>

enum { NET_HISTOGRAM_BUCKETS = 256 };

struct net_histogram {
    _Atomic uint64_t count, sum_us, max_us;
    _Atomic uint64_t bucket[NET_HISTOGRAM_BUCKETS];
};

/* Counters only grow; gauges are the difference of two of them. */
struct net_stats {
    _Alignas(64) _Atomic uint64_t accepted; /* connections begun */
    _Atomic uint64_t closed;                /* connections ended */
    _Atomic uint64_t came, went;            /* moved here, and elsewhere:
                                  * open = accepted + came - closed - went */
    _Atomic uint64_t roused;                /* connections that a step left with something to do */
    _Atomic uint64_t rested;     /* those idle again, or ended: active = roused - rested */
    _Atomic uint64_t begun;      /* exchanges that did not end in the step they began in */
    _Atomic uint64_t ended;      /* those that did end: in progress = begun - ended */
    _Atomic uint64_t answers[6]; /* by class; [0]: cut before an answer */
    _Atomic uint64_t handshakes_failed;
    _Atomic uint64_t rejected;      /* answered 503 after waiting for a thread */
    _Atomic uint64_t evicted;       /* idle connections closed to make room */
    _Atomic uint64_t accept_paused; /* times that accepting paused: no descriptor or memory */
    _Atomic uint64_t bytes_in, bytes_out;
    struct net_histogram latency; /* first byte of a request read, to its answer handed over */
    struct net_histogram queued;  /* time spent waiting for a thread */
};

static inline void net_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline uint64_t net_counted(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* Add n equal times to a histogram. Negative times count as 0. */
void net_histogram_add(struct net_histogram *h, int64_t us, uint64_t n);
/* The time in microseconds below which the given share (0 .. 1) of the entries lies; 0 if empty. */
uint64_t net_histogram_at(const struct net_histogram *h, double share);
/* How many entries lie below a time; exact where that is a power of two from 8 on. */
uint64_t net_histogram_below(const struct net_histogram *h, uint64_t us);
/* How many entries there are: those below any time. */
uint64_t net_histogram_total(const struct net_histogram *h);
/* Add block's counters to those of sum, which nobody else uses. */
void net_stats_add(struct net_stats *sum, const struct net_stats *block);

#endif

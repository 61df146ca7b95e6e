/* SPDX-License-Identifier: MIT */
/* Counters and histograms: see net/stats.h. Apart from the connections because readers need the
 * arithmetic too. */
#include "net/stats.h"

#include <stddef.h>

/* Below 8 µs a bucket a microsecond; above, eight buckets an octave. */
static unsigned bucket_of(uint64_t us)
{
    if (us < 8)
        return (unsigned)us;
    unsigned octave = 63u - (unsigned)__builtin_clzll(us);
    unsigned bucket = (octave - 2) * 8 + (unsigned)((us >> (octave - 3)) & 7);
    return bucket < NET_HISTOGRAM_BUCKETS ? bucket : NET_HISTOGRAM_BUCKETS - 1;
}

/* The largest time that falls into the bucket. */
static uint64_t bucket_top(unsigned bucket)
{
    if (bucket < 8)
        return bucket;
    unsigned octave = bucket / 8 + 2;
    uint64_t step = 1ULL << (octave - 3);
    return (1ULL << octave) + (bucket % 8 + 1) * step - 1;
}

void net_histogram_add(struct net_histogram *h, int64_t us, uint64_t n)
{
    uint64_t time = us > 0 ? (uint64_t)us : 0;
    net_count(&h->count, n);
    net_count(&h->sum_us, time * n);
    net_count(&h->bucket[bucket_of(time)], n);
    uint64_t max = net_counted(&h->max_us);
    while (time > max && !atomic_compare_exchange_weak_explicit(
                             &h->max_us, &max, time, memory_order_relaxed, memory_order_relaxed))
        ;
}

static uint64_t before(const struct net_histogram *h, unsigned bucket)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < bucket; i++)
        sum += net_counted(&h->bucket[i]);
    return sum;
}

uint64_t net_histogram_below(const struct net_histogram *h, uint64_t us)
{
    return before(h, bucket_of(us));
}

uint64_t net_histogram_total(const struct net_histogram *h)
{
    return before(h, NET_HISTOGRAM_BUCKETS);
}

uint64_t net_histogram_at(const struct net_histogram *h, double share)
{
    uint64_t total = net_histogram_total(h);
    if (total == 0)
        return 0;
    uint64_t wanted = (uint64_t)(share * (double)total);
    uint64_t seen = 0, max = net_counted(&h->max_us);
    for (unsigned i = 0; i < NET_HISTOGRAM_BUCKETS; i++) {
        seen += net_counted(&h->bucket[i]);
        if (seen > wanted || seen == total)
            return bucket_top(i) < max ? bucket_top(i) : max;
    }
    return max;
}

static void histogram_sum(struct net_histogram *sum, const struct net_histogram *h)
{
    net_count(&sum->count, net_counted(&h->count));
    net_count(&sum->sum_us, net_counted(&h->sum_us));
    if (net_counted(&h->max_us) > net_counted(&sum->max_us))
        atomic_store_explicit(&sum->max_us, net_counted(&h->max_us), memory_order_relaxed);
    for (unsigned i = 0; i < NET_HISTOGRAM_BUCKETS; i++)
        net_count(&sum->bucket[i], net_counted(&h->bucket[i]));
}

void net_stats_add(struct net_stats *sum, const struct net_stats *block)
{
    net_count(&sum->accepted, net_counted(&block->accepted));
    net_count(&sum->closed, net_counted(&block->closed));
    net_count(&sum->came, net_counted(&block->came));
    net_count(&sum->went, net_counted(&block->went));
    net_count(&sum->roused, net_counted(&block->roused));
    net_count(&sum->rested, net_counted(&block->rested));
    net_count(&sum->begun, net_counted(&block->begun));
    net_count(&sum->ended, net_counted(&block->ended));
    for (unsigned i = 0; i < sizeof sum->answers / sizeof sum->answers[0]; i++)
        net_count(&sum->answers[i], net_counted(&block->answers[i]));
    net_count(&sum->handshakes_failed, net_counted(&block->handshakes_failed));
    net_count(&sum->rejected, net_counted(&block->rejected));
    net_count(&sum->evicted, net_counted(&block->evicted));
    net_count(&sum->accept_paused, net_counted(&block->accept_paused));
    net_count(&sum->bytes_in, net_counted(&block->bytes_in));
    net_count(&sum->bytes_out, net_counted(&block->bytes_out));
    histogram_sum(&sum->latency, &block->latency);
    histogram_sum(&sum->queued, &block->queued);
}

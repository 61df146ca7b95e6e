/* SPDX-License-Identifier: MIT */
/* A fine histogram of times: see server/lab/histogram.h. Below LAB_FINE a bucket is a nanosecond;
 * above, the highest bit says which power of two, and the six after it which of its buckets. */
#include "server/lab/histogram.h"

enum { FINE_BITS = 6 };
_Static_assert(LAB_FINE == 1 << FINE_BITS, "bits of a bucket");

static unsigned bucket_of(uint64_t ns)
{
    if (ns < LAB_FINE)
        return (unsigned)ns;
    unsigned shift = 63 - (unsigned)__builtin_clzll(ns) - FINE_BITS;
    unsigned bucket = LAB_FINE * shift + (unsigned)(ns >> shift);
    return bucket < LAB_BUCKETS ? bucket : LAB_BUCKETS - 1;
}

double lab_histogram_middle(unsigned bucket)
{
    if (bucket < 2 * LAB_FINE)
        return bucket;
    unsigned shift = bucket / LAB_FINE - 1;
    double width = (double)(UINT64_C(1) << shift);
    return width * (LAB_FINE + bucket % LAB_FINE) + (width - 1) / 2;
}

void lab_histogram_add_many(struct lab_histogram *h, int64_t ns, uint64_t count)
{
    if (ns < 0)
        ns = 0;
    h->count += count;
    h->sum += (double)ns * (double)count;
    if (ns > h->max)
        h->max = ns;
    h->bucket[bucket_of((uint64_t)ns)] += count;
}

void lab_histogram_add(struct lab_histogram *h, int64_t ns)
{
    lab_histogram_add_many(h, ns, 1);
}

void lab_histogram_merge(struct lab_histogram *to, const struct lab_histogram *from)
{
    to->count += from->count;
    to->sum += from->sum;
    if (from->max > to->max)
        to->max = from->max;
    for (unsigned i = 0; i < LAB_BUCKETS; i++)
        to->bucket[i] += from->bucket[i];
}

int64_t lab_histogram_at(const struct lab_histogram *h, double share)
{
    if (!h->count || share >= 1)
        return h->max;
    uint64_t seen = 0, wanted = (uint64_t)(share * (double)h->count) + 1;
    for (unsigned i = 0; i < LAB_BUCKETS; i++) {
        seen += h->bucket[i];
        if (seen < wanted)
            continue;
        int64_t middle = (int64_t)lab_histogram_middle(i);
        return middle < h->max ? middle : h->max;
    }
    return h->max;
}

uint64_t lab_histogram_from(const struct lab_histogram *h, int64_t ns)
{
    uint64_t count = 0;
    for (unsigned i = LAB_BUCKETS; i-- > 0 && lab_histogram_middle(i) >= (double)ns;)
        count += h->bucket[i];
    return count;
}

double lab_histogram_mean(const struct lab_histogram *h)
{
    return h->count ? h->sum / (double)h->count : 0;
}

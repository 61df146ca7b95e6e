/* SPDX-License-Identifier: MIT */
/* A histogram of times for who measures from outside: buckets of a 64th of their power of two, so a
 * quantile is right within 0.8 %. The server's own (net/stats.h) is an eighth as fine, since each of
 * its threads has one.
 *
 * Safe from: one thread at a time.
 */
#ifndef SERVER_LAB_HISTOGRAM_H
#define SERVER_LAB_HISTOGRAM_H

#include <stdint.h>

enum {
    LAB_FINE = 64,    /* buckets in a power of two */
    LAB_OCTAVES = 36, /* above LAB_FINE ns: up to two hours */
    LAB_BUCKETS = LAB_FINE * (LAB_OCTAVES + 1),
};

/* Zeroed to begin with. Times in nanoseconds. */
struct lab_histogram {
    uint64_t count;
    double sum;
    int64_t max;
    uint64_t bucket[LAB_BUCKETS];
};

/* Negative times count as 0, those beyond the last bucket as in it. */
void lab_histogram_add(struct lab_histogram *h, int64_t ns);
/* So many that took ns each. */
void lab_histogram_add_many(struct lab_histogram *h, int64_t ns, uint64_t count);
void lab_histogram_merge(struct lab_histogram *to, const struct lab_histogram *from);
/* The time that a share (0 .. 1) of all are not above; share 1: the highest, exactly. 0 when empty. */
int64_t lab_histogram_at(const struct lab_histogram *h, double share);
/* How many took at least ns, by the middle of their bucket. */
uint64_t lab_histogram_from(const struct lab_histogram *h, int64_t ns);
double lab_histogram_mean(const struct lab_histogram *h);
/* The middle of a bucket, in nanoseconds. */
double lab_histogram_middle(unsigned bucket);

#endif

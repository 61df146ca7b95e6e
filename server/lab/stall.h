/* SPDX-License-Identifier: MIT */
/* What a closed loop hides: the same server stands still for half a second under either loop, and
 * the two tell different things of it. Apart from the verdicts, since nobody is to be chosen here:
 * it is said of the loops, not of the server.
 *
 * Safe from: any thread.
 */
#ifndef SERVER_LAB_STALL_H
#define SERVER_LAB_STALL_H

#include <stdbool.h>

#include "server/lab/results.h"

enum { LAB_LATE_MS = 100 /* an answer that tells of it */ };

/* What one loop saw of it; all rounds that count together. */
struct lab_sight {
    const struct lab_series *series;
    double answers, late; /* late: after LAB_LATE_MS and more */
};

struct lab_stall {
    struct lab_sight closed, open;
    char text[1024]; /* two sentences */
};

/* False: it was not measured under both. */
bool lab_stall_seen(const struct lab_results *r, struct lab_stall *stall);

#endif

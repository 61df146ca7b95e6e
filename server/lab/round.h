/* SPDX-License-Identifier: MIT */
/* One round: a load, a server, some seconds, and all that is measured meanwhile. */
#ifndef SERVER_LAB_ROUND_H
#define SERVER_LAB_ROUND_H

#include <signal.h>

#include "server/lab/loads.h"
#include "server/lab/results.h"
#include "server/lab/rig.h"

struct lab_round_plan {
    const struct lab_work *work;
    const struct lab_rig *rig; /* NULL: a foreign server, of which only answers are seen */
    const char *url;           /* of the server, without a path */
    unsigned connections, repeat;
    double seconds;
    double additions_a_ms;      /* what the machine adds in a millisecond, for loads that compute */
    double wait_scale;          /* of the notes' batch: 1, or less when there is less time */
    int server_cpu, loader_cpu; /* -1: there is but one */
    const char *folder;         /* for scripts */
    volatile sig_atomic_t *stop;
};

/* What a round's own sentences are in. */
struct lab_round_texts {
    char error[300], doubt[96];
};

/* Measure. A round that could not be made has its error. latency, when there is one, is to be freed.
 * texts must live as long as round. Blocks. Safe from: the main thread. */
void lab_round_make(const struct lab_round_plan *plan, struct lab_round *round,
                    struct lab_round_texts *texts);

#endif

/* SPDX-License-Identifier: MIT */
/* The lab's runner: which rounds, in which order, and with whom. A repeat is all loads, and within a load
 * and its number of connections all servers, which are fresh then, follow one another, another one first
 * each time, so that what drifts hits all alike. */
#ifndef SERVER_LAB_RUN_H
#define SERVER_LAB_RUN_H

#include <signal.h>

#include "server/lab/loads.h"
#include "server/lab/results.h"

enum {
    LAB_AGAINST = 4,
    LAB_WORKS = 32,
    LAB_MODELS = 16,
    LAB_MOST_CONNECTIONS = 4000 /* its servers take a few more */
};

struct lab_wanted {
    bool quick;
    const struct lab_work *works[LAB_WORKS]; /* NULL ends */
    const char *models[LAB_MODELS];          /* NULL ends */
    unsigned connections[LAB_CONNECTIONS];   /* instead of each load's own; 0 ends */
    double seconds;                          /* a round */
    unsigned repeats;
    const char *against[LAB_AGAINST]; /* URLs; NULL ends */
    const char *command;              /* for the report */
    volatile sig_atomic_t *stop;
};

/* Run all of it, with a line of progress on standard error. Returns what there is when it ended, which
 * lab_run_free frees, or NULL with why. Blocks for minutes. Nothing that it has started runs when it
 * returns. Safe from: the main thread. */
struct lab_results *lab_run(const struct lab_wanted *wanted, char *why, size_t why_size);
/* What lab_run has returned. */
void lab_run_free(struct lab_results *r);

#endif

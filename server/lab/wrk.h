/* SPDX-License-Identifier: MIT */
/* wrk, run for the lab: the closed loop that everybody knows, so that figures can be compared with
 * others'. It is found in PATH. Its latencies are corrected by itself for answers that it would have
 * asked for meanwhile, and of a pipelined question they are of the whole. */
#ifndef SERVER_LAB_WRK_H
#define SERVER_LAB_WRK_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/lab/loader.h"

struct lab_wrk_plan {
    const char *url;
    unsigned connections, pipeline;
    bool close;
    double seconds;
    const char *folder; /* for its script */
    /* Not 0: end it. A signal's handler may set it. NULL: nobody does. */
    volatile sig_atomic_t *stop;
};

/* "4.1.0"; "" when it is not there; "unknown" when what is there can't be executed, or says no version:
 * a run of it says what it does instead. Blocks for some milliseconds, at most 5 s. */
void lab_wrk_version(char version[64]);
/* Returns 0, or -1 with a sentence in why. Told to stop, wrk is interrupted, and reports what it has
 * done so far: that is a 0, too; if it has not ended 2 s later it is killed. Blocks for as long as it
 * takes. */
int lab_wrk_run(const struct lab_wrk_plan *plan, struct lab_load_result *result, char *why,
                size_t why_size);

#endif

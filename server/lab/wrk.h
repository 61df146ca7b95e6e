/* SPDX-License-Identifier: MIT */
/* wrk, run for the lab: the closed loop that everybody knows, so that figures can be compared with
 * others'. It is found in PATH. Its latencies are corrected by itself for answers that it would have
 * asked for meanwhile, and of a pipelined question they are of the whole. */
#ifndef SERVER_LAB_WRK_H
#define SERVER_LAB_WRK_H

#include <stdbool.h>
#include <stddef.h>

#include "server/lab/loader.h"

struct lab_wrk_plan {
    const char *url;
    unsigned connections, pipeline;
    bool close;
    double seconds;
    const char *folder; /* for its script */
};

/* "4.1.0", or "" when it is not there. Blocks for some milliseconds. */
void lab_wrk_version(char version[64]);
/* Returns 0, or -1 with a sentence in why. Blocks for as long as it takes. */
int lab_wrk_run(const struct lab_wrk_plan *plan, struct lab_load_result *result, char *why,
                size_t why_size);

#endif

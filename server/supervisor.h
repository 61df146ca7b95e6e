/* SPDX-License-Identifier: MIT */
/* The master: it owns every listening socket, forks every worker, reaps known pids, and serves
 * nothing. One thread, a libuv loop. */
#ifndef SERVER_SUPERVISOR_H
#define SERVER_SUPERVISOR_H

#include "server/config.h"

/* Serve the configuration until told to stop. Takes over the process. Blocks. Returns the exit
 * status: 0, or 1 when it cannot start (said in the log or on standard error). */
int supervise(struct config *config);
/* Check what `modus -t` can check without binding: handlers, certificates. Returns 0, or -1 with
 * "FILE:LINE: ..." in why. */
int supervise_check(struct config *config, char *why, size_t why_size);

#endif
